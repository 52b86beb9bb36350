//! Which keys wait, for whom, and what became of them. Pure: no clock, no channel, no task.
//!
//! ```text
//! submit ──▶ Queued ──seal──▶ InFlight ──settle──▶ answered or failed: everybody who waits is told
//!              ▲  ▲               │ │
//!              │  └── again ──────┘ └── refuse, halve ──▶ Held ──seal──▶ InFlight
//!              └── its callers gave up: Abandoned, until a retry joins it or it is old
//! ```
//! Invariants:
//! 1. A key is in at most one of queued, held, in flight, and goes upstream once however many wait for it.
//! 2. Every ticket is finished exactly once; a ticket that is cancelled takes only itself away.
//! 3. Keys queued or held never exceed `max_pending_keys`; keys that nobody waits for make room first.
//! 4. A batch holds keys of one scope, at most `max_batch_keys`, and only such as may ride together.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    batch_limit::BatchLimit,
    entry::{Again, Background, Entry, Halved, Held, Lane, Need, Place},
    promise::Forecast,
    ticket::{Client, Failure, Finished, Outcome, Ticket, TicketId},
};
use crate::{
    cache::Answer,
    clock::Instant,
    key::{Key, Scope},
    metrics::QueueGauges,
    upstream::verdict::Ask,
};

/// Attempts per key before its callers are told that the upstream does not answer.
pub const MAX_ATTEMPTS: u8 = 3;

/// How long a key stays queued that nobody waits for any more: a caller who retries does so within a minute.
pub const ABANDONED_FOR: Duration = Duration::from_secs(60);

/// How long a key that the upstream refused rides alone.
pub const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Refused keys remembered at once; more than a minute can bring at one a second, with room for short intervals.
const MAX_SUSPECTS: usize = 1024;

/// Rejected batches whose halves are watched at once: one for each level of the halvings under way, several times over.
const MAX_HALVED: usize = 64;

/// Names a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BatchId(u64);

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
    /// Keys in it that nobody waits for.
    pub background: usize,
}

/// What became of one key of a batch.
#[derive(Debug)]
pub enum Settled {
    /// The upstream answered.
    Answered(Arc<Answer>),
    /// It never will.
    Failed(Failure),
    /// It must be asked again in other company.
    Again(Need),
    /// The request failed: asked again, unless it has been tried often enough; then this is the reason.
    Retry(Failure),
}

/// The queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// What became of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submitted {
    /// The ticket to wait for.
    pub ticket: TicketId,
    /// How many of the keys were already asked for by somebody else.
    pub coalesced: usize,
}

struct Flight {
    keys: Vec<Key>,
    lane: Lane,
    how: Again,
}

/// The queue of one lookup path.
pub struct Queue<W> {
    limit: BatchLimit,
    max_pending_keys: usize,
    pub(super) entries: HashMap<Key, Entry>,
    pub(super) tickets: BTreeMap<TicketId, Ticket<W>>,
    /// Queued keys that nobody waits for, by class, oldest first.
    pub(super) background: BTreeMap<(Background, u64), (Key, Instant)>,
    held: VecDeque<Held>,
    flights: HashMap<BatchId, Flight>,
    /// Rejected batches whose halves are held or under way.
    halved: BTreeMap<u64, Halved>,
    /// When each lane of each scope last got a slot.
    pub(super) served: HashMap<(Arc<Scope>, Lane), Instant>,
    suspects: HashMap<Key, Instant>,
    /// In which batch each client last had places.
    pub(super) turns: HashMap<Client, u64>,
    /// Who waits for how much, as last counted; see [`promise`](super::promise).
    pub(super) forecast: Option<Forecast>,
    /// Keys queued or held.
    pending: usize,
    /// Since when there is anything to do.
    work_since: Option<Instant>,
    serial: u64,
}

