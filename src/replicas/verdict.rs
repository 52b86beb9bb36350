//! A verdict as it is published: everything that the dispatcher learns of an upstream request, and nothing more.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::offer::Wish;
use crate::upstream::verdict::{Found, PassedOn, Success, Verdict};

/// What is said of an answer that the winner could not read.
const UNREADABLE: &str = "the answer that another gateway got cannot be understood";

/// A verdict as it is written.
#[derive(Serialize, Deserialize)]
pub(super) enum Written {
    Success(Answer),
    Throttled(Option<u64>),
    Unauthorized(Refusal),
    Renewed,
    Rejected(Refusal),
    TooLarge,
    Unavailable(String, Option<u64>),
    Invalid,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    envelope: String,
    records: Vec<Customer>,
    of: Vec<Vec<usize>>,
    unmatched: bool,
    exclusive: Vec<bool>,
}

#[derive(Serialize, Deserialize)]
struct Customer {
    json: Box<RawValue>,
    ids: Vec<Wish>,
    carried: usize,
    identity: Option<usize>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    status: u16,
    content_type: Option<String>,
    body: String,
}

impl Written {
    pub(super) fn new(verdict: &Verdict) -> Self {
        let millis = |wait: &Option<Duration>| wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        match verdict {
            Verdict::Success(success) => Answer::new(success).map_or(Self::Invalid, Self::Success),
            Verdict::Throttled(wait) => Self::Throttled(millis(wait)),
            Verdict::Unauthorized(refusal) => Self::Unauthorized(Refusal::new(refusal)),
            Verdict::Renewed => Self::Renewed,
            Verdict::Rejected(refusal) => Self::Rejected(Refusal::new(refusal)),
            Verdict::TooLarge => Self::TooLarge,
            Verdict::Unavailable(reason, wait) => Self::Unavailable(reason.clone().into_owned(), millis(wait)),
            // Gateways that share a slot have no gateway for their upstream.
            Verdict::Declined(_) | Verdict::Invalid(_) => Self::Invalid,
        }
    }

    pub(super) fn read(self) -> Option<Verdict> {
        let millis = |wait: Option<u64>| wait.map(Duration::from_millis);
        Some(match self {
            Self::Success(answer) => Verdict::Success(answer.read()?),
            Self::Throttled(wait) => Verdict::Throttled(millis(wait)),
            Self::Unauthorized(refusal) => Verdict::Unauthorized(refusal.read()?),
            Self::Renewed => Verdict::Renewed,
            Self::Rejected(refusal) => Verdict::Rejected(refusal.read()?),
            Self::TooLarge => Verdict::TooLarge,
            Self::Unavailable(reason, wait) => Verdict::Unavailable(reason.into(), millis(wait)),
            Self::Invalid => Verdict::Invalid(UNREADABLE),
        })
    }
}

impl Answer {
    fn new(success: &Success) -> Option<Self> {
        let customer = |found: &Found| {
            let json = std::str::from_utf8(&found.json).ok()?.to_owned();
            Some(Customer {
                json: RawValue::from_string(json).ok()?,
                ids: found.ids.iter().map(|id| Wish { id: id.clone(), keep: true }).collect(),
                carried: found.carried,
                identity: found.identity,
            })
        };
        Some(Self {
            envelope: std::str::from_utf8(&success.envelope).ok()?.to_owned(),
            records: success.records.iter().map(customer).collect::<Option<_>>()?,
            of: success.of.clone(),
            unmatched: success.unmatched,
            exclusive: success.exclusive.clone(),
        })
    }

    /// Nothing where positions point outside: whoever wrote that knows no better than to be asked again.
    fn read(self) -> Option<Success> {
        let count = self.records.len();
        let sound = |customer: &Customer| {
            let ids = customer.ids.len();
            customer.carried <= ids && customer.identity.is_none_or(|at| at < ids)
        };
        if !self.records.iter().all(sound) || self.of.iter().flatten().any(|&at| at >= count) {
            return None;
        }
        let found = |customer: Customer| Found {
            json: String::from(Box::<str>::from(customer.json)).into_bytes().into(),
            ids: customer.ids.into_iter().map(|wish| wish.id).collect(),
            carried: customer.carried,
            identity: customer.identity,
        };
        Some(Success {
            envelope: Bytes::from(self.envelope),
            records: self.records.into_iter().map(found).collect(),
            of: self.of,
            unmatched: self.unmatched,
            exclusive: self.exclusive,
            age: Duration::ZERO,
        })
    }
}

impl Refusal {
    fn new(refusal: &PassedOn) -> Self {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        Self {
            status: refusal.status.as_u16(),
            content_type: refusal.content_type.as_ref().and_then(text),
            body: BASE64.encode(&refusal.body),
        }
    }

    fn read(self) -> Option<Arc<PassedOn>> {
        let content_type = self.content_type.and_then(|text| HeaderValue::from_str(&text).ok());
        let body = BASE64.decode(self.body).ok()?.into();
        Some(Arc::new(PassedOn {
            status: StatusCode::from_u16(self.status).ok()?,
            content_type,
            retry_after: None,
            body,
        }))
    }
}
