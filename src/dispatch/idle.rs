//! What slots that nobody wants are used for: nothing, unless the configuration grants a share of them.
//!
//! A request in an idle slot costs the caller who comes right after it up to an interval. So such slots are used only
//! when nothing waits, nothing is under way and the upstream is well, and each use is followed by a pause that keeps the
//! uses within their [`Share`].

use std::time::Duration;

use super::warm::Cold;
use crate::clock::Instant;

/// A part of all there is, from nothing to everything, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// A part of one; what is outside is the nearest inside.
    #[must_use]
    pub fn new(part: f64) -> Self {
        // Within the range of the type, because it is between nothing and a million.
        Self((part.clamp(0.0, 1.0) * 1e6).round() as u32)
    }

    /// The part of one.
    #[must_use]
    pub fn part(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// This part of a number of bytes.
    #[must_use]
    pub fn of(self, bytes: u64) -> u64 {
        let part = u128::from(bytes) * u128::from(self.0) / 1_000_000;
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

/// How many idle slots one purpose may have.
#[derive(Debug)]
pub(super) struct Budget {
    share: Share,
    /// When the next one may be used.
    ready_at: Instant,
}

impl Budget {
    pub(super) fn new(share: Share, now: Instant) -> Self {
        Self { share, ready_at: now }
    }

    /// When the next slot may be used; never, if none may.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        (self.share > Share::NONE).then_some(self.ready_at)
    }

    /// A slot is used; slots are `gap` apart.
    pub(super) fn spend(&mut self, now: Instant, gap: Duration) {
        self.ready_at = now + gap.div_f64(self.share.part().max(1e-6));
    }
}

/// What may be asked in idle slots.
#[derive(Debug)]
pub(super) struct Idle {
    /// For keys that are about to expire.
    pub(super) refresh: Budget,
    /// Keys that nobody has asked for yet.
    pub(super) cold: Cold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn uses_are_so_far_apart_that_they_keep_within_their_share() {
        let (now, gap) = (crate::clock::now(), Duration::from_secs(1));
        assert_eq!(Budget::new(Share::NONE, now).ready_at(), None);
        for (part, pause) in [(1.0, 1), (0.5, 2), (0.1, 10)] {
            let mut budget = Budget::new(Share::new(part), now);
            assert_eq!(budget.ready_at(), Some(now));
            budget.spend(now, gap);
            assert_eq!(budget.ready_at(), Some(now + gap * pause), "{part}");
        }
        assert_eq!(Share::new(7.0).part().to_bits(), 1f64.to_bits());
        assert_eq!(Share::new(-1.0), Share::NONE);
    }
}
