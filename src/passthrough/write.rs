//! One write on its way, from its head until it is known what became of it.
//!
//! - **It is settled once**, when it is dropped; and before the caller can see the end of its answer
//!   ([`Judged`](super::judged::Judged)), so that the caller's next lookup sees the change.
//! - **What failed makes nothing old**: the upstream answered with an error, or it was never sent. Where nobody knows,
//!   because the caller left or the answer did not come or broke off, it counts as done.
//! - **What it names** stands in a copy of its body ([`Transcript`]). A body that is too large for a copy, or cannot be
//!   read, makes nothing old, and a metric and a line in the log say so. So does one for which there was no room.

use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt;

use super::{
    Body,
    invalidate::Cached,
    items::items,
    tee::{Lost, Tee, Transcript},
};
use crate::{
    cache::Whose,
    clock::{self, Instant},
    key::Credential,
    key_log::Cause,
    metrics::WriteOutcome,
    upstream::{self, wire},
};

/// Ids that one write may name on one lookup path: the 500 customers that the platform takes at once, with ten each.
const MAX_IDS: usize = 5000;

/// One write under way.
pub(super) struct Write {
    cached: Arc<Cached>,
    credential: Credential,
    /// The member of the body that holds the items.
    items: Arc<str>,
    /// The copy of the body; none when that is compressed.
    copy: Option<Transcript>,
    fate: Fate,
}

/// What is known of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing; if something of it was sent, it may have happened.
    Open,
    /// It was answered, and not with a refusal.
    Answered,
    /// It did not happen.
    Failed,
}

impl Write {
    pub(super) fn new(cached: Arc<Cached>, credential: Credential, items: Arc<str>, copy: Option<Transcript>) -> Self {
        Self { cached, credential, items, copy, fate: Fate::Open }
    }

    /// Its body, of which a copy is made as it passes.
    pub(super) fn copied(&self, body: Body) -> Body {
        match &self.copy {
            Some(copy) => Tee::new(body, copy.clone()).boxed_unsync(),
            None => body,
        }
    }

    /// It was answered with this status, and with this body if all of it is known.
    pub(super) fn answered(mut self, status: StatusCode, body: &[u8]) {
        // Open => Failed | Answered
        self.fate = if upstream::is_refusal(status, body) { Fate::Failed } else { Fate::Answered };
    }

    /// It was never sent.
    pub(super) fn not_sent(mut self) {
        // Open => Failed
        self.fate = Fate::Failed;
    }

    /// Makes old what it names.
    fn settle(&self, now: Instant) -> WriteOutcome {
        if self.fate == Fate::Failed {
            return WriteOutcome::NotApplied;
        }
        let Some(copy) = &self.copy else { return WriteOutcome::Unreadable };
        let body = match copy.take() {
            Ok(body) => body,
            Err(Lost::TooLarge) => return WriteOutcome::TooLarge,
            Err(Lost::NoRoom) => return WriteOutcome::NoRoom,
        };
        if body.is_empty() && self.fate == Fate::Open {
            // Nothing of the body was taken: it was not sent.
            return WriteOutcome::NotApplied;
        }
        // Of a body that broke off nothing can be read: JSON has its last brace at its end.
        let Some(items) = items(&body, &self.items) else { return WriteOutcome::Unreadable };
        for (lookup, shape) in (0..=u8::MAX).zip(&self.cached.shapes) {
            let ids = items.iter().filter_map(|item| wire::carried_by(shape, item)).flatten();
            let ids: Vec<_> = ids.take(MAX_IDS + 1).collect();
            if ids.len() > MAX_IDS {
                return WriteOutcome::TooLarge;
            }
            if !ids.is_empty() {
                let whose = Whose::Credentials(&self.credential);
                // What is read from now on is not read from the store before that has forgotten it, too.
                let (forgotten, _in_the_store) =
                    self.cached.cache.forget_for_good((lookup, shape), whose, (&ids, false), now);
                let keys = ids.iter().chain(forgotten.meant.iter().map(|key| &key.id));
                self.cached.key_log.forgotten(shape, Cause::Write, keys);
                self.cached.metrics.keys.inc_by(u64::try_from(forgotten.keys).unwrap_or(u64::MAX));
            }
        }
        WriteOutcome::Applied
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let outcome = self.settle(clock::now());
        self.cached.metrics.outcome(outcome);
        if matches!(outcome, WriteOutcome::TooLarge | WriteOutcome::NoRoom | WriteOutcome::Unreadable) {
            let reason = outcome.as_str();
            tracing::warn!(reason, "a write was not read: what it changed stays cached until it is too old");
        }
    }
}
