//! `GET /log` and `PUT /log`: which lines are written now, and which from now on.
//!
//! A body is `{"level":"debug"}` or the filter alone, as a person types it; its type is not looked at as long as it is one
//! that a person's tool sends by itself.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use hyper::body::Body;
use serde::Deserialize;
use serde_json::json;
use tower::BoxError;

use super::{Admin, PLAIN, text};
use crate::{
    error::{JSON, Refusal},
    live::Count,
    log_filter::Filter,
    request::{Limits, body},
};

/// Bytes of a filter: more than all modules have letters.
const LONGEST: usize = 8 << 10;

/// What curl and its like send where they are told nothing.
const PLAIN_TYPES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"];

/// The body in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
}

impl Admin {
    pub(super) async fn log<B>(&self, method: &Method, headers: &HeaderMap, body: B) -> Result<Response<Bytes>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        if *method == Method::PUT {
            self.set_log(headers, body).await?;
        } else if *method != Method::GET && *method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "this is a GET or a PUT\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"));
            return Ok(response);
        }
        Ok(text(StatusCode::OK, JSON, json!({ "level": self.log.now().to_string() }).to_string()))
    }

    async fn set_log<B>(&self, headers: &HeaderMap, body: B) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        check_headers(headers)?;
        let limits = Limits { max: Count::new(self.limits.max.now().min(LONGEST)), ..self.limits.clone() };
        let (body, _waited) = body::read(body, &limits).await?;
        self.log.set(filter(&body)?);
        Ok(())
    }
}

/// As for any other body, but that plain text is what it is.
fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut others = headers.clone();
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    if let (Some(one), None) = (types.next(), types.next()) {
        let essence = one.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if PLAIN_TYPES.iter().any(|plain| plain.eq_ignore_ascii_case(essence)) {
            others.remove(CONTENT_TYPE);
        }
    }
    body::check_headers(&others)
}

fn filter(body: &[u8]) -> Result<Filter, Refusal> {
    let refused = |sentence: String| Refusal::InvalidRequest(sentence.into());
    let text = std::str::from_utf8(body).or(Err(refused("the body must be text".to_owned())))?.trim();
    let level = if text.starts_with('{') {
        // Its own message would quote what was sent.
        let wanted: Result<Wanted, _> = serde_json::from_str(text);
        wanted
            .or(Err(refused(r#"the body must be JSON such as {"level":"debug"}, or the level alone"#.to_owned())))?
            .level
    } else {
        text.to_owned()
    };
    level.parse().map_err(|sentence| refused(format!("level {sentence}")))
}
