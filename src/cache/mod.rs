//! What the upstream has said, for as long as it may be repeated.
//!
//! Two structures, one for each question:
//! - the *index* ([`index`]) maps every key to its [`Answer`]; lookups read it, and nothing else;
//! - the *residents* ([`resident`]) are moka's, in pages: one per customer or per answer without an identified customer.
//!   moka weighs them in bytes and says what goes; when one goes, every key that reaches it leaves the index. moka's time
//!   features are not used: freshness is judged with our own `now`.
//!
//! What an upstream request brings is taken in through the [`Fetch`] that was opened when it started ([`versions`] says
//! what becomes of it); [`packing`] makes records smaller; [`forget`] erases; [`bars`] keeps what was erased from coming
//! back; [`ahead`] knows what is worth to be asked again before it expires. What is [`stored`] is there when the memory has let it go.
//!
//! Invariants:
//! 1. A customer's bytes are stored and weighed once, however many keys reach them.
//! 2. Versions of one customer only go forward: when a newer one arrives under any key, every key that reaches the
//!    customer gives the newer one from then on, and a key that it no longer carries stops reaching it. No order of
//!    requests, evictions and erasures makes an older one reappear.
//! 3. A record fetched under any key also answers its unique kinds, but no other: two customers may share a phone.
//! 4. Only what a [`Fetch`] is given enters, and it is only given what the upstream said with success.
//! 5. A key is in the index only while its resident is held.
//! 6. What was forgotten is not brought back by a request that was started before.

mod ahead;
mod bars;
mod carriers;
pub mod entry;
mod fetch;
mod forget;
mod index;
mod packing;
mod resident;
mod scopes;
mod stored;
mod terms;
mod versions;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use smallvec::SmallVec;

use self::{
    ahead::Ahead,
    bars::Bars,
    carriers::Carriers,
    index::Index,
    packing::Packing,
    resident::{Fate, Resident, Residents},
    scopes::Scopes,
    terms::Terms,
};
pub use self::{
    entry::{Answer, Freshness, List, Policy},
    fetch::{Fetch, Of, Said, Taken, Watch},
    forget::Forgotten,
    packing::Compression,
    scopes::Whose,
    stored::Forgetting,
};
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    metrics::CacheMetrics,
    shape::Shape,
    store::Store,
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
    /// Which records are compressed.
    pub compression: Compression,
}

/// What stands behind each of some keys; behind one, as most lookups ask, without an allocation.
pub type Found = SmallVec<[Option<Answer>; 1]>;

