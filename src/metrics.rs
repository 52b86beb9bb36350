//! The Prometheus metrics: every name, label and bucket.
//!
//! Invariants: a label value never comes from a caller; the number of series is bounded by the configuration (see
//! [`STATUSES`]). What the parts hold are [`handles`].

mod handles;
mod labels;
mod replicas;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use self::replicas::ReplicasMetrics;
pub use self::{
    handles::{
        AdminMetrics, CacheMetrics, ClientCounter, ClientMetrics, DispatchMetrics, InvalidationMetrics, LookupMetrics,
        RouteMetrics, StatusCounters, StoreMetrics, WarmupMetrics,
    },
    labels::{EventOutcome, KEY_RESULTS, KeyResult, Outcome, Refresh, StoreRead, StoreSave, WriteOutcome},
};

/// The statuses that have a series of their own; any other is counted as `other`, so that an odd upstream cannot make
/// series without end.
pub const STATUSES: [u16; 22] =
    [200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 502, 503, 504];

/// Those of them that a lookup is answered with, by the gateway or by an upstream that is passed on; each path's others are
/// `other`, so that several paths and every named client stay under 300 series together.
const LOOKUP_STATUSES: [u16; 14] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 502, 503, 504];

/// Clients that have a series of their own, those that stand first in their file; with `other` that makes 32. All series
/// together stay under 300.
pub const CLIENTS: usize = 31;

/// Seconds, from a hit on loopback to a caller's longest wait.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Keys in one upstream request, from a lone key to the largest batch that anybody configures.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 500.0];

/// Seconds of one reading from the store, up to the longest that is waited for.
const STORE_BUCKETS: [f64; 7] = [0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.25];

/// What one queue looks like at the moment of a scrape.
#[derive(Clone, Copy, Default, Debug)]
pub struct QueueGauges {
    /// Keys that callers wait for.
    pub waiting: usize,
    /// Stale keys to be refreshed.
    pub refresh: usize,
    /// Keys whose callers gave up.
    pub abandoned: usize,
    /// How long the oldest of the waiting has waited.
    pub oldest: Duration,
    /// The gap now kept between upstream requests, margin included.
    pub gap: Duration,
    /// Whether the upstream counts as down.
    pub down: bool,
}

