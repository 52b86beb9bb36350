//! One request of an HTTP/2 connection and its answer.
//!
//! What a gateway passes on becomes HTTP/1 again, so what could be read in two ways there is refused with 400: a length or
//! a host said twice, a name that some server might take for a length's, a target that is none. hyper has refused the rest
//! of what RFC 9113, section 8, calls malformed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ALLOW, CONTENT_LENGTH, HOST},
    request,
};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tower::{BoxError, Service, ServiceExt as _};

use super::{
    Peer,
    connection::METHODS,
    head::{self, Fault},
    quiet::Turn,
    received::{Received, Rest},
    target::{is_authority, is_target},
};
use crate::error::Refusal;

/// Answers one request.
pub(super) async fn answer<S, B>(
    (request, peer): (Request<Incoming>, Peer),
    service: S,
    turn: Turn,
) -> Result<Response<Sent<B>>, S::Error>
where
    S: Service<Request<Received>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body,
{
    let (parts, body) = request.into_parts();
    let (body, rest) = Received::with_rest(body, peer);
    let sent = |body| Sent { body, turn, rest, discarding: None };
    if let Err(fault) = judge(&parts) {
        drop(body);
        return Ok(Refusal::InvalidRequest(fault.as_str().into()).response().map(|text| sent(Source::Own(text))));
    }
    if parts.uri.path() == "*" {
        drop(body);
        let mut response = Response::new(sent(Source::Own(Bytes::new())));
        response.headers_mut().insert(ALLOW, METHODS);
        return Ok(response);
    }
    let is_head = parts.method == Method::HEAD;
    let response = service.oneshot(Request::from_parts(parts, body)).await?;
    if is_head {
        let (mut parts, body) = response.into_parts();
        say_length(&mut parts.headers, body.size_hint().exact());
        return Ok(Response::from_parts(parts, sent(Source::Own(Bytes::new()))));
    }
    Ok(response.map(|body| sent(Source::Service(body))))
}

/// Judges what hyper has let through.
fn judge(parts: &request::Parts) -> Result<(), Fault> {
    if parts.method == Method::CONNECT {
        return Err(Fault::Tunnel);
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !is_target(parts.method.as_str().as_bytes(), target.as_bytes()) {
        return Err(Fault::Target);
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (parts.uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) if is_authority(authority.as_str().as_bytes()) => {}
        (None, Some(host), None) if is_authority(host.as_bytes()) => {}
        // RFC 9113, section 8.3.1: they must say the same.
        (Some(authority), Some(host), None)
            if is_authority(host.as_bytes()) && host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
        }
        _ => return Err(Fault::Host),
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(Fault::ContentLength);
    }
    parts.headers.keys().try_for_each(|name| head::framing(name.as_str().as_bytes()).map(drop))
}

/// An answer to HEAD says how long the one to GET would be.
fn say_length(headers: &mut HeaderMap, length: Option<u64>) {
    if let Some(length) = length.filter(|length| *length > 0) {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

/// An answer's body, which says whose turn it is, and ends when the request's has.
pub(super) struct Sent<B> {
    body: Source<B>,
    turn: Turn,
    /// What the service has left of the request's body.
    rest: Arc<Rest>,
    /// Runs once the answer has been sent and something was left.
    discarding: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

#[derive(Debug)]
enum Source<B> {
    /// The server's own words.
    Own(Bytes),
    Service(B),
}

impl<B> Sent<B> {
    fn poll_discarded(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.discarding.is_none() && !self.rest.is_over() {
            self.discarding = Some(Box::pin(Arc::clone(&self.rest).discard()));
        }
        self.discarding.as_mut().map_or(Poll::Ready(()), |discarding| discarding.as_mut().poll(cx))
    }
}

impl<B: Body<Data: From<Bytes>> + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if this.discarding.is_some() {
            return this.poll_discarded(cx).map(|()| None);
        }
        let polled = match &mut this.body {
            Source::Own(text) if text.is_empty() => Poll::Ready(None),
            Source::Own(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text).into())))),
            Source::Service(body) => Pin::new(body).poll_frame(cx),
        };
        if matches!(polled, Poll::Ready(None)) {
            // With the answer's body the service lets go of what it may still have of the request's.
            this.body = Source::Own(Bytes::new());
            return this.poll_discarded(cx).map(|()| None);
        }
        // hyper comes back for more when the peer has taken what there was.
        if polled.is_pending() {
            this.turn.is_ours();
        } else {
            this.turn.is_the_peers();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let is_sent = match &self.body {
            Source::Own(text) => text.is_empty(),
            Source::Service(body) => body.is_end_stream(),
        };
        is_sent && self.rest.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Own(text) => SizeHint::with_exact(text.len() as u64),
            Source::Service(body) => body.size_hint(),
        }
    }
}
