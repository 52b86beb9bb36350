//! Batches on their way: sealed when a slot opens, held when they must go again, settled when they are answered.
//!
//! ```text
//! Queued ──seal──▶ InFlight ──settle──▶ gone, or Queued again in other company
//!                  │      ▲
//!           refuse, halve │
//!                  ▼      │
//!                  Held ──┘ before anything else
//! ```

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    entry::{Again, Halved, Held, Lane, Need, Place},
    queue::Queue,
    ticket::{Failure, Finished},
};
use crate::{cache::Answer, clock::Instant, key::Key, trace, upstream::verdict::Ask};

/// Names a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BatchId(pub(super) u64);

/// Attempts per key before its callers are told that the upstream does not answer.
pub const MAX_ATTEMPTS: u8 = 3;

/// How long a key that the upstream refused rides alone.
pub const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Rejected batches whose halves are watched at once: one for each level of the halvings under way, several times over.
const MAX_HALVED: usize = 64;

/// The keys of one scope that ride in one slot.
#[derive(Debug)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// What is asked.
    pub ask: Ask,
    /// For each key, in what company it had to be asked for.
    pub needs: Vec<Need>,
    /// How long each key that somebody waits for has waited.
    pub waits: Vec<Duration>,
    /// Keys in it that were queued and that nobody waits for.
    pub background: usize,
    /// Keys in it that were not even queued: the last ones of the ask.
    pub riders: usize,
    /// The traces of those who wait for it.
    pub traces: Vec<Arc<trace::Waiting>>,
}

/// What became of one key of a batch.
#[derive(Debug)]
pub enum Settled {
    /// The upstream answered.
    Answered(Answer),
    /// It answered, but what it said was outdated meanwhile: it is for those who asked before the batch was sealed, and
    /// asked again for those who came later.
    Outdated(Answer),
    /// It never will.
    Failed(Failure),
    /// It must be asked again in other company.
    Again(Need),
    /// The request failed: asked again, unless it has been tried often enough; then this is the reason.
    Retry(Failure),
}

/// A batch that is under way.
pub(super) struct Flight {
    pub(super) keys: Vec<Key>,
    pub(super) lane: Lane,
    pub(super) how: Again,
    /// Whether it has been answered.
    pub(super) passed: bool,
}

impl<W> Queue<W> {
    /// Seals the batch that goes in the slot that has just opened: a held one, else what is fair, see
    /// [`compose`](super::compose).
    pub fn seal(&mut self, now: Instant) -> Option<Batch> {
        self.expire(now);
        self.suspects.retain(|_, until| *until > now);
        self.forecast = None;
        // Halves take turns with everything else, so that a scope of which nothing passes starves nobody.
        let others_turn = std::mem::take(&mut self.half_went) && self.held.front().is_some_and(Held::is_half);
        let lane = if others_turn { self.waiting_lane() } else { None };
        while lane.is_none()
            && let Some(mut held) = self.held.pop_front()
        {
            self.half_went = held.is_half();
            self.split_off_excess(&mut held);
            let mut keys = self.still_wanted(held.keys, held.how, now);
            if keys.is_empty() {
                continue;
            }
            if held.how == Again::Filled {
                let scope = Arc::clone(&keys[0].scope);
                self.fill(&scope, held.lane, &mut keys, now);
            }
            return Some(self.send(keys, held.lane, held.how, now));
        }
        let (scope, lane) = lane.or_else(|| self.next_lane())?;
        let mut keys = Vec::new();
        self.fill(&scope, lane, &mut keys, now);
        (!keys.is_empty()).then(|| self.send(keys, lane, Again::Filled, now))
    }

    /// A batch was asked too early: it goes again at the head of the queue, and that cost its keys no attempt. Who has
    /// something to fall back on does not wait for it. Returns the tickets that are over.
    pub fn refuse(&mut self, batch: BatchId, failure: &Failure, now: Instant) -> Vec<Finished<W>> {
        let keys = self.flights.get(&batch).map_or(Vec::new(), |flight| flight.keys.clone());
        let touched = keys.iter().flat_map(|key| self.let_fall_back(key, failure)).collect();
        self.put_back(batch, now);
        self.finish_each(touched, now)
    }

    /// A batch was not sent after all: it goes again at the head of the queue.
    pub fn put_back(&mut self, batch: BatchId, now: Instant) {
        if let Some(flight) = self.flights.remove(&batch) {
            self.hold(flight.keys, flight.lane, flight.how, now);
        }
    }

    /// A batch of several keys was rejected as a whole: its halves go next, each in a request of its own.
    pub fn halve(&mut self, batch: BatchId, now: Instant) {
        let Some(mut flight) = self.flights.remove(&batch) else { return };
        if let Again::Exactly(whole) = flight.how {
            self.halved.remove(&whole); // Not both of its halves pass.
        }
        if self.reject_riders(&mut flight, now) {
            return;
        }
        let number = self.next();
        self.halved.insert(number, Halved { size: flight.keys.len(), passed: 0 });
        if self.halved.len() > MAX_HALVED {
            self.halved.pop_first(); // Its callers left, or a key of it was at fault: nothing follows from it.
        }
        let second = flight.keys.split_off(flight.keys.len().div_ceil(2));
        self.hold(second, flight.lane, Again::Exactly(number), now);
        self.hold(flight.keys, flight.lane, Again::Exactly(number), now);
    }