impl<W> Queue<W> {
    /// An empty queue.
    #[must_use]
    pub fn new(max_batch_keys: usize, max_pending_keys: usize) -> Self {
        Self {
            limit: BatchLimit::new(max_batch_keys),
            max_pending_keys,
            entries: HashMap::new(),
            tickets: BTreeMap::new(),
            background: BTreeMap::new(),
            held: VecDeque::new(),
            flights: HashMap::new(),
            halved: BTreeMap::new(),
            served: HashMap::new(),
            suspects: HashMap::new(),
            turns: HashMap::new(),
            forecast: None,
            pending: 0,
            work_since: None,
            serial: 0,
        }
    }

    /// Since when there has been something to send, if there is.
    #[must_use]
    pub fn work_since(&self) -> Option<Instant> {
        self.work_since
    }

    /// Keys queued or held.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The most keys that ride in one batch, as learned.
    #[must_use]
    pub fn max_batch_keys(&self) -> usize {
        self.limit.now()
    }

    /// Takes the keys of one lookup, none of them twice, all of one scope. `need` is what a key new to the queue needs;
    /// with `fresh` a request that is already under way does not count.
    ///
    /// # Errors
    /// [`Full`] when the keys would exceed `max_pending_keys`; then nothing has changed.
    pub fn submit(&mut self, now: Instant, order: Order<W>) -> Result<Submitted, Full> {
        self.expire(now);
        let new = order.keys.iter().filter(|key| !self.entries.contains_key(key)).count();
        let own = order.keys.iter().filter(|key| self.entries.get(key).is_some_and(|entry| entry.background.is_some()));
        if self.excess(new) > self.background.len() - own.count() {
            return Err(Full);
        }
        for key in &order.keys {
            if let Some(entry) = self.entries.get_mut(key)
                && let Some(background) = entry.background.take()
            {
                // Abandoned or Refresh => waited for
                self.background.remove(&background);
                entry.since = now;
            }
        }
        self.make_room(new);
        let ticket = TicketId(self.next());
        let mut coalesced = 0;
        for (position, key) in order.keys.iter().enumerate() {
            if self.entries.contains_key(key) {
                coalesced += 1;
            } else {
                let suspected = self.suspects.get(key).is_some_and(|until| *until > now);
                self.enqueue(key.clone(), Entry::new(if suspected { Need::Alone } else { order.need }, now), now);
            }
            let entry = self.entries.get_mut(key).expect("this holds because it was there or has just been put there");
            if order.fresh && entry.place == Place::InFlight {
                entry.later.insert(ticket, position);
            } else {
                entry.waiters.insert(ticket, position);
            }
        }
        self.forecast_add(&order);
        self.tickets.insert(ticket, Ticket::new(order.client, now, order.keys, order.waker));
        Ok(Submitted { ticket, coalesced })
    }

    /// Queues stale keys to be refreshed behind the answer that was just given. Keys already queued or under way, and
    /// keys beyond the limit, are left out. Returns how many were taken.
    pub fn refresh(&mut self, now: Instant, keys: impl IntoIterator<Item = Key>, need: Need) -> usize {
        self.expire(now);
        let mut taken = 0;
        for key in keys {
            if self.pending < self.max_pending_keys && !self.entries.contains_key(&key) {
                self.enqueue(key.clone(), Entry::new(need, now), now);
                self.set_background(&key, Background::Refresh, now);
                taken += 1;
            }
        }
        taken
    }

    /// Takes a ticket back, with what has become of its keys so far. Keys that nobody else waits for stay queued for
    /// [`ABANDONED_FOR`].
    pub fn cancel(&mut self, ticket: TicketId, now: Instant) -> Option<Finished<W>> {
        let ticket_gone = self.tickets.remove(&ticket)?;
        for key in ticket_gone.open() {
            self.leave(ticket, key, now);
        }
        Some(Finished { waker: ticket_gone.waker, outcomes: ticket_gone.outcomes })
    }

