//! Who the customers are: everything a customer can be found by, computed from its number and back again.
//!
//! Nothing is stored, so a million customers cost nothing. Of every ten customers one has no phone, of every seven one no
//! third id; some have two or three phones; number 0, 50, 100, … also carry the first phone of the customer after them.

/// One customer's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Customer {
    /// Its number, from 0.
    pub index: u64,
    /// `audienceUserId`; beyond 2^53, where a float would mangle it.
    pub id: i64,
    /// `thirdId`, where it has one. Some hold a slash or Chinese, which their record writes as an escape.
    pub third_id: Option<String>,
    /// Its phones, the first one first; may be empty, and may be shared with another customer.
    pub phones: Vec<String>,
}

/// The first id: the smallest positive integer that no double can hold.
const FIRST_ID: i64 = 9_007_199_254_740_993;
/// From one id to the next; odd, so that half the ids are mangled by a double.
const ID_STEP: i64 = 7;
/// Customers that were written rather than born are numbered from here.
pub(super) const FIRST_WRITTEN: u64 = 1 << 40;

/// Phones are two digits that say which phone it is, and nine that are the customer's number in disguise.
const PHONE_SPACE: u64 = 1_000_000_000;
/// 3^18: has no factor in common with [`PHONE_SPACE`], so multiplying by it shuffles the numbers and can be undone.
const PHONE_FACTOR: u64 = 387_420_489;
/// What undoes [`PHONE_FACTOR`]: its power to one less than the order of the group, 50 million.
const PHONE_INVERSE: u64 = power(PHONE_FACTOR, 50_000_000 - 1);

const fn power(base: u64, mut exponent: u64) -> u64 {
    let (mut result, mut square) = (1, base % PHONE_SPACE);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = result * square % PHONE_SPACE;
        }
        square = square * square % PHONE_SPACE;
        exponent /= 2;
    }
    result
}

/// A number that looks random and depends on both (splitmix64).
pub(super) fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number that stands for a text (FNV-1a).
pub(super) fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The id of a customer's number.
pub(super) fn id_of(index: u64) -> i64 {
    i64::try_from(index).map_or(i64::MAX, |index| FIRST_ID.saturating_add(index.saturating_mul(ID_STEP)))
}

/// The number of the first customer whose id is greater.
pub(super) fn first_after(id: i64) -> u64 {
    if id < FIRST_ID { 0 } else { u64::try_from((id - FIRST_ID) / ID_STEP + 1).unwrap_or(0) }
}

/// All customers that were there from the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Population {
    /// Where they come from.
    pub(super) seed: u64,
    /// How many there are.
    pub(super) size: u64,
}

impl Population {
    /// The customer of that number, whether or not it is among them.
    pub(super) fn customer(self, index: u64) -> Customer {
        Customer { index, id: id_of(index), third_id: self.third_id(index), phones: self.phones(index) }
    }

    /// The number that has this id.
    pub(super) fn by_id(self, id: i64) -> Option<u64> {
        let index = first_after(id).checked_sub(1)?;
        (id_of(index) == id && index < self.size).then_some(index)
    }

    /// The number that has this third id.
    pub(super) fn by_third_id(self, third_id: &str) -> Option<u64> {
        let index: u64 = third_id.rsplit(['-', '/']).nth(1)?.parse().ok()?;
        (index < self.size && self.third_id(index).as_deref() == Some(third_id)).then_some(index)
    }

    /// The numbers that have this phone, ascending.
    pub(super) fn by_phone(self, phone: &str) -> Vec<u64> {
        let Some(number) = phone.get(2..).filter(|rest| rest.len() == 9).and_then(|rest| rest.parse::<u64>().ok())
        else {
            return Vec::new();
        };
        let shifted = (number + PHONE_SPACE - self.phone_shift()) % PHONE_SPACE;
        let index = shifted * PHONE_INVERSE % PHONE_SPACE;
        let neighbour = index.checked_sub(1);
        let carries = |index: &u64| *index < self.size && self.phones(*index).iter().any(|own| own == phone);
        neighbour.into_iter().chain([index]).filter(carries).collect()
    }

    fn third_id(self, index: u64) -> Option<String> {
        let check = mix(self.seed, index) % 1000;
        match index {
            _ if index % 7 == 3 => None,
            _ if index % 13 == 6 => Some(format!("客-{index}-{check}")),
            _ if index % 11 == 5 => Some(format!("C/{index}/{check}")),
            _ => Some(format!("crm-{index}-{check}")),
        }
    }

    fn phones(self, index: u64) -> Vec<String> {
        let mut phones = Vec::new();
        if index % 10 != 9 {
            phones.push(self.phone("13", index));
            if index % 4 == 1 {
                phones.push(self.phone("15", index));
            }
            if index % 12 == 5 {
                phones.push(self.phone("18", index));
            }
            if index.is_multiple_of(50) && index + 1 < self.size {
                phones.push(self.phone("13", index + 1));
            }
        }
        phones
    }

    fn phone(self, which: &str, index: u64) -> String {
        let number = (index % PHONE_SPACE * PHONE_FACTOR + self.phone_shift()) % PHONE_SPACE;
        format!("{which}{number:09}")
    }

    fn phone_shift(self) -> u64 {
        mix(self.seed, u64::MAX) % PHONE_SPACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_leads_back_to_its_customer() {
        for seed in [1, 7] {
            let all = Population { seed, size: 1_000_000 };
            for index in (0..1_200).chain(999_000..1_000_000) {
                let customer = all.customer(index);
                assert_eq!(all.by_id(customer.id), Some(index));
                assert_eq!(customer.third_id.is_none(), index % 7 == 3);
                if let Some(third_id) = &customer.third_id {
                    assert_eq!(all.by_third_id(third_id), Some(index));
                }
                for phone in &customer.phones {
                    assert_eq!(phone.len(), 11);
                    assert!(all.by_phone(phone).contains(&index), "{index}");
                }
            }
        }
    }

    #[test]
    fn every_fiftieth_customer_shares_a_phone_with_the_next() {
        let all = Population { seed: 1, size: 1000 };
        for index in [0, 50, 950] {
            let shared = &all.customer(index + 1).phones[0];
            assert_eq!(all.by_phone(shared), [index, index + 1]);
        }
    }

    #[test]
    fn what_nobody_has_is_found_nowhere() {
        let all = Population { seed: 1, size: 10 };
        assert_eq!(all.by_id(FIRST_ID - 1), None);
        assert_eq!(all.by_id(FIRST_ID + 1), None);
        assert_eq!(all.by_id(id_of(10)), None);
        assert_eq!(all.by_third_id("crm-1-0000"), None);
        assert_eq!(all.by_third_id(""), None);
        for phone in ["", "13", "1300000000x", "客客客客", "99123456789"] {
            assert!(all.by_phone(phone).is_empty(), "{phone}");
        }
    }
}
