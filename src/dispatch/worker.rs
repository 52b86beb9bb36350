//! The one task that sends: it waits for work and for a slot, seals a batch, and applies what became of it.
//!
//! Fetches live in the worker's own task set: a caller that goes away takes none with it. The order of an answer is
//! fixed: the cache is written, then everybody who waits is woken.

use std::{collections::HashMap, future::Future, mem, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::{Id as TaskId, JoinError, JoinSet},
};

use super::{
    Config,
    batch::{Batch, Settled},
    entry::Need,
    handle::{Handle, Shared, State, Waker},
    origin::{Origin, within},
    report::Condition,
    seat::{Seat, Sharing},
    sharing::heard,
    spare::Spare,
    tell::Teller,
    ticket::{Failure, Finished},
};
use crate::{
    cache::{Cache, Fetch},
    clock::{Instant, now},
    key::Credential,
    key_log::KeyLog,
    metrics::DispatchMetrics,
    shape::Shape,
    trace::{Onward, Recorder},
    upstream::verdict::{self, Verdict},
};

/// How strongly the newest answer counts in the smoothed latency: one part in four.
const LATENCY_PARTS: u32 = 4;

/// Asks the upstream for the keys of one batch. The second argument is called once the request is on its way over a
/// live connection.
pub type Ask = Box<dyn Fn(verdict::Ask, Box<dyn FnOnce() + Send>) -> Asking + Send>;

/// A question that is under way.
pub type Asking = Pin<Box<dyn Future<Output = Verdict> + Send>>;

pub(super) struct Fetched {
    /// None where nobody says what became of it.
    pub(super) verdict: Option<Verdict>,
}

pub(super) struct UnderWay {
    pub(super) batch: Batch,
    pub(super) fetch: Fetch,
    /// Why its riders are in it.
    pub(super) spare: Spare,
    pub(super) origin: Origin,
    /// Where it belongs, if somebody who waits for it is traced.
    pub(super) onward: Option<Onward>,
}

/// The worker of one lookup path.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) cache: Arc<Cache>,
    pub(super) shape: Arc<Shape>,
    ask: Ask,
    pub(super) fetches: JoinSet<Fetched>,
    /// Whose keys it asks for, where each credential has a worker of its own.
    pub(super) credential: Credential,
    pub(super) under_way: HashMap<TaskId, UnderWay>,
    /// With whom it will share the slot, until it has taken its seat.
    pub(super) sharing: Option<Sharing>,
    pub(super) seat: Option<Seat>,
    pub(super) teller: Teller,
    /// The fetch that was started last.
    newest: Option<TaskId>,
    /// Where it says which keys were asked for.
    pub(super) key_log: KeyLog,
    /// Who takes the spans of its requests.
    pub(super) recorder: Recorder,
}

impl Worker {
    /// A worker and the handle through which it is given work. Nothing happens until [`run`](Self::run).
    #[must_use]
    pub fn new(
        config: Config,
        shape: Arc<Shape>,
        cache: Arc<Cache>,
        metrics: DispatchMetrics,
        ask: Ask,
    ) -> (Self, Handle) {
        let shared = Arc::new(Shared::new(config, shape.lists.len(), metrics, now()));
        let handle = Handle { shared: Arc::clone(&shared) };
        let worker = Self {
            shared,
            cache,
            shape,
            ask,
            fetches: JoinSet::new(),
            credential: Credential::Gateway,
            under_way: HashMap::new(),
            sharing: None,
            seat: None,
            teller: Teller::default(),
            newest: None,
            key_log: KeyLog::default(),
            recorder: Recorder::default(),
        };
        (worker, handle)
    }

    /// Makes it the worker of one credential.
    #[must_use]
    pub(super) fn of(self, credential: Credential) -> Self {
        Self { credential, ..self }
    }

    /// Makes it say in this log what comes of each key.
    #[must_use]
    pub fn log_keys(self, key_log: KeyLog) -> Self {
        Self { key_log, ..self }
    }

