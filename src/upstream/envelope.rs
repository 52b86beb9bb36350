//! The upstream's envelope: telling an answer from the many ways of not answering.
//!
//! Nothing is documented about the HTTP status of a refusal, so the envelope is judged first and the status second:
//! 1. `data` is a non-empty array of objects: a success whatever the code, unless the HTTP status is a server's failure;
//! 2. the sentence 操作频繁, a code or status 429: throttled;
//! 3. `100100`, `100200`, `100300`, HTTP 401: unauthorized;
//! 4. HTTP 408, 502, 503 and 504, or a code of 500 to 599: unavailable;
//! 5. code `200` with a `data` that is empty, null or left out: nobody was found;
//! 6. any other code: the request is rejected; no code at all: the status decides.
//!
//! What is nested more than 512 levels deep is no envelope, whatever it says.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::request::depth;

/// The part of every refusal's sentence that does not vary.
const TOO_FREQUENT: &str = "操作频繁";

/// Why an answer without an envelope is invalid.
const NO_ENVELOPE: &str = "no envelope";

/// What an envelope says.
pub(super) enum Reading<'a> {
    /// An answer: the envelope up to `"data":[`, and the records.
    Success(Bytes, Vec<&'a RawValue>),
    Throttled,
    Unauthorized,
    Rejected,
    Unavailable(&'static str),
    Invalid(&'static str),
}

/// How an envelope is spelled: for a person to read, never for a decision.
#[derive(Clone, PartialEq, Eq)]
pub struct Spelling {
    /// What stands in `code`; empty when it is left out.
    pub code: String,
    /// What stands in `errorCode`.
    pub error_code: String,
    /// What stands in `msg`. It may repeat what was asked.
    pub msg: String,
    /// What stands in `data`.
    pub data: DataForm,
}

/// What stands in `data`, without the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataForm {
    /// A list of at least one object.
    Objects,
    /// `[]`.
    EmptyArray,
    /// `null`.
    Null,
    /// Nothing: it is left out.
    LeftOut,
    /// Something that is no list of customers.
    Other,
}

impl Spelling {
    /// The spelling of a body, if that is an envelope.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        let envelope = parse(body).ok()?;
        let data = match (envelope.data, envelope.data()) {
            (_, Data::Objects(_)) => DataForm::Objects,
            (None, _) => DataForm::LeftOut,
            (Some(raw), Data::Nothing) if raw.get() == "null" => DataForm::Null,
            (Some(_), Data::Nothing) => DataForm::EmptyArray,
            (Some(_), Data::Other) => DataForm::Other,
        };
        let owned = |value| text(value).into_owned();
        Some(Self {
            code: owned(envelope.code),
            error_code: owned(envelope.error_code),
            msg: owned(envelope.msg),
            data,
        })
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    code: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_it_stands", rename = "errorCode")]
    error_code: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    msg: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    data: Option<&'a RawValue>,
}

/// Keeps a `null` that was written apart from a member that was left out.
fn as_it_stands<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What stands in `data`.
enum Data<'a> {
    Objects(Vec<&'a RawValue>),
    /// An empty array, null, or left out.
    Nothing,
    /// Something that is no list of customers.
    Other,
}

/// Judges one whole HTTP answer.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Reading<'_> {
    if matches!(status.as_u16(), 408 | 502..=504) {
        // Even with an envelope: it is then a proxy's on the way.
        let throttled = parse(body).is_ok_and(|envelope| throttles(&envelope, status));
        return if throttled { Reading::Throttled } else { Reading::Unavailable("a gateway error") };
    }
    let envelope = match parse(body) {
        Ok(envelope) => envelope,
        Err(reason) => return by_status(status, reason),
    };
    let failed = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let data = match envelope.data() {
        Data::Objects(records) if !failed => return Reading::Success(envelope.head(), records),
        data => data,
    };
    let code = text(envelope.code);
    let error_code = text(envelope.error_code);
    let head = envelope.head();
    if throttles(&envelope, status) {
        return Reading::Throttled;
    }
    let is = |wanted: &str| code == wanted || error_code == wanted;
    if is("100100") || is("100200") || is("100300") || is("401") || status == StatusCode::UNAUTHORIZED {
        return Reading::Unauthorized;
    }
    let succeeded = code == "200" && matches!(&*error_code, "" | "SUCCESS" | "0" | "200");
    match data {
        _ if code.len() == 3 && code.starts_with('5') => Reading::Unavailable("a server error"),
        Data::Nothing if succeeded && status.is_success() => Reading::Success(head, Vec::new()),
        Data::Other if succeeded => Reading::Invalid("`data` is no list of objects"),
        _ if code.is_empty() || succeeded => by_status(status, NO_ENVELOPE),
        _ => Reading::Rejected,
    }
}