/// The answers of all lookup paths, within one capacity.
pub struct Cache {
    index: Arc<Index>,
    residents: Residents,
    terms: Terms,
    /// The envelope of the last success of each lookup path.
    envelopes: RwLock<Vec<Bytes>>,
    /// What requests under way may not bring back.
    bars: Bars,
    /// Who carries what several customers may share.
    carriers: Carriers,
    scopes: Scopes,
    ahead: Ahead,
    packing: Option<Packing>,
    metrics: CacheMetrics,
    /// What keeps answers beyond the memory.
    store: Option<Store>,
    /// Writers take turns, so that versions of a customer are compared and replaced in one step.
    writing: Mutex<()>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: &Config, metrics: CacheMetrics) -> Self {
        Self::with_pages(config, metrics, resident::PAGES)
    }

    /// An empty cache whose residents go in so many pages or more.
    fn with_pages(config: &Config, metrics: CacheMetrics, pages: u64) -> Self {
        let index = Arc::new(Index::new());
        let terms = Terms::new(&config.policy);
        Self {
            ahead: Ahead::new(Arc::clone(&index), terms.clone()),
            index,
            residents: Residents::new(config.capacity, pages),
            terms,
            envelopes: RwLock::default(),
            bars: Bars::default(),
            carriers: Carriers::default(),
            packing: Packing::new(config.compression, &metrics),
            metrics,
            scopes: Scopes::new(),
            store: None,
            writing: Mutex::new(()),
        }
    }

    /// How long answers are good, and for what.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.terms.now()
    }

    /// How long they are from now on, those that are cached already included.
    pub fn set_policy(&self, policy: &Policy) {
        self.terms.set(policy);
    }

    /// The answer behind a key, however old: the caller judges. Counts as a use.
    #[must_use]
    pub fn get(&self, scope: &Scope, id: &Id) -> Option<Answer> {
        let answer = self.index.find(scope, id)?;
        answer.used(self.residents.turn());
        Some(answer)
    }

    /// The same for each of these keys of a scope, in one go.
    #[must_use]
    pub fn get_all(&self, scope: &Scope, ids: &[Id]) -> Found {
        let answers = self.index.find_all(scope, ids);
        let turn = self.residents.turn();
        answers.iter().flatten().for_each(|answer| answer.used(turn));
        answers
    }

    /// Whether there is anything behind a key, however old. Does not count as a use.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        self.index.get(key).is_some()
    }

    /// A caller was given the answer of this key from the cache. What is read is asked again before it expires, where
    /// that costs no request of its own; see [`expiring`](Self::expiring).
    pub fn was_read(&self, scope: &Arc<Scope>, id: &Id, answer: &Answer, now: Instant) {
        if answer.marks().count_read() {
            self.ahead.note((scope, id), answer, now);
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

    /// Remembers what a request must not bring back that was started from now on, until what is returned is dropped.
    #[must_use]
    pub fn watch(self: &Arc<Self>, now: Instant) -> Watch {
        self.bars.open(now);
        Watch::new(Arc::clone(self), now)
    }

    /// The envelope of the last success of a lookup path, up to `"data":[`, its members spelled as the upstream did.
    #[must_use]
    pub fn envelope(&self, lookup: u8) -> Bytes {
        let envelopes = self.envelopes.read().unwrap_or_else(PoisonError::into_inner);
        let learned = envelopes.get(usize::from(lookup)).filter(|envelope| !envelope.is_empty());
        learned.map_or(Bytes::from_static(ENVELOPE), Bytes::clone)
    }

    /// The envelope that another process learned, where this one has not had a success yet.
    pub fn suggest_envelope(&self, lookup: u8, envelope: Bytes) {
        let envelopes = self.envelopes.read().unwrap_or_else(PoisonError::into_inner);
        let is_known = envelopes.get(usize::from(lookup)).is_some_and(|envelope| !envelope.is_empty());
        drop(envelopes);
        if !is_known {
            self.learn_envelope(lookup, envelope);
        }
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
        self.residents.bytes()
    }

    /// Ends a step: what has no room any more leaves.
    fn settle_residents(&self) {
        self.residents.settle(|resident, fate| {
            if fate == Fate::Stays {
                return Some(self.warm(resident));
            }
            let twin = if fate == Fate::Goes { self.cold(&resident) } else { None };
            if twin.is_none() {
                self.evict(&resident);
            }
            twin
        });
    }

    /// There is no room for it any more.
    fn evict(&self, resident: &Resident) {
        self.metrics.evicted_for_size.inc();
        let age = crate::clock::now().saturating_duration_since(resident.fetched_at());
        self.metrics.evicted_age.set(age.as_secs_f64());
        // First barred, then gone: who misses it in the index must find the bar.
        let bar = |key| self.bars.raise_before(resident.fetched_at(), key);
        match resident {
            Resident::Customer(record) => record.ids().map(|id| record.key(id)).for_each(bar),
            Resident::List(list) => list.key().cloned().into_iter().for_each(bar),
        }
        self.leave(resident);
    }

    /// A resident is not to be given any more.
    fn release(&self, resident: &Resident) {
        self.residents.remove(resident);
        self.leave(resident);
    }

    /// Takes everything that leads to a resident out of the index; what has been replaced meanwhile stays.
    fn leave(&self, resident: &Resident) {
        match resident {
            Resident::Customer(record) => {
                self.carriers.remove(record);
                for id in record.ids() {
                    self.index.remove_if(&record.key(id), |answer| answer.gives(record));
                }
            }
            Resident::List(list) => {
                self.forget_carriers(resident);
                if let Some(key) = list.key() {
                    self.index.remove_if(key, |answer| answer.is(resident));
                }
            }
        }
    }

    /// Nobody carries anything any more of those that only this answer holds.
    fn forget_carriers(&self, resident: &Resident) {
        let own = resident.records().iter().filter(|record| record.identity().is_none());
        own.for_each(|record| self.carriers.remove(record));
    }
}

#[cfg(test)]
mod tests;
