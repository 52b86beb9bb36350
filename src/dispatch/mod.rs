//! Dispatch.
use std::time::Duration;

/// What is known of requests that carry several lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MixedLists {
    /// Records are believed at once, absence only once a union has been proved.
    Auto,
    /// A request with several lists is known to be a union.
    Union,
    /// One list per request.
    Never,
}

/// The limits of one lookup path's queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// At most one upstream request per interval, never a burst.
    pub interval: Duration,
    /// Keys in one upstream request.
    pub max_batch_keys: usize,
    /// Keys waiting, all callers together.
    pub max_pending_keys: usize,
    /// Upstream requests under way at once when the upstream is slower than the interval.
    pub max_in_flight: usize,
    /// How long an idle queue waits for company before its first request.
    pub linger: Duration,
    /// What is known of requests that carry several lists.
    pub mixed_lists: MixedLists,
}
