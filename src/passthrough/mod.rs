//! Everything that is no lookup: a streaming proxy to the same path upstream.
//!
//! - **Nothing is kept.** Bodies flow frame by frame in both directions; a side that does not read holds the other one up.
//! - **One request is one attempt**, dropped upstream the moment its future or its answer's body is dropped. It is over when
//!   its answer is, even where the upstream has not taken all of it.
//! - **Each side answers for itself.** A caller whose body breaks or stalls gets its 400 or 408; the upstream's time runs
//!   only while it is the upstream's turn (`exchange.rs`).
//! - **What passes is decided on the normal form of the path** ([`route`](crate::route)); nothing of path, query or
//!   headers is logged.
//! - **A path may have a pace of its own** ([`limit`]): its requests wait for their slots in a line.
//! - **A write makes old what it names** ([`invalidate`]): its body is read on the side, and its answer is held back only
//!   until that is done.
//! - An `Upgrade` is not passed on: such a request is answered like any other. A CONNECT is for tunnels, which this is not.

mod body;
mod exchange;
mod headers;
mod invalidate;
pub(crate) mod items;
mod judged;
mod limit;
mod tee;
#[cfg(test)]
mod tests;
mod tokens;
mod upload;
mod write;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ALLOW, TRAILER},
    request, response,
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Incoming};
use tower::BoxError;

use self::{
    body::Relayed,
    exchange::Exchange,
    invalidate::Writes,
    judged::{Judged, Reader},
    limit::Limits,
    tokens::Tokens,
    upload::{Claim, Upload},
};
pub use self::{
    invalidate::{Cached, Invalidate},
    limit::Limit,
};
use crate::{
    clock::{self, Instant},
    error::Refusal,
    key::Credential,
    live::Whole,
    metrics::StatusCounters,
    request::budget::{Budget, Share},
    route::Path,
    server::{Demand, METHODS},
    upstream::{self, client::Client},
};

/// The body of an answer, streamed.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// After how long a caller may ask an unreachable upstream again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What may pass through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Whether anything but lookups is answered at all.
    pub enabled: bool,
    /// Path prefixes that may pass, in the upstream's spelling without the base path; each starts with `/`.
    pub allow: Vec<String>,
    /// Path prefixes of requests that go upstream with the gateway's own token, where it has one.
    pub inject_token: Vec<String>,
    /// The paths whose requests are paced.
    pub limits: Vec<Limit>,
    /// The paths whose writes make cached keys old, the built-in ones among them.
    pub invalidate: Vec<Invalidate>,
}

/// How long each side may keep the other one waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// The caller, with its body.
    pub caller: Demand,
    /// The upstream: to take the next piece of the body, to begin its answer, and with each next piece of that.
    pub upstream: Duration,
}

/// What may change while it runs.
#[derive(Debug)]
pub struct Settings {
    /// What may pass; empty when nothing may.
    allow: Vec<Path>,
    timeouts: Timeouts,
}

impl Settings {
    /// Those of a configuration. A prefix that has no normal form allows nothing.
    #[must_use]
    pub fn new(config: &Config, timeouts: Timeouts) -> Self {
        Self { allow: if config.enabled { paths(&config.allow) } else { Vec::new() }, timeouts }
    }
}

/// The proxy.
pub struct Passthrough {
    settings: Whole<Settings>,
    client: Client,
    /// Whether the last request got no answer, which is said once.
    failing: AtomicBool,
    metrics: StatusCounters,
    writes: Writes,
    tokens: Tokens,
    /// What goes upstream with the gateway's own token; empty where it has none.
    inject_token: Vec<Path>,
    limits: Limits,
    /// What all that is kept of bodies may hold.
    budget: Budget,
}