/// What stands in a member of `data`, where that is an object.
pub(super) fn member<'a>(body: &'a [u8], name: &str) -> Option<&'a RawValue> {
    let members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(parse(body).ok()?.data?.get()).ok()?;
    members.get(name).copied()
}

/// Whether an answer to a write says that nothing was written: any error does (RFC 9111, section 4.4), by its status or
/// by its envelope. An answer that cannot be understood does not: what became of the write is then not known.
#[must_use]
pub fn is_refusal(status: StatusCode, body: &[u8]) -> bool {
    match read(status, body) {
        Reading::Throttled | Reading::Unauthorized | Reading::Rejected => true,
        Reading::Unavailable(_) => true,
        Reading::Success(..) | Reading::Invalid(_) => status.is_client_error() || status.is_server_error(),
    }
}

/// Whether an answer says that whoever asks is not known.
#[must_use]
pub fn is_unauthorized(status: StatusCode, body: &[u8]) -> bool {
    matches!(read(status, body), Reading::Unauthorized)
}

/// Whether an answer says that the upstream is asked too often.
#[must_use]
pub fn is_throttled(status: StatusCode, body: &[u8]) -> bool {
    matches!(read(status, body), Reading::Throttled)
}

/// What is left to go by when there is no envelope.
fn by_status(status: StatusCode, reason: &'static str) -> Reading<'static> {
    match status.as_u16() {
        429 => Reading::Throttled,
        401 => Reading::Unauthorized,
        400..=499 => Reading::Rejected,
        500..=599 => Reading::Unavailable("a server error"),
        _ => Reading::Invalid(reason),
    }
}

fn parse(body: &[u8]) -> Result<Envelope<'_>, &'static str> {
    if depth::is_deeper_than(body, depth::MAX_ANSWER_DEPTH) {
        return Err(depth::ANSWER_TOO_DEEP);
    }
    // A struct would also be read from an array.
    let object = body.trim_ascii_start().starts_with(b"{");
    object.then(|| serde_json::from_slice(body).ok()).flatten().ok_or(NO_ENVELOPE)
}

fn throttles(envelope: &Envelope<'_>, status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || text(envelope.msg).contains(TOO_FREQUENT)
        || text(envelope.code) == "429"
        || text(envelope.error_code) == "429"
}

impl<'a> Envelope<'a> {
    fn data(&self) -> Data<'a> {
        let Some(data) = self.data.filter(|data| data.get() != "null") else { return Data::Nothing };
        match serde_json::from_str::<Vec<&RawValue>>(data.get()) {
            Ok(list) if list.is_empty() => Data::Nothing,
            Ok(list) if list.iter().all(|record| record.get().starts_with('{')) => Data::Objects(list),
            Ok(_) | Err(_) => Data::Other,
        }
    }

    /// The envelope as callers get it, up to where the records begin.
    fn head(&self) -> Bytes {
        let mut head = String::from("{");
        for (name, value) in [("code", self.code), ("errorCode", self.error_code), ("msg", self.msg)] {
            if let Some(value) = value {
                head.extend(["\"", name, "\":", value.get(), ","]);
            }
        }
        head.push_str("\"data\":[");
        Bytes::from(head)
    }
}

