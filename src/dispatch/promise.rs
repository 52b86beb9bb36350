//! How many slots a new lookup will have to wait for: what a refusal says in `Retry-After`.
//!
//! The slots to come are filled as [`compose`](super::compose) will fill them, in numbers of keys: places are shared
//! over clients in the order of arrival, and each client's over its tickets, until the last of the new
//! lookup's keys has one. Between scopes, slots go round in turn. Where clients want the same keys there are fewer to
//! send than wanted, and each place counts for more. Where other gateways share the slot, what they want is not known here;
//! what is seen, while some are left behind, is how many of the keys that wait here each slot takes along: so many places are
//! reckoned with.
//!
//! The demands are counted once per slot and kept up to date with what is submitted meanwhile; who leaves is noticed at
//! the next slot. Two things are not foreseen: who comes later and goes first because it wants little, so that a bulk
//! caller waits longer than was promised; and that a key may come soon because somebody else asked for it long ago.

use std::{collections::HashMap, sync::Arc};

use super::{
    entry::Place,
    queue::{Order, Queue},
    share::share,
    ticket::Client,
};
use crate::key::{Key, Scope};

/// How far ahead slots are filled: two half-second slots in each second of the usual timeout, and a few more. Further
/// away, the last of everything that waits is promised. Few enough to be reckoned for each lookup that is submitted.
const FORESEEN_SLOTS: usize = 64;

/// Waiting lookups beyond which each client's count as one: a lookup that is submitted must not pay for all of them.
const MANY_TICKETS: usize = 256;

/// Shares that are reckoned for one lookup at most, over all foreseen slots: some tens of microseconds.
const MOST_SHARES: usize = 4096;

/// How many of the keys that wait here a slot has room for, where it is shared with other gateways.
#[derive(Default)]
pub(super) struct Portion(Option<usize>);

impl Portion {
    /// A slot has taken along so many of them: half new, half as before, for slots may go to scopes in turn. Where nobody is
    /// left behind nothing is known of how many it would have taken.
    fn gone(&mut self, went: usize, is_left: bool, room: usize) {
        self.0 = is_left.then(|| (self.of(room) + went).div_ceil(2));
    }

    fn of(&self, room: usize) -> usize {
        self.0.map_or(room, |places| places.clamp(1, room))
    }
}

/// Who waits for how many keys, by scope.
pub(super) type Forecast = HashMap<Arc<Scope>, Demands>;

/// Who waits for how many keys of one scope.
#[derive(Default)]
pub(super) struct Demands {
    /// By client, in the order in which they came.
    clients: Vec<Demand>,
    position: HashMap<Client, usize>,
    tickets: usize,
}

/// One client's tickets.
#[derive(Clone)]
struct Demand {
    client: Client,
    /// The batch in which it last had places.
    turn: u64,
    /// Each with its number and its keys that are not under way.
    tickets: Vec<(usize, usize)>,
}

impl Demands {
    fn add(&mut self, client: Client, turn: u64, keys: usize) {
        let position = *self.position.entry(client).or_insert_with(|| {
            self.clients.push(Demand { client, turn, tickets: Vec::new() });
            self.clients.len() - 1
        });
        self.clients[position].tickets.push((self.tickets, keys));
        self.tickets += 1;
    }

    fn total(&self) -> usize {
        self.clients.iter().map(Demand::total).sum()
    }

    /// In how many slots of this scope a new ticket of a client would have its last place, if there are so few.
    fn slots_until(&self, client: Client, turn: u64, mine: usize, room: usize) -> Option<usize> {
        let mut demands: Vec<Demand> = match self.tickets > MANY_TICKETS {
            true => self.clients.iter().map(Demand::lumped).collect(),
            false => self.clients.clone(),
        };
        let newest = (self.tickets, mine);
        match self.position.get(&client) {
            Some(own) if self.tickets > MANY_TICKETS => {
                let lump = demands[*own].total();
                demands[*own].tickets[1] = (newest.0, lump + mine);
            }
            Some(own) => demands[*own].tickets.push(newest),
            None => demands.push(Demand { client, turn, tickets: vec![newest] }),
        }
        let foreseen = FORESEEN_SLOTS.min(MOST_SHARES / demands.len()).max(1);
        (1..=foreseen).find(|slot| {
            fill(&mut demands, room, u64::MAX - (foreseen - slot) as u64);
            !demands.iter().any(|demand| demand.client == client && demand.has(newest.0))
        })
    }
}

impl Demand {
    /// All tickets as one, in the place of the first: what comes behind them is served when they are.
    fn lumped(&self) -> Self {
        let place = self.tickets.first().map_or(0, |(number, _)| *number);
        let last = self.tickets.last().map_or(0, |(number, _)| *number);
        Self { client: self.client, turn: self.turn, tickets: vec![(place, 0), (last, self.total())] }
    }

