//! What several gateways with one slot count. There are such series only where there are such gateways.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{LATENCY_BUCKETS, Maker, Metrics};

/// The handles of a gateway that shares its slot.
#[derive(Clone)]
pub struct ReplicasMetrics {
    /// Whether there is a connection.
    pub connected: IntGauge,
    /// Slots that were granted and used.
    pub used: IntCounter,
    /// Slots that were granted and given back.
    pub void: IntCounter,
    /// Requests of other gateways of which nobody said what became of them.
    pub lost: IntCounter,
    /// Seconds that an operation took.
    pub operation: Histogram,
}

impl Metrics {
    /// The handles of a gateway that shares its slot. To be made once.
    #[must_use]
    pub fn replicas(&self) -> ReplicasMetrics {
        let make = Maker(&self.registry);
        let grants = make.counters("replicas_grants_total", "Slots granted to this gateway.", &["result"]);
        ReplicasMetrics {
            connected: make.gauge("replicas_connected", "Whether Redis is connected."),
            used: grants.with_label_values(&["used"]),
            void: grants.with_label_values(&["void"]),
            lost: make.counter("replicas_lost_total", "Requests of other gateways that were never heard of again."),
            operation: make.histogram("replicas_operation_seconds", "Time of one operation.", &LATENCY_BUCKETS),
        }
    }
}
