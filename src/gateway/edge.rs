//! What every request meets first: whether there is a place for it, whose it is, where it goes, and what is counted and
//! noted of it.
//!
//! All that needs no wait is done when the request comes. What is left of it then is what its future is made of: hyper moves
//! that once for each request, with all the room that an answer may need, and an async function moves its parameters again.
//! So they are borrowed down the hit path, and what is seldom and large is boxed.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response, request::Parts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, service_fn};

use super::{body::ResponseBody, journal::Journal};
use crate::{
    clients::Clients,
    clock::{self, Instant},
    dispatch::{Client, Fleet},
    error::Refusal,
    live::Places,
    lookup::{Lookup, chunk::Chunk},
    metrics::RouteMetrics,
    passthrough::Passthrough,
    route::{Route, Router},
    server::Received,
};

/// What every request meets first.
pub(super) struct Edge {
    pub(super) router: Router,
    /// Who may call; without it anybody who can connect.
    pub(super) clients: Option<Arc<Clients>>,
    pub(super) lookups: Vec<(Lookup, RouteMetrics)>,
    pub(super) passthrough: Passthrough,
    pub(super) passed: RouteMetrics,
    pub(super) dispatchers: Vec<Arc<Fleet>>,
}

/// A request that has come.
struct Begun {
    _place: OwnedSemaphorePermit,
    at: Instant,
    /// The lookup that it is counted with, or else with what passes through.
    lookup: Option<usize>,
    way: Way,
    journal: Option<Box<Journal>>,
}

/// What becomes of a request.
enum Way {
    /// Of a request only this is needed.
    Lookup {
        position: usize,
        client: Client,
        headers: HeaderMap,
        body: Received,
    },
    /// By itself, because it is many times as large as a lookup.
    Passthrough(Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>),
    Refused(Refusal),
}

/// The one tower service in front of everything: a request for which there is no place is told so at once, instead of
/// waiting for its turn. Counted over all connections: one that speaks HTTP/2 carries up to a hundred requests at a time.
///
/// tower's layers for this would move what answers once each.
pub(super) fn stack(
    edge: Arc<Edge>,
    places: &Places,
) -> impl Service<Request<Received>, Response = Response<ResponseBody>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let places = places.semaphore();
    service_fn(move |request| Arc::clone(&edge).handle(request, &places))
}

impl Edge {
    fn handle(
        self: Arc<Self>,
        request: Request<Received>,
        places: &Arc<Semaphore>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + use<> {
        let place = Arc::clone(places).try_acquire_owned();
        let mut begun = place.ok().map(|place| self.begin(request, place));
        async move {
            let Some(begun) = &mut begun else { return Ok(refused(&Refusal::Overloaded)) };
            let response = match &mut begun.way {
                Way::Lookup { position, client, headers, body } => {
                    let account = begun.journal.as_mut().map(|journal| &mut journal.account);
                    let (lookup, _) = &self.lookups[*position];
                    lookup.handle((headers, body), (*client, begun.at), account).await.map(ResponseBody::from)
                }
                Way::Passthrough(answer) => answer.as_mut().await,
                Way::Refused(refusal) => refused(refusal),
            };
            self.end(begun, &response);
            Ok(response)
        }
    }

    fn begin(self: &Arc<Self>, mut request: Request<Received>, place: OwnedSemaphorePermit) -> Begun {
        let at = clock::now();
        let route = self.router.route(request.method(), request.uri());
        let lookup = match route {
            Route::Lookup(position) | Route::MethodNotAllowed(position) => Some(position),
            Route::Unsafe(_) | Route::Passthrough(_) => None,
        };
        let journal = Journal::open(request.headers(), at);
        let way = match (self.admit(&mut request), route) {
            // Before anything of it is read or said: to a stranger every path is the same.
            (Err(refusal), _) => Way::Refused(refusal),
            (Ok(client), Route::Lookup(position)) => {
                let (Parts { headers, .. }, body) = request.into_parts();
                Way::Lookup { position, client, headers, body }
            }
            (Ok(_), Route::MethodNotAllowed(_)) => Way::Refused(Refusal::MethodNotAllowed),
            (Ok(_), Route::Unsafe(reason)) => Way::Refused(Refusal::UnsafePath(reason)),
            (Ok(_), Route::Passthrough(path)) => {
                let peer = request.body().peer();
                request.extensions_mut().insert(peer);
                let edge = Arc::clone(self);
                Way::Passthrough(Box::pin(async move {
                    edge.passthrough.handle(request, path).await.map(ResponseBody::Streamed)
                }))
            }
        };
        Begun { _place: place, at, lookup, way, journal }
    }

    fn end(&self, begun: &mut Begun, response: &Response<ResponseBody>) {
        let (metrics, name) = match begun.lookup {
            Some(position) => {
                let (lookup, metrics) = &self.lookups[position];
                (metrics, &*lookup.shape.path)
            }
            None => (&self.passed, "passthrough"),
        };
        metrics.answered(response.status(), took(begun.at));
        if let Some(journal) = begun.journal.take() {
            journal.close(name, response.status());
        }
    }

    /// On whose behalf a request is made: the owner of its token, which is taken off it, or else its address.
    fn admit(&self, request: &mut Request<Received>) -> Result<Client, Refusal> {
        if let Some(clients) = &self.clients {
            return clients.admit(request.headers_mut());
        }
        let address = request.body().peer().address;
        Ok(address.map_or(Client::Unknown, |address| Client::Peer(address.ip())))
    }
}

pub(super) fn took(began: Instant) -> Duration {
    clock::now().saturating_duration_since(began)
}

fn refused(refusal: &Refusal) -> Response<ResponseBody> {
    refusal.response().map(Chunk::from).map(ResponseBody::from)
}
