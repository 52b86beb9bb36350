//! The first words of a connection: whether it is TLS, and which HTTP is spoken.
//!
//! - **Without TLS** the first bytes tell: HTTP/2 begins with a preface that is no request of HTTP/1 (RFC 9113, section
//!   3.4; there is no upgrade any more). They are looked at once for each connection, not for each request.
//! - **With TLS** the handshake decides (ALPN). Whoever speaks plain HTTP to such a port is told so.
//! - All of it counts as the wait for the first head: it is over after the header timeout.

use std::{future::poll_fn, io, pin::pin, task::Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, error::Elapsed, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tower::{BoxError, Service};

use super::{
    Peer,
    connection::{self, Terms},
    drain::Drain,
    goodbye, http2,
    received::Received,
    stats::Reason,
    tls::{HTTP_2, Tls},
    wire::{Begun, Wire},
};
use crate::{clock, error::Refusal};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose client has not said anything yet.
pub(super) struct Accepted<Io> {
    pub(super) io: Io,
    pub(super) peer: Peer,
    pub(super) tls: Option<Tls>,
}

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Http1,
    Http2,
}

/// What became of the first words.
enum Outcome<Io> {
    Opened(Wire<Io>, Protocol),
    /// The peer is told, and the connection closed.
    Refused(Io, Reason, Refusal),
    /// There is nobody to be told anything; why, where that was the server's wish.
    Gone(Option<Reason>),
}

/// Serves one connection until it is closed by either side; why, where that was the server's wish.
pub(super) async fn serve<Io, S, B>(
    accepted: Accepted<Io>,
    service: S,
    terms: Terms,
    mut drain: Drain,
) -> Option<Reason>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data: From<Bytes> + Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let Accepted { io, mut peer, tls } = accepted;
    let begun = clock::now();
    match open(io, tls, begun + terms.header_timeout, &mut drain).await {
        Outcome::Opened(wire, protocol) => {
            peer.is_secure = matches!(wire, Wire::Tls(_));
            match protocol {
                Protocol::Http1 => connection::serve((wire, peer, begun), service, terms, drain).await,
                // Most connections are not this, and need no room for it.
                Protocol::Http2 => Box::pin(http2::serve((wire, peer), service, terms, drain)).await,
            }
        }
        Outcome::Refused(io, reason, refusal) => {
            goodbye::tell(io, &refusal).await;
            Some(reason)
        }
        Outcome::Gone(reason) => reason,
    }
}

/// Finds out what is spoken, by the deadline and unless the server drains before that.
async fn open<Io>(io: Io, tls: Option<Tls>, deadline: Instant, drain: &mut Drain) -> Outcome<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut io = Begun::new(io);
    let is_tls = tls.is_some();
    match (in_time(listen(&mut io, is_tls), deadline, drain).await, tls) {
        (Some(Ok(Ok(protocol))), None) => Outcome::Opened(Wire::Plain(io), protocol),
        // A record of TLS never begins with a letter, a method always does.
        (Some(Ok(Ok(_))), Some(_)) if io.first().first().is_some_and(u8::is_ascii_alphabetic) => {
            let refusal = Refusal::InvalidRequest("this port speaks TLS: use https".into());
            Outcome::Refused(io.into_inner(), Reason::MalformedHead, refusal)
        }
        (Some(Ok(Ok(_))), Some(tls)) => {
            in_time(tls.acceptor().accept(io), deadline, drain).await.map_or(Outcome::Gone(None), opened)
        }
        // What came is the beginning of something, but took too long to become it.
        (Some(Err(_elapsed)), _) if !io.first().is_empty() => {
            Outcome::Refused(io.into_inner(), Reason::SlowHead, Refusal::RequestTimeout)
        }
        (Some(Err(_elapsed)), _) => Outcome::Gone(Some(Reason::Idle)),
        _ => Outcome::Gone(None),
    }
}

/// What it resolves to, by the deadline; none where the server drains first.
async fn in_time<F: Future>(wait: F, deadline: Instant, drain: &mut Drain) -> Option<Result<F::Output, Elapsed>> {
    let mut wait = pin!(timeout_at(deadline, wait));
    // What has arrived by now counts, whatever else has.
    poll_fn(|cx| match wait.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if drain.has_begun(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Reads until the protocol shows. Where TLS is spoken it shows later: the first byte is enough here.
async fn listen<Io: AsyncRead + Unpin>(io: &mut Begun<Io>, is_tls: bool) -> io::Result<Protocol> {
    loop {
        let known = io.first().len().min(PREFACE.len());
        if io.first()[..known] != PREFACE[..known] || (is_tls && known > 0) {
            return Ok(Protocol::Http1);
        }
        if known == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        if !io.read_ahead().await? {
            return Ok(Protocol::Http1);
        }
    }
}

/// What became of a handshake.
fn opened<Io>(handshake: Result<io::Result<TlsStream<Begun<Io>>>, Elapsed>) -> Outcome<Io> {
    match handshake {
        Ok(Ok(stream)) => {
            let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
            let protocol = if is_http_2 { Protocol::Http2 } else { Protocol::Http1 };
            Outcome::Opened(Wire::Tls(Box::new(stream)), protocol)
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            Outcome::Gone(Some(Reason::Handshake))
        }
        Err(_elapsed) => {
            tracing::debug!("a TLS handshake took too long");
            Outcome::Gone(Some(Reason::Handshake))
        }
    }
}
