//! `POST /events`: the upstream says that a customer has changed.
//!
//! An event is read as a record is: the ids that its fields carry name the customer, whatever else it says. What is
//! cached of that customer is forgotten, and fetched again at once in the background, in every scope that had it.
//!
//! - **What is not cached is not fetched**, so events for customers that nobody asks for cost nothing.
//! - **An event says that there is something new, not what.** So it does no harm when it is repeated, late or out of
//!   order: while a refresh is queued another one adds nothing.
//! - **An event that names no customer is counted** and answered like any other, so that the upstream does not send it
//!   again.

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::Body;
use serde_json::{Value, value::RawValue};
use tower::BoxError;

use super::{Admin, forget::Named, success};
use crate::{
    clock::{self, Instant},
    error::Refusal,
    key_log::Cause,
    live::Count,
    metrics::EventOutcome,
    request::{
        body::{self, Limits},
        depth,
    },
    upstream::wire,
};

/// Bytes of an event: it is a record without most of its fields.
const MAX_EVENT: usize = 64 << 10;

/// Ids that one event may name on one lookup path: a customer with all its phones.
const MAX_IDS: usize = 64;

impl Admin {
    pub(super) async fn event<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Bytes>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        match self.read_event(headers, body).await {
            Ok(named) => {
                self.counters.event(self.apply(named, clock::now()).await);
                Ok(success(&Value::Null))
            }
            Err(refusal) => {
                self.counters.event(EventOutcome::Invalid);
                Err(refusal)
            }
        }
    }

    /// The ids that an event carries, for each lookup path.
    async fn read_event<B>(&self, headers: &HeaderMap, body: B) -> Result<Named, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        body::check_headers(headers)?;
        let limits = Limits { max: Count::new(self.limits.max.now().min(MAX_EVENT)), ..self.limits.clone() };
        let (body, _waited) = body::read(body, &limits).await?;
        if depth::is_too_deep(&body) {
            return Err(Refusal::InvalidRequest(depth::TOO_DEEP.into()));
        }
        let not_json = |_error| Refusal::InvalidRequest("the body is not JSON".into());
        let event: &RawValue = serde_json::from_slice(&body).map_err(not_json)?;
        let ids = self.paths.iter().map(|path| wire::carried_by(&path.shape, event));
        let named: Named =
            ids.collect::<Option<_>>().ok_or(Refusal::InvalidRequest("the body must be one JSON object".into()))?;
        if named.iter().any(|ids| ids.len() > MAX_IDS) {
            return Err(Refusal::InvalidRequest("an event names one customer".into()));
        }
        Ok(named)
    }

    async fn apply(&self, named: Named, now: Instant) -> EventOutcome {
        if named.iter().all(Vec::is_empty) {
            return EventOutcome::Unknown;
        }
        let mut outcome = EventOutcome::NotCached;
        // What a store cannot be told now it is told later: the upstream need not say it again.
        let (forgotten, _stored) = self.forget(named, Cause::Event, now).await;
        for (path, forgotten) in self.paths.iter().zip(forgotten) {
            if path.dispatch.renew(now, forgotten.meant, forgotten.held) {
                outcome = EventOutcome::Refreshed;
            }
        }
        outcome
    }
}
