//! How much longer a peer may keep the other side waiting: a pure function of what it moved and when.
//!
//! A peer has `grace`, and only the time that it is waited for uses that up. Every byte that it moves buys a part of it
//! back, `1 / min_rate` seconds, and more than `grace` is never saved. So a peer may pause for `grace` at any time, but in
//! the long run it moves `min_rate`: a byte now and then does not keep it alive, and neither does what it did an hour ago.

use std::time::Duration;

use crate::clock::Instant;

/// What is asked of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Demand {
    /// How long it may keep the other side waiting with nothing at all.
    pub grace: Duration,
    /// Bytes per second; with 0 any byte is enough.
    pub min_rate: u64,
}

/// What a peer has left of its grace.
#[derive(Debug)]
pub struct Allowance {
    demand: Demand,
    left: Duration,
    /// Since when it is waited for, if it is.
    since: Option<Instant>,
}

impl Demand {
    /// How much time so many bytes buy.
    fn bought(self, bytes: u64) -> Duration {
        match (bytes, self.min_rate) {
            (0, _) => Duration::ZERO,
            (_, 0) => self.grace,
            (bytes, rate) => {
                let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
                Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
            }
        }
    }
}

impl Allowance {
    /// All of its grace.
    #[must_use]
    pub fn new(demand: Demand) -> Self {
        Self { demand, left: demand.grace, since: None }
    }

    /// The peer is waited for; when that has taken too long.
    pub fn wait(&mut self, now: impl FnOnce() -> Instant) -> Instant {
        // moving => waited for
        *self.since.get_or_insert_with(now) + self.left
    }

    /// The peer moved so many bytes, or is not waited for any more. The clock is read only if it was.
    pub fn moved(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        // waited for => moving
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(now().saturating_duration_since(since));
        }
        self.left = self.left.saturating_add(self.demand.bought(bytes)).min(self.demand.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds a peer is late that moves so many bytes at the end of every so many seconds.
    fn late_after(demand: Demand, bytes: u64, every: u32) -> Option<u64> {
        let begin = clock::now();
        let mut allowance = Allowance::new(demand);
        for round in 0..1000 {
            let deadline = allowance.wait(|| begin + round * every * SECOND);
            let next = begin + (round + 1) * every * SECOND;
            if deadline < next {
                return Some((deadline - begin).as_secs());
            }
            allowance.moved(bytes, || next);
        }
        None
    }

    #[test]
    fn who_moves_nothing_has_the_grace() {
        for min_rate in [0, 240] {
            assert_eq!(late_after(Demand { grace: 10 * SECOND, min_rate }, 0, 1), Some(10));
        }
    }

    #[test]
    fn who_moves_the_rate_is_never_late_however_it_is_spread() {
        let demand = Demand { grace: 10 * SECOND, min_rate: 240 };
        assert_eq!(late_after(demand, 240, 1), None);
        assert_eq!(late_after(demand, 2_400, 10), None);
        // One pause is longer than the grace.
        assert_eq!(late_after(demand, 1 << 30, 11), Some(10));
    }

    #[test]
    fn who_moves_less_is_late_once_the_grace_is_used_up() {
        let demand = Demand { grace: 10 * SECOND, min_rate: 240 };
        assert_eq!(late_after(demand, 1, 1), Some(10));
        assert_eq!(late_after(demand, 120, 1), Some(19));
        assert_eq!(late_after(Demand { min_rate: 0, ..demand }, 1, 1), None);
    }

    #[test]
    fn what_was_moved_before_is_not_saved_for_ever() {
        let (demand, begin) = (Demand { grace: 10 * SECOND, min_rate: 240 }, clock::now());
        let mut allowance = Allowance::new(demand);
        allowance.moved(1 << 30, || begin);
        assert_eq!(allowance.wait(|| begin), begin + 10 * SECOND);
    }

    #[test]
    fn only_the_time_that_it_is_waited_for_counts() {
        let (demand, begin) = (Demand { grace: 10 * SECOND, min_rate: 240 }, clock::now());
        let mut allowance = Allowance::new(demand);
        allowance.wait(|| begin);
        allowance.moved(0, || begin + 4 * SECOND);
        assert_eq!(allowance.wait(|| begin + 1000 * SECOND), begin + 1006 * SECOND);
        // It goes on being waited for since then.
        assert_eq!(allowance.wait(|| begin + 1005 * SECOND), begin + 1006 * SECOND);
    }
}
