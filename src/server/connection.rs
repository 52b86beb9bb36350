//! One connection that speaks HTTP/1, from its first request to its close.
//!
//! hyper speaks HTTP, and gets to read only what `framing.rs` has judged. Around each of its turns this looks at four
//! things, each for the price of a few loads: whether what came is no request, whether the server is draining, what the
//! connection is waiting for, and whether it has waited too long.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response,
    header::{ALLOW, CONNECTION},
};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tower::{BoxError, Service};

use super::{
    Config, Peer,
    activity::{Activity, Answer, InFlight, Stage},
    alarm::Alarm,
    drain::Drain,
    framing::MAX_HEAD,
    goodbye,
    head::Fault,
    judged::Judged,
    patience::Patience,
    received::Received,
    stats::Reason,
    watched::Watched,
};
use crate::{clock, error::Refusal};

/// The methods that some resource may take: what `OPTIONS *` asks for.
pub const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What a connection may do.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// How long it may take over a head.
    pub(super) header_timeout: Duration,
    /// How long it may have nothing under way, or not read its answer.
    pub(super) idle_timeout: Duration,
    /// Bytes of its answer per second that it must read in the long run.
    pub(super) min_rate: u64,
    /// Whether it may send a second request.
    pub(super) keep_alive: bool,
}

impl From<&Config> for Terms {
    fn from(config: &Config) -> Self {
        Self {
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            min_rate: config.min_rate,
            keep_alive: true,
        }
    }
}

/// Serves a connection that was accepted at that moment until it is closed by either side; why, where that was the server's
/// wish.
pub(super) async fn serve<Io, S, B>(
    (io, peer, begun): (Io, Peer, Instant),
    service: S,
    terms: Terms,
    drain: Drain,
) -> Option<Reason>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let activity = Activity::new();
    let requests = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let in_flight = InFlight::begin(&requests);
        let mut service = service.clone();
        async move {
            if request.method() == Method::OPTIONS && request.uri().path() == "*" {
                return Ok::<_, S::Error>(methods(in_flight));
            }
            // Called here: a future that is handed in has its place twice, and is moved as often.
            poll_fn(|cx| service.poll_ready(cx)).await?;
            let mut response = service.call(request.map(|body| Received::new(body, peer))).await?;
            if in_flight.is_last(response.status()) {
                // hyper will close the connection, but does not say so.
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok(response.map(|body| Answer::new(body, in_flight)))
        }
    });
    let io = Judged::new(Watched::new(io, Arc::clone(&activity)), Arc::clone(&activity));
    let http = http1::Builder::new()
        .half_close(true)
        .keep_alive(terms.keep_alive)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service);
    let patience = Patience::new(terms.header_timeout, terms.idle_timeout, terms.min_rate, begun);
    let alarm = Alarm::new(begun + terms.header_timeout);
    let mut connection = Connection { http, activity, patience, alarm, drain, draining: false };

    match poll_fn(|cx| connection.poll(cx)).await {
        Ending::Closed(result) => {
            if let Err(error) = result {
                // hyper's sentence only: what it wraps may quote what a caller sent.
                tracing::debug!(%error, "a connection ended early");
            }
            connection.told()
        }
        Ending::Expired(Stage::Head) => {
            goodbye::tell(connection.into_parts().0, &Refusal::RequestTimeout).await;
            Some(Reason::SlowHead)
        }
        Ending::Expired(Stage::Fresh | Stage::Idle) => Some(Reason::Idle),
        Ending::Expired(Stage::Stalled) => Some(Reason::SlowReader),
        // It has had everything, perhaps with the word why there is no more.
        Ending::Expired(Stage::Busy | Stage::Closing) => connection.told(),
        Ending::Refused => {
            let (io, fault) = connection.into_parts();
            let (reason, refusal) = refusal(fault);
            tracing::debug!(fault = %refusal.message(), "what came is no request");
            goodbye::tell(io, &refusal).await;
            Some(reason)
        }
    }
}

/// What is told to a peer whose next request is none.
fn refusal(fault: Option<Fault>) -> (Reason, Refusal) {
    match fault {
        Some(Fault::TargetTooLong) => (Reason::HeadTooLarge, Refusal::UriTooLong),
        Some(Fault::HeadTooLarge) => (Reason::HeadTooLarge, Refusal::HeadersTooLarge),
        fault => {
            let sentence = fault.map_or("the request is malformed", Fault::as_str);
            (Reason::MalformedHead, Refusal::InvalidRequest(sentence.into()))
        }
    }
}

/// The answer to `OPTIONS *`, which asks the server and no resource (RFC 9110, section 9.3.7).
fn methods<B>(in_flight: InFlight) -> Response<Answer<B>> {
    let mut response = Response::new(Answer::empty(in_flight));
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

/// Why a connection is over.
enum Ending {
    /// By HTTP's rules, or by an error on the way.
    Closed(hyper::Result<()>),
    /// It waited for too long in this stage.
    Expired(Stage),
    /// What came next is no request, and all before it has been answered.
    Refused,
}

/// A connection being served.
struct Connection<Io, S: HttpService<Incoming>> {
    http: http1::Connection<TokioIo<Judged<Watched<Io>>>, S>,
    activity: Arc<Activity>,
    patience: Patience,
    alarm: Alarm,
    drain: Drain,
    /// Whether hyper has been told that the server is draining.
    draining: bool,
}

impl<Io, S, B> Connection<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        // hyper first: a request that has arrived by now is served, whatever is decided below.
        if let Poll::Ready(result) = Pin::new(&mut self.http).poll(cx) {
            return Poll::Ready(Ending::Closed(result));
        }
        if self.activity.is_refused() {
            return Poll::Ready(Ending::Refused);
        }
        if !self.draining && self.drain.has_begun(cx) && !self.is_in_line() {
            self.draining = true;
            if let Poll::Ready(result) = self.close(cx) {
                return Poll::Ready(Ending::Closed(result));
            }
        }
        let deadline = self.patience.observe(self.activity.progress(), clock::now);
        if self.alarm.poll(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        if self.patience.stage() == Stage::Idle {
            // The peer gets an orderly end; if even that has to wait, it is dropped.
            let _ = self.close(cx);
        }
        Poll::Ready(Ending::Expired(self.patience.stage()))
    }

    /// Whether a head has begun of which hyper has not got all that came: it would take the connection for an idle one.
    fn is_in_line(&self) -> bool {
        self.activity.is_holding() && self.activity.progress().stage == Stage::Head
    }

    /// Why the connection had to end, where the service has answered that.
    fn told(&self) -> Option<Reason> {
        match (self.activity.is_broken(), self.activity.is_late()) {
            (true, _) => Some(Reason::BrokenBody),
            (_, true) => Some(Reason::SlowBody),
            _ => None,
        }
    }

    /// The stream, and what is wrong with what came over it.
    fn into_parts(self) -> (Io, Option<Fault>) {
        let (io, fault) = self.http.into_parts().io.into_inner().into_parts();
        (io.into_inner(), fault)
    }

    /// Closes the connection at once if nothing is under way, else after the answer.
    fn close(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if matches!(self.activity.progress().stage, Stage::Fresh | Stage::Idle) {
            self.activity.part();
        }
        Pin::new(&mut self.http).graceful_shutdown();
        Pin::new(&mut self.http).poll(cx)
    }
}
