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
//! 3. Keys queued or held exceed `max_pending_keys` at most by what comes back from under way; keys that nobody waits for
//!    make room first, and then there are none.
//! 4. A batch holds keys of one scope, at most `max_batch_keys`, and only such as may ride together.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    batch::{BatchId, Flight},
    batch_limit::BatchLimit,
    compose::Turn,
    entry::{Background, Entry, Halved, Held, Lane, Need, Place},
    promise::{Forecast, Portion},
    ticket::{Client, Failure, Finished, Outcome, Ticket, TicketId},
    tickets::Tickets,
};
use crate::{
    clock::Instant,
    key::{Key, Scope},
    metrics::QueueGauges,
    trace,
    upstream::verdict::Demand,
};

/// How long a key stays queued that nobody waits for any more: a caller who retries does so within a minute.
pub const ABANDONED_FOR: Duration = Duration::from_secs(60);

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

/// The queue of one lookup path.
pub struct Queue<W> {
    pub(super) limit: BatchLimit,
    /// The same for batches with riders; see [`ride`](super::ride).
    pub(super) rides: BatchLimit,
    /// The batch that was last rejected with riders, by the number under which it goes again, and its size with them.
    pub(super) without_riders: Option<(u64, usize)>,
    max_pending_keys: usize,
    pub(super) entries: HashMap<Key, Entry>,
    pub(super) tickets: Tickets<W>,
    /// The traces of those tickets that belong to one.
    pub(super) traces: HashMap<TicketId, Arc<trace::Waiting>>,
    /// Queued keys that nobody waits for, by class, oldest first.
    pub(super) background: BTreeMap<(Background, u64), (Key, Instant)>,
    pub(super) held: VecDeque<Held>,
    pub(super) flights: HashMap<BatchId, Flight>,
    /// Rejected batches whose halves are held or under way.
    pub(super) halved: BTreeMap<u64, Halved>,
    /// When each lane of each scope last got a slot.
    pub(super) served: HashMap<(Arc<Scope>, Lane), Instant>,
    pub(super) suspects: HashMap<Key, Instant>,
    /// When each client last had places.
    pub(super) turns: HashMap<Client, Turn>,
    /// Who waits for how much, as last counted; see [`promise`](super::promise).
    pub(super) forecast: Option<Forecast>,
    /// How much room a shared slot has for what waits here.
    pub(super) portion: Portion,
    /// Whether the batch before was half of a rejected one.
    pub(super) half_went: bool,
    /// Whether batches carry one key only, to find out whether the upstream is back.
    pub(super) probing: bool,
    /// Keys queued or held.
    pub(super) pending: usize,
    /// Since when there is anything to do.
    pub(super) work_since: Option<Instant>,
    serial: u64,
}

