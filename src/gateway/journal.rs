//! One line for each caller's request, at level debug: which route, what came of it, how long it took, in whose trace.
//!
//! While nobody wants these lines a request costs one look at the level. Nothing of the request itself is in a line but its
//! trace's id, and that only where it is a proper one.

use http::{HeaderMap, StatusCode};
use tracing::{Level, debug};

use super::edge::took;
use crate::{
    clock::Instant,
    lookup::Account,
    trace::{Context, TraceId},
};

/// What is noted of a request when it comes.
pub(super) struct Journal {
    began: Instant,
    trace_id: Option<TraceId>,
    /// What a lookup says, once it has looked.
    pub(super) account: Option<Account>,
}

impl Journal {
    /// Begins a line, if anybody wants it.
    pub(super) fn open(headers: &HeaderMap, began: Instant) -> Option<Box<Self>> {
        let trace_id = || Context::read(headers).map(|context| context.trace_id);
        tracing::enabled!(Level::DEBUG).then(|| Box::new(Self { began, trace_id: trace_id(), account: None }))
    }

    /// Writes it.
    pub(super) fn close(self, route: &str, status: StatusCode) {
        let account = self.account;
        debug!(
            route,
            status = status.as_u16(),
            keys = account.map(|account| account.keys),
            hits = account.map(|account| account.hits),
            duration_ms = took(self.began).as_micros() as f64 / 1000.0,
            trace_id = self.trace_id.map(tracing::field::display),
            "request"
        );
    }
}
