//! The one task that sends: it waits for work and for a slot, seals a batch, and applies what became of it.
//!
//! Fetches live in the worker's own task set: a caller that goes away takes none with it. The order of an answer is
//! fixed: the cache is written, then everybody who waits is woken.

use std::{collections::HashMap, future::Future, mem, pin::Pin, sync::Arc, time::Duration};

use tokio::task::{Id as TaskId, JoinError, JoinSet};

use super::{
    Config,
    batch::{Batch, Settled},
    entry::Need,
    handle::{Handle, Shared, State, Waker},
    report::Condition,
    spare::Spare,
    ticket::{Failure, Finished},
};
use crate::{
    cache::{Cache, Fetch, Of, Said, Taken},
    clock::{Instant, now},
    key::Credential,
    key_log::KeyLog,
    metrics::DispatchMetrics,
    record::{Parts, Record},
    shape::Shape,
    trace::{Onward, Recorder},
    upstream::verdict::{self, Success, Verdict},
};

/// How strongly the newest answer counts in the smoothed latency: one part in four.
const LATENCY_PARTS: u32 = 4;

/// Asks the upstream for the keys of one batch. The second argument is called once the request is on its way over a
/// live connection.
pub type Ask = Box<dyn Fn(verdict::Ask, Box<dyn FnOnce() + Send>) -> Asking + Send>;

/// A question that is under way.
pub type Asking = Pin<Box<dyn Future<Output = Verdict> + Send>>;

pub(super) struct Fetched {
    verdict: Verdict,
}

