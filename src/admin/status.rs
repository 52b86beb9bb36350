//! What the gateway is doing, in figures: the metrics and the status.
//!
//! All of it is read when somebody asks; only [`history`] goes on in between.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Admin, Path,
    history::{self, Sample},
    text,
};
use crate::{
    clock::{self, Instant},
    dispatch::{self, Warming, timeline::Slot},
    error::JSON,
    metrics::{KEY_RESULTS, KeyResult, Outcome, QueueGauges},
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
        let expiry = self.credentials.expires_in(now).map(|left| clock::unix_seconds() + left.as_secs_f64());
        self.metrics.token_expires(expiry.unwrap_or_default());
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
            "keys": counted(&self.history.totals()),
            "history": {
                "sample_seconds": seconds(history::SAMPLE),
                "keys": self.history.spans().iter().map(|span| aged(span, now)).collect::<Vec<_>>(),
            },
            "cache": { "keys": self.cache.keys(), "bytes": self.cache.bytes(), "capacity_bytes": self.capacity },
            "warmup": {
                "state": warming.map_or(Warming::Off, |path| path.dispatch.warming()).as_str(),
                "keys_fetched": self.metrics.warmup().fetched.get(),
                "keys_queued": warming.map_or(0, |path| path.dispatch.status(now).cold_keys),
            },
            "lookups": self.paths.iter().map(|path| self.path(path, now)).collect::<Vec<_>>(),
        });
        text(StatusCode::OK, JSON, status.to_string())
    }
}

impl Admin {
    fn path(&self, path: &Path, now: Instant) -> Value {
        let status = path.dispatch.status(now);
        let ended = self.metrics.dispatch(&path.shape.path);
        let requests = Outcome::ALL.map(|outcome| (outcome.as_str().to_owned(), ended.total(outcome).into()));
        let upstream = match status.health {
            dispatch::Health::Up => "up",
            dispatch::Health::Failing => "failing",
            dispatch::Health::Down => "down",
        };
        json!({
            "path": path.shape.path,
            "interval_seconds": seconds(path.config.now().interval),
            "gap_seconds": seconds(status.queue.gap),
            "max_batch_keys": path.config.now().max_batch_keys,
            "learned_max_batch_keys": status.max_batch_keys,
            "queue": {
                "waiting": status.queue.waiting,
                "refresh": status.queue.refresh,
                "abandoned": status.queue.abandoned,
                "oldest_seconds": seconds(status.queue.oldest),
                "promised_wait_seconds": seconds(status.promised_wait),
            },
            "upstream": {
                "state": upstream,
                "in_flight": status.in_flight,
                "requests": requests.into_iter().collect::<Map<_, _>>(),
            },
            "slots": path.dispatch.slots(now).iter().map(|slot| seen(slot, now)).collect::<Vec<_>>(),
        })
    }
}

/// Keys, by how they were answered.
fn counted(keys: &[u64; KEY_RESULTS]) -> Value {
    let named = KeyResult::ALL.iter().zip(keys).map(|(result, keys)| (result.as_str().to_owned(), (*keys).into()));
    Value::Object(named.collect())
}

fn aged(span: &Sample, now: Instant) -> Value {
    let mut keys = counted(&span.keys);
    keys["seconds_ago"] = ago(span.at, now).into();
    keys
}

fn seen(slot: &Slot, now: Instant) -> Value {
    json!({
        "seconds_ago": ago(slot.at, now),
        "idle": slot.idle,
        "under_way": slot.under_way,
        "answered": slot.answered,
        "refused": slot.refused,
        "failed": slot.failed,
        "keys": slot.keys,
    })
}

/// To the millisecond: nobody sees more of it in a chart.
fn ago(at: Instant, now: Instant) -> f64 {
    (seconds(now.saturating_duration_since(at)) * 1e3).round() / 1e3
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
