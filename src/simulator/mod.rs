//! The pretend upstream: same paths, same limit, same refusals, and customers that come from a number.
//!
//! One implementation stands behind `simulate`, `demo`, the tests and the benches. It is honest by default; every thing
//! that nobody knows about the real upstream, and everything that may go wrong, is a switch of [`Config`].
//!
//! - Time is tokio's, so in a paused test a minute takes no time, over `tokio::io::duplex`.
//! - Equal seeds give equal customers, records and chance.
//! - A record depends on who asks: token, `companyId` and `instanceAppid` each leave their mark in it.
//!
//! ```no_run
//! # use audience_gateway::simulator::{Config, Simulator};
//! # async fn example() {
//! let upstream = Simulator::new(Config::default());
//! let (client, server) = tokio::io::duplex(64 << 10);
//! let serving = upstream.clone().serve_connection(server);
//! upstream.reconfigure(|config| config.max_keys = 10);
//! # drop((client, serving));
//! # }
//! ```

mod arrivals;
mod body;
mod call;
mod config;
mod customers;
mod echo;
mod envelope;
mod faults;
mod limiter;
mod lookup;
mod members;
mod record;
mod siblings;
mod state;
#[cfg(test)]
mod tests;
mod tokens;
mod writes;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};

pub use self::{
    arrivals::{Arrival, Outcome},
    call::Call,
    config::{
        Config, DataOrder, EmptyData, EnvelopeSpelling, IdSpelling, LimitCounts, LimitPer, MixedLists, PhoneSpelling,
    },
    customers::Customer,
    faults::Fault,
};
use self::{
    body::Body,
    faults::HangUp,
    lookup::Asked,
    record::Viewer,
    state::{Origin, State, Visit},
};
use crate::clock;

/// Bytes of one request's body: 500 items of a write are far below it.
const MAX_BODY: usize = 16 << 20;
/// After a failed accept, so that a process without file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The pretend upstream; clones are the same one.
#[derive(Clone, Debug)]
pub struct Simulator {
    state: Arc<Mutex<State>>,
}

/// A lookup that is counted as under way until this is dropped.
struct UnderWay<'a>(&'a Simulator);