impl<W> Queue<W> {
    /// An empty queue.
    #[must_use]
    pub fn new(max_batch_keys: usize, max_pending_keys: usize) -> Self {
        Self {
            limit: BatchLimit::new(max_batch_keys),
            rides: BatchLimit::new(max_batch_keys),
            without_riders: None,
            max_pending_keys,
            entries: HashMap::new(),
            tickets: Tickets::new(),
            traces: HashMap::new(),
            background: BTreeMap::new(),
            held: VecDeque::new(),
            flights: HashMap::new(),
            halved: BTreeMap::new(),
            served: HashMap::new(),
            suspects: HashMap::new(),
            turns: HashMap::new(),
            forecast: None,
            portion: Portion::default(),
            half_went: false,
            probing: false,
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

    /// From now on a batch carries one key only, or as many as fit.
    pub fn probe(&mut self, probing: bool) {
        self.probing = probing;
    }

    /// From now on these limits count. What waits already stays, even if it is more.
    pub fn set_limits(&mut self, max_batch_keys: usize, max_pending_keys: usize) {
        self.limit.reconfigure(max_batch_keys);
        self.rides.reconfigure(max_batch_keys);
        self.max_pending_keys = max_pending_keys;
        self.forecast = None;
    }

    /// How many keys the next batch may carry. While a rejected batch is being halved, no more than its halves: it may
    /// have been too large.
    pub(super) fn room(&self) -> usize {
        let halves = self.halved.values().map(|halved| halved.size.div_ceil(2)).min();
        if self.probing { 1 } else { self.limit.now().min(halves.unwrap_or(usize::MAX)) }
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
            if let Some(entry) = self.entries.get(key) {
                coalesced += usize::from(!(order.fresh && entry.place == Place::InFlight));
            } else {
                let suspected = self.suspects.get(key).is_some_and(|until| *until > now);
                self.enqueue(key.clone(), Entry::new(if suspected { Need::Alone } else { order.need }, now), now);
            }
            let entry = self.entries.get_mut(key).expect("this holds because it was there or has just been put there");
            entry.keep |= !order.no_store;
            entry.rides = false;
            entry.unwanted_since = None;
            if order.fresh && entry.place == Place::InFlight {
                entry.later.insert(ticket, position);
            } else {
                entry.waiters.insert(ticket, position);
            }
        }
        self.forecast_add(&order);
        let outcomes = order.keys.iter().map(|_| None).collect();
        let Order { client, keys, fallback, fresh, waker, .. } = order;
        let keys = keys.into_iter().collect();
        let (fallback, demand) = (fallback.into(), Demand::default());
        let order = Ticket { client, arrived: now, keys, outcomes, fallback, fresh, demand, waker };
        self.tickets.insert(ticket, order);
        Ok(Submitted { ticket, coalesced })
    }

    /// A ticket belongs to a trace: requests upstream for its keys will belong to it, too.
    pub fn trace(&mut self, ticket: TicketId, trace: Arc<trace::Waiting>) {
        self.traces.insert(ticket, trace);
    }

    /// Queues stale keys to be refreshed behind the answer that was just given. Keys already queued or under way, keys
    /// that the upstream refused lately, and keys beyond the limit are left out. Returns how many were taken.
    pub fn refresh(&mut self, now: Instant, keys: impl IntoIterator<Item = Key>, need: Need) -> usize {
        self.expire(now);
        let mut taken = 0;
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.again = true;
                continue;
            }
            let suspected = self.suspects.get(&key).is_some_and(|until| *until > now);
            if self.pending < self.max_pending_keys && !suspected {
                self.enqueue(key.clone(), Entry { keep: true, ..Entry::new(need, now) }, now);
                self.set_background(&key, Background::Refresh, now);
                taken += 1;
            }
        }
        taken
    }

    /// Takes a ticket back, with what has become of its keys so far. Keys that nobody else waits for stay queued for
    /// [`ABANDONED_FOR`].
    pub fn cancel(&mut self, ticket: TicketId, now: Instant) -> Option<Finished<W>> {
        let ticket_gone = self.tickets.remove(ticket)?;
        self.forget_trace(ticket);
        for key in ticket_gone.open() {
            self.leave(ticket, key, now);
        }
        Some(ticket_gone.finished())
    }

    /// Fails every ticket of a scope (none: of every scope), and lets go of its queued keys.
    pub fn fail(&mut self, scope: Option<&Arc<Scope>>, failure: &Failure, now: Instant) -> Vec<Finished<W>> {
        let concerned =
            |ticket: &Ticket<W>| scope.is_none_or(|scope| ticket.keys.iter().any(|key| key.scope == *scope));
        let mut touched = Vec::new();
        let ids: Vec<_> = self.tickets.ids().collect();
        for id in ids {
            let Some(ticket) = self.tickets.get_mut(id).filter(|ticket| concerned(ticket)) else { continue };
            let mut left = Vec::new();
            for (key, outcome) in ticket.keys.iter().zip(&mut ticket.outcomes) {
                if outcome.is_none() {
                    *outcome = Some(Outcome::Failed(failure.clone()));
                    left.push(key.clone());
                }
            }
            touched.push((id, left));
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
            down: false,
        }
    }

    /// One ticket stops waiting for one key.
    pub(super) fn leave(&mut self, ticket: TicketId, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.waiters.remove(&ticket);
        entry.later.remove(&ticket);
        if entry.waiters.is_empty() && entry.place == Place::Queued {
            // waited for => Abandoned
            self.abandon(key, now);
        }
    }

    pub(super) fn enqueue(&mut self, key: Key, entry: Entry, now: Instant) {
        self.entries.insert(key, entry);
        self.pending += 1;
        self.work_since.get_or_insert(now);
    }

    pub(super) fn set_background(&mut self, key: &Key, class: Background, now: Instant) {
        let number = (class, self.next());
        let entry = self.entries.get_mut(key).expect("this holds because the key is queued");
        entry.background = Some(number);
        entry.unwanted_since.get_or_insert(now);
        self.background.insert(number, (key.clone(), now));
    }

    /// Nobody waits for a queued key any more: it stays for a retry, unless its answer could not be kept for one.
    pub(super) fn abandon(&mut self, key: &Key, now: Instant) {
        self.set_background(key, Background::Abandoned, now);
        let old = |since: Instant| now.saturating_duration_since(since) >= ABANDONED_FOR;
        let entry = self.entries.get(key).filter(|entry| !entry.keep || entry.unwanted_since.is_some_and(old));
        if let Some(number) = entry.and_then(|entry| entry.background) {
            self.drop_background(number);
        }
        self.make_room(0);
    }

    /// Drops what nobody has wanted for too long.
    pub(super) fn expire(&mut self, now: Instant) {
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
    pub(super) fn make_room(&mut self, new: usize) {
        for _ in 0..self.excess(new) {
            let Some((&number, _)) = self.background.last_key_value() else { return };
            self.drop_background(number);
        }
    }

    pub(super) fn drop_background(&mut self, number: (Background, u64)) {
        if let Some((key, _)) = self.background.remove(&number) {
            self.entries.remove(&key);
            self.pending -= 1;
            if self.pending == 0 {
                self.work_since = None;
            }
        }
    }

    /// The number that was given last.
    pub(super) fn serial(&self) -> u64 {
        self.serial
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
    /// For which of them the caller has something older to fall back on; empty: for none. It is told at the first
    /// failure.
    pub fallback: Vec<bool>,
    /// What a key that is new to the queue needs.
    pub need: Need,
    /// Whether only a request counts that starts later than now (RFC 9111, `no-cache`).
    pub fresh: bool,
    /// Whether the answer is for this caller only (RFC 9111, `no-store`).
    pub no_store: bool,
    /// How the caller is woken.
    pub waker: W,
}
