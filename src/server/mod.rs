//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on them, plain or inside TLS: limits, timeouts and graceful shutdown
//! around any tower service.
//!
//! It knows nothing of lookups: it never binds, never reads configuration, never installs a signal handler.
//!
//! - **One task per connection**, all in one `JoinSet` owned by the future that [`serve`] returns: dropping that future
//!   ends every connection, and a finished one is reaped at once.
//! - **A connection over the limit** is told 503 and closed; how many are being told at once has a limit too.
//! - **Waiting has a limit** in every state (`patience.rs`): for a head, between requests, for a peer that does not read
//!   its answer or reads it too slowly, for the close. Only a request that the service is working on may take its time:
//!   that is the service's affair, and so is a request body that does not arrive. A service that answers 408 to one that
//!   has not all come has its connection closed.
//! - **An ordinary request costs the timeouts** one reading of the clock, no allocation and no timer operation.
//! - **HTTP/2** is spoken where TLS' ALPN chose it or a plain connection begins with its preface (`opening.rs`, `http2.rs`).
//! - **What two servers could read in two ways is refused** (`framing.rs`, `head.rs`, `target.rs`): 400, and the connection
//!   is closed, before hyper has seen it. Requests before it are answered; nothing after it is looked at. A body that turns
//!   out to be broken is an error to the service that reads it.
//! - **Draining** finishes what is under way and closes the rest at once. The grace deadline is the caller's: it drops
//!   the future.
//! - **A panic in the service** ends its connection, nothing else.
//! - **Why a connection was ended** by the server is counted ([`Reason`]).
//! - A half-closed client still gets its answer. The price: a caller that hangs up while its request is under way is
//!   noticed only when the answer is written.

mod activity;
mod alarm;
mod allowance;
#[cfg(test)]
pub(crate) mod authority;
mod connection;
mod drain;
pub mod duplex;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod goodbye;
mod head;
mod http2;
mod judged;
mod listener;
mod opening;
mod patience;
mod quiet;
mod received;
mod stats;
mod stream;
mod target;
#[cfg(test)]
mod tests;
pub mod tls;
mod watched;
mod wire;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use tokio::task::{JoinError, JoinSet};
use tower::{BoxError, Service};

pub use self::{
    allowance::{Allowance, Demand},
    connection::METHODS,
    listener::{Listener, Peer},
    received::Received,
    stats::{Reason, Stats},
};
use self::{connection::Terms, drain::Drain, goodbye::Goodbyes, listener::Acceptor, opening::Accepted, tls::Tls};
use crate::live::Whole;

/// The limits of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Connections at once; a further one is told 503 and closed.
    pub max_connections: usize,
    /// A client must finish its headers within this.
    pub header_timeout: Duration,
    /// A connection with nothing under way is closed after this, and so is one whose peer takes no byte of its answer.
    pub idle_timeout: Duration,
    /// Bytes per second: a peer that takes less of its answer uses up `idle_timeout` too. 0: any byte renews it.
    pub min_rate: u64,
}

/// Serves `service` on what `listener` accepts until `shutdown` resolves and every connection is gone.
///
/// Dropping the future aborts what is left. Each connection gets a clone of the service and each request says
/// by its [body](Received::peer) who sends it. To watch the counters, or to share one limit between several listeners, make a [`Server`].
pub async fn serve<L, S, B>(listener: L, service: S, config: Config, shutdown: impl Future<Output = ()>)
where
    L: Listener,
    S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data: From<Bytes> + Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    Server::new(config).serve(listener, service, shutdown).await;
}

/// A server's limits and counters; its clones share both, `max_connections` included.
#[derive(Clone, Debug)]
pub struct Server {
    config: Whole<Config>,
    tls: Option<Tls>,
    stats: Arc<Stats>,
    goodbyes: Goodbyes,
    /// Whether there were too many connections, which is said once until there are a tenth fewer.
    full: Arc<AtomicBool>,
}

impl Server {
    /// A server that has no connection yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config: Whole::new(config),
            tls: None,
            stats: Arc::default(),
            goodbyes: Goodbyes::new(),
            full: Arc::default(),
        }
    }

    /// The same server, which speaks TLS only.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// The counters, to be read at any time.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Its limits: what they are set to is for connections that come from then on.
    #[must_use]
    pub fn limits(&self) -> Whole<Config> {
        self.config.clone()
    }

    /// What [`serve`] does.
    pub async fn serve<L, S, B>(self, listener: L, service: S, shutdown: impl Future<Output = ()>)
    where
        L: Listener,
        S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
            + Clone
            + Send
            + 'static,
        B: Body<Data: From<Bytes> + Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let (begin_drain, drain) = drain::signal();
        let mut acceptor = Acceptor::new(listener);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                // First, so that no flood of connections can hold off the end.
                () = &mut shutdown => break,
                // Ended connections are reaped as they end, so that the set holds live ones only.
                Some(ended) = connections.join_next() => self.report(ended),
                // Cancelled by the others without loss: the acceptor keeps its place.
                (io, peer) = acceptor.accept() => {
                    self.admit(&mut connections, io, peer, (service.clone(), drain.clone()));
                }
            }
        }
        // What the kernel still had in its queue is refused by the closing of the socket.
        drop(acceptor);
        begin_drain.now();
        while let Some(ended) = connections.join_next().await {
            self.report(ended);
        }
    }

    /// Serves the connection, or tells it that there are too many, or just closes it.
    fn admit<Io, S, B>(&self, connections: &mut JoinSet<()>, io: Io, peer: Peer, (service, drain): (S, Drain))
    where
        Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
            + Clone
            + Send
            + 'static,
        B: Body<Data: From<Bytes> + Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let accepted = Accepted { io, peer, tls: self.tls.clone() };
        let config = self.config.now();
        if let Some(open) = self.stats.admit(config.max_connections) {
            self.note_full(false, config.max_connections);
            let terms = Terms::from(&*config);
            connections.spawn(async move {
                if let Some(reason) = opening::serve(accepted, service, terms, drain).await {
                    tracing::debug!(reason = reason.as_str(), "a connection was ended");
                    open.end(reason);
                }
                drop(open);
            });
        } else {
            self.note_full(true, config.max_connections);
            let Some(turn) = self.goodbyes.turn() else { return };
            connections.spawn(async move {
                goodbye::overloaded(accepted, drain).await;
                drop(turn);
            });
        }
    }

    fn note_full(&self, refused: bool, max_connections: usize) {
        if refused && !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(max_connections, "too many connections: further ones are refused");
        } else if !refused && self.full.load(Ordering::Relaxed) && self.stats.open() <= max_connections / 10 * 9 {
            self.full.store(false, Ordering::Relaxed);
            tracing::warn!(max_connections, "there is room for connections again");
        }
    }

    /// Counts a connection that ended by a panic.
    fn report(&self, ended: Result<(), JoinError>) {
        if panicked(ended) {
            self.stats.end(Reason::Panic);
        }
    }
}

/// Whether a task ended by a panic, which is logged without the payload: it may quote what a caller sent.
fn panicked(ended: Result<(), JoinError>) -> bool {
    let panicked = ended.is_err_and(|error| error.is_panic());
    if panicked {
        tracing::error!("the service panicked; its connection or stream is closed");
    }
    panicked
}
