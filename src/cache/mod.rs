//! What the upstream has said, for as long as it may be repeated.
//!
//! Two structures, one for each question:
//! - the *index* ([`index`]) maps every key to its [`Answer`]; lookups read it;
//! - the *residents* ([`resident`]) are moka's: one per customer (under the key that identifies it) or per answer without
//!   an identified customer. moka weighs them in bytes and lets the least recently used go; when one goes, every key that
//!   reaches it leaves the index. moka's time features are not used: freshness is judged with our own `now`.
//!
//! What an upstream request brings is taken in through the [`Fetch`] that was opened when it started ([`versions`] says
//! what becomes of it); [`forget`] erases; [`bars`] keeps what was erased from coming back; [`ahead`] knows what is worth
//! to be asked again before it expires.
//!
//! Invariants:
//! 1. A customer's bytes are stored and weighed once, however many keys reach them.
//! 2. Versions of one customer only go forward: when a newer one arrives under any key, every key that reaches the
//!    customer gives the newer one from then on, and a key that it no longer carries stops reaching it. No order of
//!    requests, evictions and erasures makes an older one reappear.
//! 3. A record fetched under any key also answers its unique kinds, but no other: two customers may share a phone.
//! 4. Only what a [`Fetch`] is given enters, and it is only given what the upstream said with success.
//! 5. A key is in the index only while its resident is held, or is about to be dropped by moka.
//! 6. What was forgotten is not brought back by a request that was started before.

mod ahead;
mod bars;
mod carriers;
pub mod entry;
mod fetch;
mod forget;
mod index;
mod resident;
mod scopes;
mod versions;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use moka::policy::EvictionPolicy;

use self::{
    ahead::Ahead,
    bars::Bars,
    carriers::Carriers,
    index::Index,
    resident::{Resident, ResidentKey, weigh},
    scopes::Scopes,
};
pub use self::{
    entry::{Answer, Freshness, Policy},
    fetch::{Fetch, Of, Said, Taken},
    forget::Forgotten,
    scopes::Whose,
};
use crate::{
    clock::Instant,
    key::{Key, Scope},
    metrics::CacheMetrics,
    shape::Shape,
};

/// The documented spelling of a success, until the upstream has been heard.
const ENVELOPE: &[u8] = br#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":["#;

/// What the cache holds and for how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes of records and their overhead; least recently used first out. Zero keeps nothing.
    pub capacity: u64,
    /// How long an answer is good, and for what.
    pub policy: Policy,
}

/// The answers of all lookup paths, within one capacity.
pub struct Cache {
    index: Arc<Index>,
    residents: moka::sync::Cache<ResidentKey, Resident>,
    policy: Policy,
    /// The envelope of the last success of each lookup path.
    envelopes: RwLock<Vec<Bytes>>,
    /// What requests under way may not bring back.
    bars: Arc<Bars>,
    /// Who carries what several customers may share.
    carriers: Arc<Carriers>,
    scopes: Scopes,
    ahead: Ahead,
    /// Writers take turns, so that versions of a customer are compared and replaced in one step.
    writing: Mutex<()>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: &Config, metrics: CacheMetrics) -> Self {
        let index = Arc::new(Index::new());
        let bars = Arc::new(Bars::default());
        let carriers = Arc::new(Carriers::default());
        let residents = moka::sync::Cache::builder()
            // With a capacity of zero moka drops what it is given without a word to the listener.
            .max_capacity(config.capacity.max(1))
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener({
                let (index, bars, carriers) = (Arc::clone(&index), Arc::clone(&bars), Arc::clone(&carriers));
                move |key: Arc<ResidentKey>, resident: Resident, cause| {
                    let key = key.key();
                    if cause.was_evicted() {
                        metrics.evicted_for_size.inc();
                        // First barred, then gone: who misses it in the index must find the bar.
                        resident.keys(key).into_iter().for_each(|key| bars.raise_before(resident.fetched_at(), key));
                    }
                    resident.leave(key, &index, &carriers);
                }
            })
            .build();
        Self {
            ahead: Ahead::new(Arc::clone(&index), config.policy.clone()),
            index,
            residents,
            policy: config.policy.clone(),
            envelopes: RwLock::default(),
            bars,
            carriers,
            scopes: Scopes::new(),
            writing: Mutex::new(()),
        }
    }

    /// How long answers are good, and for what.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The answer behind a key, however old: the caller judges. Counts as a use.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Answer>> {
        let answer = self.index.get(key)?;
        if answer.is_identified() {
            for record in &answer.records {
                if let Some(identity) = record.identity() {
                    let _used = self.residents.get(&ResidentKey::Customer(record.key(identity)));
                }
            }
        } else {
            let _used = self.residents.get(&ResidentKey::Answer(key.clone()));
        }
        Some(answer)
    }

    /// Whether there is anything behind a key, however old. Does not count as a use.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        self.index.get(key).is_some()
    }

    /// A caller was given the answer of this key from the cache. What is read is asked again before it expires, where
    /// that costs no request of its own; see [`expiring`](Self::expiring).
    pub fn was_read(&self, key: &Key, answer: &Answer, now: Instant) {
        if answer.count_read() {
            self.ahead.note(key, answer, now);
        }
    }

    /// Up to so many keys of a scope that are about to expire and were read since they were fetched, the most read first,
    /// among those that the caller can use. They are given once.
    #[must_use]
    pub fn expiring(
        &self,
        (scope, shape): (&Arc<Scope>, &Shape),
        now: Instant,
        most: usize,
        usable: impl Fn(&Key) -> bool,
    ) -> Vec<Key> {
        self.ahead.take(scope, now, most, (usable, |kind| shape.list(kind).unique))
    }

    /// The scope, among those that may be asked, in which the most read of the keys is that are about to expire.
    #[must_use]
    pub fn next_expiring(&self, now: Instant, may: impl Fn(&Scope) -> bool) -> Option<Arc<Scope>> {
        self.ahead.next(now, may)
    }

    /// An upstream request starts now that asks for keys of this scope: what it brings is taken in through the [`Fetch`].
    #[must_use]
    pub fn open(self: &Arc<Self>, scope: &Arc<Scope>, started: Instant) -> Fetch {
        self.bars.open(started);
        Fetch::new(Arc::clone(self), self.scopes.enter(scope), started)
    }

    /// The envelope of the last success of a lookup path, up to `"data":[`, its members spelled as the upstream did.
    #[must_use]
    pub fn envelope(&self, lookup: u8) -> Bytes {
        let envelopes = self.envelopes.read().unwrap_or_else(PoisonError::into_inner);
        let learned = envelopes.get(usize::from(lookup)).filter(|envelope| !envelope.is_empty());
        learned.map_or(Bytes::from_static(ENVELOPE), Bytes::clone)
    }

    fn learn_envelope(&self, lookup: u8, envelope: Bytes) {
        let mut envelopes = self.envelopes.write().unwrap_or_else(PoisonError::into_inner);
        let lookup = usize::from(lookup);
        if envelopes.len() <= lookup {
            envelopes.resize(lookup + 1, Bytes::new());
        }
        envelopes[lookup] = envelope;
    }

    /// How many keys can be answered.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// Bytes held, by the same measure as the capacity.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.residents.run_pending_tasks();
        self.residents.weighted_size()
    }
}

#[cfg(test)]
mod tests;
