//! Keys that ride along: nobody waits for them, but a request that goes anyway has room.
//!
//! - **Last.** A batch is composed of what is waited for and what is queued behind ([`compose`](super::compose)); riders
//!   take the places that are left over, and none of those of a half, of a lone key or of a probe.
//! - **No trace.** A rider is in flight or nowhere. When its request is refused, rejected or fails, it is dropped and the
//!   others go again without it: it costs no request of its own.
//! - **Careful.** Riders make batches larger than callers do. When a batch with riders is rejected and passes without them,
//!   the next ones carry half as many keys, and full batches later find the way up again
//!   ([`BatchLimit`](super::batch_limit::BatchLimit)). That one slot is what a rider may cost.
//! - **Alone** they go in slots that nobody wants, if the configuration grants them some
//!   ([`seal_idle`](Queue::seal_idle)).

use std::collections::hash_map::Entry::Vacant;

use super::{
    batch::{Batch, BatchId, Flight},
    entry::{Again, Entry, Lane, Need, Place},
    queue::Queue,
};
use crate::{clock::Instant, key::Key};

impl<W> Queue<W> {
    /// How many keys may still ride along in a batch.
    #[must_use]
    pub fn free_places(&self, batch: &Batch) -> usize {
        let Some(flight) = self.flights.get(&batch.id) else { return 0 };
        let as_it_is = flight.lane == Lane::Alone || flight.how != Again::Filled || self.probing;
        let room = self.room().min(self.rides.now());
        if as_it_is { 0 } else { room.saturating_sub(flight.keys.len()) }
    }

    /// Whether a key may ride along at all: it is not asked for already, and not suspected of spoiling requests.
    #[must_use]
    pub fn may_ride(&self, key: &Key, now: Instant) -> bool {
        !self.entries.contains_key(key) && self.suspects.get(key).is_none_or(|until| *until <= now)
    }

    /// Whether a key may ride along in this batch.
    #[must_use]
    pub fn may_board(&self, batch: &Batch, key: &Key, now: Instant) -> bool {
        let fits = |flight: &Flight| flight.lane.takes(need_of(flight.lane), key.id.kind);
        key.scope == batch.ask.scope && self.flights.get(&batch.id).is_some_and(fits) && self.may_ride(key, now)
    }

    /// How many riders may go alone.
    #[must_use]
    pub fn idle_room(&self) -> usize {
        self.room().min(self.rides.now())
    }

    /// Adds riders to a batch that [may board](Self::may_board) it, no more than there are
    /// [`free_places`](Self::free_places).
    pub fn board(&mut self, batch: &mut Batch, riders: Vec<Key>, now: Instant) {
        let riders: Vec<_> = riders.into_iter().filter(|key| self.may_ride(key, now)).map(|key| (key, true)).collect();
        self.add_riders(batch, riders, now);
    }

    /// Adds riders to a batch, each with whether its answer may be kept.
    pub(super) fn add_riders(&mut self, batch: &mut Batch, riders: Vec<(Key, bool)>, now: Instant) {
        let Some(mut flight) = self.flights.remove(&batch.id) else { return };
        let need = need_of(flight.lane);
        for (key, keep) in riders {
            if let Vacant(vacant) = self.entries.entry(key.clone()) {
                vacant.insert(Entry { place: Place::InFlight, keep, ..Entry::rider(need, now) });
                batch.ask.ids.push(key.id.clone());
                batch.needs.push(need);
                batch.riders += 1;
                flight.keys.push(key);
            }
        }
        self.flights.insert(batch.id, flight);
    }

    /// Seals a batch of riders alone, all of one scope and of kinds that may share a request, for a slot that nobody
    /// wants; nothing if somebody does.
    pub fn seal_idle(&mut self, keys: Vec<Key>, need: Need, now: Instant) -> Option<Batch> {
        if self.work_since().is_some() {
            return None;
        }
        let room = self.idle_room();
        let mut boarded = Vec::new();
        for key in keys {
            let same_scope = boarded.first().is_none_or(|first: &Key| first.scope == key.scope);
            if boarded.len() < room && same_scope && self.may_ride(&key, now) {
                self.enqueue(key.clone(), Entry::rider(need, now), now);
                boarded.push(key);
            }
        }
        let lane = Lane::of(need, boarded.first()?.id.kind);
        let mut batch = self.send(boarded, lane, Again::Filled, now);
        batch.riders = batch.ask.ids.len();
        batch.waits.clear();
        Some(batch)
    }

