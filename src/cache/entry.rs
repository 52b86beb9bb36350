//! How fresh an answer is: a pure function of the answer, the policy and `now` (RFC 9111, section 4.2; RFC 5861).
//!
//! ```text
//! fetched ──ttl──▶ stale, answered at once and refreshed ──stale_while_revalidate──▶ … ──▶ expired
//!                  stale, answered while the upstream fails ──────stale_if_error──────────▶ expired
//! ```
//! The lifetime of each answer is shortened by up to [`SPREAD`] of itself, so that what was loaded together does not
//! expire together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{clock::Instant, record::Record};

/// The most by which a lifetime is shortened: a twentieth keeps a full second of refreshes apart at the default `ttl`
/// of ten minutes while no caller notices the difference.
pub const SPREAD: f64 = 0.05;

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

/// The part of its lifetime after which an answer is worth to be asked again where that costs nothing: late enough that
/// the room of paid requests goes to what is near its end, early enough that several of them come by at the default `ttl`
/// even where most lookups are hits.
pub(super) const DUE: f64 = 0.75;

/// In [`Answer::reads`]: it is noted as worth to be asked again before it expires.
const NOTED: u32 = 1 << 31;

/// In [`Answer::reads`]: it was noted and given away, so that its next read notes it again if nothing came of that.
const AGAIN: u32 = 1 << 30;

/// What the upstream said of one key: its records, or that there is none.
#[derive(Debug)]
pub struct Answer {
    /// The customers behind the key, in the upstream's order; empty means that the upstream said there is none.
    pub records: Box<[Arc<Record>]>,
    /// When the request that brought it was started.
    pub fetched_at: Instant,
    /// Which part of [`SPREAD`] its lifetime is shortened by, in 255ths.
    pub spread: u8,
    /// How often it was given from the cache, and whether that is noted. It stands beside the reference count that every
    /// read changes, so that counting costs no other cache line.
    reads: AtomicU32,
}

/// What an answer may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// For anything.
    Fresh,
    /// To answer at once, with a refresh behind it; also when the upstream fails.
    Revalidate,
    /// Only when the upstream fails.
    IfError,
    /// For nothing.
    Expired,
}

impl Answer {
    /// An answer that nobody has read.
    #[must_use]
    pub fn new(records: impl Into<Box<[Arc<Record>]>>, fetched_at: Instant, spread: u8) -> Self {
        Self { records: records.into(), fetched_at, spread, reads: AtomicU32::new(0) }
    }

    /// The same answer with newer versions of its records.
    pub(super) fn with(&self, records: impl Into<Box<[Arc<Record>]>>) -> Self {
        let reads = AtomicU32::new(self.reads.load(Ordering::Relaxed));
        Self { records: records.into(), reads, ..*self }
    }

    /// Whether all that it holds is stored under the keys of its customers.
    pub(super) fn is_identified(&self) -> bool {
        !self.records.is_empty() && self.records.iter().all(|record| record.identity.is_some())
    }

    /// Counts a read. Whether it should be noted now: each time the number has doubled, until it is.
    pub(super) fn count_read(&self) -> bool {
        let before = self.reads.fetch_add(1, Ordering::Relaxed);
        before & NOTED == 0 && (before & AGAIN != 0 || (before + 1).is_power_of_two())
    }

    /// It is noted from now on; whether it was not before.
    pub(super) fn set_noted(&self) -> bool {
        self.reads.fetch_and(!AGAIN, Ordering::Relaxed);
        self.reads.fetch_or(NOTED, Ordering::Relaxed) & NOTED == 0
    }

    /// It is not noted any more: it is asked for.
    pub(super) fn forget_noted(&self) {
        self.reads.fetch_or(AGAIN, Ordering::Relaxed);
        self.reads.fetch_and(!NOTED, Ordering::Relaxed);
    }

