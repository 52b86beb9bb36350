//! What the gateway is doing, in figures: the metrics and the status.
//!
//! Both are read when somebody asks; nothing here is kept up to date in between.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::{Admin, Path, text};
use crate::{
    clock::{self, Instant},
    dispatch::{self, Warming},
    error::JSON,
    metrics::QueueGauges,
    server::Reason,
};

/// The media type of the Prometheus text format.
const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl Admin {
    pub(super) fn metrics(&self) -> Response<Bytes> {
        let now = clock::now();
        let queues: Vec<(String, QueueGauges)> =
            self.paths.iter().map(|path| (path.shape.path.clone(), path.dispatch.status(now).queue)).collect();
        let ended = Reason::ALL.map(|reason| (reason.as_str(), self.server.ended(reason)));
        self.metrics.connections_ended(&ended);
        text(StatusCode::OK, METRICS_TEXT, self.metrics.render(self.cache.keys(), self.cache.bytes(), &queues))
    }

    pub(super) fn status(&self) -> Response<Bytes> {
        let now = clock::now();
        let warming = self.paths.iter().find(|path| path.dispatch.warming() != Warming::Off);
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": env!("GATEWAY_REVISION"),
            "phase": self.readiness.phase().as_str(),
            "time": clock::unix_seconds(),
            "uptime_seconds": seconds(now.saturating_duration_since(self.started)),
            "connections": { "open": self.server.open(), "refused": self.server.ended(Reason::Overloaded) },
            "cache": { "keys": self.cache.keys(), "bytes": self.cache.bytes(), "capacity_bytes": self.capacity },
            "warmup": {
                "state": warming.map_or(Warming::Off, |path| path.dispatch.warming()).as_str(),
                "keys_fetched": self.metrics.warmup().fetched.get(),
                "keys_queued": warming.map_or(0, |path| path.dispatch.status(now).cold_keys),
            },
            "lookups": self.paths.iter().map(|path| path.status(now)).collect::<Vec<_>>(),
        });
        text(StatusCode::OK, JSON, status.to_string())
    }
}

impl Path {
    fn status(&self, now: Instant) -> serde_json::Value {
        let status = self.dispatch.status(now);
        let upstream = match status.health {
            dispatch::Health::Up => "up",
            dispatch::Health::Failing => "failing",
            dispatch::Health::Down => "down",
        };
        json!({
            "path": self.shape.path,
            "interval_seconds": seconds(self.config.interval),
            "gap_seconds": seconds(status.queue.gap),
            "max_batch_keys": self.config.max_batch_keys,
            "learned_max_batch_keys": status.max_batch_keys,
            "queue": {
                "waiting": status.queue.waiting,
                "refresh": status.queue.refresh,
                "abandoned": status.queue.abandoned,
                "oldest_seconds": seconds(status.queue.oldest),
                "promised_wait_seconds": seconds(status.promised_wait),
            },
            "upstream": { "state": upstream, "in_flight": status.in_flight },
        })
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
