//! The envelope around every answer, byte for byte as the vendor's pages show it.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::Value;

use super::{
    body::Body,
    config::{Config, EnvelopeSpelling},
};
use crate::{
    clock::whole_seconds_up,
    error::{JSON, TOO_FREQUENT},
};

/// A whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// The envelope.
    pub(super) body: Bytes,
    /// When to ask again.
    pub(super) retry_after: Option<Duration>,
}

impl Answer {
    /// A success around `data` (JSON text), or without any.
    pub(super) fn success(spelling: EnvelopeSpelling, data: Option<&str>) -> Self {
        let data = data.map_or_else(String::new, |data| format!(r#","data":{data}"#));
        let body = match spelling {
            EnvelopeSpelling::Success => format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok"{data}}}"#),
            EnvelopeSpelling::Sibling => format!(r#"{{"code":"200"{data},"errorCode":"0","msg":"操作成功"}}"#),
            EnvelopeSpelling::Example => format!(r#"{{"code":"28930","errorCode":"28930","msg":"l1j777"{data}}}"#),
        };
        Self { status: StatusCode::OK, body: body.into(), retry_after: None }
    }

    /// A failure with its code.
    pub(super) fn failure(status: u16, code: &str, msg: &str) -> Self {
        let code = Value::from(code);
        let body = format!(r#"{{"code":{code},"errorCode":{code},"msg":{},"data":null}}"#, Value::from(msg));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body: body.into(), retry_after: None }
    }

    /// The limiter's refusal.
    pub(super) fn too_frequent(config: &Config) -> Self {
        let refusal = Self::failure(config.refusal_status, &config.refusal_code, TOO_FREQUENT);
        Self { retry_after: config.retry_after, ..refusal }
    }

    /// The response, with nothing gone wrong.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::whole(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds_up(wait)));
        }
        response
    }
}
