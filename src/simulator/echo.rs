//! What is passed through: answers that show a test what arrived, and bodies that flow.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::{
    body::{self, Body, Step},
    call,
    siblings::parameter,
};
use crate::error::JSON;

/// Bytes of a body that `/echo` repeats inside its JSON; a larger one is shown as `null`.
const MAX_BODY: usize = 16 << 20;
/// Pieces in which `/slow` answers.
const PIECES: u32 = 10;

/// Answers a call below `/echo`, `/bytes` or `/slow`.
pub(super) async fn answer(request: Request<Incoming>) -> Response<Body> {
    let plain = call::plain(request.uri().path());
    let number = |name| parameter(request.uri(), name).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    match plain.strip_prefix("/api/open").unwrap_or(&plain) {
        "/bytes" => {
            let length = number("n");
            Response::new(Body::script([Step::Fill(length)], Some(length)))
        }
        "/slow" => {
            let pause = Duration::from_millis(number("ms")) / PIECES;
            let piece = || [Step::Wait(pause), Step::Data(Bytes::from_static(b"drop\n"))];
            Response::new(Body::script((0..PIECES).flat_map(|_| piece()), None))
        }
        "/echo/raw" => {
            let content_type = request.headers().get(CONTENT_TYPE).cloned();
            let mut response = Response::new(Body::Returned(request.into_body()));
            response.headers_mut().extend(content_type.map(|value| (CONTENT_TYPE, value)));
            response
        }
        "/echo/count" => count(request.into_body()).await,
        _ => mirror(request).await,
    }
}

/// Swallows a body, whatever its length, and says how long it was; nothing where it broke off.
async fn count(mut body: Incoming) -> Response<Body> {
    let mut bytes = Some(0);
    while let Some(frame) = body.frame().await {
        let length = frame.ok().map(|frame| frame.data_ref().map_or(0, Bytes::len));
        bytes = bytes.zip(length).map(|(bytes, length)| bytes + length);
    }
    let mut response = Response::new(Body::whole(json!({ "bodyBytes": bytes }).to_string().into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Says what arrived; two cookies and a header of its own show what comes back.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let body = body::collect(incoming, MAX_BODY).await;
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let said = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": body.as_ref().map(|body| String::from_utf8_lossy(body)),
        "bodyBytes": body.as_ref().map(Bytes::len),
    });
    let mut response = Response::new(Body::whole(said.to_string().into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert("x-echo", HeaderValue::from_static("yes"));
    headers.append("set-cookie", HeaderValue::from_static("a=1"));
    headers.append("set-cookie", HeaderValue::from_static("b=2; Path=/"));
    response
}
