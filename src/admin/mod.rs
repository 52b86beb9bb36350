//! What operators ask: is it alive, is it ready, what is it doing. A listener of its own, never the callers'.
//!
//! Invariant: nothing here shows a key, a record or a credential.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use serde_json::json;

use crate::{
    cache::Cache,
    clock::{self, Instant},
    dispatch,
    error::JSON,
    metrics::{Metrics, QueueGauges},
    server::Stats,
};

/// The media type of the Prometheus text format.
const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// The media type of a plain word.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Whether the gateway wants to be sent callers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Not listening yet.
    Starting,
    /// Serving.
    Ready,
    /// Answering who is there, taking nobody new.
    Draining,
}

impl Phase {
    /// The word in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// The phase, shared with whoever changes it.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Default for Readiness {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }
}

impl Readiness {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

/// One lookup path as it is shown.
pub struct Queue {
    /// The path.
    pub path: String,
    /// Its dispatchers.
    pub dispatch: Arc<dispatch::Fleet>,
    /// The limits of its dispatcher.
    pub config: dispatch::Config,
}

/// The admin listener's service.
pub struct Admin {
    /// What every metric is read from.
    pub metrics: Arc<Metrics>,
    /// The cache.
    pub cache: Arc<Cache>,
    /// The bytes it may hold.
    pub capacity: u64,
    /// The lookup paths.
    pub queues: Vec<Queue>,
    /// The phase.
    pub readiness: Arc<Readiness>,
    /// The callers' listener.
    pub server: Arc<Stats>,
    /// When the gateway was started.
    pub started: Instant,
}

impl Admin {
    /// Answers one request.
    #[must_use]
    pub fn handle<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let answer: fn(&Self) -> Response<Bytes> = match request.uri().path() {
            "/livez" => |_| text(StatusCode::OK, PLAIN, "ok\n"),
            "/readyz" => Self::readyz,
            "/metrics" => Self::metrics,
            "/status.json" => Self::status,
            _ => return text(StatusCode::NOT_FOUND, PLAIN, "here are /livez, /readyz, /metrics and /status.json\n"),
        };
        if *request.method() == Method::GET || *request.method() == Method::HEAD {
            return answer(self);
        }
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "this is a GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    }

    fn readyz(&self) -> Response<Bytes> {
        match self.readiness.phase() {
            Phase::Ready => text(StatusCode::OK, PLAIN, "ok\n"),
            phase @ (Phase::Starting | Phase::Draining) => {
                text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{}\n", phase.as_str()))
            }
        }
    }

    fn metrics(&self) -> Response<Bytes> {
        let now = clock::now();
        let queues: Vec<(String, QueueGauges)> =
            self.queues.iter().map(|queue| (queue.path.clone(), queue.dispatch.status(now).queue)).collect();
        text(StatusCode::OK, METRICS_TEXT, self.metrics.render(self.cache.keys(), self.cache.bytes(), &queues))
    }

    fn status(&self) -> Response<Bytes> {
        let now = clock::now();
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": env!("GATEWAY_REVISION"),
            "phase": self.readiness.phase().as_str(),
            "time": clock::unix_seconds(),
            "uptime_seconds": seconds(now.saturating_duration_since(self.started)),
            "connections": { "open": self.server.open(), "refused": self.server.refused() },
            "cache": { "keys": self.cache.keys(), "bytes": self.cache.bytes(), "capacity_bytes": self.capacity },
            "lookups": self.queues.iter().map(|queue| queue.status(now)).collect::<Vec<_>>(),
        });
        text(StatusCode::OK, JSON, status.to_string())
    }
}

impl Queue {
    fn status(&self, now: Instant) -> serde_json::Value {
        let status = self.dispatch.status(now);
        let upstream = match status.health {
            dispatch::Health::Up => "up",
            dispatch::Health::Failing => "failing",
            dispatch::Health::Down => "down",
        };
        json!({
            "path": self.path,
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

fn text(status: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_is_what_was_entered_last() {
        let readiness = Readiness::default();
        assert_eq!(readiness.phase(), Phase::Starting);
        for phase in [Phase::Ready, Phase::Draining] {
            readiness.enter(phase);
            assert_eq!(readiness.phase(), phase);
        }
    }
}
