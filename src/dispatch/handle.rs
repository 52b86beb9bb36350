//! What callers hold of the dispatcher: submit keys, wait for them, look at the queue.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use super::{
    Config,
    absence::Absence,
    entry::Need,
    idle::{Budget, Idle},
    pacer::Pacer,
    queue::{Order, Queue},
    ticket::{Client, Outcomes, TicketId},
    timeline::{Slot, Timeline},
    warm::Cold,
};
use crate::{
    clock::Instant,
    key::{Key, Scope},
    metrics::{DispatchMetrics, QueueGauges, Refresh},
    trace,
    upstream::{self, verdict::Demand},
};

/// How a caller is woken.
pub(super) type Waker = oneshot::Sender<Outcomes>;

/// When to ask again while those who share the slot cannot be asked: they are looked for all the time.
pub(super) const UNSHARED: Duration = Duration::from_secs(2);

/// Why a lookup is not let into the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It would not be answered within its deadline; the wait that was computed.
    TooLong(Duration),
    /// The queue is full; in how long there will be room.
    Full(Duration),
    /// The upstream is down; when it is tried next.
    Down(Duration),
    /// The slot is shared, and those who share it cannot be asked; when to ask again.
    Unshared(Duration),
    /// The gateway is draining, and waits for nobody any more.
    ShuttingDown,
}

/// What one lookup wants fetched.
#[derive(Debug)]
pub struct Wanted {
    /// On whose behalf.
    pub client: Client,
    /// The keys, none of them twice, all of one scope.
    pub keys: Vec<Key>,
    /// For which of them the caller has something older to fall back on (RFC 5861, `stale-if-error`): for those it is
    /// told of the first failure, and does not wait for a second attempt. Empty: for none.
    pub fallback: Vec<bool>,
    /// Whether a request that is already under way does not count (RFC 9111, `no-cache`).
    pub fresh: bool,
    /// How old an answer the caller takes (RFC 9111, `max-age`).
    pub max_age: Option<Duration>,
    /// Whether what is fetched is for this caller only (RFC 9111, `no-store`).
    pub no_store: bool,
    /// Until when the caller waits.
    pub deadline: Instant,
    /// Whether the caller takes what is ready by then, so that a wait that is too long is no reason to refuse it.
    pub partial: bool,
    /// The trace that it belongs to.
    pub trace: Option<Arc<trace::Waiting>>,
}

/// What one dispatcher looks like at a moment.
#[derive(Clone, Default, Debug)]
pub struct Status {
    /// The queue's figures.
    pub queue: QueueGauges,
    /// What a caller of one new key would be promised.
    pub promised_wait: Duration,
    /// Upstream requests under way.
    pub in_flight: usize,
    /// How the upstream is.
    pub health: Health,
    /// Keys in one request, as learned.
    pub max_batch_keys: usize,
    /// Keys that nobody has asked for, to be fetched in idle slots.
    pub cold_keys: usize,
}

/// How the upstream is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Health {
    /// The last request was answered.
    #[default]
    Up,
    /// The last request failed; one at a time finds out whether it is back.
    Failing,
    /// Several in a row failed: misses are refused at once.
    Down,
}

/// Everything that callers and the worker share.
pub(super) struct State {
    /// The limits now: those of the worker's own [configuration](Shared::config) that may change have changed here.
    pub(super) config: Config,
    pub(super) queue: Queue<Waker>,
    pub(super) pacer: Pacer,
    pub(super) absence: Absence,
    /// How long the upstream takes to answer, smoothed.
    pub(super) latency: Duration,
    pub(super) in_flight: usize,
    /// What slots that nobody wants are used for.
    pub(super) idle: Idle,
    /// What became of the last slots.
    pub(super) timeline: Timeline,
    /// Whether the queue was full, which is said once until there is room for a quarter of it.
    full: bool,
    /// From when on nobody is waited for any more.
    pub(super) drain_at: Option<Instant>,
    /// Whether the slot is shared with gateways that cannot be asked, so that nothing is sent.
    pub(super) unshared: bool,
    /// Up to when slots have been counted as used or idle.
    counted_until: Instant,
}

/// The state, and the bell that wakes the worker.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) wake: Notify,
    /// Rung when the warm-up may have something to do: the last of its keys was taken, or one of its requests is over.
    pub(super) hungry: Notify,
    pub(super) config: Config,
    pub(super) metrics: DispatchMetrics,
}

