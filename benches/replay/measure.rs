//! What is measured of a policy, in the same way for each of them. `main.rs` says what the columns mean.

use std::time::Duration;

use crate::options::Options;

/// How long the pretend upstream takes to answer: a tenth of the usual interval, so that answers never limit the pace.
pub(crate) const LATENCY: Duration = Duration::from_millis(100);

/// How long an idle queue waits for company: the configuration's default.
pub(crate) const LINGER: Duration = Duration::from_millis(5);

/// What a lookup was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Everything was cached.
    Hit,
    /// What was not came in time.
    Served,
    /// It was turned away when it came.
    Refused,
    /// It waited in vain.
    TimedOut,
}

/// One lookup that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Who asked.
    pub(crate) client: usize,
    /// Its keys, and how many of them were not cached.
    pub(crate) asked: usize,
    pub(crate) missed: usize,
    /// Those of its keys that are hot, and how many of them were cached and fresh.
    pub(crate) hot: usize,
    pub(crate) hot_fresh: usize,
    pub(crate) fate: Fate,
    /// From its arrival until it was told.
    pub(crate) waited: Duration,
    /// How long that was expected to be.
    pub(crate) promised: Duration,
}

/// Starts of upstream requests, and the time between them that was nobody's fault but the policy's.
#[derive(Debug)]
pub(crate) struct Slots {
    gap: Duration,
    /// Since when somebody waits for a key that is not under way.
    since: Option<Duration>,
    /// When the next request could have started at the earliest.
    free_at: Duration,
    /// Time in which one could have started, and somebody waited for it.
    lost: Duration,
    starts: u32,
    keys: usize,
}

impl Slots {
    pub(crate) fn new(gap: Duration) -> Self {
        Self { gap, since: None, free_at: Duration::ZERO, lost: Duration::ZERO, starts: 0, keys: 0 }
    }

    /// The earliest start of a request, if anybody waits for one.
    pub(crate) fn opens_at(&self) -> Option<Duration> {
        self.since.map(|since| self.free_at.max(since + LINGER))
    }

    /// When the next request may start.
    pub(crate) fn free_at(&self) -> Duration {
        self.free_at
    }

    /// Somebody waits for a key that is not under way, or nobody does.
    pub(crate) fn waiting(&mut self, now: Duration, anybody: bool) {
        if anybody {
            self.since.get_or_insert(now);
        } else {
            self.count(now);
            self.since = None;
        }
    }

    /// A request starts.
    pub(crate) fn sent(&mut self, now: Duration, keys: usize) {
        self.count(now);
        self.free_at = now + self.gap;
        self.starts += 1;
        self.keys += keys;
    }

    fn count(&mut self, now: Duration) {
        if let Some(since) = self.since {
            self.lost += now.saturating_sub(since.max(self.free_at));
        }
    }
}

/// Everything about one policy's run.
pub(crate) struct Measure {
    told: Vec<Told>,
    interval: Duration,
    timeout: Duration,
    callers: usize,
}

impl Measure {
    /// Nothing yet.
    pub(crate) fn new(options: &Options) -> Self {
        let callers = options.clients.max(1) + usize::from(options.bulk > 0);
        Self { told: Vec::new(), interval: options.interval, timeout: options.timeout, callers }
    }

    pub(crate) fn tell(&mut self, told: Told) {
        self.told.push(told);
    }

    /// The run's row of the table.
    pub(crate) fn row(&self, slots: &Slots) -> Row {
        let of = |fate: Fate| self.told.iter().filter(move |told| told.fate == fate);
        let keys: usize = self.told.iter().map(|told| told.asked).sum();
        let missed: usize = self.told.iter().map(|told| told.missed).sum();
        let hot: usize = self.told.iter().map(|told| told.hot).sum();
        let hot_fresh: usize = self.told.iter().map(|told| told.hot_fresh).sum();
        let waits = of(Fate::Served).chain(of(Fate::TimedOut)).map(|told| told.waited.as_secs_f64());
        let off = |told: &Told| told.promised.abs_diff(told.waited).div_duration_f64(self.interval);
        let (used, starts) = (slots.gap * slots.starts, f64::from(slots.starts));
        Row {
            hits: part(keys.saturating_sub(missed) as f64, keys as f64),
            hot_fresh: part(hot_fresh as f64, hot as f64),
            requests: slots.starts,
            keys_per_request: part(slots.keys as f64, starts),
            used_while_waiting: part(used.as_secs_f64(), (used + slots.lost).as_secs_f64()),
            used: part(used.as_secs_f64(), slots.free_at.as_secs_f64()),
            waits: quantiles(waits.collect(), [0.5, 0.9, 0.99, 1.0]),
            refused: part(of(Fate::Refused).count() as f64, self.told.len() as f64),
            timed_out: part(of(Fate::TimedOut).count() as f64, self.told.len() as f64),
            fairness: self.fairness(),
            promise_off: quantiles(of(Fate::Served).map(off).collect(), [0.5, 0.95]),
        }
    }

    /// Jain's index over the clients' keys fetched per second of waiting.
    fn fairness(&self) -> f64 {
        let mut clients = vec![(0.0, 0.0); self.callers];
        for told in &self.told {
            let (fetched, seconds) = &mut clients[told.client];
            match told.fate {
                Fate::Hit => {}
                Fate::Served => {
                    *fetched += told.missed as f64;
                    *seconds += told.waited.as_secs_f64();
                }
                Fate::Refused | Fate::TimedOut => *seconds += self.timeout.as_secs_f64(),
            }
        }
        let waited = clients.into_iter().filter(|(_, seconds)| *seconds > 0.0);
        let service: Vec<f64> = waited.map(|(fetched, seconds)| fetched / seconds).collect();
        let squares: f64 = service.iter().map(|service| service * service).sum();
        part(service.iter().sum::<f64>().powi(2), service.len() as f64 * squares)
    }
}

/// One row of the table: parts are of one, waits in seconds, errors in intervals.
#[derive(PartialEq, Debug)]
pub(crate) struct Row {
    pub(crate) hits: f64,
    pub(crate) hot_fresh: f64,
    pub(crate) requests: u32,
    pub(crate) keys_per_request: f64,
    pub(crate) used_while_waiting: f64,
    pub(crate) used: f64,
    pub(crate) waits: [f64; 4],
    pub(crate) refused: f64,
    pub(crate) timed_out: f64,
    pub(crate) fairness: f64,
    pub(crate) promise_off: [f64; 2],
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { 0.0 }
}

/// The smallest values that so large a part of all does not exceed.
fn quantiles<const N: usize>(mut values: Vec<f64>, parts: [f64; N]) -> [f64; N] {
    values.sort_unstable_by(f64::total_cmp);
    let rank = |part: f64| (part * values.len() as f64).ceil() as usize;
    parts.map(|part| values.get(rank(part).saturating_sub(1)).copied().unwrap_or(0.0))
}
