//! What operators ask and order: is it alive, is it ready, what is it doing; forget this customer. A listener of its own,
//! never the callers'.
//!
//! [`page`] is for people, [`status`] answers in figures and [`history`] remembers two minutes of them, [`purge`] erases customers, [`events`] hears from the upstream which have changed.
//!
//! Invariant: nothing here shows a key, a record or a credential.

mod elsewhere;
mod events;
mod forget;
mod history;
mod log;
mod page;
mod purge;
mod readiness;
mod status;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use hyper::body::Body;
use serde_json::Value;
use tower::BoxError;

pub use self::{
    history::History,
    readiness::{Phase, Readiness},
};
use crate::{
    cache::Cache,
    clock::Instant,
    dispatch,
    error::{JSON, Refusal},
    key_log::KeyLog,
    live::{Count, Whole},
    log_filter::Control,
    metrics::{AdminMetrics, Metrics},
    request::Limits,
    server::Stats,
    shape::Shape,
    upstream::credentials::Credentials,
};

/// The media type of a plain word.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// What is said at a path that is none.
const PATHS: &str = "here are /, /livez, /readyz, /metrics, /status.json, /log, /purge and /events\n";

/// One lookup path.
pub struct Path {
    /// Its position in the configuration, which is part of every scope.
    pub position: u8,
    /// Its path and lists.
    pub shape: Arc<Shape>,
    /// Keys in one request.
    pub max_keys: Count,
    /// Its dispatchers.
    pub dispatch: Arc<dispatch::Fleet>,
    /// The limits of its dispatcher.
    pub config: Whole<dispatch::Config>,
}

/// The admin listener's service.
pub struct Admin {
    /// What every metric is read from.
    pub metrics: Arc<Metrics>,
    /// The gateway's own token, of which only the end is read.
    pub credentials: Arc<Credentials>,
    /// Its own counters.
    pub counters: AdminMetrics,
    /// The cache.
    pub cache: Arc<Cache>,
    /// The bytes it may hold.
    pub capacity: u64,
    /// The lookup paths.
    pub paths: Vec<Path>,
    /// The limits of a body.
    pub limits: Limits,
    /// The phase.
    pub readiness: Arc<Readiness>,
    /// How keys were answered lately.
    pub history: History,
    /// The callers' listener.
    pub server: Arc<Stats>,
    /// When the gateway was started.
    pub started: Instant,
    /// Where it says which keys were forgotten.
    pub key_log: KeyLog,
    /// Which lines are written.
    pub log: Arc<Control>,
}

impl Admin {
    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let (head, body) = request.into_parts();
        let answered = match (head.uri.path(), head.method == Method::POST) {
            ("/purge", true) => self.purge(&head.headers, body).await,
            ("/events", true) => self.event(&head.headers, body).await,
            ("/log", _) => self.log(&head.method, &head.headers, body).await,
            ("/purge" | "/events", false) => Err(Refusal::MethodNotAllowed),
            (path, _) => Ok(self.look(path, &head.method)),
        };
        answered.unwrap_or_else(|refusal| refusal.response())
    }

    fn look(&self, path: &str, method: &Method) -> Response<Bytes> {
        let answer: fn(&Self) -> Response<Bytes> = match path {
            "/" => Self::page,
            "/livez" => |_| text(StatusCode::OK, PLAIN, "ok\n"),
            "/readyz" => Self::readyz,
            "/metrics" => Self::metrics,
            "/status.json" => Self::status,
            _ => return text(StatusCode::NOT_FOUND, PLAIN, PATHS),
        };
        if *method == Method::GET || *method == Method::HEAD {
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
}

/// The envelope of an order that was carried out.
fn success(data: &Value) -> Response<Bytes> {
    text(StatusCode::OK, JSON, format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":{data}}}"#))
}

fn text(status: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
