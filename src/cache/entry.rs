//! Freshness.
use std::time::Duration;

/// How long an answer is good, and for what, counted from when it was fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// An answer with records is fresh this long.
    pub ttl: Duration,
    /// An answer without records is fresh this long.
    pub negative_ttl: Duration,
    /// For this long after `ttl` it is answered at once and refreshed behind (RFC 5861, section 3).
    pub stale_while_revalidate: Duration,
    /// For this long after `ttl` it is answered while the upstream fails or refuses (RFC 5861, section 4).
    pub stale_if_error: Duration,
}