    fn total(&self) -> usize {
        self.tickets.iter().map(|(_, keys)| keys).sum()
    }

    fn has(&self, number: usize) -> bool {
        self.tickets.last().is_some_and(|(last, _)| *last == number)
    }
}

/// Fills one slot, and leaves what is still wanted.
fn fill(demands: &mut Vec<Demand>, room: usize, turn: u64) {
    // In the order of arrival; whoever wants more than a batch takes turns.
    demands.sort_by_key(|demand| (if demand.total() > room { demand.turn.max(1) } else { 0 }, demand.tickets[0].0));
    let sizes: Vec<usize> = demands.iter().map(Demand::total).collect();
    for (demand, places) in demands.iter_mut().zip(share(room, &sizes)).filter(|(_, places)| *places > 0) {
        demand.turn = turn;
        let sizes: Vec<usize> = demand.tickets.iter().map(|(_, keys)| *keys).collect();
        for ((_, keys), places) in demand.tickets.iter_mut().zip(share(places, &sizes)) {
            *keys -= places;
        }
        demand.tickets.retain(|(_, keys)| *keys > 0);
    }
    demands.retain(|demand| !demand.tickets.is_empty());
}

impl<W> Queue<W> {
    /// How many of these keys need a place in a batch that is still to be sealed.
    pub fn unsent(&self, keys: &[Key]) -> usize {
        let waiting = |key: &&Key| self.entries.get(key).is_none_or(|entry| entry.place != Place::InFlight);
        keys.iter().filter(waiting).count()
    }

    /// A slot that is shared with other gateways has gone, and has taken so many along that somebody here waits for.
    pub(super) fn shared_slot(&mut self, went: usize) {
        let is_left = self.pending > self.background.len();
        self.portion.gone(went, is_left, self.max_batch_keys());
    }

    /// In how many slots from now a lookup with so many unsent keys would have its last one sent, if it came now.
    /// Without a scope it is one that nobody has asked for yet.
    pub fn slots_until(&mut self, client: Client, scope: Option<&Arc<Scope>>, mine: usize) -> usize {
        let room = self.portion.of(self.max_batch_keys());
        let pending = self.pending();
        let upper = (pending + mine).div_ceil(room);
        if mine == 0 || upper <= 1 {
            return mine.div_ceil(room);
        }
        let turn = self.turns.get(&client).map_or(0, |turn| turn.number);
        let forecast = self.forecast();
        let wanted: usize = forecast.values().map(Demands::total).sum();
        // A place for a key that two clients want is a place for both.
        let shared_room = if wanted > pending { room * wanted / pending.max(1) } else { room };
        let own = match scope.and_then(|scope| forecast.get(scope)) {
            Some(demands) => demands.slots_until(client, turn, mine, shared_room).unwrap_or(upper),
            None => mine.div_ceil(room),
        };
        let others = forecast.iter().filter(|(other, _)| Some(*other) != scope);
        let others = others.map(|(_, demands)| demands.total().div_ceil(shared_room).min(own)).sum::<usize>();
        (own + others).min(upper)
    }

    /// Counts a lookup in that has just been taken.
    pub(super) fn forecast_add(&mut self, order: &Order<W>) {
        let turn = self.turns.get(&order.client).map_or(0, |turn| turn.number);
        if let (Some(forecast), Some(first)) = (&mut self.forecast, order.keys.first()) {
            let demands = forecast.entry(Arc::clone(&first.scope)).or_default();
            demands.add(order.client, turn, order.keys.len());
        }
    }

    fn forecast(&mut self) -> &Forecast {
        if self.forecast.is_none() {
            let mut forecast = Forecast::new();
            for ticket in self.tickets.values() {
                let waiting = |key: &&Key| self.entries.get(key).is_some_and(|entry| entry.place != Place::InFlight);
                let open = ticket.open().filter(waiting).count();
                if let Some(first) = ticket.keys.first().filter(|_| open > 0) {
                    let turn = self.turns.get(&ticket.client).map_or(0, |turn| turn.number);
                    forecast.entry(Arc::clone(&first.scope)).or_default().add(ticket.client, turn, open);
                }
            }
            self.forecast = Some(forecast);
        }
        self.forecast.as_ref().expect("this holds because it has just been counted")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::Instant,
        dispatch::entry::{Lane, Need},
        key::{Id, Kind, Value},
        replicas::Wish,
    };