    /// Seals the batch that goes in the slot that has just opened: a held one, else what is fair, see
    /// [`compose`](super::compose).
    pub fn seal(&mut self, now: Instant) -> Option<Batch> {
        self.expire(now);
        self.suspects.retain(|_, until| *until > now);
        self.forecast = None;
        while let Some(mut held) = self.held.pop_front() {
            self.split_off_excess(&mut held);
            let mut keys = self.still_wanted(held.keys, held.how, now);
            if keys.is_empty() {
                continue;
            }
            if held.how == Again::Filled {
                let scope = Arc::clone(&keys[0].scope);
                self.fill(&scope, held.lane, &mut keys);
            }
            return Some(self.send(keys, held.lane, held.how, now));
        }
        let (scope, lane) = self.next_lane()?;
        let mut keys = Vec::new();
        self.fill(&scope, lane, &mut keys);
        (!keys.is_empty()).then(|| self.send(keys, lane, Again::Filled, now))
    }

    /// A batch was asked too early: it goes again at the head of the queue, and that cost its keys no attempt.
    pub fn refuse(&mut self, batch: BatchId, now: Instant) {
        let Some(flight) = self.flights.remove(&batch) else { return };
        self.hold(flight.keys, flight.lane, flight.how, now);
    }

    /// A batch of several keys was rejected as a whole: its halves go next, each in a request of its own.
    pub fn halve(&mut self, batch: BatchId, now: Instant) {
        let Some(mut flight) = self.flights.remove(&batch) else { return };
        if let Again::Exactly(whole) = flight.how {
            self.halved.remove(&whole); // Not both of its halves pass.
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

    /// A batch was answered: as many keys may ride together. If it is the second half of a rejected one to pass, that one
    /// was too large.
    pub fn passed(&mut self, batch: BatchId, now: Instant) {
        let Some(flight) = self.flights.get(&batch) else { return };
        self.limit.passed(flight.keys.len(), now);
        let Again::Exactly(whole) = flight.how else { return };
        let Some(halved) = self.halved.get_mut(&whole) else { return };
        halved.passed += 1;
        if halved.passed == 2 {
            let size = halved.size;
            self.halved.remove(&whole);
            self.limit.too_large(size, now);
        }
    }

    /// Applies what became of each key of a batch, in the order of its ask, and returns the tickets that are over.
    pub fn settle(&mut self, batch: BatchId, settled: Vec<Settled>, now: Instant) -> Vec<Finished<W>> {
        let Some(flight) = self.flights.remove(&batch) else { return Vec::new() };
        let mut touched = Vec::new();
        for (key, settled) in flight.keys.into_iter().zip(settled) {
            touched.extend(self.settle_key(&key, settled, now));
        }
        touched.sort_unstable();
        touched.dedup();
        self.finish(touched, now)
    }

    /// Fails every ticket of a scope (none: of every scope), and lets go of its queued keys.
    pub fn fail(&mut self, scope: Option<&Arc<Scope>>, failure: &Failure, now: Instant) -> Vec<Finished<W>> {
        let concerned =
            |ticket: &Ticket<W>| scope.is_none_or(|scope| ticket.keys.iter().any(|key| key.scope == *scope));
        let mut touched = Vec::new();
        for (id, ticket) in self.tickets.iter_mut().filter(|(_, ticket)| concerned(ticket)) {
            let mut left = Vec::new();
            for (key, outcome) in ticket.keys.iter().zip(&mut ticket.outcomes) {
                if outcome.is_none() {
                    *outcome = Some(Outcome::Failed(failure.clone()));
                    left.push(key.clone());
                }
            }
            touched.push((*id, left));
        }
        let mut finished = Vec::with_capacity(touched.len());
        for (id, left) in touched {
            for key in left {
                self.leave(id, &key, now);
            }
            finished.extend(self.finish(vec![id], now));
        }
        finished
    }

    /// Drops the keys of a scope that nobody waits for: its credential is not taken, and asking for them would waste slots.
    pub fn drop_unwanted(&mut self, scope: &Arc<Scope>) {
        let of_scope: Vec<_> =
            self.background.iter().filter(|(_, (key, _))| key.scope == *scope).map(|(number, _)| *number).collect();
        for number in of_scope {
            self.drop_background(number);
        }
    }

    /// What a scrape shows.
    #[must_use]
    pub fn gauges(&self, now: Instant) -> QueueGauges {
        let count = |class| self.background.keys().filter(|(own, _)| *own == class).count();
        let waiting = |entry: &&Entry| !entry.waiters.is_empty() && entry.place != Place::InFlight;
        let oldest = self.entries.values().filter(waiting).map(|entry| entry.since).min();
        QueueGauges {
            waiting: self.entries.values().filter(waiting).count(),
            refresh: count(Background::Refresh),
            abandoned: count(Background::Abandoned),
            oldest: oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            gap: Duration::ZERO,
        }
    }

    fn settle_key(&mut self, key: &Key, settled: Settled, now: Instant) -> Vec<TicketId> {
        let Some(mut entry) = self.entries.remove(key) else { return Vec::new() };
        let outcome = match settled {
            Settled::Answered(answer) => Outcome::Answer(answer),
            Settled::Failed(failure) => Outcome::Failed(failure),
            Settled::Again(need) => {
                self.again(key, entry, need, now);
                return Vec::new();
            }
            Settled::Retry(failure) => {
                entry.attempts += 1;
                if entry.attempts < MAX_ATTEMPTS {
                    let need = entry.need;
                    self.again(key, entry, need, now);
                    return Vec::new();
                }
                Outcome::Failed(failure)
            }
        };
        if matches!(outcome, Outcome::Failed(Failure::Refused(_))) && self.suspects.len() < MAX_SUSPECTS {
            self.suspects.insert(key.clone(), now + SUSPECT_FOR);
        }
        let mut touched = Vec::with_capacity(entry.waiters.len());
        for (id, position) in entry.waiters {
            let ticket = self.tickets.get_mut(&id).expect("this holds because a ticket leaves its keys when it ends");
            ticket.outcomes[position] = Some(outcome.clone());
            touched.push(id);
        }
        if !entry.later.is_empty() {
            // InFlight => Queued, for those who asked for a request that starts later.
            let since = entry.since;
            let waiters = entry.later;
            self.enqueue(key.clone(), Entry { waiters, ..Entry::new(entry.need, since) }, now);
        }
        touched
    }

    /// InFlight => Queued, unless nobody wants it any more.
    fn again(&mut self, key: &Key, mut entry: Entry, need: Need, now: Instant) {
        entry.waiters.append(&mut entry.later);
        entry.need = entry.need.max(need);
        entry.place = Place::Queued;
        entry.background = None;
        let waited_for = !entry.waiters.is_empty();
        self.enqueue(key.clone(), entry, now);
        if !waited_for {
            self.set_background(key, Background::Abandoned, now);
        }
    }

    fn finish(&mut self, touched: Vec<TicketId>, now: Instant) -> Vec<Finished<W>> {
        let done = |id: &TicketId| self.tickets.get(id).is_some_and(Ticket::is_done);
        let over: Vec<_> = touched.into_iter().filter(done).collect();
        over.into_iter().filter_map(|id| self.cancel(id, now)).collect()
    }

    /// One ticket stops waiting for one key.
    fn leave(&mut self, ticket: TicketId, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.waiters.remove(&ticket);
        entry.later.remove(&ticket);
        if entry.waiters.is_empty() && entry.place == Place::Queued {
            // waited for => Abandoned
            self.set_background(key, Background::Abandoned, now);
        }
    }

    /// The keys of a held batch that somebody still waits for; the others go to the background.
    fn still_wanted(&mut self, keys: Vec<Key>, how: Again, now: Instant) -> Vec<Key> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| {
            let entry = self.entries.get_mut(key).expect("this holds because a held key keeps its entry");
            entry.place = Place::Queued;
            !entry.waiters.is_empty()
        });
        for key in unwanted {
            if let (Again::Exactly(_), Some(entry)) = (how, self.entries.get_mut(&key)) {
                entry.need = Need::Alone; // It is still suspected.
            }
            self.set_background(&key, Background::Abandoned, now);
        }
        wanted
    }

