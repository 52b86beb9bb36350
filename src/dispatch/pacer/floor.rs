//! The floor under the pace: governor's GCRA with a burst of one, on a clock that stands where it is put.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};

/// A clock that stands where it is put.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Nanos>>;

/// What never lets two starts be closer than the interval; without one it lets everything pass.
pub(super) struct Floor {
    limiter: Option<Limiter>,
    hand: Hand,
}

impl Floor {
    pub(super) fn new(interval: Duration) -> Self {
        let hand = Hand::default();
        // No period: no limit.
        let quota = Quota::with_period(interval).map(|quota| quota.allow_burst(NonZeroU32::MIN));
        Self { limiter: quota.map(|quota| RateLimiter::direct_with_clock(quota, hand.clone())), hand }
    }

    /// Takes the slot at a moment, counted from any fixed one.
    ///
    /// # Errors
    /// How long there is none.
    pub(super) fn take(&self, at: Duration) -> Result<(), Duration> {
        self.hand.0.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check().map_err(|too_early| too_early.wait_time_from(self.hand.now()))
    }
}
