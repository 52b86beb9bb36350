//! The limit: how many requests per span, judged at a moment that is handed in.
//!
//! # What is remembered
//! For each subject the last `requests` moments that count. A request is let through when fewer than that many are
//! remembered, or when the oldest of them is at least one span ago (`Accepted`, `Arrivals`) or before the present window.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{call::Call, config::LimitCounts};
use crate::clock::Instant;

/// Subjects remembered before those that no longer matter are forgotten: connections come and go for ever.
const MAX_SUBJECTS: usize = 10_000;

/// So many requests per span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limit {
    /// How many requests.
    pub(super) requests: usize,
    /// In which span; zero means no limit.
    pub(super) per: Duration,
}

/// What the limiter said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// Go on.
    Accepted,
    /// Too frequent.
    Refused,
}

/// The moments that count, for each call and subject.
#[derive(Debug)]
pub(super) struct Limiter {
    started: Instant,
    moments: HashMap<(Call, String), VecDeque<Instant>>,
}

impl Limiter {
    /// A limiter whose windows start now.
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, moments: HashMap::new() }
    }

    /// Judges one arrival, and remembers it if it counts.
    pub(super) fn judge(
        &mut self,
        subject: (Call, String),
        limit: Limit,
        counts: LimitCounts,
        now: Instant,
    ) -> Decision {
        if limit.per.is_zero() || limit.requests == 0 {
            return Decision::Accepted;
        }
        if self.moments.len() > MAX_SUBJECTS {
            self.moments.retain(|_, moments| moments.back().is_some_and(|last| now - *last < limit.per));
        }
        let window = self.window_start(limit.per, now);
        let moments = self.moments.entry(subject).or_default();
        let free = match moments.front() {
            Some(oldest) if moments.len() >= limit.requests => match counts {
                LimitCounts::Accepted | LimitCounts::Arrivals => now - *oldest >= limit.per,
                LimitCounts::Window => *oldest < window,
            },
            _ => true,
        };
        if free || counts == LimitCounts::Arrivals {
            moments.push_back(now);
            while moments.len() > limit.requests {
                moments.pop_front();
            }
        }
        if free { Decision::Accepted } else { Decision::Refused }
    }

    fn window_start(&self, per: Duration, now: Instant) -> Instant {
        let into = (now - self.started).as_nanos() % per.as_nanos();
        now - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_PER_SECOND: Limit = Limit { requests: 1, per: Duration::from_secs(1) };

    /// Which of the arrivals at these milliseconds are let through.
    fn accepted(counts: LimitCounts, limit: Limit, arrivals: &[u64]) -> Vec<u64> {
        let start = crate::clock::now();
        let mut limiter = Limiter::new(start);
        let mut through = Vec::new();
        for at in arrivals {
            let now = start + Duration::from_millis(*at);
            if limiter.judge((Call::Detail, String::new()), limit, counts, now) == Decision::Accepted {
                through.push(*at);
            }
        }
        through
    }

    #[test]
    fn accepted_requests_keep_their_distance_from_one_another() {
        let through = accepted(LimitCounts::Accepted, ONE_PER_SECOND, &[0, 999, 1000, 1500, 2000]);
        assert_eq!(through, [0, 1000, 2000]);
    }

    #[test]
    fn a_refused_arrival_restarts_the_interval_where_arrivals_count() {
        let through = accepted(LimitCounts::Arrivals, ONE_PER_SECOND, &[0, 999, 1000, 1998, 2998]);
        assert_eq!(through, [0, 2998]);
    }

    #[test]
    fn a_window_lets_two_through_across_its_edge() {
        let through = accepted(LimitCounts::Window, ONE_PER_SECOND, &[900, 950, 1000, 1999, 2000]);
        assert_eq!(through, [900, 1000, 2000]);
    }

    #[test]
    fn ten_in_five_seconds_slide() {
        let limit = Limit { requests: 10, per: Duration::from_secs(5) };
        let burst: Vec<u64> = (0..11).map(|n| n * 10).chain([5000, 5005]).collect();
        let through = accepted(LimitCounts::Accepted, limit, &burst);
        assert_eq!(through, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 5000]);
    }

    #[test]
    fn subjects_do_not_share_an_interval_and_zero_means_no_limit() {
        let now = crate::clock::now();
        let mut limiter = Limiter::new(now);
        for subject in ["a", "b"] {
            let subject = (Call::Detail, subject.to_owned());
            assert_eq!(limiter.judge(subject, ONE_PER_SECOND, LimitCounts::Accepted, now), Decision::Accepted);
        }
        assert_eq!(accepted(LimitCounts::Accepted, Limit { requests: 1, per: Duration::ZERO }, &[0, 0, 0]), [0, 0, 0]);
    }
}
