//! What the log says of single keys: where an operator who has a customer's number, and the secret, finds the customer.
//!
//! Each line names its key by its [hash](crate::key_hash), and says one thing that happened to it.
//!
//! - **Without a secret** there is no such line: nothing in the log then identifies a key.
//! - **Only at level debug.** [`KeyLog::of`] looks at the level first, which is one read of memory; nothing is hashed and
//!   nothing is collected for lines that nobody wants.

use std::{collections::HashSet, sync::Arc};

use tracing::{Level, debug};

use crate::{
    key::Id,
    key_hash::{KeyHash, KeyHasher},
    secret::Secret,
    shape::Shape,
};

/// Whether and how the log names keys.
#[derive(Clone, Default, Debug)]
pub struct KeyLog(Option<Arc<KeyHasher>>);

/// Writes lines of keys of one lookup path.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    hasher: &'a KeyHasher,
    shape: &'a Shape,
}

/// Why what was known of a key was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// An operator erased the customer.
    Purge,
    /// The upstream said that the customer has changed.
    Event,
    /// A request that passed through changed the customer.
    Write,
    /// Another gateway that uses the same store forgot the customer.
    Elsewhere,
}

impl Cause {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Event => "event",
            Self::Write => "write",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl KeyLog {
    /// A log that names keys by their hash with this secret; without one it never does.
    #[must_use]
    pub fn new(secret: Option<&Secret>) -> Self {
        Self(secret.map(|secret| Arc::new(KeyHasher::new(secret))))
    }

    /// The lines of a lookup path's keys, if anybody wants them.
    #[must_use]
    pub fn of<'a>(&'a self, shape: &'a Shape) -> Option<Lines<'a>> {
        if !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        self.0.as_deref().map(|hasher| Lines { hasher, shape })
    }

    /// Everything was forgotten of these keys, which may be given more than once.
    pub fn forgotten<'a>(&self, shape: &Shape, cause: Cause, ids: impl IntoIterator<Item = &'a Id>) {
        let Some(lines) = self.of(shape) else { return };
        for id in ids.into_iter().collect::<HashSet<_>>() {
            lines.forgotten(id, cause);
        }
    }
}

impl<'a> Lines<'a> {
    /// A caller asked for a key, and this is what the cache made of it.
    pub fn asked(&self, id: &Id, result: &str) {
        debug!(lookup = %self.shape.path, key = %self.name(id), result, "a key was asked for");
    }

    /// A caller whose key had to be fetched was answered with this status; the records of this key in it, if there is
    /// an answer for it.
    pub fn answered(&self, id: &Id, status: u16, records: Option<usize>) {
        debug!(lookup = %self.shape.path, key = %self.name(id), status, records, "a key that had to be fetched was answered");
    }

    /// What came of an upstream request for so many keys, of which this is one.
    pub fn fetched(&self, id: &Id, outcome: &str, keys: usize) {
        debug!(lookup = %self.shape.path, key = %self.name(id), outcome, keys, "a key was in an upstream request");
    }

    fn forgotten(&self, id: &Id, cause: Cause) {
        let cause = cause.as_str();
        debug!(lookup = %self.shape.path, key = %self.name(id), cause, "what was cached of a key was forgotten");
    }

    fn name(&self, id: &Id) -> KeyHash<'a> {
        self.hasher.hash(&self.shape.list(id.kind).kind, &id.value)
    }
}
