//! The calls beside the lookups: tokens, ids, tags, a customer by phone, and writes.

use std::collections::BTreeMap;

use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    arrivals::Outcome,
    call::Call,
    config::EnvelopeSpelling,
    envelope::Answer,
    lookup::take,
    record::Viewer,
    state::State,
    writes::{self, Item},
};
use crate::clock::Instant;

/// Items that one write may carry, as documented.
const MAX_ITEMS: usize = 500;
/// Ids that one page may hold, as documented.
const MAX_PAGE: usize = 10_000;

/// A body of `batchAdd`.
#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "publicParams", default)]
    public: Map<String, Value>,
    data: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// A parameter of a query, decoded.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
}

/// The header's value, where it is text.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

impl State {
    /// The answer to a call that is neither a lookup nor an echo, once limiter, method and token are settled.
    pub(super) fn sibling(&mut self, call: Call, uri: &Uri, token: &str, body: &[u8]) -> (Outcome, Answer) {
        let principal = self.tokens.principal(token);
        let viewer = Viewer::new(&principal, "", "");
        let done = |data: &str| (Outcome::Accepted, Answer::success(EnvelopeSpelling::Sibling, Some(data)));
        match call {
            Call::IdList => {
                let after = parameter(uri, "audienceUserId").and_then(|id| id.parse().ok()).unwrap_or(0);
                let size = parameter(uri, "size").and_then(|size| size.parse().ok()).unwrap_or(MAX_PAGE);
                done(&self.answering(&self.config, &viewer).ids_after(after, size.min(MAX_PAGE)))
            }
            Call::TagList => {
                let tags: Vec<String> =
                    (0..95).map(|n| format!(r#"{{"tagId":"{n}","tagName":"标签\/{n}"}}"#)).collect();
                done(&format!("[{}]", tags.join(",")))
            }
            Call::PhoneInfo => {
                let phone = serde_json::from_slice(body).ok().and_then(|mut fields| take(&mut fields, "phone"));
                let answering = self.answering(&self.config, &viewer);
                let found = phone.iter().flat_map(|phone| answering.reached("phoneList", phone));
                let records: Vec<String> = found.map(|index| answering.record(Call::Detail, index)).collect();
                done(&format!("[{}]", records.join(",")))
            }
            Call::BatchAdd => self.write(&principal, body),
            _ => (Outcome::NotFound, Answer::failure(404, "404", "接口不存在")),
        }
    }

    /// Issues a token to whoever knows the secret.
    pub(super) fn issue_token(&mut self, uri: &Uri, now: Instant) -> (Outcome, Answer) {
        let app = parameter(uri, "instanceAppid").filter(|app| !app.is_empty());
        let secret = parameter(uri, "instanceSecrect");
        let (Some(app), true) = (app, secret.is_some_and(|secret| self.config.knows_secret(&secret))) else {
            let wrong = Answer::failure(self.config.rejection_status, "100100", "appid或secret错误");
            return (Outcome::Unauthorized, wrong);
        };
        let token = self.tokens.issue(&app, self.config.token_ttl, now);
        let expire = if self.config.token_expire_zero { 0 } else { self.config.token_ttl.as_secs() };
        let data = format!(r#"{{"orgAccessToken":"{token}","orgRefreshToken":"refresh-{token}","expire":{expire}}}"#);
        (Outcome::Accepted, Answer::success(EnvelopeSpelling::Sibling, Some(&data)))
    }

    /// Imports or updates customers; the whole body counts or none of it.
    fn write(&mut self, principal: &str, body: &[u8]) -> (Outcome, Answer) {
        let fail = |status, code: &str, msg: &str| (Outcome::Rejected, Answer::failure(status, code, msg));
        let status = self.config.rejection_status;
        let Ok(mut batch) = serde_json::from_slice::<Batch>(body) else {
            return fail(status, "400000", "参数错误");
        };
        if batch.data.len() > MAX_ITEMS {
            return fail(status, "400003", "单次最多500条");
        }
        let company = take(&mut batch.public, "companyId").unwrap_or_default();
        let viewer = Viewer::new(principal, &company, "");
        let mut ids = Vec::with_capacity(batch.data.len());
        for fields in &batch.data {
            let item = item(fields);
            let directory = self.answering(&self.config, &viewer).directory;
            let current = writes::matching(&directory, &item).map(|index| directory.customer(index));
            let Some(index) = self.changes.entry(viewer.org.clone()).or_default().write(current, &item) else {
                return fail(507, "507", "模拟器已满");
            };
            ids.push(format!("\"{}\"", super::customers::id_of(index)));
        }
        let data = format!(r#"{{"total":{},"audienceUserIdList":[{}]}}"#, ids.len(), ids.join(","));
        (Outcome::Accepted, Answer::success(EnvelopeSpelling::Sibling, Some(&data)))
    }
}

/// Reads one item; `null` sets nothing.
fn item(fields: &BTreeMap<String, Box<RawValue>>) -> Item {
    let mut item = Item::default();
    for (name, raw) in fields {
        let text = || match serde_json::from_str(raw.get()) {
            Ok(Value::String(text)) => Some(text).filter(|text| !text.is_empty()),
            Ok(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        match name.as_str() {
            "audienceUserId" => item.id = text().and_then(|id| id.parse().ok()),
            "thirdId" => item.third_id = text(),
            "phone" => item.phone = text(),
            "phoneList" | "orgId" => {}
            _ if raw.get() == "null" => {}
            _ => item.fields.push((name.clone(), raw.get().to_owned())),
        }
    }
    item
}
