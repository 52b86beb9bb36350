//! How many keys one request may carry: the configured maximum, or less once the upstream has shown that to be too many.
//!
//! Nobody has written the number down. Rules:
//! - **Too many.** A batch was rejected and both of its halves passed: no key of it is bad, so there were too many. The
//!   limit falls to the most that is known to pass below that.
//! - **Upwards.** After [`PROBE_AFTER`] full batches in a row the limit rises half-way to what was too many, until it is
//!   within a sixteenth of it. So an upstream that takes 40 of 100 is found in a handful of requests.
//! - **Forgetting.** What was too many is forgotten after [`FORGET`]: limits are raised, too.

use std::time::Duration;

use crate::clock::Instant;

/// Full batches that pass before a larger one is tried: at one a second a probe costs a tenth of the slots at most, and
/// only while there is more to ask than fits.
pub const PROBE_AFTER: u32 = 10;

/// How long a size counts as too many.
pub const FORGET: Duration = Duration::from_secs(600);

/// The most keys in one request, as learned.
#[derive(Debug)]
pub struct BatchLimit {
    configured: usize,
    limit: usize,
    /// The smallest batch that was too large, and when.
    ceiling: Option<(usize, Instant)>,
    /// The largest batch that passed since the limit last fell.
    passed: usize,
    /// Full batches that passed in a row.
    full: u32,
}

impl BatchLimit {
    /// Starts at the configured maximum.
    #[must_use]
    pub fn new(configured: usize) -> Self {
        Self { configured, limit: configured, ceiling: None, passed: 0, full: 0 }
    }

    /// Another maximum is configured. What turned out to be too many stays so.
    pub fn reconfigure(&mut self, configured: usize) {
        if self.limit == self.configured || self.limit > configured {
            self.limit = configured;
        }
        if let Some((size, _)) = self.ceiling {
            self.limit = self.limit.min(size.saturating_sub(1).max(1));
        }
        self.configured = configured;
    }

    /// The most keys that a request may carry now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.limit
    }

    /// A batch of this size was answered.
    pub fn passed(&mut self, size: usize, now: Instant) {
        self.passed = self.passed.max(size);
        if size < self.limit || self.limit == self.configured {
            return;
        }
        self.full += 1;
        if self.full < PROBE_AFTER {
            return;
        }
        self.full = 0;
        self.ceiling = self.ceiling.filter(|(_, at)| now.saturating_duration_since(*at) < FORGET);
        let next = self.ceiling.map_or(self.limit * 2, |(size, _)| {
            let near = size - self.limit <= (self.limit / 16).max(1);
            if near { self.limit } else { self.limit.midpoint(size) }
        });
        self.limit = next.min(self.configured);
    }

    /// A batch of this size was rejected although none of its keys is at fault.
    pub fn too_large(&mut self, size: usize, now: Instant) {
        let known = if self.passed < size { self.passed } else { 0 };
        self.limit = known.max(size / 2).clamp(1, self.limit);
        self.passed = self.limit;
        self.ceiling = Some((size, now));
        self.full = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends full batches to an upstream that takes so many, and gives their sizes.
    fn sizes(limit: &mut BatchLimit, takes: usize, batches: usize, now: Instant) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..batches {
            let size = limit.now();
            sizes.push(size);
            if size > takes { limit.too_large(size, now) } else { limit.passed(size, now) }
        }
        sizes
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstreams_own_limit_is_found_and_hardly_ever_exceeded() {
        let now = crate::clock::now();
        let mut limit = BatchLimit::new(100);
        let sizes = sizes(&mut limit, 40, 100, now);
        let over = sizes.iter().filter(|size| **size > 40).count();
        assert!(over <= 4, "{sizes:?}");
        assert!((38..=40).contains(&limit.now()), "{sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_was_raised_is_noticed_after_a_while() {
        let now = crate::clock::now();
        let mut limit = BatchLimit::new(100);
        sizes(&mut limit, 40, 100, now);
        sizes(&mut limit, 1000, 100, now + FORGET);
        assert_eq!(limit.now(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_falls_below_one_key() {
        let now = crate::clock::now();
        let mut limit = BatchLimit::new(3);
        for _ in 0..5 {
            limit.too_large(limit.now(), now);
        }
        assert_eq!(limit.now(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rejection_it_is_what_was_configured() {
        let mut limit = BatchLimit::new(100);
        sizes(&mut limit, 100, 50, crate::clock::now());
        assert_eq!(limit.now(), 100);
    }
}