impl Shared {
    pub(super) fn new(config: Config, lists: usize, metrics: DispatchMetrics, now: Instant) -> Self {
        let state = State {
            config: config.clone(),
            queue: Queue::new(config.max_batch_keys, config.max_pending_keys),
            pacer: Pacer::new(config.interval, now),
            absence: Absence::new(config.mixed_lists, lists),
            latency: Duration::ZERO,
            in_flight: 0,
            idle: Idle {
                refresh: Budget::new(config.idle_refresh, now),
                cold: Cold::new(config.warmup, config.max_batch_keys, now),
            },
            timeline: Timeline::default(),
            full: false,
            drain_at: None,
            unshared: false,
            counted_until: now,
        };
        Self { state: Mutex::new(state), wake: Notify::new(), hungry: Notify::new(), config, metrics }
    }

    /// For one step: never held across an `.await`.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a new key needs: company where lists may be mixed.
    pub(super) fn need(&self, now: Instant) -> Need {
        if self.absence.may_mix(now) { Need::Company } else { Need::OneList }
    }

    /// When the last of so many unsent keys would be answered if they came now.
    fn promise(&mut self, now: Instant, client: Client, scope: Option<&Arc<Scope>>, unsent: usize) -> Duration {
        if self.config.kind == upstream::Kind::Gateway {
            // What it will take is for that one to say.
            return self.pacer.ready_at().saturating_duration_since(now);
        }
        let slots = self.queue.slots_until(client, scope, unsent);
        let until_first =
            if slots == 0 { Duration::ZERO } else { self.pacer.ready_at().saturating_duration_since(now) };
        let further = u32::try_from(slots.saturating_sub(1)).unwrap_or(u32::MAX);
        until_first + self.pacer.gap().saturating_mul(further) + self.latency
    }

    /// Says when the queue is full, and when there is room again.
    fn note_full(&mut self, refused: bool) {
        let (pending, max_pending_keys) = (self.queue.pending(), self.config.max_pending_keys);
        if refused && !self.full {
            tracing::warn!(max_pending_keys, "the queue is full: lookups are refused");
            self.full = true;
        } else if !refused && self.full && pending <= max_pending_keys / 4 * 3 {
            tracing::warn!(max_pending_keys, pending, "the queue has room again");
            self.full = false;
        }
    }

    /// Counts the slots that passed with nothing to send since they were last counted.
    pub(super) fn count_idle_slots(&mut self, now: Instant, metrics: &DispatchMetrics) {
        let until = self.queue.work_since().map_or(now, |since| since.min(now));
        let from = self.counted_until.max(self.pacer.ready_at());
        let gap = self.pacer.gap();
        if gap.is_zero() {
            return; // There are no slots.
        }
        let idle = until.saturating_duration_since(from).as_nanos() / gap.as_nanos();
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        if idle > 0 {
            metrics.slots_idle.inc_by(u64::from(idle));
            self.timeline.idle(from, gap, idle);
            self.counted_until = from + gap.saturating_mul(idle);
        }
    }
}

