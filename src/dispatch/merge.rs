//! The batch of several gateways: places are shared over clients, wherever they call, as one gateway would share them.

use std::collections::{HashMap, HashSet};

use super::share::share;
use crate::{
    key::Id,
    replicas::{LaneOffer, Wish},
};

/// One client's lookups at all gateways.
#[derive(Default)]
struct Demand<'a> {
    tickets: Vec<&'a [Wish]>,
}

impl Demand<'_> {
    fn size(&self) -> usize {
        self.tickets.iter().map(|ticket| ticket.len()).sum()
    }
}

/// Chooses who rides, of what all gateways offer of one lane. What one gateway knows to be too much is too much for all.
pub(super) fn merge(offers: &[LaneOffer]) -> Vec<Wish> {
    let room = offers.iter().map(|offer| offer.room).min().unwrap_or_default();
    let mut demands: Vec<Demand<'_>> = Vec::new();
    let mut position: HashMap<&str, usize> = HashMap::new();
    for demand in offers.iter().flat_map(|offer| &offer.demands) {
        let position = *position.entry(&demand.client).or_insert_with(|| {
            demands.push(Demand::default());
            demands.len() - 1
        });
        demands[position].tickets.extend(demand.tickets.iter().map(Vec::as_slice));
    }
    let sizes: Vec<usize> = demands.iter().map(Demand::size).collect();
    let mut chosen = Chosen { room, wishes: Vec::new(), ids: HashSet::new() };
    for (demand, places) in demands.iter().zip(share(room, &sizes)) {
        let sizes: Vec<usize> = demand.tickets.iter().map(|ticket| ticket.len()).collect();
        for (ticket, places) in demand.tickets.iter().zip(share(places, &sizes)) {
            ticket.iter().take(places).for_each(|wish| chosen.add(wish));
        }
    }
    // Where several want the same keys, their shares leave places over; and then what nobody waits for.
    demands.iter().flat_map(|demand| demand.tickets.iter().copied().flatten()).for_each(|wish| chosen.add(wish));
    offers.iter().flat_map(|offer| &offer.behind).for_each(|wish| chosen.add(wish));
    let kept: HashSet<&Id> = wishes(offers).filter(|wish| wish.keep).map(|wish| &wish.id).collect();
    chosen.wishes.iter_mut().for_each(|wish| wish.keep = kept.contains(&wish.id));
    chosen.wishes
}

fn wishes(offers: &[LaneOffer]) -> impl Iterator<Item = &Wish> {
    offers
        .iter()
        .flat_map(|offer| offer.demands.iter().flat_map(|demand| &demand.tickets).flatten().chain(&offer.behind))
}

struct Chosen<'a> {
    room: usize,
    wishes: Vec<Wish>,
    ids: HashSet<&'a Id>,
}

impl<'a> Chosen<'a> {
    fn add(&mut self, wish: &'a Wish) {
        if self.wishes.len() < self.room && self.ids.insert(&wish.id) {
            self.wishes.push(wish.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::{Kind, Value},
        replicas::Demand,
    };

    fn wishes(numbers: std::ops::Range<i64>, keep: bool) -> Vec<Wish> {
        let wish = |number| Wish { id: Id { kind: Kind(0), value: Value::Int(number) }, keep };
        numbers.map(wish).collect()
    }

    fn offer(room: usize, demands: &[(&str, std::ops::Range<i64>)]) -> LaneOffer {
        let demand = |(client, numbers): &(&str, std::ops::Range<i64>)| Demand {
            client: (*client).to_owned(),
            tickets: vec![wishes(numbers.clone(), true)],
        };
        LaneOffer {
            lane: "lane".to_owned(),
            room,
            demands: demands.iter().map(demand).collect(),
            behind: wishes(900..950, true),
        }
    }

    fn numbers(wishes: &[Wish]) -> Vec<i64> {
        let number = |wish: &Wish| match wish.id.value {
            Value::Int(number) => number,
            Value::Text(_) => unreachable!("every key here is a number"),
        };
        wishes.iter().map(number).collect()
    }

    #[test]
    fn a_lone_key_of_one_gateway_rides_beside_the_bulk_of_another() {
        let chosen = merge(&[offer(10, &[("bulk", 0..10)]), offer(10, &[("lone", 100..101)])]);
        assert_eq!(chosen.len(), 10);
        assert!(numbers(&chosen).contains(&100));
    }

    #[test]
    fn a_client_at_two_gateways_has_one_share() {
        let chosen = merge(&[offer(10, &[("a", 0..10)]), offer(10, &[("a", 20..30)]), offer(10, &[("b", 40..50)])]);
        assert_eq!(numbers(&chosen).iter().filter(|&&number| number >= 40).count(), 5);
    }

    #[test]
    fn a_key_that_several_want_rides_once_and_the_rest_is_filled() {
        let chosen = merge(&[offer(60, &[("a", 0..10)]), offer(60, &[("b", 5..15)])]);
        assert_eq!(chosen.len(), 60);
        assert_eq!(numbers(&chosen).iter().collect::<HashSet<_>>().len(), 60);
    }

    #[test]
    fn what_one_gateway_knows_to_be_too_much_is_too_much_for_all_and_what_one_wants_kept_is_kept() {
        let mut secret = offer(2, &[("a", 0..0)]);
        secret.demands = vec![Demand { client: "a".to_owned(), tickets: vec![wishes(0..2, false)] }];
        let chosen = merge(&[secret, offer(60, &[("b", 1..2)])]);
        assert_eq!(numbers(&chosen).len(), 2);
        let kept: Vec<bool> =
            [0, 1].map(|n| chosen.iter().any(|wish| wish.keep && wish.id.value == Value::Int(n))).into();
        assert_eq!(kept, [false, true]);
    }

    #[test]
    fn nothing_offered_is_nothing_asked() {
        assert!(merge(&[]).is_empty());
    }
}