pub(super) struct UnderWay {
    pub(super) batch: Batch,
    pub(super) fetch: Fetch,
    /// Why its riders are in it.
    spare: Spare,
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
    under_way: HashMap<TaskId, UnderWay>,
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
        loop {
            let next = self.turn(now());
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                // What has come is applied before anything new is sent.
                biased;
                Some(fetched) = self.fetches.join_next_with_id(), if !self.fetches.is_empty() => self.settle(fetched),
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
                wake(state.queue.fail(None, &Failure::ShuttingDown, now));
                return None;
            }
            return Some(self.send(&mut state, now).map_or(drain_at, |next| next.min(drain_at)));
        }
        self.send(&mut state, now)
    }

    fn send(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        state.queue.probe(state.pacer.is_doubtful());
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
        let on_wire = Box::new(move || {
            shared.state().pacer.on_wire(crate::clock::now());
            shared.wake.notify_one();
        });
        state.timeline.used(now, batch.ask.ids.len());
        let fetch = self.cache.open(&batch.ask.scope, now);
        let onward = Onward::of(mem::take(&mut batch.traces), &self.recorder);
        batch.ask.trace = onward.as_ref().map(|onward| onward.context.clone());
        let asking = (self.ask)(batch.ask.clone(), on_wire);
        let task = self.fetches.spawn(async move { Fetched { verdict: asking.await } });
        self.newest = Some(task.id());
        self.under_way.insert(task.id(), UnderWay { batch, fetch, spare, onward });
        state.in_flight = self.fetches.len();
    }

    fn settle(&mut self, fetched: Result<(TaskId, Fetched), JoinError>) {
        let (task, verdict) = match fetched {
            Ok((task, fetched)) => (task, fetched.verdict),
            Err(error) => (error.id(), Verdict::Invalid("the answer could not be read")),
        };
        let Some(under_way) = self.under_way.remove(&task) else { return };
        let now = now();
        self.note(&under_way, &verdict, now);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        state.in_flight = self.fetches.len();
        if self.newest == Some(task) {
            state.pacer.ended();
        }
        let before = Condition::of(&state);
        let finished = self.apply(&mut state, under_way, verdict, now);
        let (after, gap) = (Condition::of(&state), state.pacer.gap());
        drop(state);
        wake(finished);
        self.report(before, after, gap);
    }

    fn apply(&self, state: &mut State, under_way: UnderWay, verdict: Verdict, now: Instant) -> Vec<Finished<Waker>> {
        let UnderWay { batch, fetch, spare, .. } = under_way;
        let started = fetch.started();
        let took = now.saturating_duration_since(started);
        let count = batch.ask.ids.len();
        state.timeline.ended(started, verdict.outcome());
        if spare == Spare::Warmup {
            self.warmed_up(state, &batch, &verdict, now);
        }
        match verdict {
            Verdict::Success(success) => {
                let fetch = fetch.aged(success.age);
                state.pacer.succeeded();
                state.idle.cold.recovered();
                state.latency = (state.latency * (LATENCY_PARTS - 1) + took) / LATENCY_PARTS;
                state.queue.passed(batch.id, now);
                let settled = self.believe(state, &batch, &fetch, success);
                let riders = settled.iter().skip(count - batch.riders);
                let refreshed = riders.filter(|settled| matches!(settled, Settled::Answered(_))).count();
                match spare.refresh() {
                    Some(how) => self.shared.metrics.refreshed(how, refreshed),
                    None => self.shared.metrics.warmup.fetched.inc_by(refreshed as u64),
                }
                state.queue.settle(batch.id, settled, now)
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
            Verdict::Rejected(refusal) => {
                state.pacer.reached();
                if count > 1 {
                    state.queue.halve(batch.id, now);
                    return Vec::new();
                }
                let failure = Failure::Refused(refusal);
                state.queue.settle(batch.id, all(count, || Settled::Failed(failure.clone())), now)
            }
            Verdict::Declined(refusal) => {
                state.pacer.reached();
                let failure = Failure::Declined(refusal);
                state.queue.settle(batch.id, all(count, || Settled::Failed(failure.clone())), now)
            }
            Verdict::TooLarge if count > 1 => {
                state.pacer.reached();
                state.queue.halve(batch.id, now);
                Vec::new()
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

    /// Writes what the upstream said into the cache, and says of each key what follows.
    fn believe(&self, state: &mut State, batch: &Batch, fetch: &Fetch, success: Success) -> Vec<Settled> {
        let ids = &batch.ask.ids;
        let mut kinds: Vec<_> = ids.iter().map(|id| id.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() > 1 {
            state.absence.observe_exclusive(&success.exclusive);
        }
        let verdicts = ids.iter().zip(&batch.needs).zip(success.of).map(|((id, need), positions)| {
            let complete = state.absence.is_complete(id.kind, &kinds, &success.exclusive);
            match positions.is_empty() {
                true if success.unmatched => return Err(Need::Alone),
                true if !complete => return Err(Need::Missed),
                false if !complete && !self.shape.list(id.kind).unique => return Err(Need::OneList),
                true | false => {}
            }
            if !positions.is_empty() && *need == Need::Missed {
                state.absence.observe_missed(id.kind, fetch.started());
            }
            Ok((id.clone(), positions))
        });
        let verdicts: Vec<_> = verdicts.collect();
        let record = |found: &verdict::Found| {
            Record::new(Parts {
                json: &found.json,
                scope: Arc::clone(fetch.scope()),
                ids: &found.ids,
                carried: found.carried,
                identity: found.identity,
                fetched_at: fetch.started(),
            })
        };
        let records: Vec<_> = success.records.iter().map(record).collect();
        let kept = state.queue.kept(batch.id);
        let answers = verdicts.iter().zip(kept).filter_map(|(verdict, keep)| {
            let (id, records) = verdict.as_ref().ok()?.clone();
            Some(Of { id, records, keep })
        });
        let said = Said { envelope: success.envelope, records: &records, answers: answers.collect() };
        let mut taken = fetch.store(&self.shape, said).into_iter();
        let mut next = || taken.next().expect("this holds because each answer is taken").1;
        let settled = verdicts.into_iter().map(|verdict| match verdict {
            Ok(_) => match next() {
                Taken::Held(answer) => Settled::Answered(answer),
                Taken::Outdated(answer) => Settled::Outdated(answer),
            },
            Err(need) => Settled::Again(need),
        });
        settled.collect()
    }
}

fn all(count: usize, settled: impl Fn() -> Settled) -> Vec<Settled> {
    std::iter::repeat_with(settled).take(count).collect()
}

/// Tells everybody; whoever has gone meanwhile does not hear it.
fn wake(finished: Vec<Finished<Waker>>) {
    for Finished { waker, outcomes } in finished {
        let _gone = waker.send(outcomes);
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
