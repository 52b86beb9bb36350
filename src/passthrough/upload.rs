//! The request's body, shared between the connection that sends it and the one who may call it off.
//!
//! hyper's client keeps a body as long as it has bytes to flush, and an upstream that does not read has it wait forever.
//! The caller must not wait with it: when its request is over, its body is let go, wherever the rest of it is stuck.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use super::Body;

/// The body as the connection reads it.
pub(super) struct Upload(Arc<Mutex<Option<Body>>>);

/// The request is under way until this is dropped.
pub(super) struct Claim(Arc<Mutex<Option<Body>>>);

impl Upload {
    pub(super) fn new(body: Body) -> (Self, Claim) {
        let body = Arc::new(Mutex::new(Some(body)));
        (Self(Arc::clone(&body)), Claim(body))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        lock(&self.0)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self.lock() {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(Some(Err("the request was called off".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lock().as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let body = lock(&self.0).take();
        // Outside the lock: whose body it is may be woken by it.
        drop(body);
    }
}

/// If a body panicked under this lock, it is dropped with its request soon.
fn lock(body: &Mutex<Option<Body>>) -> MutexGuard<'_, Option<Body>> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}