impl Simulator {
    /// An upstream that nobody has asked yet; windows of its limit start now.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(config, clock::now()))) }
    }

    /// Changes switches from the next request on.
    pub fn reconfigure(&self, change: impl FnOnce(&mut Config)) {
        change(Arc::make_mut(&mut self.lock().config));
    }

    /// The switches as they are.
    #[must_use]
    pub fn config(&self) -> Config {
        Config::clone(&self.lock().config)
    }

    /// Every request that arrived, oldest first: the last 100 000, and fewer when they carry very many keys.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        let all = self.lock().log.all();
        all.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// The arrivals at `/api/audience/detail`, however its path was spelled.
    #[must_use]
    pub fn lookups(&self) -> Vec<Arrival> {
        let mut arrivals = self.arrivals();
        arrivals.retain(|arrival| arrival.call == Call::Detail);
        arrivals
    }

    /// Forgets the arrivals so far.
    pub fn forget_arrivals(&self) {
        self.lock().log.clear();
    }

    /// The customer of that number, as the company of a token sees it before anything was written.
    ///
    /// Numbers run from 0 to `Config::customers`. Of special use: 3 has no third id and 9 no phone; 5 has a third id with an
    /// escaped slash and 6 one with escaped Chinese; 13 has two phones and 5 three; 2 is plain; 0 carries the first phone
    /// of 1, and 50 that of 51; 4 has no `phone` member and 8 no `phoneList`.
    #[must_use]
    pub fn customer(&self, index: u64) -> Customer {
        let state = self.lock();
        let viewer = Viewer::new("", "", "");
        state.answering(&state.config, &viewer).directory.born.customer(index)
    }

    /// The records, byte for byte, that a lookup of this one key gives now to this token (`""`: none) and company (`""`:
    /// none named), whatever limit, faults and other switches would make of it. Spelling switches do count.
    #[must_use]
    pub fn expected(&self, token: &str, company: &str, list_name: &str, value: &str) -> Vec<String> {
        self.expected_for((token, company, ""), list_name, value)
    }

    /// The same for a token, a company and an `instanceAppid`.
    #[must_use]
    pub fn expected_for(&self, scope: (&str, &str, &str), list_name: &str, value: &str) -> Vec<String> {
        self.expected_records(Call::Detail, scope, (list_name, value))
    }

    /// The same for one id of the tag lookup.
    #[must_use]
    pub fn expected_tags(&self, token: &str, company: &str, id: &str) -> Vec<String> {
        self.expected_records(Call::Tags, (token, company, ""), ("audienceUserIdList", id))
    }

    /// The customer changes upstream, in every company: its record has a new version from now on.
    pub fn touch(&self, index: u64) {
        *self.lock().touched.entry(index).or_default() += 1;
    }

    /// The token is no longer accepted: it answers code 100200 from now on.
    pub fn expire_token(&self, token: &str) {
        self.lock().tokens.revoke(token);
    }

    /// Serves one connection until the client closes it.
    pub async fn serve_connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = self.next_connection();
        self.serve_from(io, Origin { connection, address: format!("connection {connection}") }).await;
    }

    /// Serves connections until the shutdown, and then drops those that are open.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                // Whoever runs the simulator wants it to end.
                () = &mut shutdown => return,
                // A connection ended: its task is let go.
                Some(_) = connections.join_next() => {}
                // A new client.
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Without it small answers wait for the kernel; the connection works all the same.
                        stream.set_nodelay(true).ok();
                        let origin = Origin { connection: self.next_connection(), address: peer.ip().to_string() };
                        connections.spawn(self.clone().serve_from(stream, origin));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
    }

    async fn serve_from<IO>(self, io: IO, origin: Origin)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let service = service_fn(|request| self.answer(&origin, request));
        let mut server = http1::Builder::new();
        server.header_read_timeout(None);
        // A connection that ends with an error is a client that left, or a fault that was asked for.
        server.serve_connection(TokioIo::new(io), service).await.ok();
    }

    async fn answer(&self, origin: &Origin, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let moment = clock::now();
        let call = Call::of(request.uri().path());
        if call == Call::Echo {
            let (head, incoming) = request.into_parts();
            let visit = Visit { moment, origin, head: &head, body: None };
            let asked = Asked { rest: "{}".to_owned(), ..Asked::default() };
            self.lock().record_arrival(call, visit, asked, (moment, Outcome::Accepted));
            return Ok(echo::answer(Request::from_parts(head, incoming)).await);
        }
        let (head, incoming) = request.into_parts();
        let body = body::collect(incoming, MAX_BODY).await;
        let delay = self.lock().delay_of_arrival();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let under_way = call.is_lookup().then(|| UnderWay::new(self));
        let reply = self.lock().judge(call, Visit { moment, origin, head: &head, body: body.as_ref() });
        if !reply.wait.is_zero() {
            tokio::time::sleep(reply.wait).await;
        }
        let response = reply.fault.respond(reply.answer, &reply.config).await;
        drop(under_way);
        response
    }

    fn expected_records(&self, call: Call, scope: (&str, &str, &str), key: (&str, &str)) -> Vec<String> {
        let state = self.lock();
        let viewer = Viewer::new(&state.tokens.principal(scope.0), scope.1, scope.2);
        let answering = state.answering(&state.config, &viewer);
        answering.reached(key.0, key.1).into_iter().map(|index| answering.record(call, index)).collect()
    }

    fn next_connection(&self) -> u64 {
        let mut state = self.lock();
        state.connections += 1;
        state.connections
    }

    /// Nothing panics under this lock; if it did, the state would still be whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> UnderWay<'a> {
    fn new(simulator: &'a Simulator) -> Self {
        simulator.lock().in_flight += 1;
        Self(simulator)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}