    /// How often it was read since it was fetched, if that is noted.
    pub(super) fn noted_reads(&self) -> Option<u32> {
        let reads = self.reads.load(Ordering::Relaxed);
        (reads & NOTED != 0).then_some(reads & !(NOTED | AGAIN))
    }

    /// From when on it is worth to be asked again where that costs nothing: in the last quarter of its lifetime.
    pub(super) fn due_at(&self, policy: &Policy) -> Instant {
        self.fetched_at + self.lifetime(policy).mul_f64(DUE)
    }

    /// How long ago the answer was fetched.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetched_at)
    }

    /// How long it is fresh, its spread taken off.
    #[must_use]
    pub fn lifetime(&self, policy: &Policy) -> Duration {
        let full = if self.records.is_empty() { policy.negative_ttl } else { policy.ttl };
        full.mul_f64(1.0 - SPREAD * f64::from(self.spread) / 255.0)
    }

    /// What it may be used for at `now`.
    ///
    /// That a customer does not exist is not answered while it is revalidated: a customer who registers would be unknown
    /// for an hour. While the upstream fails nobody registers there, and it is as good as any other stale answer.
    #[must_use]
    pub fn freshness(&self, policy: &Policy, now: Instant) -> Freshness {
        let age = self.age(now);
        let lifetime = self.lifetime(policy);
        if age < lifetime {
            Freshness::Fresh
        } else if !self.records.is_empty() && age < lifetime + policy.stale_while_revalidate {
            Freshness::Revalidate
        } else if age < lifetime + policy.stale_if_error {
            Freshness::IfError
        } else {
            Freshness::Expired
        }
    }

    /// Whether it may stand in for an answer that the upstream fails to give.
    #[must_use]
    pub fn usable_if_error(&self, policy: &Policy, now: Instant) -> bool {
        self.age(now) < self.lifetime(policy) + policy.stale_if_error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Scope;

    fn policy() -> Policy {
        Policy {
            ttl: Duration::from_secs(600),
            negative_ttl: Duration::from_secs(60),
            stale_while_revalidate: Duration::from_secs(3600),
            stale_if_error: Duration::from_secs(86_400),
        }
    }

    fn answer(found: bool, spread: u8, fetched_at: Instant) -> Answer {
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        let record = Record { json: (*b"{}").into(), scope, ids: [].into(), carried: 0, identity: None, fetched_at };
        let records = if found { vec![Arc::new(record)] } else { vec![] };
        Answer::new(records, fetched_at, spread)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_fresh_then_revalidated_then_only_good_for_errors_then_expired() {
        let start = crate::clock::now();
        let found = answer(true, 0, start);
        for (seconds, expected) in [
            (0, Freshness::Fresh),
            (599, Freshness::Fresh),
            (600, Freshness::Revalidate),
            (4199, Freshness::Revalidate),
            (4200, Freshness::IfError),
            (86_999, Freshness::IfError),
            (87_000, Freshness::Expired),
        ] {
            assert_eq!(found.freshness(&policy(), start + Duration::from_secs(seconds)), expected, "at {seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_customer_does_not_exist_is_believed_for_negative_ttl_and_after_that_only_if_the_upstream_fails() {
        let start = crate::clock::now();
        let absent = answer(false, 0, start);
        assert_eq!(absent.freshness(&policy(), start + Duration::from_secs(59)), Freshness::Fresh);
        assert_eq!(absent.freshness(&policy(), start + Duration::from_secs(60)), Freshness::IfError);
        assert!(absent.usable_if_error(&policy(), start + Duration::from_secs(60)));
        assert_eq!(absent.freshness(&policy(), start + Duration::from_secs(86_460)), Freshness::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn spread_shortens_a_lifetime_by_at_most_a_twentieth() {
        let start = crate::clock::now();
        assert_eq!(answer(true, 0, start).lifetime(&policy()), Duration::from_secs(600));
        assert_eq!(answer(true, 255, start).lifetime(&policy()), Duration::from_secs(570));
    }
}