    /// Makes it record its requests there.
    #[must_use]
    pub fn record(self, recorder: Recorder) -> Self {
        Self { recorder, ..self }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        self.sit_down();
        loop {
            let next = self.turn(now());
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                // What has come is applied before anything new is sent.
                biased;
                Some(fetched) = self.fetches.join_next_with_id(), if !self.fetches.is_empty() => self.settle(fetched),
                // What the other gateways say, if there are any.
                event = heard(&mut self.seat) => self.hear(event),
                // New work, a request on the wire, or the order to drain.
                () = shared.wake.notified() => {}
                // The moment at which the next batch may go.
                () = tokio::time::sleep_until(next.unwrap_or_else(now)), if next.is_some() => {}
            }
        }
    }

    /// Sends what may be sent now. Returns when to look again, if that is known.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        if let Some(drain_at) = state.drain_at {
            if now >= drain_at {
                self.teller.flush(state.queue.fail(None, &Failure::ShuttingDown, now));
                return None;
            }
            return Some(self.send(&mut state, now).map_or(drain_at, |next| next.min(drain_at)));
        }
        self.send(&mut state, now)
    }

    fn send(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        state.queue.probe(state.pacer.is_doubtful());
        if self.seat.is_some() { self.send_shared(state, now) } else { self.send_alone(state, now) }
    }

    /// Sends what may be sent now, as if there were no other gateway.
    pub(super) fn send_alone(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        if state.queue.work_since().is_none() {
            return self.use_idle_slot(state, now);
        }
        let (max_in_flight, linger) = (state.config.max_in_flight, state.config.linger);
        // While the upstream fails, one request at a time finds out whether it is back.
        let at_once = if state.pacer.is_probing() { 1 } else { max_in_flight };
        if self.fetches.len() >= at_once || state.pacer.is_starting() {
            return None;
        }
        let ready_at = state.pacer.ready_at().max(state.queue.work_since()? + linger);
        if now < ready_at {
            return Some(ready_at);
        }
        state.count_idle_slots(now, &self.shared.metrics);
        let mut batch = state.queue.seal(now)?;
        if let Err(ready_at) = state.pacer.start(now) {
            state.queue.put_back(batch.id, now);
            return Some(ready_at);
        }
        self.fill_up(state, &mut batch, now);
        self.start(state, batch, Spare::Ride, now);
        None
    }

    /// Sends a batch in a slot that was granted.
    pub(super) fn start(&mut self, state: &mut State, mut batch: Batch, spare: Spare, now: Instant) {
        let metrics = &self.shared.metrics;
        metrics.slots_used.inc();
        metrics.batch_keys.observe(batch.ask.ids.len() as f64);
        for wait in &batch.waits {
            metrics.wait.observe(wait.as_secs_f64());
        }
        let shared = Arc::clone(&self.shared);
        let announcement = self.announce(state, &batch, now);
        let (origin, hold) = match &announcement {
            Some(announcement) => (Origin::Granted(announcement.token().clone()), Some(announcement.hold())),
            None => (Origin::Own, None),
        };
        let (wired, is_wired) = oneshot::channel();
        let on_wire = Box::new(move || {
            let mut state = shared.state();
            state.pacer.on_wire(crate::clock::now());
            if let Some(announcement) = announcement {
                announcement.send(state.pacer.gap());
            }
            drop(state);
            shared.wake.notify_one();
            let _nobody_waits = wired.send(());
        });
        state.timeline.used(now, batch.ask.ids.len());
        let fetch = self.cache.open(&batch.ask.scope, now);
        let onward = Onward::of(mem::take(&mut batch.traces), &self.recorder);
        batch.ask.trace = onward.as_ref().map(|onward| onward.context.clone());
        let asking = (self.ask)(batch.ask.clone(), on_wire);
        let asking = within(asking, is_wired, hold);
        let task = self.fetches.spawn(async move { Fetched { verdict: Some(asking.await) } });
        self.newest = Some(task.id());
        self.under_way.insert(task.id(), UnderWay { batch, fetch, spare, onward, origin });
        state.in_flight = self.fetches.len();
    }

    fn settle(&mut self, fetched: Result<(TaskId, Fetched), JoinError>) {
        let (task, verdict) = match fetched {
            Ok((task, fetched)) => (task, fetched.verdict),
            Err(error) => (error.id(), Some(Verdict::Invalid("the answer could not be read"))),
        };
        let Some(mut under_way) = self.under_way.remove(&task) else { return };
        let now = now();
        let verdict = verdict.and_then(|verdict| under_way.origin.project(verdict, self.shape.lists.len()));
        let granted = match &mut under_way.origin {
            Origin::Granted(token) => Some(mem::take(token)),
            Origin::Own | Origin::Elsewhere { .. } => None,
        };
        let news = verdict.as_ref().zip(granted).and_then(|(verdict, token)| self.news(token, verdict));
        if let (Some(verdict), Origin::Own | Origin::Granted(_)) = (&verdict, &under_way.origin) {
            self.note(&under_way, verdict, now);
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        state.in_flight = self.fetches.len();
        if self.newest == Some(task) {
            state.pacer.ended();
        }
        let before = Condition::of(&state);
        let finished = match verdict {
            Some(verdict) => self.apply(&mut state, under_way, verdict, now),
            None => self.lose(&mut state, &under_way.batch, now),
        };
        if let Some((news, delayed)) = news {
            self.publish(&state, news, delayed, now);
        }
        let (after, gap) = (Condition::of(&state), state.pacer.gap());
        drop(state);
        self.teller.flush(finished);
        self.report(before, after, gap);
    }

    fn apply(
        &mut self,
        state: &mut State,
        under_way: UnderWay,
        verdict: Verdict,
        now: Instant,
    ) -> Vec<Finished<Waker>> {
        let UnderWay { batch, fetch, spare, origin, .. } = under_way;
        let started = fetch.started();
        let took = now.saturating_duration_since(started);
        let count = batch.ask.ids.len();
        let (asked, kinds) = origin.request(&batch);
        if spare != Spare::Elsewhere {
            state.timeline.ended(started, verdict.outcome());
        }
        if spare == Spare::Warmup {
            self.warmed_up(state, &batch, &verdict, now);
        }
        match verdict {
            Verdict::Success(success) => {
                let is_own = spare != Spare::Elsewhere;
                let fetch = if is_own { fetch } else { fetch.of_another() }.aged(success.age);
                state.pacer.succeeded();
                state.idle.cold.recovered();
                state.latency = (state.latency * (LATENCY_PARTS - 1) + took) / LATENCY_PARTS;
                state.queue.passed(batch.id, now);
                let settled = self.believe(state, (&batch, &kinds), &fetch, success);
                self.count_refreshed(&batch, spare, &settled);
                state.queue.settle_each((batch.id, settled), now, |finished| self.teller.push(finished));
                Vec::new()
            }
            Verdict::Throttled(retry_after) => {
                state.pacer.throttled(now, retry_after);
                let wait = state.pacer.ready_at().saturating_duration_since(now);
                state.queue.refuse(batch.id, &Failure::Unavailable(wait), now)
            }
            Verdict::Renewed => {
                state.pacer.reached();
                state.queue.put_back(batch.id, now);
                Vec::new()
            }
            Verdict::Unauthorized(refusal) => {
                state.pacer.reached();
                let failure = Failure::Unauthorized(refusal);
                let mut finished = state.queue.settle(batch.id, all(count, || Settled::Failed(failure.clone())), now);
                finished.extend(state.queue.fail(Some(&batch.ask.scope), &failure, now));
                state.queue.drop_unwanted(&batch.ask.scope);
                finished
            }
            Verdict::Rejected(_) | Verdict::TooLarge if count > 1 => {
                state.pacer.reached();
                state.queue.halve(batch.id, now);
                Vec::new()
            }
            Verdict::Rejected(refusal) => {
                state.pacer.reached();
                if asked > count {
                    // It may be another gateway's key that is at fault.
                    return state.queue.settle(batch.id, all(count, || Settled::Again(Need::Alone)), now);
                }
                let failure = Failure::Refused(refusal);
                state.queue.settle(batch.id, all(count, || Settled::Failed(failure.clone())), now)
            }
            Verdict::Declined(refusal) => {
                state.pacer.reached();
                let failure = Failure::Declined(refusal);
                state.queue.settle(batch.id, all(count, || Settled::Failed(failure.clone())), now)
            }
            Verdict::TooLarge | Verdict::Unavailable(..) | Verdict::Invalid(_) => {
                if let Verdict::Unavailable(_, Some(wait)) = verdict {
                    state.pacer.leave_alone(now, wait);
                }
                let alone_in_this = !state.pacer.is_probing() && state.queue.was_tried(batch.id);
                state.pacer.failed(started, now, fastrand::f64());
                if alone_in_this && count > 1 {
                    // Others are answered and this batch is not, again: a key of it may be the reason.
                    state.queue.halve(batch.id, now);
                    return Vec::new();
                }
                let retry_in = state.pacer.ready_at().saturating_duration_since(now);
                let failure = Failure::Unavailable(retry_in);
                let mut finished = state.queue.settle(batch.id, all(count, || Settled::Retry(failure.clone())), now);
                if state.pacer.is_down() {
                    finished.extend(state.queue.fail(None, &failure, now));
                }
                finished
            }
        }
    }
}

fn all(count: usize, settled: impl Fn() -> Settled) -> Vec<Settled> {
    std::iter::repeat_with(settled).take(count).collect()
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
