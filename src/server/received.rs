//! A request's body as the service gets it, and what becomes of the part that the service did not want.
//!
//! An answer in HTTP/2 that comes before the end of the request makes the rest of it void (RFC 9113, section 8.1): the
//! stream is reset without an error. Some clients take that for a failure and throw the answer away. So the rest is read
//! and discarded before the answer ends, as in the lingering close of HTTP/1: as many bytes, and for as long.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{sync::Notify, time::timeout};

use super::{Peer, patience::LINGER, watched::LINGER_BYTES};

/// The body of a request.
#[derive(Debug)]
pub struct Received {
    /// Until it is dropped.
    body: Option<Incoming>,
    rest: Option<Arc<Rest>>,
    /// Whose request it is. It is here because among a request's extensions it would cost three allocations.
    peer: Peer,
}

/// What the service has left of a body.
#[derive(Debug)]
pub(super) struct Rest {
    state: Mutex<State>,
    /// Rung when the service has dropped the body.
    dropped: Notify,
}

#[derive(Debug)]
enum State {
    /// The service has the body, and may read on.
    Held,
    /// The service has dropped it before its end.
    Left(Incoming),
    /// It has been read to its end, or there never was anything in it.
    Over,
}

impl Received {
    /// A body whose rest is somebody else's affair.
    pub(super) fn new(body: Incoming, peer: Peer) -> Self {
        Self { body: Some(body), rest: None, peer }
    }

    /// Who sends it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// A body, and where its rest will be.
    pub(super) fn with_rest(body: Incoming, peer: Peer) -> (Self, Arc<Rest>) {
        let state = Mutex::new(if body.is_end_stream() { State::Over } else { State::Held });
        let rest = Arc::new(Rest { state, dropped: Notify::new() });
        (Self { body: Some(body), rest: Some(Arc::clone(&rest)), peer }, rest)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || body.is_end_stream() {
            self.settle(State::Over);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Received {
    fn settle(&self, state: State) {
        if let Some(rest) = &self.rest {
            let mut held = rest.lock();
            if let State::Held = *held {
                // Held => Left | Over
                *held = state;
                rest.dropped.notify_one();
            }
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            self.settle(State::Left(body));
        }
    }
}

impl Rest {
    /// Whether nothing more of the request's body is to come.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.lock(), State::Over)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was left, once that is known.
    async fn left(&self) -> Option<Incoming> {
        loop {
            {
                let mut state = self.lock();
                if !matches!(*state, State::Held) {
                    // Left => Over
                    let State::Left(body) = std::mem::replace(&mut *state, State::Over) else { return None };
                    return Some(body);
                }
            }
            self.dropped.notified().await;
        }
    }

    /// Reads and discards what was left.
    pub(super) async fn discard(self: Arc<Self>) {
        let discarding = async {
            let Some(mut body) = self.left().await else { return };
            let mut bytes = 0;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                bytes += frame.data_ref().map_or(0, Buf::remaining);
                if bytes > LINGER_BYTES {
                    break;
                }
            }
        };
        // Whether it has ended, is longer, or does not come: that was all that is done for it.
        let _ended = timeout(LINGER, discarding).await;
    }
}
