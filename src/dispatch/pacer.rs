//! When the next upstream request may start: `start(n+1) ≥ start(n) + interval + margin`.
//!
//! Pure: every decision takes `now`. Rules:
//! - **Floor.** governor's GCRA with a burst of one, on a clock that stands where `now` stands, never lets two starts be
//!   closer than the interval, whatever else happens. A stall earns nothing: there is no burst after it.
//! - **Margin.** What the upstream measures is arrivals, and the way there jitters. The margin starts small, grows by half
//!   when the upstream refuses, and shrinks by a sixty-fourth of what it has grown while it does not: where the two
//!   balance, about one request in thirty is refused, and no slot in twenty is lost.
//! - **On the wire.** The gap counts from when a request was handed to a live connection: a connection that took 80 ms
//!   to make must not bring its request 80 ms nearer to the next one.
//! - **Back-off.** After a failure the next request waits a little longer than it would have to, and after the second
//!   one [`MAX_BACK_OFF`] intervals, less some jitter. That is hardly a back-off, on purpose: the pace is one request in
//!   an interval anyway and a probe carries one key, so that longer pauses spare the upstream nothing and only keep
//!   callers waiting when it is back. One success ends it at once. From the [`OUTAGE`]th failure in a row on, the
//!   upstream counts as down.
//! - **Retry-After** is obeyed, up to [`MAX_RETRY_AFTER`].

mod floor;
mod several;

use std::time::Duration;

use self::floor::Floor;
use crate::clock::Instant;

/// The margin to start with and to come back to, as a part of the interval: 25 ms of a second. On loopback with one
/// busy core, arrivals were seen to jitter by less than 10 ms.
const LEAST_MARGIN: f64 = 0.025;

/// The least margin in absolute terms, for short intervals: what a scheduler's tick may cost.
const LEAST_MARGIN_TIME: Duration = Duration::from_millis(4);

/// Which part of the margin above the least is given up at each success.
const SHRINK: u32 = 64;

/// The longest pause of the back-off, in intervals. The first caller after an outage waits for the probe that notices its
/// end, and for the slot after that: two and a half intervals.
pub const MAX_BACK_OFF: f64 = 1.5;

/// What the back-off counts in where there is no interval: a gateway that is restarted is back within a few.
const UNPACED_PAUSE: Duration = Duration::from_millis(500);

/// The part of a pause that jitter may take off, so that several gateways do not probe together.
const JITTER: f64 = 0.2;

/// How many failures in a row make an outage.
pub const OUTAGE: u32 = 3;

/// An upstream that asks for more patience than this is asked again all the same: a typing error in a header must not
/// stop the gateway for a day.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// After how many answers without one a refusal is over. Where the margin balances, one request in thirty is refused: that
/// is one long state, and not a new one each time.
const CALM: u32 = 50;

/// The pace of one lookup path.
pub struct Pacer {
    interval: Duration,
    margin: Duration,
    floor: Floor,
    origin: Instant,
    /// When the last request was started, or handed to its connection if that came later.
    last: Option<Instant>,
    /// The back-off that runs; a success ends it.
    back_off: Option<Instant>,
    /// The `Retry-After` that runs; nothing but time ends it.
    retry_at: Option<Instant>,
    /// When the last failure was noticed.
    failed_at: Option<Instant>,
    /// Whether the last request has been started but has no live connection yet.
    starting: bool,
    failures: u32,
    /// Whether the last answer was that the upstream is asked too often.
    refused: bool,
    /// How many answers have come since it last said so, until there are [`CALM`].
    calm: Option<u32>,
    /// Among how many the interval is shared.
    parts: u32,
}

impl Pacer {
    /// A pacer that grants its first start at once.
    #[must_use]
    pub fn new(interval: Duration, now: Instant) -> Self {
        let margin = least_margin(interval);
        Self {
            interval,
            margin,
            floor: Floor::new(interval),
            origin: now,
            last: None,
            back_off: None,
            retry_at: None,
            failed_at: None,
            starting: false,
            failures: 0,
            refused: false,
            calm: None,
            parts: 1,
        }
    }

    /// From now on this interval is kept, from the last start on. The margin stays what it is, if that is enough.
    pub fn set_interval(&mut self, interval: Duration) {
        if self.interval == interval {
            return;
        }
        // The new floor knows of no start: the gap from the last one on is kept by `ready_at`.
        self.floor = Floor::new(interval);
        self.interval = interval;
        self.margin = self.margin.clamp(least_margin(interval), interval.max(least_margin(interval)));
    }

