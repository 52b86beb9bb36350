//! A body on its way from one side to the other: frame by frame, trailers included, and never waited for too long.
//!
//! The time runs only while somebody wants the next frame: a reader that is not ready does not make the sender late. The
//! upstream has its time for each frame, because its answer may be slow for a reason; a caller's body has none, so it must
//! come at a pace in the long run.

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
    exchange::{Exchange, Fault},
    upload::Claim,
};
use crate::{
    clock::{self, Instant},
    server::Allowance,
};

/// Why a body ended before its end. What a library says of that is left behind here: it may quote what was sent.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the body did not come in time")]
    Stalled,
    #[error("the body broke off")]
    Off,
}

/// A body that passes through.
pub(super) struct Relayed<B> {
    body: B,
    from: Source,
    exchange: Arc<Exchange>,
    timer: Timer,
    /// Held by an answer until its last frame: with that the request is over.
    claim: Option<Claim>,
}

/// The side that a body comes from, and what is known of its time.
enum Source {
    /// It is the request's body.
    Caller(Allowance),
    /// It is the answer's body; since when the next frame is waited for, if it is.
    Upstream(Option<Instant>),
}

impl<B> Relayed<B> {
    /// A request's body on its way to the upstream.
    pub(super) fn request(body: B, exchange: Arc<Exchange>) -> Self {
        Self { body, from: Source::Caller(exchange.allowance()), exchange, timer: Timer(None), claim: None }
    }

    /// An answer's body on its way to the caller.
    pub(super) fn answer(body: B, exchange: Arc<Exchange>, claim: Claim) -> Self {
        Self { body, from: Source::Upstream(None), exchange, timer: Timer(None), claim: Some(claim) }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Relayed<B> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) {
            match &mut self.from {
                Source::Caller(allowance) => allowance.moved(data(&next), clock::now),
                Source::Upstream(waiting) => *waiting = None,
            }
            return Poll::Ready(next.map(|frame| frame.map_err(|_error| Broken::Off)));
        }
        match &mut self.from {
            Source::Caller(allowance) => {
                let deadline = allowance.wait(clock::now);
                ready!(self.timer.poll(cx, || deadline));
            }
            Source::Upstream(waiting) => {
                let since = *waiting.get_or_insert_with(clock::now);
                ready!(self.timer.poll(cx, || self.exchange.deadline(since, clock::now())));
            }
        }
        Poll::Ready(Some(Err(Broken::Stalled)))
    }

    /// Tells the exchange what became of the request's body.
    fn report(&self, next: &Poll<Option<Result<Frame<Bytes>, Broken>>>) {
        match next {
            Poll::Pending => self.exchange.wait_for_caller(),
            Poll::Ready(Some(Err(Broken::Stalled))) => self.exchange.blame_caller(Fault::Stalled, clock::now()),
            Poll::Ready(Some(Err(Broken::Off))) => self.exchange.blame_caller(Fault::Broken, clock::now()),
            Poll::Ready(_) => self.exchange.wait_for_upstream(clock::now()),
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Relayed<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.poll_next(cx);
        if let Source::Caller(_) = self.from {
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
        if let Source::Caller(_) = self.from {
            self.exchange.wait_for_upstream(clock::now());
        }
    }
}

/// Bytes of data in what came.
fn data<E>(next: &Option<Result<Frame<Bytes>, E>>) -> u64 {
    let data = next.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
    data.map_or(0, |data| data.len() as u64)
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