    /// The keys of a batch that nobody waits for or wants forgotten.
    pub(super) fn riders_of(&self, batch: BatchId) -> Vec<Key> {
        let keys = self.flights.get(&batch).map_or(&[][..], |flight| &flight.keys);
        let rides = |key: &&Key| self.entries.get(*key).is_some_and(|entry| entry.only_rides() && entry.keep);
        keys.iter().filter(rides).cloned().collect()
    }

    /// Whether nobody waits for a key that only rides along.
    pub(super) fn only_rides(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(Entry::only_rides)
    }

    /// Drops the riders of a request that is not answered, and returns the keys that must go again.
    pub(super) fn drop_riders(&mut self, keys: Vec<Key>) -> Vec<Key> {
        let (riders, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| self.only_rides(key));
        for key in riders {
            self.entries.remove(&key);
        }
        others
    }

    /// A batch with riders was rejected: who is waited for goes again without them. False if it has none.
    pub(super) fn reject_riders(&mut self, flight: &mut Flight, now: Instant) -> bool {
        let size = flight.keys.len();
        flight.keys = self.drop_riders(std::mem::take(&mut flight.keys));
        let had_riders = flight.keys.len() < size;
        if had_riders {
            let number = self.next();
            self.without_riders = Some((number, size));
            let keys = std::mem::take(&mut flight.keys);
            self.hold(keys, flight.lane, Again::Exactly(number), now);
        }
        had_riders
    }

    /// A batch passed. If it is one that was rejected with riders, they were too many or one of them was at fault.
    pub(super) fn passed_without_riders(&mut self, how: Again, now: Instant) {
        if let (Again::Exactly(passed), Some((number, size))) = (how, self.without_riders)
            && passed == number
        {
            self.rides.too_large(size, now);
            self.without_riders = None;
        }
    }
}

/// What a rider of a lane needs.
pub(super) fn need_of(lane: Lane) -> Need {
    if lane == Lane::Mixed { Need::Company } else { Need::OneList }
}

impl Entry {
    /// A key that rides along.
    pub(super) fn rider(need: Need, now: Instant) -> Self {
        Self { keep: true, rides: true, ..Self::new(need, now) }
    }

    /// Whether nobody waits for it.
    pub(super) fn only_rides(&self) -> bool {
        self.rides && self.waiters.is_empty() && self.later.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        cache::Answer,
        dispatch::{
            batch::Settled,
            queue::Order,
            ticket::{Client, Failure, Outcome},
        },
        key::{Id, Kind, Scope, Value},
    };

    struct Bench {
        queue: Queue<()>,
        scope: Arc<Scope>,
        now: Instant,
    }

    impl Bench {
        fn new(max_batch_keys: usize) -> Self {
            let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
            Self { queue: Queue::new(max_batch_keys, 1000), scope, now: crate::clock::now() }
        }

        fn keys(&self, numbers: std::ops::Range<i64>) -> Vec<Key> {
            let id = |number| Id { kind: Kind(0), value: Value::Int(number) };
            numbers.map(|number| Key { scope: Arc::clone(&self.scope), id: id(number) }).collect()
        }

        fn submit(&mut self, numbers: std::ops::Range<i64>) {
            let keys = self.keys(numbers);
            let fallback = vec![false; keys.len()];
            let (client, need) = (Client::Unknown, Need::Company);
            let order = Order { client, keys, fallback, need, fresh: false, no_store: false, waker: () };
            self.queue.submit(self.now, order).expect("there is room");
        }

        fn seal(&mut self, riders: std::ops::Range<i64>) -> Batch {
            let mut batch = self.queue.seal(self.now).expect("somebody waits");
            let keys = self.keys(riders).into_iter().take(self.queue.free_places(&batch)).collect();
            self.queue.board(&mut batch, keys, self.now);
            batch
        }

        fn numbers(batch: &Batch) -> Vec<i64> {
            let number = |id: &Id| match id.value {
                Value::Int(number) => number,
                Value::Text(_) => unreachable!("every key here is a number"),
            };
            batch.ask.ids.iter().map(number).collect()
        }
    }

