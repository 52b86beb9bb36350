//! The last word to a connection that is not served: that there are too many, or that its head took too long.
//!
//! A goodbye takes bounded time and bytes, and only [`AT_ONCE`] connections over the limit get one at the same time:
//! beyond that they are closed without a word, so that a flood costs little.

use std::{convert::Infallible, future::poll_fn, future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tower::service_fn;

use super::{
    connection::Terms,
    drain::Drain,
    opening::{self, Accepted},
    patience::LINGER,
    watched::{LINGER_BYTES, poll_discard},
};
use crate::error::Refusal;

/// Connections over the limit that are told so at the same time.
pub(super) const AT_ONCE: usize = 64;

/// How long such a connection has for its head, and for taking its answer: it occupies a place that others want.
const HURRY: Duration = Duration::from_secs(1);

/// The turns to say goodbye.
#[derive(Clone, Debug)]
pub(super) struct Goodbyes {
    turns: Arc<Semaphore>,
}

impl Goodbyes {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// A turn, to be kept as long as the goodbye takes.
    pub(super) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).try_acquire_owned().ok()
    }
}

/// Answers the connection's first request with 503 and closes it.
///
/// The request is waited for, because a client that is answered before it asked takes that for a broken connection.
pub(super) async fn overloaded<Io>(accepted: Accepted<Io>, drain: Drain)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|_request| ready(Ok::<_, Infallible>(Refusal::Overloaded.response().map(Full::new))));
    let terms = Terms { header_timeout: HURRY, idle_timeout: HURRY, min_rate: 0, keep_alive: false };
    // Whatever else it does, it has been counted.
    let _reason = opening::serve(accepted, service, terms, drain).await;
}

/// Sends the refusal to a peer that is in the middle of a head, and closes the connection.
pub(super) async fn tell<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io, refusal: &Refusal) {
    let text = encode(&refusal.response());
    let mut left = LINGER_BYTES;
    // A peer that does not take it, or does not close its side, misses it.
    let _ = timeout(LINGER, async {
        if io.write_all(&text).await.is_ok() && io.shutdown().await.is_ok() {
            poll_fn(|cx| poll_discard(&mut io, cx, &mut left)).await;
        }
    })
    .await;
}

/// The response as it goes over the wire, by hand: hyper has no request that this would answer.
fn encode(response: &Response<Bytes>) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    text
}
