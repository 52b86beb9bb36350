//! How the keys of lookups were answered over the last two minutes: the counters, read every [`SAMPLE`].
//!
//! Nothing is counted twice and nobody who is answered pays: one task reads a dozen counters every two seconds.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::{self, Instant},
    metrics::{KEY_RESULTS, LookupMetrics},
};

/// How far two samples are apart: sixty columns of a chart in two minutes.
pub(super) const SAMPLE: Duration = Duration::from_secs(2);

/// Samples that are kept.
const SAMPLES: usize = 60;

/// What was counted in one span of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    /// When the span ended.
    pub(super) at: Instant,
    /// Keys, in the order of [`KeyResult::ALL`](crate::metrics::KeyResult::ALL).
    pub(super) keys: [u64; KEY_RESULTS],
}

/// The counters, and what they said.
pub struct History {
    counters: LookupMetrics,
    samples: Mutex<Samples>,
}

struct Samples {
    /// What the counters said last.
    totals: [u64; KEY_RESULTS],
    spans: VecDeque<Sample>,
}

impl History {
    /// The history of these counters, which begins now.
    #[must_use]
    pub fn new(counters: LookupMetrics) -> Self {
        let samples = Samples { totals: counters.totals(), spans: VecDeque::with_capacity(SAMPLES) };
        Self { counters, samples: Mutex::new(samples) }
    }

    /// Reads the counters until it is dropped.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(SAMPLE).await;
            self.sample(clock::now());
        }
    }

    fn sample(&self, now: Instant) {
        let totals = self.totals();
        let mut samples = self.samples();
        if samples.spans.len() == SAMPLES {
            samples.spans.pop_front();
        }
        let keys = std::array::from_fn(|result| totals[result] - samples.totals[result]);
        samples.spans.push_back(Sample { at: now, keys });
        samples.totals = totals;
    }

    /// What the counters say now.
    pub(super) fn totals(&self) -> [u64; KEY_RESULTS] {
        self.counters.totals()
    }

    /// What they said of each span, oldest first.
    pub(super) fn spans(&self) -> Vec<Sample> {
        self.samples().spans.iter().copied().collect()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{KeyResult, Metrics};

    #[tokio::test(start_paused = true)]
    async fn each_span_has_what_was_counted_in_it_and_two_minutes_are_kept() {
        let counters = Metrics::new().lookup(["phone", "thirdId"].into_iter());
        counters.keys(0, KeyResult::Hit, 1000);
        let history = History::new(counters.clone());
        let mut keep = std::pin::pin!(history.keep());
        for second in 0..300 {
            counters.keys(second % 2, KeyResult::Hit, 3);
            counters.keys(0, KeyResult::Miss, 1);
            let kept = tokio::time::timeout(Duration::from_secs(1), &mut keep).await;
            assert!(kept.is_err(), "it goes on");
        }
        let spans = history.spans();
        assert_eq!(spans.len(), 60);
        let last = spans.last().expect("sixty");
        assert!(clock::now() - last.at <= SAMPLE);
        assert!(clock::now() - spans[0].at <= Duration::from_secs(120));
        assert!(spans.iter().all(|span| span.keys == [6, 0, 0, 2, 0]), "{last:?}");
        assert_eq!(history.totals(), [1900, 0, 0, 300, 0]);
    }
}