    fn answered(now: Instant) -> Settled {
        Settled::Answered(Answer::new([], now, 0))
    }

    #[tokio::test(start_paused = true)]
    async fn riders_take_the_places_that_are_left_over() {
        let mut bench = Bench::new(5);
        bench.submit(0..3);
        let batch = bench.seal(10..20);
        assert_eq!(Bench::numbers(&batch), [0, 1, 2, 10, 11]);
        assert_eq!((batch.riders, batch.waits.len()), (2, 3));
        let settled = (0..5).map(|_| answered(bench.now)).collect();
        assert_eq!(bench.queue.settle(batch.id, settled, bench.now).len(), 1);
        assert!(bench.queue.entries.is_empty() && bench.queue.pending() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_batch_goes_again_without_its_riders_and_is_filled_anew() {
        let mut bench = Bench::new(5);
        bench.submit(0..3);
        let batch = bench.seal(10..20);
        bench.queue.refuse(batch.id, &Failure::Unavailable(Duration::ZERO), bench.now);
        assert_eq!(bench.queue.pending(), 3);
        assert_eq!(Bench::numbers(&bench.seal(20..30)), [0, 1, 2, 20, 21]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rider_that_fails_or_must_go_again_is_dropped_and_a_key_waited_for_is_not() {
        let mut bench = Bench::new(5);
        bench.submit(0..1);
        let batch = bench.seal(10..14);
        let failure = Failure::Unavailable(Duration::ZERO);
        let settled = vec![
            Settled::Retry(failure.clone()),
            Settled::Retry(failure),
            Settled::Again(Need::Missed),
            Settled::Again(Need::Alone),
            answered(bench.now),
        ];
        assert!(bench.queue.settle(batch.id, settled, bench.now).is_empty());
        assert_eq!(bench.queue.pending(), 1);
        assert_eq!(bench.queue.entries.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_for_a_rider_waits_for_it_and_it_is_not_dropped_any_more() {
        let mut bench = Bench::new(5);
        bench.submit(0..1);
        let batch = bench.seal(10..12);
        bench.submit(10..11);
        bench.queue.refuse(batch.id, &Failure::Unavailable(Duration::ZERO), bench.now);
        let batch = bench.queue.seal(bench.now).expect("somebody waits");
        assert_eq!(Bench::numbers(&batch), [0, 10]);
        let finished = bench.queue.settle(batch.id, vec![answered(bench.now), answered(bench.now)], bench.now);
        assert!(finished.iter().all(|over| matches!(over.outcomes[..], [Some(Outcome::Answer(_))])));
        assert_eq!(finished.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_batch_loses_its_riders_first_and_later_ones_carry_fewer() {
        let mut bench = Bench::new(16);
        bench.submit(0..2);
        let batch = bench.seal(10..30);
        assert_eq!(batch.ask.ids.len(), 16);
        bench.queue.halve(batch.id, bench.now);
        let again = bench.seal(30..50);
        assert_eq!(Bench::numbers(&again), [0, 1], "exactly those who are waited for, and nobody with them");
        bench.queue.passed(again.id, bench.now);
        bench.queue.settle(again.id, vec![answered(bench.now), answered(bench.now)], bench.now);
        bench.submit(2..3);
        assert_eq!(bench.seal(50..70).ask.ids.len(), 8);
        assert_eq!(bench.queue.max_batch_keys(), 16, "what callers ask for is not limited by that");
    }

    #[tokio::test(start_paused = true)]
    async fn riders_go_alone_only_when_nobody_waits() {
        let mut bench = Bench::new(3);
        bench.submit(0..1);
        let riders = bench.keys(10..20);
        assert!(bench.queue.seal_idle(riders.clone(), Need::Company, bench.now).is_none());
        let batch = bench.seal(0..0);
        let idle = bench.queue.seal_idle(riders, Need::Company, bench.now).expect("nobody waits");
        assert_eq!(Bench::numbers(&idle), [10, 11, 12]);
        assert_eq!(bench.queue.pending(), 0);
        bench.queue.refuse(idle.id, &Failure::Unavailable(Duration::ZERO), bench.now);
        assert!(bench.queue.work_since().is_none() && bench.queue.entries.len() == 1, "they cost no other slot");
        bench.queue.settle(batch.id, vec![answered(bench.now)], bench.now);
    }
}
