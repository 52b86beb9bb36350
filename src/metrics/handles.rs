//! The handles that the parts hold: made once, so that counting costs an atomic addition and no label lookup.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::{
    CLIENTS, EventOutcome, KEY_RESULTS, KeyResult, Outcome, Refresh, STATUSES, StoreRead, StoreSave, WriteOutcome,
};

/// Counts the answers of one route by status.
#[derive(Clone)]
pub struct StatusCounters {
    pub(super) known: [IntCounter; STATUSES.len()],
    pub(super) other: IntCounter,
}

impl StatusCounters {
    pub(super) fn new(told_apart: &[u16], make: impl Fn(&str) -> IntCounter) -> Self {
        let other = make("other");
        let of = |status: u16| if told_apart.contains(&status) { make(&status.to_string()) } else { other.clone() };
        Self { known: STATUSES.map(of), other }
    }

    /// Counts one answer.
    pub fn inc(&self, status: StatusCode) {
        match STATUSES.binary_search(&status.as_u16()) {
            Ok(position) => self.known[position].inc(),
            Err(_) => self.other.inc(),
        }
    }
}

/// The handles of one route: a lookup path, or everything that passes through.
#[derive(Clone)]
pub struct RouteMetrics {
    pub(super) statuses: StatusCounters,
    pub(super) duration: Histogram,
}

impl RouteMetrics {
    /// Counts one answered request.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.statuses.inc(status);
        self.duration.observe(took.as_secs_f64());
    }
}

/// Makes the handles of clients, of which no more than [`CLIENTS`] have a series of their own.
#[derive(Clone)]
pub struct ClientMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) named: Arc<Mutex<HashSet<String>>>,
    pub(super) other: IntCounter,
}

impl ClientMetrics {
    /// The handle of a client; its name comes from the configuration.
    #[must_use]
    pub fn client(&self, name: &str) -> ClientCounter {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= CLIENTS && !named.contains(name) {
            return ClientCounter(self.other.clone());
        }
        named.insert(name.to_owned());
        ClientCounter(self.requests.with_label_values(&[name]))
    }
}

/// Counts the requests of one client.
#[derive(Clone)]
pub struct ClientCounter(IntCounter);

impl ClientCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.inc();
    }
}

/// The handles of the lookups of one path.
#[derive(Clone)]
pub struct LookupMetrics {
    pub(super) keys: Box<[[IntCounter; KEY_RESULTS]]>,
}

impl LookupMetrics {
    /// How many keys of all kinds have been answered in each way.
    #[must_use]
    pub fn totals(&self) -> [u64; KEY_RESULTS] {
        std::array::from_fn(|result| self.keys.iter().map(|of_kind| of_kind[result].get()).sum())
    }

    /// Counts how a number of keys of one kind were answered.
    pub fn keys(&self, kind: usize, result: KeyResult, count: u64) {
        self.keys[kind][result as usize].inc_by(count);
    }
}

/// The cache's handles.
#[derive(Clone)]
pub struct CacheMetrics {
    /// Residents that the byte limit pushed out.
    pub evicted_for_size: IntCounter,
    /// Seconds from the fetch of the last of them until then.
    pub evicted_age: Gauge,
    /// Records that were compressed.
    pub packed_records: IntCounter,
    /// What they took before.
    pub bytes_before_packing: IntCounter,
    /// What they take since.
    pub bytes_after_packing: IntCounter,
    /// Dictionaries trained.
    pub dictionaries: IntCounter,
}

/// The store's handles.
#[derive(Clone)]
pub struct StoreMetrics {
    pub(super) reads: [IntCounter; StoreRead::ALL.len()],
    pub(super) saves: [IntCounter; StoreSave::ALL.len()],
    /// Upstream answers that were let go before they were stored.
    pub dropped: IntCounter,
    /// Bytes on the disk.
    pub bytes: IntGauge,
    /// Whether there is a connection to Redis.
    pub connected: IntGauge,
    /// Seconds of one reading.
    pub read_seconds: Histogram,
}

impl StoreMetrics {
    /// Counts keys that were read.
    pub fn read(&self, read: StoreRead, keys: usize) {
        self.reads[read as usize].inc_by(keys as u64);
    }

    /// Counts upstream answers.
    pub fn save(&self, save: StoreSave, answers: usize) {
        self.saves[save as usize].inc_by(answers as u64);
    }
}

/// The handles of what passed-through writes make old.
#[derive(Clone)]
pub struct InvalidationMetrics {
    pub(super) outcomes: [IntCounter; WriteOutcome::ALL.len()],
    /// Cached keys that writes made old.
    pub keys: IntCounter,
}

impl InvalidationMetrics {
    /// Counts one write.
    pub fn outcome(&self, outcome: WriteOutcome) {
        self.outcomes[outcome as usize].inc();
    }
}

/// The handles of what operators and the upstream's events change.
#[derive(Clone)]
pub struct AdminMetrics {
    pub(super) events: [IntCounter; EventOutcome::ALL.len()],
    /// Cached keys that a purge forgot.
    pub purged_keys: IntCounter,
}

impl AdminMetrics {
    /// Counts one event.
    pub fn event(&self, outcome: EventOutcome) {
        self.events[outcome as usize].inc();
    }
}

/// The handles of the warm-up.
#[derive(Clone)]
pub struct WarmupMetrics {
    /// Keys that the upstream answered in idle slots before anybody had asked for them.
    pub fetched: IntCounter,
    /// Keys that were passed over.
    pub already_cached: IntCounter,
    /// Pages of the id list that came.
    pub pages: IntCounter,
    /// Pages that did not.
    pub failed_pages: IntCounter,
}

/// The handles of the dispatcher of one lookup path.
#[derive(Clone)]
pub struct DispatchMetrics {
    pub(super) outcomes: [IntCounter; Outcome::ALL.len()],
    /// Seconds from a key's arrival in the queue until its batch is sealed.
    pub wait: Histogram,
    /// Seconds from a slot until the upstream's whole answer.
    pub upstream_duration: Histogram,
    /// Keys in one upstream request.
    pub batch_keys: Histogram,
    /// Slots in which a request was started.
    pub slots_used: IntCounter,
    /// Slots that passed with nothing to ask.
    pub slots_idle: IntCounter,
    /// Keys that another caller had already asked for when they were asked.
    pub coalesced: IntCounter,
    pub(super) refreshed: [IntCounter; Refresh::ALL.len()],
    /// Lookups refused because the queue cannot make their deadline.
    pub rejected_deadline: IntCounter,
    /// Lookups refused because the queue is full.
    pub rejected_full: IntCounter,
    /// Lookups refused because the upstream is down.
    pub rejected_outage: IntCounter,
    /// The warm-up's, which are one for all paths.
    pub warmup: WarmupMetrics,
}

impl DispatchMetrics {
    /// Counts keys that were asked again without a caller waiting.
    pub fn refreshed(&self, how: Refresh, keys: usize) {
        self.refreshed[how as usize].inc_by(keys as u64);
    }

    /// Counts what became of one upstream request.
    pub fn outcome(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }

    /// How many upstream requests have ended so.
    #[must_use]
    pub fn total(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].get()
    }
}