/// The dispatcher of one lookup path, as callers hold it.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Asks for the keys of one lookup.
    ///
    /// # Errors
    /// When the queue is full, cannot make the deadline, or the upstream is down: nothing is waited for then.
    pub fn submit(&self, now: Instant, wanted: Wanted) -> Result<Waiting, Refused> {
        let demand = Demand { until: Some(wanted.deadline), max_age: wanted.max_age, no_cache: wanted.fresh };
        let Wanted { client, keys, fallback, fresh, no_store, deadline, partial, trace, .. } = wanted;
        let metrics = &self.shared.metrics;
        let mut state = self.shared.state();
        if state.drain_at.is_some_and(|drain_at| drain_at <= now) {
            return Err(Refused::ShuttingDown);
        }
        let need = state.need(now);
        if state.unshared {
            metrics.rejected_outage.inc();
            return Err(Refused::Unshared(UNSHARED));
        }
        if state.pacer.is_down() && (state.in_flight > 0 || state.pacer.ready_at() > now) {
            // Kept as something to probe with, and to be found when the upstream is back.
            if !no_store {
                state.queue.refresh(now, keys, need);
                self.shared.wake.notify_one();
            }
            metrics.rejected_outage.inc();
            let wait = state.pacer.ready_at().saturating_duration_since(now);
            return Err(Refused::Down(wait.max(state.config.interval)));
        }
        let unsent = if fresh { keys.len() } else { state.queue.unsent(&keys) };
        let promise = state.promise(now, client, keys.first().map(|key| &key.scope), unsent);
        if !partial && now + promise > deadline {
            metrics.rejected_deadline.inc();
            return Err(Refused::TooLong(promise));
        }
        let count = keys.len();
        let (waker, outcomes) = oneshot::channel();
        let order = Order { client, keys, fallback, need, fresh, no_store, waker };
        let Ok(submitted) = state.queue.submit(now, order) else {
            metrics.rejected_full.inc();
            state.note_full(true);
            return Err(Refused::Full(promise));
        };
        state.note_full(false);
        state.queue.demand(submitted.ticket, demand);
        if let Some(trace) = trace {
            state.queue.trace(submitted.ticket, trace);
        }
        drop(state);
        metrics.coalesced.inc_by(submitted.coalesced as u64);
        self.shared.wake.notify_one();
        let collapsed = submitted.coalesced == count;
        Ok(Waiting { shared: Arc::clone(&self.shared), ticket: Some(submitted.ticket), outcomes, collapsed, promise })
    }

    /// Queues stale keys to be refreshed behind the answer that was just given.
    pub fn refresh(&self, now: Instant, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.shared.state();
        let need = state.need(now);
        let taken = state.queue.refresh(now, keys, need);
        drop(state);
        self.shared.metrics.refreshed(Refresh::Revalidate, taken);
        self.shared.wake.notify_one();
    }

    /// Whether the upstream failed or refused when it was last heard of: then what is too old is better than a wait.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        let state = self.shared.state();
        state.unshared || state.pacer.is_troubled()
    }

    /// Whether nothing is queued, under way or to be fetched in idle slots.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.state();
        state.queue.pending() == 0 && state.in_flight == 0 && state.idle.cold.queued() == 0
    }

    /// Its limits are these from now on: the interval, and how much may be in a batch, wait, and be under way. What the
    /// upstream has taught about the first two stays, as far as it fits.
    pub(super) fn reconfigure(&self, config: &Config) {
        let mut state = self.shared.state();
        state.pacer.set_interval(config.interval);
        state.queue.set_limits(config.max_batch_keys, config.max_pending_keys);
        state.config = config.clone();
        drop(state);
        self.shared.wake.notify_one();
    }

    /// From `at` on nobody is waited for any more: whoever still waits then is told that the gateway shuts down.
    pub fn drain(&self, at: Instant) {
        self.shared.state().drain_at = Some(at);
        self.shared.wake.notify_one();
    }

    /// What became of the slots of the last two minutes.
    #[must_use]
    pub fn slots(&self, now: Instant) -> Vec<Slot> {
        let mut state = self.shared.state();
        state.count_idle_slots(now, &self.shared.metrics);
        state.timeline.slots(now).collect()
    }

    /// What the dispatcher looks like now.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let mut state = self.shared.state();
        state.count_idle_slots(now, &self.shared.metrics);
        let promised_wait = state.promise(now, Client::Unknown, None, 1);
        Status {
            queue: QueueGauges { gap: state.pacer.gap(), down: state.pacer.is_down(), ..state.queue.gauges(now) },
            promised_wait,
            max_batch_keys: state.queue.max_batch_keys(),
            in_flight: state.in_flight,
            cold_keys: state.idle.cold.queued(),
            health: match (state.pacer.is_down(), state.pacer.is_probing()) {
                (true, _) => Health::Down,
                (false, true) => Health::Failing,
                (false, false) => Health::Up,
            },
        }
    }
}

/// A lookup's place in the queue. Dropping it gives up the place, and nobody else's.
pub struct Waiting {
    shared: Arc<Shared>,
    ticket: Option<TicketId>,
    outcomes: oneshot::Receiver<Outcomes>,
    collapsed: bool,
    promise: Duration,
}

impl Waiting {
    /// How long the wait was reckoned to be when it began.
    #[must_use]
    pub fn promise(&self) -> Duration {
        self.promise
    }

    /// Whether every key was already under way for somebody else.
    #[must_use]
    pub fn is_collapsed(&self) -> bool {
        self.collapsed
    }

    /// Waits until every key is decided or the deadline has passed. Keys that are not decided then stay queued.
    pub async fn outcomes(mut self, deadline: Instant) -> Outcomes {
        tokio::select! {
            // Answers before the deadline: what has come is given even if both are due.
            biased;
            outcomes = &mut self.outcomes => {
                self.ticket = None;
                outcomes.unwrap_or_default()
            }
            () = tokio::time::sleep_until(deadline) => self.give_up().unwrap_or_default(),
        }
    }

    fn give_up(&mut self) -> Option<Outcomes> {
        let ticket = self.ticket.take()?;
        let finished = self.shared.state().queue.cancel(ticket, crate::clock::now());
        match finished {
            Some(finished) => Some(finished.outcomes),
            // It was finished between the two.
            None => self.outcomes.try_recv().ok(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _forgotten = self.give_up();
    }
}
