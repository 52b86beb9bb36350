//! The batch of several gateways: places are shared over clients, wherever they call, as one gateway would share them.

use std::collections::{HashMap, HashSet};

use super::share::share;
use crate::{
    key::{Id, Value},
    replicas::{self, Grant, LaneOffer, Lookup, Wish},
    shape::{Shape, ValueType},
};

/// One client's lookups at all gateways.
struct Demand<'a> {
    arrived: u64,
    served: u64,
    size: usize,
    tickets: Vec<&'a Lookup>,
}

impl<'a> Demand<'a> {
    fn new() -> Self {
        Self { arrived: u64::MAX, served: 0, size: 0, tickets: Vec::new() }
    }

    fn add(&mut self, offered: &'a replicas::Demand) {
        self.arrived = self.arrived.min(offered.arrived);
        self.served = self.served.max(offered.served);
        self.size = self.size.saturating_add(offered.size);
        self.tickets.extend(&offered.tickets);
    }

    /// In the order of arrival; those who want more than a batch come last, and take turns.
    fn turn(&self, room: usize) -> (u64, u64) {
        (if self.size > room { self.served.max(1) } else { 0 }, self.arrived)
    }
}

/// Chooses who rides, of what all gateways offer of the lane that a slot was granted for. What cannot be read offers nothing.
pub(super) fn merge_offers(grant: &Grant) -> Vec<Wish> {
    let read = |offer: &Vec<u8>| serde_json::from_slice::<Vec<LaneOffer>>(offer).unwrap_or_default();
    let offers = grant.offers.iter().flat_map(read).filter(|offer| grant.lane.as_ref() == Some(&offer.lane));
    merge(&offers.collect::<Vec<_>>())
}

/// Chooses who rides, of what all gateways offer of one lane. What one gateway knows to be too much is too much for all.
fn merge(offers: &[LaneOffer]) -> Vec<Wish> {
    let room = offers.iter().map(|offer| offer.room).min().unwrap_or_default();
    let mut demands: Vec<Demand<'_>> = Vec::new();
    let mut position: HashMap<&str, usize> = HashMap::new();
    for demand in offers.iter().flat_map(|offer| &offer.demands) {
        let position = *position.entry(&demand.client).or_insert_with(|| {
            demands.push(Demand::new());
            demands.len() - 1
        });
        demands[position].add(demand);
    }
    demands.sort_by_key(|demand| demand.turn(room));
    // How much more than the room somebody wants makes no difference, and what others say is not believed to be small.
    let bounded = |size: usize| size.min(room.saturating_add(1));
    let sizes: Vec<usize> = demands.iter().map(|demand| bounded(demand.size)).collect();
    let mut chosen = Chosen { room, wishes: Vec::new(), ids: HashSet::new() };
    for (demand, places) in demands.iter().zip(share(room, &sizes)) {
        let sizes: Vec<usize> = demand.tickets.iter().map(|ticket| bounded(ticket.size)).collect();
        for (ticket, places) in demand.tickets.iter().zip(share(places, &sizes)) {
            ticket.wishes.iter().take(places).for_each(|wish| chosen.add(wish));
        }
    }
    // Where several want the same keys, their shares leave places over; and then what nobody waits for.
    let waited_for = demands.iter().flat_map(|demand| &demand.tickets).flat_map(|ticket| &ticket.wishes);
    waited_for.for_each(|wish| chosen.add(wish));
    offers.iter().flat_map(|offer| &offer.behind).for_each(|wish| chosen.add(wish));
    let kept: HashSet<&Id> = wishes(offers).filter(|wish| wish.keep).map(|wish| &wish.id).collect();
    chosen.wishes.iter_mut().for_each(|wish| wish.keep = kept.contains(&wish.id));
    chosen.wishes
}

/// Whether it is a key of this shape: what comes from elsewhere is not believed to be.
pub(super) fn fits(wish: &Wish, shape: &Shape) -> bool {
    let list = shape.lists.get(wish.id.kind.index());
    list.is_some_and(|list| matches!(wish.id.value, Value::Int(_)) == (list.value_type == ValueType::Int64))
}

fn wishes(offers: &[LaneOffer]) -> impl Iterator<Item = &Wish> {
    offers
        .iter()
        .flat_map(|offer| &offer.demands)
        .flat_map(|demand| &demand.tickets)
        .flat_map(|ticket| &ticket.wishes)
        .chain(offers.iter().flat_map(|offer| &offer.behind))
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
    use crate::{key::Kind, replicas::Demand};

    fn wishes(numbers: std::ops::Range<i64>, keep: bool) -> Vec<Wish> {
        let wish = |number| Wish { id: Id { kind: Kind(0), value: Value::Int(number) }, keep };
        numbers.map(wish).collect()
    }

    fn demand(client: &str, wishes: Vec<Wish>) -> Demand {
        let size = wishes.len();
        Demand { client: client.to_owned(), arrived: 1, served: 0, size, tickets: vec![Lookup { size, wishes }] }
    }

    fn offer(room: usize, demands: &[(&str, std::ops::Range<i64>)]) -> LaneOffer {
        let demand = |(client, numbers): &(&str, std::ops::Range<i64>)| demand(client, wishes(numbers.clone(), true));
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
    fn who_wants_more_than_a_batch_gets_no_more_than_its_share_and_those_who_want_a_whole_one_go_in_turn() {
        let offered = |client: &str, numbers, size, (arrived, served)| {
            let mut offer = offer(10, &[(client, numbers)]);
            let demand = &mut offer.demands[0];
            (demand.size, demand.tickets[0].size) = (size, size);
            (demand.arrived, demand.served) = (arrived, served);
            offer
        };
        let places = |size, one, other| {
            let chosen = merge(&[offered("one", 0..10, size, one), offered("other", 50..60, size, other)]);
            (chosen.len(), numbers(&chosen).iter().filter(|&&number| number < 50).count())
        };
        assert_eq!(places(300, (1, 5), (2, 6)), (10, 5));
        assert_eq!(places(usize::MAX, (1, 5), (2, 6)), (10, 5), "whatever anybody says");
        assert_eq!(places(10, (1, 5), (2, 0)), (10, 10), "it came first");
        assert_eq!(places(10, (3, 5), (2, 6)), (10, 0));
        let crowd: Vec<_> =
            (0..30).map(|at| offered(&format!("{at}"), 10 * at..10 * at + 10, 300, (1, 100 - at as u64))).collect();
        let chosen = numbers(&merge(&crowd));
        assert!(
            chosen.iter().all(|number| *number >= 200),
            "the ten who have waited longest have one each: {chosen:?}"
        );
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
        secret.demands = vec![demand("a", wishes(0..2, false))];
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