impl Passthrough {
    /// A proxy to the client's upstream, with writes that make old what is cached. A prefix that has no normal form allows
    /// nothing.
    #[must_use]
    pub fn new(
        config: &Config,
        (client, timeouts): (Client, Timeouts),
        metrics: StatusCounters,
        cached: Cached,
    ) -> Self {
        Self {
            settings: Whole::new(Settings::new(config, timeouts)),
            failing: AtomicBool::new(false),
            inject_token: paths(&config.inject_token),
            tokens: Tokens::new(Arc::clone(client.credentials())),
            client,
            metrics,
            limits: Limits::new(&config.limits, clock::now()),
            budget: cached.budget.clone(),
            writes: Writes::new(&config.invalidate, cached),
        }
    }

    /// What may change.
    #[must_use]
    pub fn settings(&self) -> Whole<Settings> {
        self.settings.clone()
    }

    /// From then on nobody waits for a slot any more.
    pub fn drain(&self, at: Instant) {
        self.limits.drain(at);
    }

    /// Answers one request, whose path has been brought into its normal form.
    pub async fn handle<B>(&self, request: Request<B>, path: Path) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let response = match self.forward(request, &path).await {
            Ok(response) => response,
            Err(refusal) => {
                refusal.response().map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync())
            }
        };
        self.metrics.inc(response.status());
        response
    }

    async fn forward<B>(&self, request: Request<B>, path: &Path) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let tunnel = request.method() == Method::CONNECT;
        let settings = self.settings.now();
        if tunnel || !settings.allow.iter().any(|prefix| path.is_under(prefix)) {
            return Err(Refusal::NotFound);
        }
        let (mut parts, body) = request.into_parts();
        let method = parts.method.clone();
        if headers::is_last_hop(&method, &mut parts.headers) {
            return if method == Method::OPTIONS { Ok(options()) } else { Err(Refusal::NotFound) };
        }
        let mut parts = self.parts_for_upstream(parts, path, &body)?;
        let slot = self.limits.slot(path).await?;
        let injected = self.inject_token(&mut parts, path, settings.timeouts.upstream).await?;
        let exchange = Arc::new(Exchange::new(settings.timeouts, clock::now()));
        let write = self.writes.watch(&parts, path);
        let token = self.tokens.watch(&mut parts, path);
        let body = body.map_err(Into::into).boxed_unsync();
        let (upload, claim) = Upload::new(match &write {
            Some(write) => write.copied(body),
            None => body,
        });
        let body = Relayed::request(upload, Arc::clone(&exchange)).boxed_unsync();
        let on_wire = || slot.iter().for_each(|slot| slot.on_wire());
        let mut sending = pin!(self.client.send(Request::from_parts(parts, body), on_wire));
        let answered = tokio::select! {
            biased;
            answered = &mut sending => Some(answered),
            // The upstream has had its time; what was sent to it is dropped with the future.
            () = exchange.overdue() => None,
        };
        let unavailable = |reason| self.failed(Refusal::UpstreamUnavailable(RETRY_AFTER), reason);
        if let Some(Ok(response)) = answered {
            if self.failing.swap(false, Ordering::Relaxed) {
                tracing::warn!("requests can be passed through again");
            }
            // An answer that cannot be passed on drops the reader, and with that settles the write.
            let reader = match write {
                Some(write) => Some(Box::new(|status, body: &[u8]| write.answered(status, body)) as Reader),
                None => token,
            };
            let reader = match injected {
                Some(token) => self.injected_reader(&response, token, reader),
                None => reader,
            };
            let reader = match &slot {
                Some(slot) => slot.reader(&response, reader),
                None => reader,
            };
            let reader = reader.map(|reader| (reader, self.budget.share()));
            let answer = for_caller(response, &method, (exchange, claim), reader);
            return answer.ok_or_else(|| unavailable("no proper answer"));
        }
        // Whatever a broken request came to upstream, it is its caller's affair.
        if let Some(fault) = exchange.fault() {
            return Err(fault.refusal());
        }
        slot.iter().for_each(|slot| slot.failed());
        Err(match answered {
            Some(Err(error)) if error.is_connect() => {
                if let Some(write) = write {
                    write.not_sent();
                }
                unavailable("no connection")
            }
            Some(_) => unavailable("the connection broke"),
            None => self.failed(Refusal::UpstreamTimeout, "no answer in time"),
        })
    }

    /// Where the gateway's own token is meant to go, it takes the place of whatever the caller sent; which that is.
    async fn inject_token(
        &self,
        parts: &mut request::Parts,
        path: &Path,
        timeout: Duration,
    ) -> Result<Option<HeaderValue>, Refusal> {
        // What a TRACE carries comes back to the caller.
        if parts.method == Method::TRACE || !self.inject_token.iter().any(|prefix| path.is_under(prefix)) {
            return Ok(None);
        }
        let token = tokio::time::timeout(timeout, self.client.credentials().headers(&Credential::Gateway));
        let Ok(Ok(headers)) = token.await else {
            return Err(self.failed(Refusal::UpstreamUnavailable(RETRY_AFTER), "no token"));
        };
        let token = headers.last().map(|(_, token)| token.clone());
        for (name, value) in headers {
            parts.headers.insert(name, value);
        }
        Ok(token)
    }

    /// Who learns from an answer that the gateway's own token is not taken any more, after whom it is told to `other`.
    fn injected_reader(
        &self,
        answer: &Response<Incoming>,
        token: HeaderValue,
        other: Option<Reader>,
    ) -> Option<Reader> {
        let credentials = Arc::clone(self.client.credentials());
        if other.is_none() && !limit::may_be_envelope(answer) {
            if answer.status() == StatusCode::UNAUTHORIZED {
                credentials.refused_aside(&token, clock::now());
            }
            return None;
        }
        Some(Box::new(move |status, body| {
            if upstream::is_unauthorized(status, body) {
                credentials.refused_aside(&token, clock::now());
            }
            if let Some(other) = other {
                other(status, body);
            }
        }))
    }

    /// Logs why the upstream gave no answer, where that is handled: the first of several in a row as a warning.
    fn failed(&self, refusal: Refusal, reason: &'static str) -> Refusal {
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(reason, "another request could not be passed through");
        } else {
            tracing::warn!(reason, "a request could not be passed through");
        }
        refusal
    }

    fn parts_for_upstream(
        &self,
        mut parts: request::Parts,
        path: &Path,
        body: &impl HttpBody,
    ) -> Result<request::Parts, Refusal> {
        if !headers::is_plainly_framed(&parts.headers) {
            return Err(Refusal::InvalidRequest("the only transfer coding understood is chunked".into()));
        }
        headers::for_upstream(&mut parts, body.size_hint().exact());
        if body.size_hint().exact().is_some() {
            // Only a chunked body has trailers to announce.
            parts.headers.remove(TRAILER);
        }
        let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let uri = self.client.uri(&format!("{}{query}", path.forward()));
        parts.uri = uri.ok_or(Refusal::UnsafePath("the path makes no URI"))?;
        parts.version = Version::HTTP_11;
        // They concern the caller's connection.
        parts.extensions.clear();
        Ok(parts)
    }
}

/// The answer as the caller gets it, which keeps the request under way, once it has been read if it must be; `None` when
/// it is none that was asked for.
fn for_caller(
    response: Response<Incoming>,
    method: &Method,
    (exchange, claim): (Arc<Exchange>, Claim),
    reader: Option<(Reader, Share)>,
) -> Option<Response<Body>> {
    let (mut parts, body): (response::Parts, Incoming) = response.into_parts();
    // Other informational answers never get here; a change of protocol was not asked for.
    if parts.status.is_informational() || !headers::is_plainly_framed(&parts.headers) {
        return None;
    }
    headers::for_caller(&mut parts, method);
    parts.version = Version::HTTP_11;
    let body = Relayed::answer(body, exchange, claim);
    let body = match reader {
        Some((reader, share)) => Judged::new(body, parts.status, reader, share).boxed_unsync(),
        None => body.boxed_unsync(),
    };
    Some(Response::from_parts(parts, body))
}

/// The gateway's own answer to an OPTIONS that must not go further.
fn options() -> Response<Body> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

fn paths(prefixes: &[String]) -> Vec<Path> {
    prefixes.iter().filter_map(|prefix| Path::normalise(prefix, "").ok()).collect()
}
