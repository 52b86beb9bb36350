//! Cache.
pub mod entry;

/// What the cache holds and for how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes of records and their overhead; least recently used first out.
    pub capacity: u64,
    /// How long an answer is good, and for what.
    pub policy: entry::Policy,
}
