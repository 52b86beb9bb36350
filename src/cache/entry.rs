//! How fresh an answer is: a pure function of the answer, the policy and `now` (RFC 9111, section 4.2; RFC 5861).
//!
//! ```text
//! fetched ──ttl──▶ stale, answered at once and refreshed ──stale_while_revalidate──▶ … ──▶ expired
//!                  stale, answered while the upstream fails ──────stale_if_error──────────▶ expired
//! ```
//! The lifetime of each answer is shortened by up to [`SPREAD`] of itself, so that what was loaded together does not
//! expire together.

use std::{fmt, slice, sync::Arc, time::Duration};

use crate::{
    clock::Instant,
    key::Key,
    record::{Record, marks::Marks},
};

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

/// What the upstream said of one key: its records, or that there is none. A clone is the same answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One identified customer, as of when its record was asked for: the answer of nearly every key. It costs nothing
    /// beside the record.
    Customer(Record),
    /// Any other.
    List(Arc<List>),
}

/// Some customers, or none.
pub struct List {
    /// What leads to it, where the cache keeps it.
    key: Option<Key>,
    records: Box<[Record]>,
    fetched_at: Instant,
    marks: Marks,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({} records)", self.records.len())
    }
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

impl List {
    /// What leads to it, where the cache keeps it.
    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }
}

impl Answer {
    /// An answer that the cache does not keep.
    #[must_use]
    pub fn new(records: impl Into<Box<[Record]>>, fetched_at: Instant, spread: u8) -> Self {
        let marks = Marks::with_spread(spread);
        Self::List(Arc::new(List { key: None, records: records.into(), fetched_at, marks }))
    }

    /// The answer of a key, that nobody has read. For a customer it has to be found in its record.
    pub(super) fn of(key: &Key, mut records: Vec<Record>, fetched_at: Instant) -> Self {
        let is_own = |record: &Record| {
            record.fetched_at() == fetched_at
                && record.identity().is_some()
                && record.find(key.id.borrowed()).is_some_and(|place| place.near().is_some())
        };
        match records.pop() {
            Some(record) if records.is_empty() && is_own(&record) => Self::Customer(record),
            last => {
                records.extend(last);
                let (key, records) = (Some(key.clone()), records.into());
                Self::List(Arc::new(List { key, records, fetched_at, marks: Marks::new() }))
            }
        }
    }

    /// The same answer of a key with newer versions of its records.
    pub(super) fn with(&self, key: &Key, records: impl Into<Box<[Record]>>) -> Self {
        let (key, records, fetched_at) = (Some(key.clone()), records.into(), self.fetched_at());
        Self::List(Arc::new(List { key, records, fetched_at, marks: self.marks().successor() }))
    }

    /// The customers behind the key, in the upstream's order; empty means that the upstream said there is none.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        match self {
            Self::Customer(record) => slice::from_ref(record),
            Self::List(list) => &list.records,
        }
    }

    /// When the request that brought it was started.
    #[must_use]
    pub fn fetched_at(&self) -> Instant {
        match self {
            Self::Customer(record) => record.fetched_at(),
            Self::List(list) => list.fetched_at,
        }
    }

    /// When the upstream said it: before that by what it was old when it came.
    #[must_use]
    pub fn said_at(&self) -> Instant {
        let fetched_at = self.fetched_at();
        fetched_at.checked_sub(self.came_aged()).unwrap_or(fetched_at)
    }

    /// Whether both are one answer, and not only equal.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Customer(one), Self::Customer(two)) => one.is(two),
            (Self::List(one), Self::List(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Whether this record is in it.
    pub(super) fn gives(&self, record: &Record) -> bool {
        self.records().iter().any(|one| one.is(record))
    }

    /// Whether all that it holds is stored under the keys of its customers.
    pub(super) fn is_identified(&self) -> bool {
        match self {
            Self::Customer(_) => true,
            Self::List(list) => {
                !list.records.is_empty() && list.records.iter().all(|record| record.identity().is_some())
            }
        }
    }

    /// What the cache notes on it.
    pub(super) fn marks(&self) -> &Marks {
        match self {
            Self::Customer(record) => record.marks(),
            Self::List(list) => &list.marks,
        }
    }

    /// It is used in this turn of the cache, and whatever is in it.
    pub(super) fn used(&self, turn: u32) {
        self.marks().used(turn);
        if let Self::List(list) = self {
            list.records.iter().for_each(|record| record.marks().used(turn));
        }
    }

    /// From when on it is worth to be asked again where that costs nothing: in the last quarter of its lifetime.
    pub(super) fn due_at(&self, policy: &Policy) -> Instant {
        self.fetched_at() + self.granted(policy).mul_f64(DUE)
    }

    /// How old it is: since it was fetched, and what it was old then already, because a gateway upstream had it (RFC 9111,
    /// section 4.2.3).
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetched_at()) + self.came_aged()
    }

    /// Up to which age it is fresh.
    #[must_use]
    pub fn lifetime(&self, policy: &Policy) -> Duration {
        self.came_aged() + self.granted(policy)
    }

    /// How old its oldest record was when it came.
    fn came_aged(&self) -> Duration {
        let records = self.records().iter().map(|record| record.marks().age());
        records.max().unwrap_or_else(|| self.marks().age())
    }

    /// How long it is fresh here, its spread taken off.
    fn granted(&self, policy: &Policy) -> Duration {
        let full = if self.records().is_empty() { policy.negative_ttl } else { policy.ttl };
        full.mul_f64(1.0 - SPREAD * f64::from(self.marks().spread()) / 255.0)
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
        } else if !self.records().is_empty() && age < lifetime + policy.stale_while_revalidate {
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
    use crate::{key::Scope, record::Parts};

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
        let record = Record::new(Parts { json: b"{}", scope, ids: &[], carried: 0, identity: None, fetched_at });
        let records = if found { vec![record] } else { vec![] };
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