/// A string's content, or a number as it stands.
fn text(value: Option<&RawValue>) -> Cow<'_, str> {
    let Some(value) = value else { return Cow::Borrowed("") };
    let value = value.get();
    if value == "null" {
        return Cow::Borrowed("");
    }
    if value.starts_with('"') {
        serde_json::from_str(value).map_or(Cow::Borrowed(""), Cow::Owned)
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(status: u16, body: &str) -> &'static str {
        match read(StatusCode::from_u16(status).expect("a status"), body.as_bytes()) {
            Reading::Success(_, records) => ["nobody", "one", "two"][records.len()],
            Reading::Throttled => "throttled",
            Reading::Unauthorized => "unauthorized",
            Reading::Rejected => "rejected",
            Reading::Unavailable(_) => "unavailable",
            Reading::Invalid(_) => "invalid",
        }
    }

    #[test]
    fn the_envelope_is_judged_before_the_status() {
        let refusal = r#"{"code":"500","errorCode":"500","msg":"操作频繁,请稍后重试","data":null}"#;
        for status in [200, 400, 429, 500, 503] {
            assert_eq!(name(status, refusal), "throttled", "{status}");
        }
        let deep = format!(r#"{{"code":"200","data":[{{"a":{}{}}}]}}"#, "[".repeat(510), "]".repeat(510));
        let rows = [
            (200, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{},{}]}"#, "two"),
            (200, r#"{"code":"28930","errorCode":"28930","msg":"l1j777","data":[{}]}"#, "one"),
            (200, r#"{"code":200,"errorCode":"0","msg":"操作成功","data":[]}"#, "nobody"),
            (200, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":null}"#, "nobody"),
            (200, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok"}"#, "nobody"),
            (200, r#"{"code":"28930","errorCode":"28930","msg":"?","data":[]}"#, "rejected"),
            (200, r#"{"code":"100200","msg":"token"}"#, "unauthorized"),
            (500, r#"{"code":"100100","msg":"appid"}"#, "unauthorized"),
            (200, r#"{"code":"100300"}"#, "unauthorized"),
            (401, "", "unauthorized"),
            (403, "<html>", "rejected"),
            (500, r#"{"code":"400001","msg":"bad key"}"#, "rejected"),
            (200, r#"{"code":"400001","msg":"bad key","data":null}"#, "rejected"),
            (413, "<html>", "rejected"),
            (500, r#"{"status":500,"error":"Internal Server Error"}"#, "unavailable"),
            (200, r#"{"code":"500","msg":"系统繁忙"}"#, "unavailable"),
            (500, "", "unavailable"),
            (502, r#"{"code":"502","data":[{}]}"#, "unavailable"),
            (504, "<html>", "unavailable"),
            (500, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[]}"#, "unavailable"),
            (429, "", "throttled"),
            (200, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{},{}"#, "invalid"),
            (200, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":{}}"#, "invalid"),
            (200, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[1]}"#, "invalid"),
            (200, "[]", "invalid"),
            (200, "", "invalid"),
            (302, "", "invalid"),
            (200, &deep, "invalid"),
            (401, &deep, "unauthorized"),
        ];
        for (status, body, expected) in rows {
            assert_eq!(name(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_write_failed_where_its_answer_says_so_by_status_or_envelope() {
        let too_frequent = r#"{"code":"100500","errorCode":"100500","msg":"操作频繁,请稍后重试","data":null}"#;
        let bad_token = r#"{"code":"100200","errorCode":"100200","msg":"token无效或已过期","data":null}"#;
        let business = r#"{"code":"400003","errorCode":"400003","msg":"单次最多500条","data":null}"#;
        let server = r#"{"code":"500","errorCode":"500","msg":"系统异常","data":null}"#;
        let done = r#"{"code":"200","data":{"total":1},"errorCode":"0","msg":"操作成功"}"#;
        let rows = [
            (200, too_frequent, true),
            (503, too_frequent, true),
            (200, bad_token, true),
            (200, business, true),
            (500, business, true),
            (400, "", true),
            (401, "", true),
            (413, "<html>", true),
            (429, "", true),
            (200, done, false),
            (201, r#"{"code":"200"}"#, false),
            (200, r#"{"code":"28930","data":[{}]}"#, false),
            (204, "", false),
            (200, "ok", false),
            (200, server, true),
            (500, server, true),
            (502, "<html>", true),
            (504, "", true),
            (302, "", false),
        ];
        for (status, body, refused) in rows {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_refusal(status, body.as_bytes()), refused, "{status} {body}");
        }
    }

    #[test]
    fn each_way_of_giving_no_data_is_told_apart() {
        let rows = [
            (r#"{"code":200,"errorCode":"0","msg":"ok","data":[]}"#, DataForm::EmptyArray),
            (r#"{"code":"200","errorCode":"0","msg":"ok","data":null}"#, DataForm::Null),
            (r#"{"code":"200","errorCode":"0","msg":"ok"}"#, DataForm::LeftOut),
            (r#"{"code":"200","errorCode":"0","msg":"ok","data":[{}]}"#, DataForm::Objects),
            (r#"{"code":"200","errorCode":"0","msg":"ok","data":{}}"#, DataForm::Other),
        ];
        for (body, form) in rows {
            let spelling = Spelling::of(body.as_bytes()).expect("an envelope");
            assert_eq!((&*spelling.code, &*spelling.error_code, &*spelling.msg), ("200", "0", "ok"), "{body}");
            assert_eq!(spelling.data, form, "{body}");
        }
        assert!(Spelling::of(b"<html>").is_none());
    }

    #[test]
    fn the_envelope_is_kept_as_it_was_spelled() {
        let body = r#"{"msg":"\u64cd作","data":[{"a":1}],"code": 200 ,"extra":1,"errorCode":null}"#;
        let Reading::Success(head, records) = read(StatusCode::OK, body.as_bytes()) else { panic!("a success") };
        assert_eq!(&head[..], r#"{"code":200,"errorCode":null,"msg":"\u64cd作","data":["#.as_bytes());
        assert_eq!(records[0].get(), r#"{"a":1}"#);
    }
}
