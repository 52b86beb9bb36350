//! What a proxy does to headers: those of one connection stay on it, and both sides learn that there was a proxy.
//!
//! - **Hop by hop** (RFC 9110, section 7.6.1): what `Connection` names, and what names itself, is removed.
//! - **Lengths** are what the bodies say. hyper has read the framing; repeating its words would let two readers differ.
//! - **`Forwarded` and its elders are appended to**: what a caller claims stays in front, what the gateway saw is last.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response,
};

use crate::server::Peer;

/// Headers of a connection even where `Connection` does not say so. `Trailer` is not among them: trailers pass.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("http2-settings"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a body is framed by its length, by chunks or by nothing: no other coding was taken off it, so it could not be
/// passed on as what it is.
pub(super) fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Makes a caller's request one of the gateway's own; `length` is its body's, where that is known.
pub(super) fn for_upstream(parts: &mut request::Parts, length: Option<u64>) {
    let host = host(parts);
    let peer = parts.extensions.get().copied().unwrap_or_default();
    let headers = &mut parts.headers;
    let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    // The server has answered it, and the client names the upstream's own.
    headers.remove(EXPECT);
    headers.remove(HOST);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    match length {
        // A caller that says so is believed: some servers want to hear it.
        Some(0) if headers.contains_key(CONTENT_LENGTH) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(0))),
        Some(0) => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => {
            headers.remove(CONTENT_LENGTH);
            // Said outright, because hyper takes it that a GET has no body.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    join_cookies(headers);
    append(headers, &VIA, via(parts.version));
    append_origin(headers, peer, host.as_ref());
}

/// Makes the upstream's answer to a request with this method one of the gateway's own.
pub(super) fn for_caller(parts: &mut response::Parts, method: &Method) {
    remove_hop_by_hop(&mut parts.headers);
    // Without a body it says how long one would have been; else hyper says it for the body there is.
    if method != Method::HEAD {
        parts.headers.remove(CONTENT_LENGTH);
    }
    append(&mut parts.headers, &VIA, via(parts.version));
}

/// Counts a hop of those that a request may still take (RFC 9110, section 7.6.2). Whether this is where it ends: then it
/// must not be passed on.
pub(super) fn is_last_hop(method: &Method, headers: &mut HeaderMap) -> bool {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return false;
    }
    let Some(left) = headers.get(MAX_FORWARDS).and_then(|left| left.to_str().ok()?.parse::<u64>().ok()) else {
        return false;
    };
    if let Some(left) = left.checked_sub(1) {
        headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    }
    left == 0
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The members of a header that is a list of tokens. A line that is not text has none.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

/// The host that the caller asked: the request target's, where it has one.
fn host(parts: &request::Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    }
}

/// Who received the message in which version of HTTP.
fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 audience-gateway",
        Version::HTTP_2 => "2 audience-gateway",
        _ => "1.1 audience-gateway",
    })
}