    /// A held batch that has meanwhile turned out to be too large goes in parts.
    fn split_off_excess(&mut self, held: &mut Held) {
        if held.keys.len() > self.limit.now() {
            let rest = held.keys.split_off(self.limit.now());
            if let Again::Exactly(whole) = held.how {
                self.halved.remove(&whole); // These parts are no halves.
            }
            self.held.push_front(Held { keys: rest, lane: held.lane, how: held.how });
        }
    }

    fn hold(&mut self, keys: Vec<Key>, lane: Lane, how: Again, now: Instant) {
        for key in &keys {
            let entry = self.entries.get_mut(key).expect("this holds because a key in flight keeps its entry");
            entry.place = Place::Held; // InFlight => Held
            entry.waiters.append(&mut entry.later);
            self.pending += 1;
        }
        self.work_since.get_or_insert(now);
        self.held.push_front(Held { keys, lane, how });
    }

    /// Queued => InFlight
    fn send(&mut self, keys: Vec<Key>, lane: Lane, how: Again, now: Instant) -> Batch {
        let id = BatchId(self.next());
        let scope = Arc::clone(&keys[0].scope);
        let mut batch = Batch {
            id,
            ask: Ask { scope: Arc::clone(&scope), ids: keys.iter().map(|key| key.id.clone()).collect() },
            needs: Vec::with_capacity(keys.len()),
            waits: Vec::with_capacity(keys.len()),
            background: 0,
        };
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
        self.flights.insert(id, Flight { keys, lane, how });
        batch
    }