    /// The gap now kept between starts, margin included.
    #[must_use]
    pub fn gap(&self) -> Duration {
        (self.interval + self.margin) * self.parts
    }

    /// The earliest moment at which a request may start; in the past when it may start now.
    #[must_use]
    pub fn ready_at(&self) -> Instant {
        let paced = self.last.map_or(self.origin, |last| last + self.gap());
        [self.back_off, self.retry_at].into_iter().flatten().fold(paced, Instant::max)
    }

    /// Takes the slot if there is one.
    ///
    /// # Errors
    /// The moment at which to ask again.
    pub fn start(&mut self, now: Instant) -> Result<(), Instant> {
        let ready_at = self.ready_at();
        if now < ready_at {
            return Err(ready_at);
        }
        let since_origin = now.saturating_duration_since(self.origin);
        if let Err(too_early) = self.floor.take(since_origin) {
            return Err(now + too_early.max(Duration::from_millis(1)));
        }
        self.last = Some(now);
        self.starting = true;
        Ok(())
    }

    /// Whether the last request is still waiting for its connection: until it has one, or has failed, nobody knows when
    /// it will arrive, and another must not be started.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.starting
    }

    /// The request that was started last is over, whether or not it ever had a connection.
    pub fn ended(&mut self) {
        self.starting = false;
    }

    /// The request that was started has just been handed to a live connection.
    pub fn on_wire(&mut self, now: Instant) {
        self.starting = false;
        self.last = self.last.max(Some(now));
    }

    /// The upstream answered.
    pub fn succeeded(&mut self) {
        self.reached();
        self.margin -= (self.margin - least_margin(self.interval)) / SHRINK;
    }

    /// The upstream was reached and refused for its own reasons: the pace is right, and it is not down.
    pub fn reached(&mut self) {
        self.failures = 0;
        self.refused = false;
        self.calm = self.calm.map(|answers| answers + 1).filter(|answers| *answers < CALM);
        self.back_off = None;
    }

    /// The upstream said that it is asked too often.
    pub fn throttled(&mut self, now: Instant, retry_after: Option<Duration>) {
        self.failures = 0;
        self.refused = true;
        self.calm = Some(0);
        self.margin = (self.margin * 3 / 2).min(self.interval);
        self.back_off = None;
        if let Some(wait) = retry_after {
            self.leave_alone(now, wait);
        }
    }

    /// The upstream says for how long it wants to be left alone.
    pub fn leave_alone(&mut self, now: Instant, wait: Duration) {
        self.retry_at = self.retry_at.max(Some(now + wait.min(MAX_RETRY_AFTER)));
    }

    /// The upstream did not answer a request that was `started` then. `jitter`, between 0 and 1, is how much of
    /// [`JITTER`] is taken off the pause.
    pub fn failed(&mut self, started: Instant, now: Instant, jitter: f64) {
        if self.failed_at.is_some_and(|failed_at| started < failed_at) {
            return; // It was under way when the failure was noticed: one break of the line, not two.
        }
        self.failed_at = Some(now);
        self.failures = self.failures.saturating_add(1);
        let pause = if self.failures == 1 { MAX_BACK_OFF / 2.0 } else { MAX_BACK_OFF };
        let unit = if self.interval.is_zero() { UNPACED_PAUSE } else { self.interval };
        self.back_off = Some(now + unit.mul_f64(pause * (1.0 - JITTER * jitter)));
    }

    /// Whether so many failures in a row suggest to risk no more than one key on the next request.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.failures >= OUTAGE - 1
    }

    /// Whether the last request failed, so that only one may be under way until one succeeds.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.failures > 0
    }

    /// Whether the upstream said not long ago that it is asked too often.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.calm.is_some()
    }

    /// Whether the last request failed or was refused.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.failures > 0 || self.refused
    }

    /// Whether the upstream counts as down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.failures >= OUTAGE
    }
}

