//! A body on its way from one side to the other: frame by frame, trailers included, and never waited for too long.
//!
//! The time runs only while somebody wants the next frame: a reader that is not ready does not make the sender late.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tower::BoxError;

use super::{
    exchange::{Exchange, Fault, Side},
    upload::Claim,
};
use crate::clock::{self, Instant};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the next piece of the body did not come in time")]
    Stalled,
    #[error("the body broke off")]
    Off(#[source] BoxError),
}

/// A body that passes through.
pub(super) struct Relayed<B> {
    body: B,
    from: Side,
    exchange: Arc<Exchange>,
    /// Since when the next frame is waited for, if it is.
    waiting: Option<Instant>,
    timer: Timer,
    /// Held by an answer until its last frame: with that the request is over.
    claim: Option<Claim>,
}

impl<B> Relayed<B> {
    /// A request's body on its way to the upstream.
    pub(super) fn request(body: B, exchange: Arc<Exchange>) -> Self {
        Self { body, from: Side::Caller, exchange, waiting: None, timer: Timer(None), claim: None }
    }

    /// An answer's body on its way to the caller.
    pub(super) fn answer(body: B, exchange: Arc<Exchange>, claim: Claim) -> Self {
        Self { body, from: Side::Upstream, exchange, waiting: None, timer: Timer(None), claim: Some(claim) }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Relayed<B> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(next.map(|frame| frame.map_err(|error| Broken::Off(error.into()))));
        }
        let now = clock::now();
        let since = *self.waiting.get_or_insert(now);
        ready!(self.timer.poll(cx, || self.exchange.deadline(self.from, since, clock::now())));
        Poll::Ready(Some(Err(Broken::Stalled)))
    }

    /// Tells the exchange what became of the request's body.
    fn report(&self, next: &Poll<Option<Result<Frame<Bytes>, Broken>>>) {
        match next {
            Poll::Pending => self.exchange.wait_for_caller(),
            Poll::Ready(Some(Err(Broken::Stalled))) => self.exchange.blame_caller(Fault::Stalled, clock::now()),
            Poll::Ready(Some(Err(Broken::Off(_)))) => self.exchange.blame_caller(Fault::Broken, clock::now()),
            Poll::Ready(_) => self.exchange.wait_for_upstream(clock::now()),
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Relayed<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.poll_next(cx);
        if self.from == Side::Caller {
            self.report(&next);
        }
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.claim = None;
        }
        next.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Relayed<B> {
    fn drop(&mut self) {
        // Whether all of it was taken or not, nobody waits for the caller any more.
        if self.from == Side::Caller {
            self.exchange.wait_for_upstream(clock::now());
        }
    }
}

/// A timer that is left alone while its deadline only moves away, which is nearly always.
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when the deadline, asked for again whenever it seems to have come, has passed.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: impl Fn() -> Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline())));
        loop {
            ready!(sleep.as_mut().poll(cx));
            let deadline = deadline();
            if deadline <= clock::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
