//! What is said of an upstream request that is over, and of the upstream: in the log, in metrics, in its span.
//!
//! - **One line for each request**, whatever became of it, at level info.
//! - **A state is a line when it begins and one when it ends**, at level warn, however many requests it takes in between.
//! - Never a record, a token or a header; a key by its hash only, and a scope by a name that nobody can read.

use tracing::{info, warn};

use super::{
    handle::State,
    pacer::Pacer,
    worker::{UnderWay, Worker, millis},
};
use crate::{
    clock::Instant,
    trace::{
        Onward, Span,
        span::{Side, Value},
    },
    upstream::verdict::Verdict,
};

/// How the upstream seems to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    /// Several requests in a row have failed.
    is_down: bool,
    /// The last answer was that it is asked too often.
    is_throttled: bool,
    /// It takes fewer keys in a request than are configured.
    most_keys: usize,
}

impl Condition {
    pub(super) fn of(state: &State) -> Self {
        let pacer: &Pacer = &state.pacer;
        Self { is_down: pacer.is_down(), is_throttled: pacer.is_throttled(), most_keys: state.queue.max_batch_keys() }
    }
}

impl Worker {
    /// Says what is not as it was before.
    pub(super) fn report(&self, before: Condition, after: Condition, gap: std::time::Duration) {
        let lookup = &*self.shape.path;
        match (before.is_down, after.is_down) {
            (false, true) => warn!(lookup, down = true, "the upstream is down: misses are refused until it is back"),
            (true, false) => warn!(lookup, down = false, "the upstream is up again"),
            _ => {}
        }
        match (before.is_throttled, after.is_throttled) {
            (false, true) => {
                let gap_seconds = gap.as_secs_f64();
                warn!(lookup, throttled = true, gap_seconds, "the upstream says that it is asked too often");
            }
            (true, false) => warn!(lookup, throttled = false, "the upstream does not say so any more"),
            _ => {}
        }
        if after.most_keys < before.most_keys {
            warn!(
                lookup,
                max_batch_keys = after.most_keys,
                "the upstream takes fewer keys in a request than were sent"
            );
        }
    }

    /// Counts, logs and records one upstream request.
    pub(super) fn note(&self, under_way: &UnderWay, verdict: &Verdict, now: Instant) {
        let UnderWay { batch, fetch, onward, .. } = under_way;
        let took = now.saturating_duration_since(fetch.started());
        let metrics = &self.shared.metrics;
        metrics.outcome(verdict.outcome());
        metrics.upstream_duration.observe(took.as_secs_f64());
        let waited = batch.waits.iter().max().copied().unwrap_or_default();
        info!(
            lookup = %self.shape.path,
            scope = %batch.ask.scope.name(),
            outcome = verdict.outcome().as_str(),
            reason = verdict.reason(),
            keys = batch.ask.ids.len(),
            background_keys = batch.background,
            rider_keys = batch.riders,
            waited_ms = millis(waited),
            took_ms = millis(took),
            trace_id = onward.as_ref().map(|onward| tracing::field::display(onward.context.trace_id)),
            linked_trace_ids = onward.as_ref().and_then(Onward::linked),
            "upstream request"
        );
        if let Some(lines) = self.key_log.of(&self.shape) {
            let keys = batch.ask.ids.len();
            batch.ask.ids.iter().for_each(|id| lines.fetched(id, verdict.outcome().as_str(), keys));
        }
        if let Some(onward) = onward {
            self.recorder.record(|| self.span(under_way, onward, verdict, now));
        }
    }

    fn span(&self, UnderWay { batch, fetch, .. }: &UnderWay, onward: &Onward, verdict: &Verdict, now: Instant) -> Span {
        let outcome = verdict.outcome().as_str();
        Span {
            name: "upstream",
            context: onward.context.clone(),
            parent: onward.parent,
            is_parent_remote: false,
            side: Side::Client,
            began: fetch.started(),
            ended: now,
            attributes: vec![
                ("gateway.lookup", Value::Word(self.shape.path.clone())),
                ("gateway.outcome", Value::Word(outcome.to_owned())),
                ("gateway.keys", Value::Count(batch.ask.ids.len() as u64)),
                ("gateway.rider_keys", Value::Count(batch.riders as u64)),
            ],
            links: onward.links.iter().map(|link| link.lookup.clone()).collect(),
            is_error: !matches!(verdict, Verdict::Success(_)),
        }
    }
}
