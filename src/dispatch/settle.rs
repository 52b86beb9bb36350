//! What becomes of the keys of a batch, and of those who wait for them.

use std::collections::BTreeMap;

use super::{
    batch::{BatchId, MAX_ATTEMPTS, SUSPECT_FOR, Settled},
    entry::{Again, Background, Entry, Need, Place},
    queue::Queue,
    ticket::{Failure, Finished, Outcome, Ticket, TicketId},
};
use crate::{clock::Instant, key::Key};

/// Refused keys remembered at once; more than a minute can bring at one a second, with room for short intervals.
const MAX_SUSPECTS: usize = 1024;

impl<W> Queue<W> {
    /// Applies what became of each key of a batch, in the order of its ask, and returns the tickets that are over.
    pub fn settle(&mut self, batch: BatchId, settled: Vec<Settled>, now: Instant) -> Vec<Finished<W>> {
        let mut finished = Vec::new();
        self.settle_each((batch, settled), now, |over| finished.push(over));
        finished
    }

    /// The same, and tells of each ticket when it is over: thousands may wait for one batch, and the first need not wait for
    /// the last.
    pub fn settle_each(
        &mut self,
        (batch, settled): (BatchId, Vec<Settled>),
        now: Instant,
        mut tell: impl FnMut(Finished<W>),
    ) {
        let Some(flight) = self.flights.remove(&batch) else { return };
        if let (Again::Exactly(whole), false) = (flight.how, flight.passed) {
            self.halved.remove(&whole); // Not both of its halves pass.
        }
        let (mut outcomes, mut touched, mut relieved) = (Vec::with_capacity(settled.len()), Vec::new(), Vec::new());
        for (number, (key, settled)) in flight.keys.into_iter().zip(settled).enumerate() {
            if let Settled::Retry(failure) = &settled {
                relieved.extend(self.let_fall_back(&key, failure));
            }
            let settled = self.settle_key((batch, &key), settled, now);
            outcomes.push(settled.map(|(outcome, waiters)| {
                touched.extend(waiters.into_iter().map(|(id, position)| (id, position, number)));
                outcome
            }));
        }
        self.make_room(0);
        // Who came first is told first, and tickets are read as they lie in memory.
        touched.sort_unstable_by_key(|(id, ..)| *id);
        for of_one in touched.chunk_by(|(one, ..), (other, ..)| one == other) {
            let id = of_one[0].0;
            let answered = self.tickets.remove_if(id, |ticket| {
                for (_, position, number) in of_one {
                    ticket.outcomes[*position].clone_from(&outcomes[*number]);
                }
                ticket.is_answered()
            });
            if let Some(ticket) = answered {
                self.forget_trace(id);
                tell(ticket.finished());
            } else {
                relieved.push(id);
            }
        }
        self.finish_each(relieved, now).into_iter().for_each(tell);
    }

    /// Finishes those of the tickets that are over.
    pub(super) fn finish_each(&mut self, mut touched: Vec<TicketId>, now: Instant) -> Vec<Finished<W>> {
        touched.sort_unstable();
        touched.dedup();
        self.finish(touched, now)
    }

    /// The upstream failed or refused: who has something older for this key is told so. Returns their tickets.
    pub(super) fn let_fall_back(&mut self, key: &Key, failure: &Failure) -> Vec<TicketId> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        let (tickets, mut touched) = (&mut self.tickets, Vec::new());
        let mut stays = |id: &TicketId, position: &mut usize| {
            let Some(ticket) = tickets.get_mut(*id).filter(|ticket| ticket.can_fall_back(*position)) else {
                return true;
            };
            ticket.outcomes[*position] = Some(Outcome::Failed(failure.clone()));
            touched.push(*id);
            false
        };
        entry.waiters.retain(&mut stays);
        entry.later.retain(&mut stays);
        touched
    }

    /// Applies what became of a key, and returns it, if that is decided, with those who have waited for it.
    fn settle_key(
        &mut self,
        (batch, key): (BatchId, &Key),
        settled: Settled,
        now: Instant,
    ) -> Option<(Outcome, BTreeMap<TicketId, usize>)> {
        let mut entry = self.entries.remove(key)?;
        let mut outdated = false;
        let outcome = match settled {
            Settled::Answered(answer) => Outcome::Answer(answer),
            Settled::Outdated(answer) => {
                // Tickets and batches are numbered together.
                let mut later = entry.waiters.split_off(&TicketId(batch.0));
                entry.later.append(&mut later);
                outdated = true;
                Outcome::Answer(answer)
            }
            Settled::Failed(failure) => Outcome::Failed(failure),
            Settled::Again(need) => {
                self.again(key, entry, need, now);
                return None;
            }
            Settled::Retry(failure) => {
                entry.attempts += 1;
                if entry.attempts < MAX_ATTEMPTS {
                    let need = entry.need;
                    self.again(key, entry, need, now);
                    return None;
                }
                Outcome::Failed(failure)
            }
        };
        if matches!(outcome, Outcome::Failed(Failure::Refused(_))) && self.suspects.len() < MAX_SUSPECTS {
            self.suspects.insert(key.clone(), now + SUSPECT_FOR);
        }
        if !entry.later.is_empty() {
            // InFlight => Queued, for those who want a request that starts later.
            let (waiters, keep) = (entry.later, entry.keep);
            self.enqueue(key.clone(), Entry { waiters, keep, ..Entry::new(entry.need, entry.since) }, now);
        } else if outdated && entry.again {
            // InFlight => Queued, because a stale answer of it was given, or its customer has changed.
            self.enqueue(key.clone(), Entry { keep: true, ..Entry::new(entry.need, now) }, now);
            self.set_background(key, Background::Refresh, now);
        }
        Some((outcome, entry.waiters))
    }

    /// InFlight => Queued, unless it only rode along.
    pub(super) fn again(&mut self, key: &Key, mut entry: Entry, need: Need, now: Instant) {
        if entry.only_rides() {
            return;
        }
        entry.waiters.append(&mut entry.later);
        entry.need = entry.need.max(need);
        entry.place = Place::Queued;
        entry.background = None;
        let waited_for = !entry.waiters.is_empty();
        self.enqueue(key.clone(), entry, now);
        if !waited_for {
            self.abandon(key, now);
        }
    }

    /// Most tickets belong to no trace.
    pub(super) fn forget_trace(&mut self, ticket: TicketId) {
        if !self.traces.is_empty() {
            self.traces.remove(&ticket);
        }
    }

    pub(super) fn finish(&mut self, touched: Vec<TicketId>, now: Instant) -> Vec<Finished<W>> {
        let done = |id: &TicketId| self.tickets.get(*id).is_some_and(Ticket::is_done);
        let over: Vec<_> = touched.into_iter().filter(done).collect();
        over.into_iter().filter_map(|id| self.cancel(id, now)).collect()
    }
}