    fn client(number: u8) -> Client {
        Client::Peer(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)))
    }

    /// Keys of a scope, by their numbers.
    fn keys(scope: &Arc<Scope>, numbers: impl Iterator<Item = usize>) -> Vec<Key> {
        let id = |number| Id { kind: Kind(0), value: Value::Int(i64::try_from(number).expect("small")) };
        numbers.map(|number| Key { scope: Arc::clone(scope), id: id(number) }).collect()
    }

    fn scope(number: u8) -> Arc<Scope> {
        Arc::new(Scope::new(number, vec![], "{}", ""))
    }

    fn submit(queue: &mut Queue<()>, now: Instant, number: u8, keys: Vec<Key>) {
        let order = Order {
            client: client(number),
            keys,
            need: Need::Company,
            fresh: false,
            no_store: false,
            fallback: vec![],
            waker: (),
        };
        queue.submit(now, order).expect("there is room");
    }

    /// How many slots pass until the last of these keys is sent.
    fn slots_taken(queue: &mut Queue<()>, now: Instant, keys: &[Key]) -> usize {
        (1..).find(|_| queue.seal(now).is_none() || queue.unsent_known(keys) == 0).expect("they are sent some day")
    }

    impl Queue<()> {
        fn unsent_known(&self, keys: &[Key]) -> usize {
            let waits = |key: &&Key| self.entries.get(key).is_some_and(|entry| entry.place != Place::InFlight);
            keys.iter().filter(waits).count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_key_is_promised_the_next_slot_beside_a_bulk_caller() {
        let now = crate::clock::now();
        let mut queue = Queue::new(50, 10_000);
        let scope = scope(0);
        submit(&mut queue, now, 1, keys(&scope, 0..2000));
        assert_eq!(queue.slots_until(client(2), Some(&scope), 1), 1);
        assert_eq!(queue.slots_until(client(1), Some(&scope), 1), 1, "small tickets of a client go first");
        assert_eq!(queue.slots_until(client(2), Some(&scope), 100), 4, "half of each slot");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_shared_has_as_much_room_as_it_was_seen_to_have() {
        let now = crate::clock::now();
        let mut queue = Queue::new(100, 10_000);
        let scope = scope(0);
        submit(&mut queue, now, 1, keys(&scope, 0..800));
        assert_eq!(queue.slots_until(client(1), Some(&scope), 600), 12, "half of each slot");
        for slot in 0..8 {
            // Four gateways want as much.
            let taken = keys(&scope, slot * 25..slot * 25 + 25).into_iter();
            let wishes: Vec<_> = taken.map(|key| Wish { id: key.id, keep: true }).collect();
            let batch = queue.seal_chosen((&scope, Lane::Mixed), &wishes, Some(now), now).expect("they wait");
            queue.shared_slot(batch.waits.len());
        }
        assert_eq!(queue.slots_until(client(1), Some(&scope), 600), 1200_usize.div_ceil(26));
        assert_eq!(queue.slots_until(client(2), Some(&scope), 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_several_want_are_sent_once() {
        let now = crate::clock::now();
        let mut queue = Queue::new(10, 10_000);
        let scope = scope(0);
        for number in 0..8 {
            submit(&mut queue, now, number, keys(&scope, 0..10));
        }
        assert_eq!(queue.slots_until(client(9), Some(&scope), 10), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn scopes_take_turns() {
        let now = crate::clock::now();
        let mut queue = Queue::new(10, 10_000);
        let (long, short) = (scope(0), scope(1));
        submit(&mut queue, now, 1, keys(&long, 0..500));
        assert_eq!(queue.slots_until(client(2), Some(&short), 10), 2);
        assert_eq!(queue.slots_until(client(2), Some(&short), 20), 4);
    }

    proptest! {
        // Each case fills some twenty slots twice.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_promise_is_kept_to_the_slot_when_nobody_comes_later(
            room in 3usize..30,
            before in proptest::collection::vec((0u8..6, 1usize..40), 0..12),
            sealed in 0usize..4,
            after in proptest::collection::vec((0u8..6, 1usize..40), 0..6),
            (number, mine) in (0u8..6, 1usize..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let _paused = runtime.as_ref().expect("it opens nothing").enter();
            let now = crate::clock::now();
            let (mut queue, scope, mut next) = (Queue::new(room, 10_000), scope(0), 0);
            let mut take = |count: usize| {
                next += count;
                keys(&scope, next - count..next)
            };
            for (client, count) in before {
                submit(&mut queue, now, client, take(count));
            }
            for _ in 0..sealed {
                let _sent = queue.seal(now);
            }
            for (client, count) in after {
                submit(&mut queue, now, client, take(count));
            }
            let promised = queue.slots_until(client(number), Some(&scope), mine);
            let mine = take(mine);
            submit(&mut queue, now, number, mine.clone());
            let taken = slots_taken(&mut queue, now, &mine);
            prop_assert!(promised == taken || (taken > FORESEEN_SLOTS && promised > taken), "{promised} {taken}");
        }
    }
}
