//! The one place that reads the clock.
//!
//! Time is tokio's, so that it stands still in paused tests. Decisions take `now` as an argument; only shells call
//! [`now`], once per lookup or slot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// The present moment on the runtime's monotonic clock.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since the Unix epoch on the wall clock: for a person to read, never for a decision.
#[must_use]
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Whole seconds, rounded up and at least one: what a `Retry-After` header says (RFC 9110, section 10.2.3).
#[must_use]
pub fn whole_seconds_up(wait: Duration) -> u64 {
    let rounded = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    rounded.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds_and_never_zero() {
        assert_eq!(whole_seconds_up(Duration::ZERO), 1);
        assert_eq!(whole_seconds_up(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds_up(Duration::from_secs(1)), 1);
        assert_eq!(whole_seconds_up(Duration::from_millis(1001)), 2);
    }
}
