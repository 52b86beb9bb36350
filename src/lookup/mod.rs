//! Lookups.

pub mod canonical;
pub mod directives;
pub mod encode;
pub mod wire;

use std::time::Duration;

/// What a lookup needs to know of its `[[lookup]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Keys in one caller's request; more is a 400.
    pub max_keys_per_request: usize,
    /// How long a caller waits at most.
    pub timeout: Duration,
}
