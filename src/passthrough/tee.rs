//! A copy of a body, made frame by frame as it passes.
//!
//! The copy has a limit, and all copies together have a [`Budget`]; a body that grows over one of them, or says that it will
//! grow over the first, is not copied any further, and what there was of the copy is let go. The body itself is neither held
//! nor changed.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use super::Body;
use crate::request::budget::{Budget, Kept, NoRoom};

/// What has passed of a body; its clones are the same one.
#[derive(Clone)]
pub(super) struct Transcript {
    copy: Arc<Mutex<Result<Kept, Lost>>>,
    limit: usize,
}

/// Why there is no copy of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// It is larger than a copy may be.
    TooLarge,
    /// All copies together would have been too large.
    NoRoom,
}

/// A body that is copied as it passes.
pub(super) struct Tee {
    body: Body,
    copy: Transcript,
}

impl Transcript {
    /// An empty one, of so many bytes at most, all of which count.
    pub(super) fn new(limit: usize, budget: &Budget) -> Self {
        Self { copy: Arc::new(Mutex::new(Ok(budget.keep()))), limit }
    }

    /// All that has passed so far; no more is copied.
    pub(super) fn take(&self) -> Result<Kept, Lost> {
        self.with(|copy| mem::replace(copy, Err(Lost::TooLarge)))
    }

    /// Adds a piece, after which at least `to_come` more bytes follow.
    fn add(&self, piece: &[u8], to_come: u64) {
        self.with(|copy| {
            let Ok(text) = copy else { return };
            let whole = (text.len() + piece.len()) as u64;
            if whole.saturating_add(to_come) > self.limit as u64 {
                *copy = Err(Lost::TooLarge);
            } else if text.extend(piece) == Err(NoRoom) {
                *copy = Err(Lost::NoRoom);
            }
        });
    }

    /// Nothing panics under this lock; if it did, what was copied would still be what passed.
    fn with<T>(&self, access: impl FnOnce(&mut Result<Kept, Lost>) -> T) -> T {
        access(&mut self.copy.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tee {
    pub(super) fn new(body: Body, copy: Transcript) -> Self {
        Self { body, copy }
    }
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(piece) = next.as_ref().and_then(|next| next.as_ref().ok()?.data_ref()) {
            self.copy.add(piece, self.body.size_hint().lower());
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
