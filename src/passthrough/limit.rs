//! Paths that the upstream limits by themselves: their requests wait in a line, and go at the pace of lookups.
//!
//! - **Which.** A path is compared in its normal form and by whole segments, as `allow` is; of several limits the longest
//!   counts. Whoever asks, with whatever method, stands in the one line of that limit.
//! - **Pace.** The line has a [`Pacer`]: no request is sent earlier than an interval after the one before was handed to its
//!   connection, and while one has no connection yet, none is sent. A refusal of the upstream's widens the gap.
//! - **Line.** First come, first served. Who leaves gives up its place, and no slot is taken for it.
//! - **Promise.** From the line and the gap the wait is known. Who would wait for longer than `max_wait`, or would be one
//!   too many, is told so at once; so is who stands in line when the wait grows beyond that.
//! - **Nothing is sent twice**: what the upstream refuses is its answer to the caller.
//!
//! A caller has left when its request is dropped. Over HTTP/1.1 the server cannot tell a closed connection from one whose
//! caller has finished sending and wants its answer, and keeps the request; such a one leaves when `max_wait` is over.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Body;
use tokio::sync::Notify;

use super::judged::{HELD, Reader};
use crate::{
    clock::{self, Instant},
    dispatch::pacer::Pacer,
    error::Refusal,
    route::Path,
    upstream::{self, client},
};

/// A path whose requests are paced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// The beginning of the paths below the base URL, in any of its spellings.
    pub path: String,
    /// At most one request in this time.
    pub interval: Duration,
    /// How long a request may wait for its slot.
    pub max_wait: Duration,
    /// Requests that may wait at once.
    pub max_waiting: usize,
}

/// Every limit, the longest path first.
pub(super) struct Limits(Vec<(Path, Arc<Line>)>);

/// The requests of one limit.
struct Line {
    limit: Limit,
    state: Mutex<State>,
}

struct State {
    pacer: Pacer,
    /// In the order in which they came, and so of their numbers.
    waiting: VecDeque<Waiter>,
    next: u64,
    /// Whose request has its slot and no connection yet.
    starting: Option<u64>,
    /// The gateway is draining, and nobody waits for longer than until then.
    drain_at: Option<Instant>,
}

struct Waiter {
    number: u64,
    /// Its place, or when the next slot opens, has changed.
    told: Arc<Notify>,
}

/// A place in the line; given up when it is dropped.
struct Place {
    line: Arc<Line>,
    number: u64,
    told: Arc<Notify>,
    leave_at: Instant,
}

/// What is to be done by whoever has a place.
enum Turn {
    /// Send.
    Granted(Arc<Slot>),
    /// Leave.
    Refused(Refusal),
    /// Ask again then, or when told.
    Wait(Instant),
}

/// Permission to send one request, and the duty to say what became of it.
pub(super) struct Slot {
    line: Arc<Line>,
    number: u64,
    started: Instant,
}

impl Limits {
    /// A path that has no normal form is no request's.
    pub(super) fn new(config: &[Limit], now: Instant) -> Self {
        let line = |limit: &Limit| Some((Path::normalise(&limit.path, "").ok()?, Arc::new(Line::new(limit, now))));
        let mut lines: Vec<_> = config.iter().filter_map(line).collect();
        lines.sort_by_key(|(path, _)| Reverse(path.canonical().len()));
        Self(lines)
    }

    /// Waits for the slot that a request to this path needs, if it needs one.
    pub(super) async fn slot(&self, path: &Path) -> Result<Option<Arc<Slot>>, Refusal> {
        let Some((_, line)) = self.0.iter().find(|(limited, _)| path.is_under(limited)) else { return Ok(None) };
        Line::wait(line).await.map(Some)
    }

    /// From then on nobody waits any more; who would have to is told now.
    pub(super) fn drain(&self, at: Instant) {
        for (_, line) in &self.0 {
            let mut state = line.lock();
            state.drain_at = Some(at);
            state.tell_all();
        }
    }
}

impl Line {
    fn new(limit: &Limit, now: Instant) -> Self {
        let state = State {
            pacer: Pacer::new(limit.interval, now),
            waiting: VecDeque::new(),
            next: 0,
            starting: None,
            drain_at: None,
        };
        Self { limit: limit.clone(), state: Mutex::new(state) }
    }

