//! One connection that speaks HTTP/2, from its preface to its close.
//!
//! - **A stream is a task** in the connection's own set: it ends with the connection, and a panic in it resets it alone.
//! - **Heads.** hyper refuses what RFC 9113 calls malformed. What could still be read in two ways once it is HTTP/1 again
//!   is 400 here (`stream.rs`).
//! - **Waiting has a limit** (`quiet.rs`) while nothing is under way, and while everything that is waits for the peer to
//!   take bytes. A peer that answers no ping for [`PING_TIMEOUT`] is gone.
//! - **Draining** refuses new streams and lets those under way finish.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    rt::Executor,
    server::conn::http2,
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tower::{BoxError, Service};

use super::{
    Peer,
    activity::Activity,
    alarm::Alarm,
    connection::Terms,
    drain::Drain,
    quiet::{Quiet, Turns},
    received::Received,
    stats::Reason,
    stream::{self, Sent},
    watched::Watched,
};
use crate::clock;

/// Requests under way at once on one connection: what RFC 9113 calls the least that should be offered.
const MAX_STREAMS: u32 = 100;

/// The longest head, decompressed. Envoy's default, and far above what a caller of ours sends.
const MAX_HEAD: u32 = 64 << 10;

/// How often a peer is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection until it is closed by either side; why, where that was the server's wish.
pub(super) async fn serve<Io, S, B>((io, peer): (Io, Peer), service: S, terms: Terms, drain: Drain) -> Option<Reason>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data: From<Bytes> + Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let turns = Turns::new();
    let service = {
        let turns = Arc::clone(&turns);
        service_fn(move |request| stream::answer((request, peer), service.clone(), turns.begin()))
    };
    let activity = Activity::new();
    // Unlike HTTP/1, it ends when both sides know that it does: nothing is lost by not waiting for the peer's close.
    activity.part();
    let streams = Streams::default();
    let http = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(Watched::new(io, Arc::clone(&activity))), service);
    let quiet = Quiet::new(terms.idle_timeout, terms.min_rate);
    let alarm = Alarm::new(clock::now() + terms.idle_timeout);
    let mut connection = Connection { http, activity, streams, turns, quiet, alarm, terms, drain, is_closing: false };

    match poll_fn(|cx| connection.poll(cx)).await {
        Ending::Closed(result) => {
            if let Err(error) = result {
                // hyper's sentence only: what it wraps may quote what a caller sent.
                tracing::debug!(%error, "a connection ended early");
            }
            None
        }
        Ending::Expired if connection.streams.are_none() => Some(Reason::Idle),
        Ending::Expired => Some(Reason::SlowReader),
    }
}

/// Why a connection is over.
enum Ending {
    /// By HTTP's rules, or by an error on the way.
    Closed(hyper::Result<()>),
    /// Nothing was under way for too long, or nothing that the peer would take.
    Expired,
}

/// A connection being served.
struct Connection<Io, S: HttpService<Incoming>> {
    http: http2::Connection<TokioIo<Watched<Io>>, S, Streams>,
    activity: Arc<Activity>,
    streams: Streams,
    turns: Arc<Turns>,
    quiet: Quiet,
    alarm: Alarm,
    terms: Terms,
    drain: Drain,
    /// Whether the peer has been told that no further request is served.
    is_closing: bool,
}

impl<Io, S, B, F> Connection<Io, S>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Sent<B>, Future = F, Error: Into<BoxError>>,
    F: Future<Output = Result<Response<Sent<B>>, S::Error>> + Send + 'static,
    B: Body<Data: From<Bytes> + Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        // hyper first: a request that has arrived by now is served, whatever is decided below.
        if let Poll::Ready(result) = Pin::new(&mut self.http).poll(cx) {
            return Poll::Ready(Ending::Closed(result));
        }
        self.streams.reap(cx);
        let is_last = !self.terms.keep_alive && self.turns.have_begun();
        if !self.is_closing && (is_last || self.drain.has_begun(cx)) {
            self.is_closing = true;
            if let Poll::Ready(result) = self.close(cx) {
                return Poll::Ready(Ending::Closed(result));
            }
        }
        self.turns.listen(cx);
        loop {
            let deadline = self.quiet.observe(self.turns.count(), self.activity.written(), clock::now);
            if self.alarm.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            if !self.quiet.renew(self.activity.written(), clock::now()) {
                // The peer gets an orderly end; if even that has to wait, it is dropped.
                let _ = self.close(cx);
                return Poll::Ready(Ending::Expired);
            }
        }
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(&mut self.http).graceful_shutdown();
        Pin::new(&mut self.http).poll(cx)
    }
}

/// The tasks of a connection's streams; they end when the last of its clones is gone, which is the connection's.
#[derive(Clone, Default)]
struct Streams {
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Streams {
    /// Whether none is under way.
    fn are_none(&self) -> bool {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Forgets those that have ended; the connection's task is woken when another one does.
    fn reap(&self, cx: &mut Context<'_>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Poll::Ready(Some(ended)) = tasks.poll_join_next(cx) {
            super::panicked(ended);
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(stream);
    }
}