fn append_origin(headers: &mut HeaderMap, peer: Peer, host: Option<&HeaderValue>) {
    let address = peer.address.map(|address| address.ip().to_canonical());
    let proto = if peer.is_secure { "https" } else { "http" };
    let mut forwarded = match address {
        Some(address) if address.is_ipv6() => format!(r#"for="[{address}]""#),
        Some(address) => format!("for={address}"),
        None => "for=unknown".to_owned(),
    };
    if let Some(value) = address.and_then(|address| HeaderValue::from_str(&address.to_string()).ok()) {
        append(headers, &X_FORWARDED_FOR, value);
    }
    if let Some(host) = host {
        append(headers, &X_FORWARDED_HOST, host.clone());
        // Anything else would end the quotes.
        let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if let Some(host) = host.to_str().ok().filter(|host| host.as_bytes().iter().all(plain)) {
            forwarded.push_str(&format!(r#";host="{host}""#));
        }
    }
    append(headers, &X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    forwarded.push_str(&format!(";proto={proto}"));
    if let Ok(forwarded) = HeaderValue::from_str(&forwarded) {
        append(headers, &FORWARDED, forwarded);
    }
}

/// HTTP/2 takes cookies apart, and HTTP/1 wants them in one line (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1 {
        let line = lines.join(&b"; "[..]);
        if let Ok(mut line) = HeaderValue::from_bytes(&line) {
            line.set_sensitive(true);
            headers.insert(COOKIE, line);
        }
    }
}

/// Adds a member to a list, in one line: many readers look at one line only.
fn append(headers: &mut HeaderMap, name: &HeaderName, member: HeaderValue) {
    let mut line = Vec::new();
    for value in headers.get_all(name) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(member.as_bytes());
    // Joined header values are one.
    headers.insert(name, HeaderValue::from_bytes(&line).unwrap_or(member));
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    fn request(lines: &[(&str, &str)]) -> request::Parts {
        let request = lines.iter().fold(Request::get("/x"), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
    }

    #[test]
    fn what_belongs_to_a_connection_is_removed_and_the_rest_is_kept() {
        let lines = [
            ("connection", "close, X-Private"),
            ("connection", "upgrade"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x-sum"),
            ("x-token", "kept"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ];
        let mut parts = request(&lines);
        parts.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        for_upstream(&mut parts, Some(0));
        let mut left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie", "forwarded", "trailer", "via", "x-forwarded-proto", "x-token"]);
        assert_eq!(text(&parts.headers, "cookie"), ["a=1; b=2"]);

        let response = lines.iter().fold(Response::builder(), |response, (name, value)| response.header(*name, *value));
        let mut parts = response.body(()).expect("a response").into_parts().0;
        for_caller(&mut parts, &Method::GET);
        let mut left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie", "trailer", "via", "x-token"]);
    }

    #[test]
    fn hops_are_counted_where_a_request_may_say_how_many_are_left() {
        for (method, said, is_last, left) in [
            (Method::OPTIONS, "2", false, "1"),
            (Method::OPTIONS, "0", true, "0"),
            (Method::TRACE, "0", true, "0"),
            (Method::OPTIONS, "x", false, "x"),
            (Method::GET, "0", false, "0"),
        ] {
            let mut parts = request(&[("max-forwards", said)]);
            assert_eq!(is_last_hop(&method, &mut parts.headers), is_last, "{method} {said}");
            assert_eq!(text(&parts.headers, "max-forwards"), [left]);
        }
        assert!(!is_last_hop(&Method::OPTIONS, &mut HeaderMap::new()));
    }

    #[test]
    fn trailers_are_asked_for_where_the_caller_takes_them() {
        let mut parts = request(&[("te", "gzip;q=0.5, Trailers"), ("connection", "te, close")]);
        for_upstream(&mut parts, Some(0));
        assert_eq!(text(&parts.headers, "te"), ["trailers"]);
        assert_eq!(text(&parts.headers, "connection"), ["te"]);
    }

    #[test]
    fn what_the_gateway_saw_comes_last() {
        let mut parts = request(&[
            ("host", "gateway:8080"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
            ("via", "1.0 fred"),
            ("connection", "x-forwarded-for"),
        ]);
        parts.extensions.insert(Peer::at(Some("[2001:db8::1]:4711".parse().expect("an address"))));
        for_upstream(&mut parts, Some(0));
        // The caller may take its own claim back, and no more than that.
        assert_eq!(text(&parts.headers, "x-forwarded-for"), ["2001:db8::1"]);
        assert_eq!(text(&parts.headers, "x-forwarded-host"), ["gateway:8080"]);
        assert_eq!(text(&parts.headers, "x-forwarded-proto"), ["http"]);
        let forwarded = r#"for=10.0.0.1, for="[2001:db8::1]";host="gateway:8080";proto=http"#;
        assert_eq!(text(&parts.headers, "forwarded"), [forwarded]);
        assert_eq!(text(&parts.headers, "via"), ["1.0 fred, 1.1 audience-gateway"]);
        assert!(!parts.headers.contains_key(HOST));

        let mut parts = request(&[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")]);
        parts.extensions.insert(Peer { address: "192.0.2.1:4711".parse().ok(), is_secure: true });
        for_upstream(&mut parts, Some(0));
        assert_eq!(text(&parts.headers, "x-forwarded-for"), ["10.0.0.1, 10.0.0.2, 192.0.2.1"]);
        assert_eq!(text(&parts.headers, "forwarded"), ["for=192.0.2.1;proto=https"]);
    }

    #[test]
    fn a_length_is_what_the_body_says() {
        for (said, length, sent, chunked) in [
            (None, Some(0), None, false),
            (Some("0"), Some(0), Some("0"), false),
            (Some("5"), Some(5), Some("5"), false),
            (None, None, None, true),
            (Some("5"), None, None, true),
        ] {
            let mut parts = request(&[]);
            parts.headers.extend(said.map(|said| (CONTENT_LENGTH, HeaderValue::from_static(said))));
            for_upstream(&mut parts, length);
            assert_eq!(parts.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes), sent.map(str::as_bytes));
            assert_eq!(parts.headers.contains_key(TRANSFER_ENCODING), chunked);
        }
    }

    #[test]
    fn a_coding_that_stays_on_the_body_is_noticed() {
        let framed = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("transfer-encoding", *line)).collect();
            is_plainly_framed(&request(&lines).headers)
        };
        assert!(framed(&[]) && framed(&["chunked"]) && framed(&["Chunked "]));
        assert!(!framed(&["gzip, chunked"]) && !framed(&["chunked", "chunked"]) && !framed(&["identity"]));
    }
}