    fn enqueue(&mut self, key: Key, entry: Entry, now: Instant) {
        self.entries.insert(key, entry);
        self.pending += 1;
        self.work_since.get_or_insert(now);
    }

    fn set_background(&mut self, key: &Key, class: Background, now: Instant) {
        let number = (class, self.next());
        let entry = self.entries.get_mut(key).expect("this holds because the key is queued");
        entry.background = Some(number);
        self.background.insert(number, (key.clone(), now));
    }

    /// Drops what nobody has wanted for too long.
    fn expire(&mut self, now: Instant) {
        for class in [Background::Refresh, Background::Abandoned] {
            let oldest = |queue: &Self| {
                let (number, (_, since)) = queue.background.range((class, 0)..=(class, u64::MAX)).next()?;
                (now.saturating_duration_since(*since) >= ABANDONED_FOR).then_some(*number)
            };
            while let Some(number) = oldest(self) {
                self.drop_background(number);
            }
        }
    }

    /// By how many keys the limit would be exceeded if so many were added.
    fn excess(&self, new: usize) -> usize {
        (self.pending + new).saturating_sub(self.max_pending_keys)
    }

    /// Drops keys that nobody waits for until so many more fit.
    fn make_room(&mut self, new: usize) {
        for _ in 0..self.excess(new) {
            let Some((&number, _)) = self.background.last_key_value() else { return };
            self.drop_background(number);
        }
    }

    fn drop_background(&mut self, number: (Background, u64)) {
        if let Some((key, _)) = self.background.remove(&number) {
            self.entries.remove(&key);
            self.pending -= 1;
            if self.pending == 0 {
                self.work_since = None;
            }
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// The keys that one lookup wants fetched.
#[derive(Debug)]
pub struct Order<W> {
    /// On whose behalf.
    pub client: Client,
    /// The keys, none of them twice, all of one scope.
    pub keys: Vec<Key>,
    /// What a key that is new to the queue needs.
    pub need: Need,
    /// Whether only a request counts that starts later than now (RFC 9111, `no-cache`).
    pub fresh: bool,
    /// How the caller is woken.
    pub waker: W,
}
