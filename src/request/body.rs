//! The caller's body: what it says it is, how large it may be, and how long it may take.
//!
//! The usual body comes in one piece, which is a part of what its connection has read: that is not counted. Whoever sends
//! it in several has it kept here, and for that there is one [`Budget`] for all.

use std::{
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    task::Poll,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tower::BoxError;

use super::budget::{Budget, NoRoom};
use crate::{
    error::Refusal,
    live::{Count, Time},
};

/// The limits of a request body.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes.
    pub max: Count,
    /// How long a caller may take to send all of it.
    pub timeout: Time,
    /// What all bodies that are being read may hold.
    pub budget: Budget,
}

/// A body without a type is taken for JSON; one that says it is something else, or that it is compressed, is not read.
pub fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_read = |(name, value): (&HeaderName, &HeaderValue)| match name {
        name if *name == CONTENT_TYPE => is_json(value),
        name if *name == CONTENT_ENCODING => value.as_bytes().eq_ignore_ascii_case(b"identity"),
        _ => true,
    };
    if headers.iter().all(is_read) { Ok(()) } else { Err(Refusal::UnsupportedMediaType) }
}

fn is_json(content_type: &HeaderValue) -> bool {
    // As nearly everybody spells it.
    if content_type == "application/json" {
        return true;
    }
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    let subtype = subtype.to_ascii_lowercase();
    let json = subtype == "json" || subtype.ends_with("+json");
    json && (kind.eq_ignore_ascii_case("application") || kind.eq_ignore_ascii_case("text"))
}

/// Reads the whole body; and whether it had to be waited for.
pub async fn read<B>(mut body: B, limits: &Limits) -> Result<(Bytes, bool), Refusal>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let max = limits.max.now();
    // What its sender has declared, if anything.
    if body.size_hint().lower() > max as u64 {
        return Err(Refusal::BodyTooLarge(max));
    }
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
    let first = match first {
        Poll::Ready(Some(Ok(frame))) if body.is_end_stream() => match frame.into_data() {
            // The usual body is there already, in one piece, and needs no timer.
            Ok(data) if data.len() <= max => return Ok((data, false)),
            Ok(_long) => return Err(Refusal::BodyTooLarge(max)),
            Err(trailers) => Poll::Ready(Some(Ok(trailers))),
        },
        first => first,
    };
    // By itself, because it is many times as large.
    Box::pin(rest(first, body, max, limits)).await
}

/// A part of a body, where it is there already.
type First<B> = Poll<Option<Result<Frame<Bytes>, <B as Body>::Error>>>;

/// Reads what is not there yet, or comes in pieces.
async fn rest<B>(first: First<B>, body: B, max: usize, limits: &Limits) -> Result<(Bytes, bool), Refusal>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut reading = pin!(collect(first, body, max, &limits.budget));
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return read.map(|body| (body, false));
    }
    match tokio::time::timeout(limits.timeout.now(), reading).await {
        Ok(read) => read.map(|body| (body, true)),
        Err(_elapsed) => Err(Refusal::RequestTimeout),
    }
}

async fn collect<B>(mut first: First<B>, mut body: B, max: usize, budget: &Budget) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut whole = budget.keep();
    loop {
        let next = match mem::replace(&mut first, Poll::Pending) {
            Poll::Ready(frame) => frame,
            Poll::Pending => body.frame().await,
        };
        let Some(frame) = next else { return Ok(whole.into()) };
        let broken = |_error| Refusal::InvalidRequest("the body broke off".into());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err(Refusal::BodyTooLarge(max));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend(&data).map_err(|NoRoom| Refusal::Overloaded)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(content_type: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers
    }

    #[test]
    fn a_body_without_a_type_is_taken_for_json() {
        assert_eq!(check_headers(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn a_body_that_says_it_is_json_is_read_and_any_other_is_not() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "text/json", "application/problem+json"] {
            assert_eq!(check_headers(&typed(json)), Ok(()), "{json}");
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
        {
            assert_eq!(check_headers(&typed(other)), Err(Refusal::UnsupportedMediaType), "{other}");
        }
    }

    #[test]
    fn a_compressed_body_is_not_read() {
        let mut headers = typed("application/json");
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(check_headers(&headers), Err(Refusal::UnsupportedMediaType));
    }
}