/// All metrics of the gateway.
pub struct Metrics {
    registry: Registry,
    scrape: Mutex<()>,
    requests: IntCounterVec,
    client_requests: ClientMetrics,
    duration: HistogramVec,
    keys: IntCounterVec,
    evictions: IntCounterVec,
    queue_wait: Histogram,
    queue_rejected: IntCounterVec,
    upstream_requests: IntCounterVec,
    upstream_duration: Histogram,
    upstream_batch: Histogram,
    slots: IntCounterVec,
    coalesced: IntCounter,
    refreshed: IntCounterVec,
    passthrough: IntCounterVec,
    invalidations: IntCounterVec,
    invalidated: IntCounter,
    events: IntCounterVec,
    purged_keys: IntCounter,
    warmup_keys: IntCounterVec,
    warmup_pages: IntCounterVec,
    connections_ended: IntCounterVec,
    compressed_records: IntCounter,
    compressed_bytes: IntCounterVec,
    dictionaries: IntCounter,
    cache_entries: IntGauge,
    cache_bytes: IntGauge,
    queue_keys: IntGaugeVec,
    queue_oldest: GaugeVec,
    interval: GaugeVec,
    upstream_up: IntGaugeVec,
    evicted_age: GaugeVec,
    token_expiry: GaugeVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own with every metric, and the process metrics.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let info = make.gauges("build_info", "Always 1; which build this is.", &["version", "revision"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("GATEWAY_REVISION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("this holds because the registry is new");
        let client_requests = make.counters("client_requests_total", "Requests of callers with a token.", &["client"]);
        Self {
            client_requests: ClientMetrics {
                other: client_requests.with_label_values(&["other"]),
                named: Arc::default(),
                requests: client_requests,
            },
            requests: make.counters("requests_total", "Requests answered.", &["route", "status"]),
            duration: make.histograms("request_duration_seconds", "Time to answer a request.", &["route"]),
            keys: make.counters("lookup_keys_total", "Keys looked up, by how they were answered.", &["kind", "result"]),
            evictions: make.counters("cache_evictions_total", "Cached customers and answers let go.", &["cause"]),
            queue_wait: make.histogram(
                "queue_wait_seconds",
                "Time from a key's arrival in the queue to its slot.",
                &LATENCY_BUCKETS,
            ),
            queue_rejected: make.counters("queue_rejected_total", "Lookups refused by the queue.", &["reason"]),
            upstream_requests: make.counters(
                "upstream_requests_total",
                "Upstream requests, by what became of them.",
                &["lookup", "outcome"],
            ),
            upstream_duration: make.histogram(
                "upstream_duration_seconds",
                "Time of one upstream request.",
                &LATENCY_BUCKETS,
            ),
            upstream_batch: make.histogram("upstream_batch_keys", "Keys in one upstream request.", &BATCH_BUCKETS),
            slots: make.counters("upstream_slots_total", "Slots in which an upstream request could start.", &["used"]),
            coalesced: make.counter("coalesced_keys_total", "Keys that were already under way for somebody else."),
            refreshed: make.counters("refreshed_keys_total", "Keys refreshed without a caller waiting.", &["how"]),
            passthrough: make.counters("passthrough_requests_total", "Requests passed through.", &["status"]),
            invalidations: make.counters("invalidations_total", "Writes passed through.", &["outcome"]),
            invalidated: make.counter("invalidated_keys_total", "Cached keys that writes made old."),
            events: make.counters("events_total", "Events that the upstream pushed.", &["outcome"]),
            purged_keys: make.counter("purged_keys_total", "Cached keys that a purge forgot."),
            warmup_keys: make.counters("warmup_keys_total", "Listed keys, by what the warm-up did.", &["result"]),
            warmup_pages: make.counters("warmup_pages_total", "Pages of the id list.", &["outcome"]),
            connections_ended: make.counters(
                "connections_ended_total",
                "Connections of callers that were refused or ended, and why.",
                &["reason"],
            ),
            compressed_records: make.counter("cache_compressed_records_total", "Cached records that were compressed."),
            compressed_bytes: make.counters(
                "cache_compressed_bytes_total",
                "Bytes of these records, before and after.",
                &["stage"],
            ),
            dictionaries: make.counter("cache_dictionaries_trained_total", "Dictionaries trained for compression."),
            cache_entries: make.gauge("cache_entries", "Keys that can be answered from the cache."),
            cache_bytes: make.gauge("cache_bytes", "Bytes of records and their overhead."),
            queue_keys: make.gauges("queue_keys", "Keys in the queue.", &["class"]),
            queue_oldest: make.float_gauges("queue_oldest_seconds", "How long the oldest waiting key has waited.", &[]),
            interval: make.float_gauges(
                "upstream_interval_seconds",
                "The gap now kept between upstream requests, margin included.",
                &["lookup"],
            ),
            upstream_up: make.gauges(
                "upstream_up",
                "Whether the upstream answers: 0 from the third failure in a row until it does again.",
                &["lookup"],
            ),
            evicted_age: make.float_gauges("cache_evicted_age_seconds", "Age of what was evicted last, or 0.", &[]),
            token_expiry: make.float_gauges(
                "upstream_token_expiry_timestamp_seconds",
                "When the gateway's own token ends; 0 where there is none.",
                &[],
            ),
            scrape: Mutex::default(),
            registry,
        }
    }

    /// The handles of everything that passes through.
    #[must_use]
    pub fn passing(&self) -> RouteMetrics {
        self.route_with("passthrough", &STATUSES)
    }

    /// The handles of a lookup path; its name comes from the configuration.
    #[must_use]
    pub fn route(&self, name: &str) -> RouteMetrics {
        self.route_with(name, &LOOKUP_STATUSES)
    }

    fn route_with(&self, name: &str, statuses: &[u16]) -> RouteMetrics {
        RouteMetrics {
            statuses: StatusCounters::new(statuses, |status| self.requests.with_label_values(&[name, status])),
            duration: self.duration.with_label_values(&[name]),
        }
    }

    /// The handles of the lookups of one path, for its kinds in their order.
    #[must_use]
    pub fn lookup<'a>(&self, kinds: impl Iterator<Item = &'a str>) -> LookupMetrics {
        let counters = |kind: &str| KeyResult::ALL.map(|result| self.keys.with_label_values(&[kind, result.as_str()]));
        LookupMetrics { keys: kinds.map(counters).collect() }
    }

    /// Makes the handles of clients.
    #[must_use]
    pub fn clients(&self) -> ClientMetrics {
        self.client_requests.clone()
    }

    /// The cache's handles.
    #[must_use]
    pub fn cache(&self) -> CacheMetrics {
        let bytes = |stage| self.compressed_bytes.with_label_values(&[stage]);
        CacheMetrics {
            evicted_for_size: self.evictions.with_label_values(&["size"]),
            evicted_age: self.evicted_age.with_label_values::<&str>(&[]),
            packed_records: self.compressed_records.clone(),
            bytes_before_packing: bytes("before"),
            bytes_after_packing: bytes("after"),
            dictionaries: self.dictionaries.clone(),
        }
    }

    /// The handles of the dispatcher of one lookup path.
    #[must_use]
    pub fn dispatch(&self, lookup: &str) -> DispatchMetrics {
        DispatchMetrics {
            outcomes: Outcome::ALL.map(|outcome| self.upstream_requests.with_label_values(&[lookup, outcome.as_str()])),
            wait: self.queue_wait.clone(),
            upstream_duration: self.upstream_duration.clone(),
            batch_keys: self.upstream_batch.clone(),
            slots_used: self.slots.with_label_values(&["true"]),
            slots_idle: self.slots.with_label_values(&["false"]),
            coalesced: self.coalesced.clone(),
            refreshed: Refresh::ALL.map(|how| self.refreshed.with_label_values(&[how.as_str()])),
            rejected_deadline: self.queue_rejected.with_label_values(&["deadline"]),
            rejected_full: self.queue_rejected.with_label_values(&["full"]),
            rejected_outage: self.queue_rejected.with_label_values(&["outage"]),
            warmup: self.warmup(),
        }
    }

    /// The warm-up's handles.
    #[must_use]
    pub fn warmup(&self) -> WarmupMetrics {
        WarmupMetrics {
            fetched: self.warmup_keys.with_label_values(&["fetched"]),
            already_cached: self.warmup_keys.with_label_values(&["already_cached"]),
            pages: self.warmup_pages.with_label_values(&["success"]),
            failed_pages: self.warmup_pages.with_label_values(&["failed"]),
        }
    }

    /// The store's handles, made once: without a store there are no such series, and of those that only one on a disk or only
    /// one in Redis has, there are that one's.
    #[must_use]
    pub fn store(&self, is_shared: bool) -> StoreMetrics {
        let (make, unseen) = (Maker(&self.registry), Registry::new());
        let (disk, redis) = if is_shared { (&unseen, &self.registry) } else { (&self.registry, &unseen) };
        let reads = make.counters("store_reads_total", "Keys read from the store, and what came.", &["result"]);
        let saves = make.counters("store_saves_total", "Upstream answers to be stored.", &["result"]);
        StoreMetrics {
            reads: StoreRead::ALL.map(|read| reads.with_label_values(&[read.as_str()])),
            saves: StoreSave::ALL.map(|save| saves.with_label_values(&[save.as_str()])),
            dropped: saves.with_label_values(&["dropped"]),
            bytes: Maker(disk).gauge("store_bytes", "Bytes of the store on the disk."),
            connected: Maker(redis).gauge("store_connected", "1 while the store in Redis is connected."),
            read_seconds: make.histogram("store_read_seconds", "Time of one reading.", &STORE_BUCKETS),
        }
    }

    /// Counts passed-through answers by status.
    #[must_use]
    pub fn passthrough(&self) -> StatusCounters {
        StatusCounters::new(&STATUSES, |status| self.passthrough.with_label_values(&[status]))
    }

    /// The handles of what passed-through writes make old.
    #[must_use]
    pub fn invalidation(&self) -> InvalidationMetrics {
        InvalidationMetrics {
            outcomes: WriteOutcome::ALL.map(|outcome| self.invalidations.with_label_values(&[outcome.as_str()])),
            keys: self.invalidated.clone(),
        }
    }

    /// The handles of what operators and the upstream's events change.
    #[must_use]
    pub fn admin(&self) -> AdminMetrics {
        AdminMetrics {
            events: EventOutcome::ALL.map(|outcome| self.events.with_label_values(&[outcome.as_str()])),
            purged_keys: self.purged_keys.clone(),
        }
    }

    /// What the server has counted by now, which only grows.
    pub fn connections_ended(&self, by_reason: &[(&str, u64)]) {
        // One scrape at a time, so that none adds what another has added already.
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, total) in by_reason {
            let counter = self.connections_ended.with_label_values(&[reason]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// When the gateway's own token ends, in Unix time; 0 where there is none.
    pub fn token_expires(&self, unix_seconds: f64) {
        self.token_expiry.with_label_values::<&str>(&[]).set(unix_seconds);
    }

    /// The text of a scrape, with the gauges set to what was just read.
    #[must_use]
    pub fn render(&self, cache_keys: usize, cache_bytes: u64, queues: &[(String, QueueGauges)]) -> Vec<u8> {
        self.cache_entries.set(i64::try_from(cache_keys).unwrap_or(i64::MAX));
        self.cache_bytes.set(i64::try_from(cache_bytes).unwrap_or(i64::MAX));
        let sum = |field: fn(&QueueGauges) -> usize| {
            i64::try_from(queues.iter().map(|(_, queue)| field(queue)).sum::<usize>()).unwrap_or(i64::MAX)
        };
        self.queue_keys.with_label_values(&["waiting"]).set(sum(|queue| queue.waiting));
        self.queue_keys.with_label_values(&["refresh"]).set(sum(|queue| queue.refresh));
        self.queue_keys.with_label_values(&["abandoned"]).set(sum(|queue| queue.abandoned));
        let oldest = queues.iter().map(|(_, queue)| queue.oldest).max().unwrap_or_default();
        self.queue_oldest.with_label_values::<&str>(&[]).set(oldest.as_secs_f64());
        for (lookup, queue) in queues {
            self.interval.with_label_values(&[lookup]).set(queue.gap.as_secs_f64());
            self.upstream_up.with_label_values(&[lookup]).set(i64::from(!queue.down));
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("this holds because every metric has a name and a vector never fails to grow");
        text
    }
}

/// Makes metrics with the prefix and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("this holds because the names are literals and valid");
        self.0.register(Box::new(metric.clone())).expect("this holds because no name is given twice");
        metric
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("gateway_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Self::opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Self::opts(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(LATENCY_BUCKETS.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }
}
