//! One HTTP client for everything that goes upstream.
//!
//! Invariants: one request is one attempt (hyper repeats it only when it never began to be written); the whole of a
//! lookup's answer arrives within `request_timeout` and `max_response`; the moment a request is handed to a live
//! connection is reported, so that the pace is kept between requests and not between connection attempts.
//!
//! Where the upstream offers HTTP/2 in TLS that is what is spoken. Lookups have a connection apart from what passes through,
//! so that they wait for nothing else; and a caller who does not read its answer holds up nobody: the connection's window
//! has room for the whole [window](STREAM_WINDOW) of each of its streams.

use std::{borrow::Cow, error::Error, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as HyperClient, Error as HyperError, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::error::Elapsed;
use tower::BoxError;

use super::{
    Config, Kind,
    connect::{Connector, Dial},
    credentials::Credentials,
    relay,
    verdict::{Ask, PassedOn, Verdict},
    wire::{self, Meaning},
};
use crate::{
    key::{Credential, CredentialHeaders},
    shape::Shape,
};

/// A body on its way upstream.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An idle connection is dropped before common servers drop it (Tomcat: 20 s), so that a request rarely meets a
/// connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// Bytes that are read ahead of who reads an answer over HTTP/1, and the longest head of one. hyper would take 408 KiB, for each
/// of ten thousand callers who do not read what passes through.
const READ_AHEAD: usize = 64 << 10;

/// How often an HTTP/2 connection with a request under way is asked whether it is still there: one that broke without a
/// word would otherwise take the next request, too.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of one answer that may be on their way: at 20 ms there and back, 12 MB in a second.
const STREAM_WINDOW: u32 = 256 << 10;

/// Answers that one connection has room for. Servers commonly allow 100 to 250 at once.
const STREAMS: u32 = 256;

/// `audience-gateway/1.2.3`.
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The upstream, as the dispatcher and the pass-through reach it.
#[derive(Clone)]
pub struct Client {
    /// For what the gateway asks itself.
    own: HyperClient<Connector, Body>,
    /// For what passes through.
    passing: HyperClient<Connector, Body>,
    config: Arc<Config>,
    credentials: Arc<Credentials>,
}

/// A whole answer, as it came.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, within `upstream.max_response`.
    pub body: Bytes,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// It is over `upstream.max_response`.
    TooLarge,
    /// It did not come, and why; never a word of the request or the answer.
    Unavailable(Cow<'static, str>),
}

impl Client {
    /// A client that makes its connections with `dial`.
    #[must_use]
    pub fn new(config: Config, dial: Arc<dyn Dial>) -> Self {
        let connector =
            Connector { dial, connect_timeout: config.connect_timeout, write_timeout: config.request_timeout };
        let client = || {
            HyperClient::builder(TokioExecutor::new())
                .http1_max_buf_size(READ_AHEAD)
                .pool_idle_timeout(POOL_IDLE)
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(STREAM_WINDOW * STREAMS)
                .http2_keep_alive_interval(PING_INTERVAL)
                .http2_keep_alive_timeout(config.connect_timeout)
                .build(connector.clone())
        };
        let (own, passing) = (client(), client());
        let credentials = Arc::new(Credentials::new(config.credentials.clone()));
        Self { own, passing, config: Arc::new(config), credentials }
    }

    /// Who callers are to the upstream.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Sends a request that passes through as it is and returns the answer with its body still to come. `on_wire` is
    /// called once the request is handed to a live connection.
    ///
    /// # Errors
    /// When no connection can be made or it breaks before an answer.
    pub async fn send(
        &self,
        request: Request<Body>,
        on_wire: impl FnOnce() + Send,
    ) -> Result<Response<Incoming>, HyperError> {
        send(&self.passing, request, on_wire).await
    }

    /// The upstream's URI for a path below the base URL, with its query.
    #[must_use]
    pub fn uri(&self, path_and_query: &str) -> Option<Uri> {
        let mut parts = self.config.base_url.clone().into_parts();
        let base = self.config.base_url.path().trim_end_matches('/');
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{base}{path_and_query}")).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Asks for the keys of one batch. `on_wire` is called once the request is handed to a live connection.
    pub async fn ask(&self, shape: &Shape, ask: &Ask, on_wire: impl FnOnce() + Send) -> Verdict {
        let timeout = self.config.request_timeout;
        let headers = tokio::time::timeout(timeout, self.credentials.headers(&ask.scope.credential));
        let Ok(Ok(headers)) = headers.await else {
            return Verdict::Unavailable("there is no token to ask with".into(), None);
        };
        let verdict = match self.exchange(shape, ask, headers.clone(), on_wire).await {
            Ok(answer) if self.config.kind == Kind::Gateway => relay::verdict(&answer, shape, ask),
            Ok(answer) => answer.verdict(shape, ask),
            Err(NoAnswer::TooLarge) => return Verdict::TooLarge,
            Err(NoAnswer::Unavailable(reason)) => return Verdict::Unavailable(reason, None),
        };
        match verdict {
            Verdict::Unauthorized(refusal) => {
                let renewed = self.credentials.refused(&ask.scope.credential, &headers);
                let renewed = tokio::time::timeout(timeout, renewed).await == Ok(true);
                if renewed { Verdict::Renewed } else { Verdict::Unauthorized(refusal) }
            }
            Verdict::Success(_) if ask.scope.credential == Credential::Gateway => {
                headers.iter().for_each(|(_, token)| self.credentials.taken(token));
                verdict
            }
            _ => verdict,
        }
    }

    /// The same on behalf of whoever has these headers, with the answer as it came.
    ///
    /// # Errors
    /// When there is no whole answer within the limits.
    pub async fn exchange(
        &self,
        shape: &Shape,
        ask: &Ask,
        headers: CredentialHeaders,
        on_wire: impl FnOnce() + Send,
    ) -> Result<Answer, NoAnswer> {
        let asking = self.post(shape, ask, headers, on_wire);
        tokio::time::timeout(self.config.request_timeout, asking).await.map_err(late)?
    }

    /// Gets what stands at a path below the base URL, on behalf of whoever has these headers.
    ///
    /// # Errors
    /// When there is no whole answer within the limits.
    pub async fn get(&self, path_and_query: &str, credential: &CredentialHeaders) -> Result<Answer, NoAnswer> {
        let uri = self.uri(path_and_query).ok_or(NoAnswer::Unavailable("the path makes no URI".into()))?;
        let body = Full::default().map_err(|never| match never {});
        let mut request = Request::new(body.boxed_unsync());
        *request.uri_mut() = uri;
        identify(request.headers_mut(), credential);
        let exchange = async { self.whole(self.own.request(request).await).await };
        tokio::time::timeout(self.config.request_timeout, exchange).await.map_err(late)?
    }

    async fn post(
        &self,
        shape: &Shape,
        ask: &Ask,
        credential: CredentialHeaders,
        on_wire: impl FnOnce() + Send,
    ) -> Result<Answer, NoAnswer> {
        let uri = self.uri(&shape.path).ok_or(NoAnswer::Unavailable("the path makes no URI".into()))?;
        let body = Full::from(wire::request_body(shape, ask)).map_err(|never| match never {});
        let mut request = Request::new(body.boxed_unsync());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, crate::error::JSON);
        identify(headers, &credential);
        ask.trace.iter().for_each(|trace| trace.write(headers));
        if self.config.kind == Kind::Gateway {
            relay::demand(headers, &ask.demand, crate::clock::now());
        }
        self.whole(send(&self.own, request, on_wire).await).await
    }

    async fn whole(&self, response: Result<Response<Incoming>, HyperError>) -> Result<Answer, NoAnswer> {
        match response {
            Ok(response) => self.read(response).await,
            Err(error) if error.is_connect() => {
                Err(NoAnswer::Unavailable(format!("no connection: {}", cause(&error)).into()))
            }
            Err(error) => Err(NoAnswer::Unavailable(format!("the connection broke: {}", cause(&error)).into())),
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, NoAnswer> {
        let (parts, body) = response.into_parts();
        match Limited::new(body, self.config.max_response).collect().await {
            Ok(body) => Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => Err(NoAnswer::TooLarge),
            Err(_error) => Err(NoAnswer::Unavailable("the answer broke off".into())),
        }
    }
}

async fn send(
    client: &HyperClient<Connector, Body>,
    mut request: Request<Body>,
    on_wire: impl FnOnce() + Send,
) -> Result<Response<Incoming>, HyperError> {
    let mut connection = capture_connection(&mut request);
    let connected = async { drop(connection.wait_for_connection_metadata().await) };
    let mut sending = pin!(client.request(request));
    tokio::select! {
        biased;
        response = &mut sending => response,
        // Reported while the answer is still to come: the next slot counts from here.
        () = connected => {
            on_wire();
            sending.await
        }
    }
}

impl Answer {
    /// What the answer means for the keys that were asked.
    #[must_use]
    pub fn verdict(&self, shape: &Shape, ask: &Ask) -> Verdict {
        match wire::read(shape, ask, self.status, &self.body) {
            Meaning::Success(success) => Verdict::Success(success),
            Meaning::Throttled => Verdict::Throttled(self.retry_after()),
            Meaning::Unauthorized => Verdict::Unauthorized(self.passed_on()),
            Meaning::Rejected => Verdict::Rejected(self.passed_on()),
            Meaning::Unavailable(reason) => Verdict::Unavailable(reason.into(), self.retry_after()),
            Meaning::Invalid(reason) => Verdict::Invalid(reason),
        }
    }

    /// For how long the upstream wants to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }

    pub(super) fn passed_on(&self) -> Arc<PassedOn> {
        Arc::new(PassedOn {
            status: self.status,
            content_type: self.headers.get(CONTENT_TYPE).cloned(),
            retry_after: self.headers.get(RETRY_AFTER).cloned(),
            body: self.body.clone(),
        })
    }
}

/// `Retry-After` in its form as seconds; a date is not obeyed, because it says what the other clock believes.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Who asks: the gateway, with the credential of a caller.
fn identify(headers: &mut HeaderMap, credential: &[(HeaderName, HeaderValue)]) {
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in credential {
        headers.append(name.clone(), value.clone());
    }
}

fn late(_elapsed: Elapsed) -> NoAnswer {
    NoAnswer::Unavailable("no answer within upstream.request_timeout".into())
}

/// The innermost reason of an error of the connection that is known to quote nothing: hyper's own sentence, or what the
/// operating system or TLS said. Over HTTP/2 there is one below it that prints what the upstream sent with its goodbye.
fn cause(error: &HyperError) -> String {
    spoken(error).to_string()
}

fn spoken<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let below = std::iter::successors(error.source(), |&error| error.source());
    below.filter(|error| error.is::<hyper::Error>() || error.is::<io::Error>()).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] BoxError);

    #[test]
    fn of_the_reasons_for_an_error_only_those_that_quote_nothing_are_told() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let rows: [(BoxError, &str); 3] = [
            (Link("client error", refused().into()).into(), "connection refused"),
            (Link("client error", "canary".into()).into(), "client error"),
            (Link("client error", Link("canary", refused().into()).into()).into(), "connection refused"),
        ];
        for (error, expected) in rows {
            assert_eq!(spoken(&*error).to_string(), expected);
        }
    }
}
