//! One line for each caller's request, at level debug: which route, what came of it, how long it took, in whose trace.
//!
//! While nobody wants these lines a request costs one look at the level. Nothing of the request itself is in a line but its
//! trace's id, and that only where it is a proper one.

use http::{HeaderMap, Response};
use tracing::{Level, debug};

use super::{ResponseBody, took};
use crate::{
    clock::Instant,
    lookup::Account,
    trace::{Context, TraceId},
};

/// What is noted of a request when it comes.
pub(super) struct Journal {
    began: Instant,
    trace_id: Option<TraceId>,
}

impl Journal {
    /// Begins a line, if anybody wants it.
    pub(super) fn open(headers: &HeaderMap, began: Instant) -> Option<Self> {
        tracing::enabled!(Level::DEBUG)
            .then(|| Self { began, trace_id: Context::read(headers).map(|context| context.trace_id) })
    }

    /// Writes it.
    pub(super) fn close(self, route: &str, response: &Response<ResponseBody>) {
        let account = response.extensions().get::<Account>().copied();
        debug!(
            route,
            status = response.status().as_u16(),
            keys = account.map(|account| account.keys),
            hits = account.map(|account| account.hits),
            duration_ms = took(self.began).as_secs_f64() * 1000.0,
            trace_id = self.trace_id.map(tracing::field::display),
            "request"
        );
    }
}
