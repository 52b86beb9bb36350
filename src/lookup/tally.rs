//! How the keys of one lookup were answered: for the metrics, and for `Cache-Status` (RFC 9211).

use std::sync::LazyLock;

use http::HeaderValue;
use smallvec::SmallVec;

use crate::{
    cache::Answer,
    key::Kind,
    metrics::{KEY_RESULTS, KeyResult, LookupMetrics},
};

/// What is said of so many keys that were all cached and fresh, written once: it is what most lookups are answered.
static HITS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let hits = |keys| format!(r#"audience-gateway; hit; detail="keys={keys} hit={keys} stale=0 negative=0 miss=0""#);
    let value = |text| HeaderValue::try_from(text).expect("this holds because it is words and numbers");
    (0..=100).map(hits).map(value).collect()
});

/// Why keys had to be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forward {
    /// None of the keys was cached.
    Miss,
    /// Some were.
    Partial,
    /// What was cached was too old.
    Stale,
    /// The caller asked for it.
    Request,
}

impl Forward {
    fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

/// One lookup in figures.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Account {
    /// Its keys.
    pub keys: u32,
    /// Those that were answered from the cache at once.
    pub hits: u32,
}

/// The keys of one lookup by how they were answered.
pub(super) struct Tally {
    /// The built-in shapes have three kinds.
    by_kind: SmallVec<[[u32; KEY_RESULTS]; 3]>,
    /// Keys that were cached but too old to be given at once.
    outdated: u32,
    /// Keys that were answered with what was too old, because the upstream did not answer.
    saved: u32,
    /// Whether everything that had to be fetched was already under way for somebody else.
    pub(super) collapsed: bool,
}

impl Tally {
    pub(super) fn new(kinds: usize) -> Self {
        Self { by_kind: SmallVec::from_elem([0; KEY_RESULTS], kinds), outdated: 0, saved: 0, collapsed: false }
    }

    pub(super) fn hit(&mut self, kind: Kind, answer: &Answer) -> KeyResult {
        self.add(kind, if answer.records().is_empty() { KeyResult::Negative } else { KeyResult::Hit })
    }

    pub(super) fn stale(&mut self, kind: Kind) -> KeyResult {
        self.add(kind, KeyResult::Stale)
    }

    pub(super) fn missed(&mut self, kind: Kind, bypass: bool) -> KeyResult {
        self.add(kind, if bypass { KeyResult::Bypass } else { KeyResult::Miss })
    }

    pub(super) fn outdated(&mut self, kind: Kind, bypass: bool) -> KeyResult {
        self.outdated += 1;
        self.missed(kind, bypass)
    }

    /// A key that had to be fetched was answered with what was too old after all (RFC 5861, section 4).
    pub(super) fn fell_back(&mut self, kind: Kind) {
        let results = &mut self.by_kind[kind.index()];
        let counted = if results[KeyResult::Miss as usize] > 0 { KeyResult::Miss } else { KeyResult::Bypass };
        results[counted as usize] -= 1;
        self.saved += 1;
        self.add(kind, KeyResult::Stale);
    }

    pub(super) fn to_fetch(&self) -> u32 {
        self.sum(KeyResult::Miss) + self.sum(KeyResult::Bypass)
    }

    /// Whether something was fetched, or could not be.
    pub(super) fn has_waited(&self) -> bool {
        self.saved > 0 || self.to_fetch() > 0
    }

    /// How many keys there are, and how many of them were answered from the cache.
    pub(super) fn account(&self) -> Account {
        let keys = self.by_kind.iter().flatten().sum();
        Account { keys, hits: keys - self.to_fetch() - self.saved }
    }

    /// Adds to the counters.
    pub(super) fn count(&self, metrics: &LookupMetrics) {
        for (kind, results) in self.by_kind.iter().enumerate() {
            for (result, &count) in KeyResult::ALL.into_iter().zip(results) {
                if count > 0 {
                    metrics.keys(kind, result, u64::from(count));
                }
            }
        }
    }

    /// The header: whether anything had to be fetched and why, and how many keys were answered how.
    pub(super) fn cache_status(&self) -> HeaderValue {
        let [hit, stale, negative, miss, bypass] = KeyResult::ALL.map(|result| self.sum(result));
        let keys = hit + stale + negative + miss + bypass;
        if let Some(known) = HITS.get(hit as usize).filter(|_| hit == keys && self.saved == 0) {
            return known.clone();
        }
        let how = match self.forward() {
            None => "hit".to_owned(),
            Some(why) => format!("fwd={}{}", why.as_str(), if self.collapsed { "; collapsed" } else { "" }),
        };
        let miss = miss + bypass;
        let status = format!(
            r#"audience-gateway; {how}; detail="keys={keys} hit={hit} stale={stale} negative={negative} miss={miss}""#
        );
        HeaderValue::try_from(status).expect("this holds because it is words and numbers")
    }

    fn forward(&self) -> Option<Forward> {
        let fetched = self.to_fetch() + self.saved;
        let cached = self.by_kind.iter().flatten().sum::<u32>() - fetched;
        match fetched {
            0 => None,
            _ if self.sum(KeyResult::Bypass) > 0 => Some(Forward::Request),
            _ if cached > 0 => Some(Forward::Partial),
            _ if self.outdated == fetched => Some(Forward::Stale),
            _ => Some(Forward::Miss),
        }
    }

    fn add(&mut self, kind: Kind, result: KeyResult) -> KeyResult {
        self.by_kind[kind.index()][result as usize] += 1;
        result
    }

    fn sum(&self, result: KeyResult) -> u32 {
        self.by_kind.iter().map(|results| results[result as usize]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind(0);

    fn negative() -> Answer {
        Answer::new([], crate::clock::now(), 0)
    }

    #[tokio::test(start_paused = true)]
    async fn the_header_says_whether_anything_was_fetched_and_why() {
        let mut tally = Tally::new(1);
        tally.hit(KIND, &negative());
        tally.stale(KIND);
        let all = r#"audience-gateway; hit; detail="keys=2 hit=0 stale=1 negative=1 miss=0""#;
        assert_eq!(tally.cache_status(), all);
        tally.missed(KIND, false);
        let partial = r#"audience-gateway; fwd=partial; detail="keys=3 hit=0 stale=1 negative=1 miss=1""#;
        assert_eq!(tally.cache_status(), partial);
        tally.collapsed = true;
        assert!(
            tally.cache_status().to_str().expect("ascii").starts_with("audience-gateway; fwd=partial; collapsed; ")
        );
    }

    #[test]
    fn what_was_too_old_was_forwarded_as_stale_and_what_was_asked_for_as_requested() {
        let mut tally = Tally::new(1);
        tally.outdated(KIND, false);
        assert!(tally.cache_status().to_str().expect("ascii").contains("fwd=stale;"));
        tally.missed(KIND, false);
        assert!(tally.cache_status().to_str().expect("ascii").contains("fwd=miss;"));
        tally.missed(KIND, true);
        assert!(tally.cache_status().to_str().expect("ascii").contains("fwd=request;"));
    }

    #[test]
    fn what_was_too_old_and_given_all_the_same_is_counted_as_stale() {
        let mut tally = Tally::new(1);
        tally.outdated(KIND, false);
        tally.fell_back(KIND);
        let status = r#"audience-gateway; fwd=stale; detail="keys=1 hit=0 stale=1 negative=0 miss=0""#;
        assert_eq!(tally.cache_status(), status);
    }
}