    async fn wait(line: &Arc<Self>) -> Result<Arc<Slot>, Refusal> {
        let place = Self::join(line, clock::now())?;
        loop {
            let until = match place.turn(clock::now()) {
                Turn::Granted(slot) => return Ok(slot),
                Turn::Refused(refusal) => return Err(refusal),
                Turn::Wait(until) => until,
            };
            tokio::select! {
                // There may be a slot earlier, or none in time.
                () = place.told.notified() => {}
                // It opens, or the time is up.
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The last place, if there is room for one.
    fn join(line: &Arc<Self>, now: Instant) -> Result<Place, Refusal> {
        let mut state = line.lock();
        let ahead = state.waiting.len();
        if ahead >= line.limit.max_waiting {
            return Err(Refusal::TooFrequent(state.start_of(ahead, now) - now));
        }
        let (number, told) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.waiting.push_back(Waiter { number, told: Arc::clone(&told) });
        drop(state);
        Ok(Place { line: Arc::clone(line), number, told, leave_at: now + line.limit.max_wait })
    }

    /// Nothing panics under this lock; if it did, the line would still be one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When whoever stands behind so many others may start, as far as is known; not before now.
    fn start_of(&self, ahead: usize, now: Instant) -> Instant {
        let gaps = self.pacer.gap().saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
        self.pacer.ready_at().max(now) + gaps
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }

    /// The next slot is for the first one.
    fn tell_first(&self) {
        self.waiting.front().inspect(|first| first.told.notify_one());
    }

    /// Everybody waits for longer than they were promised.
    fn tell_all(&self) {
        self.waiting.iter().for_each(|waiter| waiter.told.notify_one());
    }

    /// The request that was to start has begun to be sent, or never will be.
    fn started(&mut self, number: u64, now: Option<Instant>) {
        if self.starting != Some(number) {
            return;
        }
        self.starting = None;
        match now {
            Some(now) => self.pacer.on_wire(now),
            None => self.pacer.ended(),
        }
        self.tell_first();
    }
}

impl Place {
    fn turn(&self, now: Instant) -> Turn {
        let mut state = self.line.lock();
        let ahead = state.position(self.number).unwrap_or_default();
        let opens_at = match ahead == 0 && state.starting.is_none() {
            true => match state.pacer.start(now) {
                Ok(()) => return self.granted(&mut state, now),
                Err(opens_at) => Some(opens_at),
            },
            false => None,
        };
        let drain_at = state.drain_at.filter(|drain_at| *drain_at < self.leave_at);
        let leave_at = drain_at.unwrap_or(self.leave_at);
        let start = state.start_of(ahead, now);
        if start > leave_at || now >= leave_at {
            let too_frequent = Refusal::TooFrequent(start - now);
            return Turn::Refused(drain_at.map_or(too_frequent, |_| Refusal::ShuttingDown));
        }
        Turn::Wait(opens_at.unwrap_or(leave_at).min(leave_at))
    }

    fn granted(&self, state: &mut State, now: Instant) -> Turn {
        state.waiting.pop_front();
        state.starting = Some(self.number);
        Turn::Granted(Arc::new(Slot { line: Arc::clone(&self.line), number: self.number, started: now }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        // Whoever has had its slot has no place any more.
        if let Some(position) = state.position(self.number) {
            state.waiting.remove(position);
            state.tell_first();
        }
    }
}

impl Slot {
    /// The request has just been handed to a live connection.
    pub(super) fn on_wire(&self) {
        self.line.lock().started(self.number, Some(clock::now()));
    }

    /// The upstream did not answer.
    pub(super) fn failed(&self) {
        let mut state = self.line.lock();
        state.pacer.failed(self.started, clock::now(), fastrand::f64());
        state.tell_all();
    }

    /// Who reads the answer, after whom it is told to `other`: one that is short, or may be. Any other is judged by its
    /// status, and not held back for it.
    pub(super) fn reader<B: Body>(self: &Arc<Self>, answer: &Response<B>, other: Option<Reader>) -> Option<Reader> {
        let retry_after = client::retry_after(answer.headers());
        if other.is_none() && !may_be_envelope(answer) {
            self.answered(answer.status(), &[], retry_after);
            return None;
        }
        let slot = Arc::clone(self);
        Some(Box::new(move |status, body| {
            slot.answered(status, body, retry_after);
            if let Some(other) = other {
                other(status, body);
            }
        }))
    }

    fn answered(&self, status: StatusCode, body: &[u8], retry_after: Option<Duration>) {
        let mut state = self.line.lock();
        if upstream::is_throttled(status, body) {
            state.pacer.throttled(clock::now(), retry_after);
            state.tell_all();
            let (limit, gap_seconds) = (&*self.line.limit.path, state.pacer.gap().as_secs_f64());
            tracing::warn!(limit, gap_seconds, "the upstream refused a request as too frequent: the gap is now wider");
            return;
        }
        if upstream::is_refusal(status, body) {
            state.pacer.reached();
        } else {
            state.pacer.succeeded();
        }
        state.tell_first();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.line.lock().started(self.number, None);
    }
}

/// Whether an answer is worth to be held back until it is read: it is short, or may be.
pub(super) fn may_be_envelope<B: Body>(answer: &Response<B>) -> bool {
    let short = answer.body().size_hint().exact().map(|length| length <= HELD as u64);
    short.unwrap_or_else(|| is_json(answer.headers()))
}

/// Whether an answer is an envelope if it is short; a stream of JSON lines is none.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    media_type.is_none_or(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
