//! Every answer that is an error, its status and its envelope, chosen in one place.
//!
//! A refusal's body is the upstream's own envelope, `{"code","errorCode","msg","data":null}`, so that a caller's
//! existing error handling keeps working behind the gateway. Messages name fields, never values.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::clock::whole_seconds_up;

/// What the upstream says when it is asked too often, and so does the gateway: callers already know the sentence.
pub const TOO_FREQUENT: &str = "操作频繁,请稍后重试";

/// The media type of every body the gateway itself writes.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Why a request is answered with an error of the gateway's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request cannot be understood; the sentence names the field.
    InvalidRequest(Cow<'static, str>),
    /// The path cannot be brought into one safe form.
    UnsafePath(&'static str),
    /// Only callers with a token are served, and this one sent none that is known.
    Unauthenticated,
    /// Nothing is served at this path.
    NotFound,
    /// A path that takes a POST was asked with another method.
    MethodNotAllowed,
    /// The request, its head or its body, did not arrive in time.
    RequestTimeout,
    /// The body is over the configured limit, in bytes.
    BodyTooLarge(usize),
    /// The request line is over the server's limit.
    UriTooLong,
    /// The head is over the server's limits.
    HeadersTooLarge,
    /// The body says that it is something other than JSON.
    UnsupportedMediaType,
    /// The queue is too long for the caller's deadline, or the client asks too often; the wait that was computed.
    TooFrequent(Duration),
    /// The upstream kept failing; when to ask again.
    UpstreamUnavailable(Duration),
    /// The upstream's limit is shared with other gateways, and they cannot be asked; when to ask again.
    ReplicasUnavailable(Duration),
    /// What was to be erased is still in a store that several gateways use, because that cannot be reached.
    StoreUnavailable,
    /// The upstream did not answer a passed-through request in time.
    UpstreamTimeout,
    /// The gateway is draining.
    ShuttingDown,
    /// Too many connections or requests in flight, or too many bytes of their bodies.
    Overloaded,
    /// The caller's deadline passed; the keys stay queued.
    LookupTimeout(Duration),
    /// `only-if-cached`, and something was not.
    NotCached,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidRequest(_) | Self::UnsafePath(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooFrequent(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::UpstreamUnavailable(_) => StatusCode::BAD_GATEWAY,
            Self::ReplicasUnavailable(_) | Self::StoreUnavailable | Self::ShuttingDown | Self::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamTimeout | Self::LookupTimeout(_) | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The name in `errorCode`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::UnsafePath(_) => "INVALID_REQUEST",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::BodyTooLarge(_) => "BODY_TOO_LARGE",
            Self::UriTooLong => "URI_TOO_LONG",
            Self::HeadersTooLarge => "HEADERS_TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::TooFrequent(_) => "TOO_FREQUENT",
            Self::UpstreamUnavailable(_) | Self::UpstreamTimeout => "UPSTREAM_UNAVAILABLE",
            Self::ReplicasUnavailable(_) => "REPLICAS_UNAVAILABLE",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Overloaded => "OVERLOADED",
            Self::LookupTimeout(_) => "LOOKUP_TIMEOUT",
            Self::NotCached => "NOT_CACHED",
        }
    }

    /// The sentence in `msg`.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::InvalidRequest(sentence) => sentence.clone(),
            Self::UnsafePath(sentence) => Cow::Borrowed(sentence),
            Self::Unauthenticated => Cow::Borrowed("a token that the gateway knows is needed"),
            Self::NotFound => Cow::Borrowed("nothing is served at this path"),
            Self::MethodNotAllowed => Cow::Borrowed("this path takes a POST"),
            Self::RequestTimeout => Cow::Borrowed("the request did not arrive in time"),
            Self::BodyTooLarge(limit) => Cow::Owned(format!("the body is over the limit of {limit} bytes")),
            Self::UriTooLong => Cow::Borrowed("the request line is over the limit of 32 KiB"),
            Self::HeadersTooLarge => Cow::Borrowed("the headers are over the limit of 64 KiB, or of 100"),
            Self::UnsupportedMediaType => Cow::Borrowed("the body must be application/json"),
            Self::TooFrequent(_) => Cow::Borrowed(TOO_FREQUENT),
            Self::UpstreamUnavailable(_) => Cow::Borrowed("the upstream is not answering"),
            Self::UpstreamTimeout => Cow::Borrowed("the upstream did not answer in time"),
            Self::ReplicasUnavailable(_) => Cow::Borrowed("the gateways that share the limit cannot be reached"),
            Self::StoreUnavailable => {
                Cow::Borrowed("forgotten here, and in the store as soon as it can be reached: ask again to be sure")
            }
            Self::ShuttingDown => Cow::Borrowed("the gateway is shutting down"),
            Self::Overloaded => Cow::Borrowed("too many connections, requests in flight, or bytes of their bodies"),
            Self::LookupTimeout(_) => {
                Cow::Borrowed("not answered within the deadline; the keys stay queued, so asking again finds them")
            }
            Self::NotCached => Cow::Borrowed("only-if-cached was asked, and not every key is cached"),
        }
    }

    /// How long the caller should wait before it asks again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFrequent(wait)
            | Self::UpstreamUnavailable(wait)
            | Self::ReplicasUnavailable(wait)
            | Self::LookupTimeout(wait) => Some(*wait),
            Self::StoreUnavailable | Self::ShuttingDown | Self::Overloaded => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The whole response: status, headers and envelope.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let status = self.status();
        let message = serde_json::to_string(&self.message()).expect("this holds because a string always serialises");
        let body =
            format!(r#"{{"code":"{}","errorCode":"{}","msg":{message},"data":null}}"#, status.as_u16(), self.as_str());
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if *self == Self::MethodNotAllowed {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if *self == Self::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds_up(wait)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_row_of_the_contract() {
        let wait = Duration::from_millis(2500);
        let rows = [
            (Refusal::InvalidRequest("phoneList must be an array".into()), 400, "INVALID_REQUEST", None),
            (Refusal::UnsafePath("bad escape"), 400, "INVALID_REQUEST", None),
            (Refusal::Unauthenticated, 401, "UNAUTHENTICATED", None),
            (Refusal::NotFound, 404, "NOT_FOUND", None),
            (Refusal::MethodNotAllowed, 405, "METHOD_NOT_ALLOWED", None),
            (Refusal::RequestTimeout, 408, "REQUEST_TIMEOUT", None),
            (Refusal::BodyTooLarge(10), 413, "BODY_TOO_LARGE", None),
            (Refusal::UriTooLong, 414, "URI_TOO_LONG", None),
            (Refusal::HeadersTooLarge, 431, "HEADERS_TOO_LARGE", None),
            (Refusal::UnsupportedMediaType, 415, "UNSUPPORTED_MEDIA_TYPE", None),
            (Refusal::TooFrequent(wait), 429, "TOO_FREQUENT", Some("3")),
            (Refusal::UpstreamUnavailable(wait), 502, "UPSTREAM_UNAVAILABLE", Some("3")),
            (Refusal::UpstreamTimeout, 504, "UPSTREAM_UNAVAILABLE", None),
            (Refusal::ReplicasUnavailable(wait), 503, "REPLICAS_UNAVAILABLE", Some("3")),
            (Refusal::StoreUnavailable, 503, "STORE_UNAVAILABLE", Some("1")),
            (Refusal::ShuttingDown, 503, "SHUTTING_DOWN", Some("1")),
            (Refusal::Overloaded, 503, "OVERLOADED", Some("1")),
            (Refusal::LookupTimeout(wait), 504, "LOOKUP_TIMEOUT", Some("3")),
            (Refusal::NotCached, 504, "NOT_CACHED", None),
        ];
        for (refusal, status, name, retry_after) in rows {
            let response = refusal.response();
            assert_eq!(response.status().as_u16(), status);
            let envelope: serde_json::Value = serde_json::from_slice(response.body()).expect("an envelope is JSON");
            assert_eq!(envelope["code"], status.to_string());
            assert_eq!(envelope["errorCode"], name);
            assert_eq!(envelope["data"], serde_json::Value::Null);
            assert!(envelope["msg"].as_str().is_some_and(|msg| !msg.is_empty()));
            let header = response.headers().get(RETRY_AFTER).map(|value| value.to_str().expect("ascii"));
            assert_eq!(header, retry_after, "{name}");
        }
        assert_eq!(Refusal::MethodNotAllowed.response().headers()[ALLOW], "POST");
        assert_eq!(Refusal::Unauthenticated.response().headers()[WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn a_message_with_quotes_stays_json() {
        let response = Refusal::InvalidRequest(r#"field "a\b" is odd"#.into()).response();
        let envelope: serde_json::Value = serde_json::from_slice(response.body()).expect("an envelope is JSON");
        assert_eq!(envelope["msg"], r#"field "a\b" is odd"#);
    }
}