    /// Whether a request with keys of this batch has failed before.
    pub fn was_tried(&self, batch: BatchId) -> bool {
        let keys = self.flights.get(&batch).map_or(&[][..], |flight| &flight.keys);
        keys.iter().any(|key| self.entries.get(key).is_some_and(|entry| entry.attempts > 0))
    }

    /// For each key of a batch, whether its answer may be kept.
    pub fn kept(&self, batch: BatchId) -> Vec<bool> {
        let keys = self.flights.get(&batch).map_or(&[][..], |flight| &flight.keys);
        keys.iter().map(|key| self.entries.get(key).is_some_and(|entry| entry.keep)).collect()
    }

    /// A batch was answered: as many keys may ride together. If it is the second half of a rejected one to pass, that one
    /// was too large.
    pub fn passed(&mut self, batch: BatchId, now: Instant) {
        let Some(flight) = self.flights.get_mut(&batch) else { return };
        flight.passed = true;
        self.limit.passed(flight.keys.len(), now);
        self.rides.passed(flight.keys.len(), now);
        let how = flight.how;
        self.passed_without_riders(how, now);
        let Some(flight) = self.flights.get(&batch) else { return };
        let Again::Exactly(whole) = flight.how else { return };
        let Some(halved) = self.halved.get_mut(&whole) else { return };
        halved.passed += 1;
        if halved.passed == 2 {
            let size = halved.size;
            self.halved.remove(&whole);
            self.limit.too_large(size, now);
        }
    }

    /// The keys of a held batch that somebody still waits for; the others go to the background.
    pub(super) fn still_wanted(&mut self, keys: Vec<Key>, how: Again, now: Instant) -> Vec<Key> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| {
            let entry = self.entries.get_mut(key).expect("this holds because a held key keeps its entry");
            entry.place = Place::Queued;
            !entry.waiters.is_empty()
        });
        if let (Again::Exactly(whole), false) = (how, unwanted.is_empty()) {
            self.halved.remove(&whole); // A key that is at fault may be among those that are left out.
        }
        for key in unwanted {
            if let (Again::Exactly(_), Some(entry)) = (how, self.entries.get_mut(&key)) {
                entry.need = Need::Alone; // It is still suspected.
            }
            self.abandon(&key, now);
        }
        wanted
    }

    /// A held batch that has meanwhile turned out to be too large goes in parts.
    fn split_off_excess(&mut self, held: &mut Held) {
        if held.keys.len() > self.room() {
            let rest = held.keys.split_off(self.room());
            if let Again::Exactly(whole) = held.how {
                self.halved.remove(&whole); // These parts are no halves.
            }
            self.held.push_front(Held { keys: rest, lane: held.lane, how: held.how });
        }
    }

    pub(super) fn hold(&mut self, keys: Vec<Key>, lane: Lane, how: Again, now: Instant) {
        let keys = self.drop_riders(keys);
        if keys.is_empty() {
            return;
        }
        for key in &keys {
            let entry = self.entries.get_mut(key).expect("this holds because a key in flight keeps its entry");
            entry.place = Place::Held; // InFlight => Held
            entry.waiters.append(&mut entry.later);
            self.pending += 1;
        }
        self.work_since.get_or_insert(now);
        self.held.push_front(Held { keys, lane, how });
        self.make_room(0);
    }

    /// The traces of those who wait for these keys, each ticket's once.
    fn traces_of(&self, keys: &[Key]) -> Vec<Arc<trace::Waiting>> {
        if self.traces.is_empty() {
            return Vec::new();
        }
        let tickets = keys.iter().filter_map(|key| self.entries.get(key)).flat_map(|entry| entry.waiters.keys());
        let mut seen = BTreeSet::new();
        let new = tickets.filter(|ticket| seen.insert(**ticket)).filter_map(|ticket| self.traces.get(ticket));
        new.take(trace::MOST_LINKS).cloned().collect()
    }

    /// Queued => InFlight
    pub(super) fn send(&mut self, keys: Vec<Key>, lane: Lane, how: Again, now: Instant) -> Batch {
        let id = BatchId(self.next());
        let scope = Arc::clone(&keys[0].scope);
        let mut batch = Batch {
            id,
            ask: Ask::new(Arc::clone(&scope), keys.iter().map(|key| key.id.clone()).collect()),
            needs: Vec::with_capacity(keys.len()),
            waits: Vec::with_capacity(keys.len()),
            background: 0,
            riders: 0,
            traces: self.traces_of(&keys),
        };
        batch.ask.demand = self.demand_of(&keys);
        for key in &keys {
            let entry = self.entries.get_mut(key).expect("this holds because only queued keys are chosen");
            entry.place = Place::InFlight;
            batch.needs.push(entry.need);
            if let Some(background) = entry.background.take() {
                self.background.remove(&background);
                batch.background += 1;
            } else {
                batch.waits.push(now.saturating_duration_since(entry.since));
            }
        }
        self.pending -= keys.len();
        if self.pending == 0 {
            self.work_since = None;
        }
        self.served.insert((scope, lane), now);
        self.flights.insert(id, Flight { keys, lane, how, passed: false });
        batch
    }
}
