//! What goes wrong between an answer and its client.

use std::{fmt, future::pending, time::Duration};

use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::{
    body::{Body, Step},
    config::Config,
    envelope::Answer,
};

/// Arrays within each other under the fault `deep`: more than a stack holds, whose ever it is.
const DEPTH: usize = 500_000;

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub enum Fault {
    /// Nothing.
    None,
    /// Status 500 with an envelope that says so.
    #[value(name = "status-500")]
    Status500,
    /// Status 502 with a proxy's HTML page.
    #[value(name = "html-502")]
    Html502,
    /// Status 429 with an empty body.
    #[value(name = "status-429")]
    Status429,
    /// Half of the JSON, under status 200 and with its length told truly.
    Truncated,
    /// A success whose `data` is of another shape.
    WrongShape,
    /// The connection ends before a single byte.
    CloseEarly,
    /// The connection ends in the middle of the body.
    CloseMidBody,
    /// No answer until the client leaves.
    Hang,
    /// An answer that does not seem to end.
    Huge,
    /// A success whose record is nested half a million levels deep.
    Deep,
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(super) struct HangUp;

impl fmt::Display for HangUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed before answering, as asked")
    }
}

impl std::error::Error for HangUp {}

impl Fault {
    /// The name that the flag has.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Status500 => "status-500",
            Self::Html502 => "html-502",
            Self::Status429 => "status-429",
            Self::Truncated => "truncated",
            Self::WrongShape => "wrong-shape",
            Self::CloseEarly => "close-early",
            Self::CloseMidBody => "close-mid-body",
            Self::Hang => "hang",
            Self::Huge => "huge",
            Self::Deep => "deep",
        }
    }

    /// The response that is sent in place of an honest answer.
    pub(super) async fn respond(self, honest: Answer, config: &Config) -> Result<Response<Body>, HangUp> {
        let whole = honest.body.clone();
        let half = whole.slice(..whole.len() / 2);
        let with_body = |body: Body| {
            let mut response = honest.clone().into_response();
            *response.body_mut() = body;
            Ok(response)
        };
        match self {
            Self::None => Ok(honest.into_response()),
            Self::Status500 => Ok(Answer::failure(500, "500", "系统异常").into_response()),
            Self::Html502 => Ok(html_502()),
            Self::Status429 => {
                let busy = Answer {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    body: Bytes::new(),
                    retry_after: config.retry_after,
                };
                Ok(busy.into_response())
            }
            Self::Truncated => with_body(Body::whole(half)),
            Self::WrongShape => {
                let data = r#"{"list":[{"audienceUserId":{}},17],"total":"many"}"#;
                Ok(Answer::success(config.envelope, Some(data)).into_response())
            }
            Self::CloseEarly => Err(HangUp),
            // The pause lets the first half reach the wire before the connection breaks.
            Self::CloseMidBody => {
                let steps = [Step::Data(half), Step::Wait(Duration::from_millis(1)), Step::Break];
                with_body(Body::script(steps, Some(whole.len() as u64)))
            }
            // The server drops this future when the client closes the connection.
            Self::Hang => pending().await,
            Self::Huge => {
                let open = r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{"remark":""#;
                let steps = [
                    Step::Data(Bytes::from_static(open.as_bytes())),
                    Step::Fill(config.huge_bytes),
                    Step::Data(Bytes::from_static(b"\"}]}")),
                ];
                with_body(Body::script(steps, None))
            }
            Self::Deep => {
                let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
                let data = format!(r#"[{{"remark":{open}{close}}}]"#);
                Ok(Answer::success(config.envelope, Some(&data)).into_response())
            }
        }
    }
}

fn html_502() -> Response<Body> {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n";
    let mut response = Response::new(Body::whole(Bytes::from_static(page.as_bytes())));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}