fn least_margin(interval: Duration) -> Duration {
    interval.mul_f64(LEAST_MARGIN).max(LEAST_MARGIN_TIME).min(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pacer() -> (Pacer, Instant) {
        let now = crate::clock::now();
        (Pacer::new(SECOND, now), now)
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_an_interval_and_a_margin_apart() {
        let (mut pacer, now) = pacer();
        assert_eq!(pacer.start(now), Ok(()));
        assert_eq!(pacer.start(now + SECOND), Err(now + pacer.gap()));
        assert_eq!(pacer.start(now + pacer.gap()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_interval_only_failures_make_a_pause() {
        let now = crate::clock::now();
        let mut pacer = Pacer::new(Duration::ZERO, now);
        assert_eq!((pacer.start(now), pacer.start(now), pacer.gap()), (Ok(()), Ok(()), Duration::ZERO));
        pacer.failed(now, now, 0.0);
        assert_eq!(pacer.start(now), Err(now + UNPACED_PAUSE.mul_f64(MAX_BACK_OFF / 2.0)));
        pacer.succeeded();
        assert_eq!(pacer.start(now), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_earns_no_burst() {
        let (mut pacer, now) = pacer();
        assert_eq!(pacer.start(now), Ok(()));
        let late = now + SECOND * 60;
        assert_eq!(pacer.start(late), Ok(()));
        assert!(pacer.start(late).is_err());
        assert!(pacer.start(late + SECOND / 2).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_gap_counts_from_when_the_request_met_its_connection() {
        let (mut pacer, now) = pacer();
        assert_eq!(pacer.start(now), Ok(()));
        pacer.on_wire(now + SECOND / 4);
        assert_eq!(pacer.ready_at(), now + SECOND / 4 + pacer.gap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_widens_the_gap_and_successes_narrow_it_slowly() {
        let (mut pacer, now) = pacer();
        let least = pacer.gap();
        pacer.throttled(now, None);
        let widened = pacer.gap();
        assert!(widened > least);
        pacer.succeeded();
        assert!(pacer.gap() < widened && pacer.gap() > least);
        for _ in 0..1000 {
            pacer.throttled(now, None);
        }
        assert!(pacer.gap() <= SECOND * 2, "the margin is bounded");
        for _ in 0..5000 {
            pacer.succeeded();
        }
        assert!(pacer.gap() - least < Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_now_and_then_are_one_state_that_ends_after_many_answers_without_one() {
        let (mut pacer, now) = pacer();
        assert!(!pacer.is_throttled());
        for _ in 0..3 {
            pacer.throttled(now, None);
            for _ in 0..CALM - 1 {
                pacer.succeeded();
                assert!(pacer.is_throttled());
            }
        }
        pacer.reached();
        assert!(!pacer.is_throttled());
    }

    #[tokio::test(start_paused = true)]
    async fn another_interval_counts_from_the_last_start_on() {
        let (mut pacer, now) = pacer();
        assert_eq!(pacer.start(now), Ok(()));
        pacer.set_interval(SECOND * 3);
        assert!(pacer.ready_at() >= now + SECOND * 3);
        assert!(pacer.start(now + SECOND * 2).is_err());
        pacer.set_interval(SECOND / 2);
        let next = pacer.ready_at();
        assert!(next >= now + SECOND / 2 && next < now + SECOND);
        assert!(pacer.start(now + SECOND / 4).is_err());
        assert_eq!(pacer.start(next), Ok(()));
        assert!(pacer.start(next + SECOND / 4).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed_within_reason() {
        let (mut pacer, now) = pacer();
        pacer.throttled(now, Some(SECOND * 7));
        assert_eq!(pacer.ready_at(), now + SECOND * 7);
        pacer.succeeded();
        assert_eq!(pacer.ready_at(), now + SECOND * 7, "an older request's success does not end it");
        pacer.throttled(now, Some(SECOND * 86_400));
        assert_eq!(pacer.ready_at(), now + MAX_RETRY_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_break_together_are_one_failure() {
        let (mut pacer, now) = pacer();
        for started in 0..4 {
            pacer.failed(now + SECOND * started, now + SECOND * 5, 0.5);
        }
        assert!(pacer.is_probing() && !pacer.is_down());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_for_a_little_longer_than_the_pace_and_one_success_ends_it() {
        let (mut pacer, now) = pacer();
        for (jitter, pause) in [(0.0, 750), (0.0, 1500), (1.0, 1200), (0.0, 1500)] {
            pacer.failed(now, now, jitter);
            assert_eq!((pacer.ready_at() - now).as_millis(), pause);
        }
        assert!(pacer.is_down());
        pacer.succeeded();
        assert!(!pacer.is_down() && !pacer.is_probing());
        assert!(pacer.ready_at() <= now);
    }
}
