//! Where a lookup is in its caller's trace, and the spans of it: of the whole, and of its wait.

use std::sync::Arc;

use http::{HeaderMap, Response};

use super::{Lookup, tally::Account};
use crate::{
    clock::{self, Instant},
    trace::{
        Context, Recorder, Span, Waiting,
        span::{Side, Value},
    },
};

/// One lookup's place in a trace.
pub(super) struct Traced {
    began: Instant,
    caller: Option<Context>,
    lookup: Context,
}

impl Traced {
    /// Where the spans of a lookup belong, if they are recorded.
    pub(super) fn open(recorder: &Recorder, headers: &HeaderMap, began: Instant) -> Option<Box<Self>> {
        if !recorder.is_on() {
            return None;
        }
        let caller = Context::read(headers);
        let lookup = recorder.enter(caller.as_ref())?;
        Some(Box::new(Self { began, caller, lookup }))
    }

    /// The lookup is over.
    pub(super) fn close<B>(self, lookup: &Lookup, account: Account, response: &Response<B>) {
        let status = response.status();
        lookup.recorder.record(|| Span {
            name: "lookup",
            parent: self.caller.as_ref().map(|caller| caller.span_id),
            is_parent_remote: self.caller.is_some(),
            context: self.lookup,
            side: Side::Server,
            began: self.began,
            ended: clock::now(),
            attributes: vec![
                ("gateway.lookup", Value::Word(lookup.shape.path.clone())),
                ("http.response.status_code", Value::Count(status.as_u16().into())),
                ("gateway.keys", Value::Count(account.keys.into())),
                ("gateway.hits", Value::Count(account.hits.into())),
            ],
            links: Vec::new(),
            is_error: status.is_server_error(),
        });
    }
}

/// Where a lookup's wait belongs: below the lookup where spans are recorded, else where its caller is.
pub(super) fn waiting(traced: Option<&Traced>, headers: &HeaderMap) -> Option<Arc<Waiting>> {
    let waiting = match traced {
        Some(traced) => Waiting { lookup: traced.lookup.clone(), wait: traced.lookup.child() },
        None => {
            let caller = Context::read(headers)?;
            Waiting { lookup: caller.clone(), wait: caller }
        }
    };
    Some(Arc::new(waiting))
}

/// A wait is over.
pub(super) fn waited(lookup: &Lookup, waiting: &Waiting, began: Instant, keys: usize) {
    lookup.recorder.record(|| Span {
        name: "wait",
        context: waiting.wait.clone(),
        parent: Some(waiting.lookup.span_id),
        is_parent_remote: false,
        side: Side::Internal,
        began,
        ended: clock::now(),
        attributes: vec![("gateway.keys", Value::Count(keys as u64))],
        links: Vec::new(),
        is_error: false,
    });
}
