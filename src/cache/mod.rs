//! What the upstream has said, for as long as it may be repeated.
//!
//! Two structures, one for each question:
//! - the *index* ([`index`]) maps every key to its [`Answer`]; lookups read it;
//! - the *residents* are moka's: one per customer (under the key that identifies it) or per answer without an
//!   identified customer. moka weighs them in bytes and lets the least recently used go; when one goes, every key that
//!   reaches it leaves the index. moka's time features are not used: freshness is judged with our own `now`.
//!
//! Invariants:
//! 1. A customer's bytes are stored and weighed once, however many keys reach them.
//! 2. Versions of one customer only go forward: when a newer one arrives under any key, every key that reaches the
//!    customer gives the newer one from then on, and a key that it no longer carries stops reaching it.
//! 3. A record fetched under any key also answers its unique kinds, but no other: two customers may share a phone.
//! 4. Only what [`Cache::store`] is given enters, and it is only given what the upstream said with success.
//! 5. A key is in the index only while its resident is held, or is about to be dropped by moka.

pub mod entry;
mod index;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bytes::Bytes;
use moka::{notification::RemovalCause, policy::EvictionPolicy};

pub use self::entry::{Answer, Freshness, Policy};
use self::index::Index;
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    metrics::CacheMetrics,
    record::Record,
    shape::Shape,
};

/// Bytes that a resident costs besides its JSON: moka's entry and queues, the record and its reference counts. With
/// [`KEY_OVERHEAD`] measured as the growth of the process over 150,000 of the simulator's customers, three keys each:
/// 3,381 bytes a customer, of which 2,380 are JSON.
const RESIDENT_OVERHEAD: usize = 400;
/// Bytes that each key costs: its place in the index, the answer, and the value itself.
const KEY_OVERHEAD: usize = 200;

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

/// What moka decides about: one customer, or one answer that has no identified customer.
#[derive(Clone)]
enum Resident {
    Customer(Arc<Record>),
    Answer(Arc<Answer>),
}

/// What one successful upstream answer said of the keys that it was asked for.
pub struct Said<'a> {
    /// When the request was started.
    pub fetched_at: Instant,
    /// The envelope up to and with `"data":[`.
    pub envelope: Bytes,
    /// The records that came.
    pub records: &'a [Arc<Record>],
    /// The positions of those that may be kept.
    pub wanted: HashSet<usize>,
    /// Each key that is answered, with the positions of its records; none: the upstream said there is no such customer.
    pub answers: Vec<(Id, Vec<usize>)>,
}

/// The answers of all lookup paths, within one capacity.
pub struct Cache {
    index: Arc<Index>,
    residents: moka::sync::Cache<Key, Resident>,
    policy: Policy,
    /// The envelope of the last success of each lookup path.
    envelopes: RwLock<Vec<Bytes>>,
    /// Writers take turns, so that versions of a customer are compared and replaced in one step.
    writing: Mutex<()>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: &Config, metrics: CacheMetrics) -> Self {
        let index = Arc::new(Index::new());
        let residents = moka::sync::Cache::builder()
            // With a capacity of zero moka drops what it is given without a word to the listener.
            .max_capacity(config.capacity.max(1))
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener({
                let index = Arc::clone(&index);
                move |key: Arc<Key>, resident, cause| {
                    if cause == RemovalCause::Size {
                        metrics.evicted_for_size.inc();
                    }
                    forget(&index, &key, &resident);
                }
            })
            .build();
        Self { index, residents, policy: config.policy.clone(), envelopes: RwLock::default(), writing: Mutex::new(()) }
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
        if answer.records.iter().all(|record| record.identity.is_some()) && !answer.records.is_empty() {
            for record in &answer.records {
                if let Some(identity) = record.identity() {
                    let _used = self.residents.get(&record.key(identity));
                }
            }
        } else {
            let _used = self.residents.get(key);
        }
        Some(answer)
    }

    /// Takes in what the upstream said, and returns the answer that each asked key has from now on: the one just given,
    /// or a newer one that another request brought meanwhile.
    pub fn store(&self, scope: &Arc<Scope>, shape: &Shape, said: Said<'_>) -> Vec<(Id, Arc<Answer>)> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Said { fetched_at, envelope, records, wanted, answers } = said;
        self.learn_envelope(scope.lookup, envelope);
        let newest = |(position, record): (usize, &Arc<Record>)| {
            let record = Arc::clone(record);
            if wanted.contains(&position) { self.newest(record, shape) } else { record }
        };
        let records: Vec<_> = records.iter().enumerate().map(newest).collect();
        let stored: Vec<_> = answers
            .into_iter()
            .map(|(id, positions)| {
                let key = Key { scope: Arc::clone(scope), id };
                let records: Vec<_> = positions.into_iter().map(|position| Arc::clone(&records[position])).collect();
                let answer = self.settle(&key, records, fetched_at);
                (key.id, answer)
            })
            .collect();
        self.residents.run_pending_tasks();
        self.drop_homeless(scope, &stored);
        stored
    }

    /// Takes out of the index what was answered just now and let go before it was: with a small capacity moka may drop a
    /// resident while the batch that brought it is still being written.
    fn drop_homeless(&self, scope: &Arc<Scope>, stored: &[(Id, Arc<Answer>)]) {
        for (id, answer) in stored {
            let gone = |record: &Arc<Record>| {
                record.identity().is_some_and(|identity| !self.residents.contains_key(&record.key(identity)))
            };
            if answer.records.iter().any(gone) {
                let key = Key { scope: Arc::clone(scope), id: id.clone() };
                self.index.remove_if(&key, |held| Arc::ptr_eq(held, answer));
            }
        }
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

    /// Makes a record the version of its customer that every key gives, unless a newer one is held: then that one.
    fn newest(&self, record: Arc<Record>, shape: &Shape) -> Arc<Record> {
        let Some(identity) = record.identity().map(|id| record.key(id)) else { return record };
        let held = self.held(&identity);
        if let Some(held) = held {
            if Arc::ptr_eq(&held, &record) || held.fetched_at > record.fetched_at {
                return held;
            }
            self.supersede(&held, Some(&record));
        }
        for id in &record.ids {
            let key = record.key(id);
            if shape.list(id.kind).unique {
                self.settle(&key, vec![Arc::clone(&record)], record.fetched_at);
            } else {
                // An older list of this key's customers did not have this one: it is not the whole list any more.
                self.index.remove_if(&key, |answer| {
                    answer.fetched_at < record.fetched_at
                        && !answer.records.iter().any(|one| one.same_customer(&record))
                });
            }
        }
        self.residents.insert(identity, Resident::Customer(Arc::clone(&record)));
        record
    }

    /// The version of an identified customer that is held now.
    fn held(&self, identity: &Key) -> Option<Arc<Record>> {
        let answer = self.index.get(identity)?;
        answer.records.iter().find(|record| record.identity() == Some(&identity.id)).cloned()
    }

    /// Lets every key that gives `old` give `new` instead, and those that `new` does not carry give nothing.
    fn supersede(&self, old: &Arc<Record>, new: Option<&Arc<Record>>) {
        for id in &old.ids {
            let key = old.key(id);
            let Some(answer) = self.index.get(&key) else { continue };
            if !answer.records.iter().any(|record| Arc::ptr_eq(record, old)) {
                continue;
            }
            match new.filter(|new| new.ids.contains(id)) {
                Some(new) => {
                    let records = answer.records.iter();
                    let records = records.map(|record| if Arc::ptr_eq(record, old) { new } else { record });
                    let records = records.cloned().collect();
                    self.index.insert(key, Arc::new(Answer { records, ..*answer }));
                }
                None => {
                    self.index.remove_if(&key, |current| Arc::ptr_eq(current, &answer));
                }
            }
        }
    }

    /// Makes `records` the answer of a key unless a newer one is held, and returns the one that holds.
    fn settle(&self, key: &Key, records: Vec<Arc<Record>>, fetched_at: Instant) -> Arc<Answer> {
        let before = self.index.get(key);
        if let Some(before) = before.as_ref().filter(|before| before.fetched_at > fetched_at) {
            return Arc::clone(before);
        }
        if records.is_empty() {
            // The customer that this key identifies is gone: its other keys must not go on giving it.
            if let Some(gone) = self.held(key) {
                self.supersede(&gone, None);
            }
        }
        let answer = Arc::new(Answer { records: records.into(), fetched_at, spread: fastrand::u8(..) });
        self.index.insert(key.clone(), Arc::clone(&answer));
        let identified = !answer.records.is_empty() && answer.records.iter().all(|record| record.identity.is_some());
        if !identified {
            self.residents.insert(key.clone(), Resident::Answer(Arc::clone(&answer)));
        } else if before.is_some_and(|before| before.records.is_empty()) {
            // What said that there is no such customer is a resident of its own, and no longer needed.
            self.residents.invalidate(key);
        }
        answer
    }
}

/// Takes everything that leads to a resident out of the index; what has been replaced meanwhile stays.
fn forget(index: &Index, key: &Key, resident: &Resident) {
    match resident {
        Resident::Customer(record) => {
            for id in &record.ids {
                index.remove_if(&record.key(id), |answer| answer.records.iter().any(|one| Arc::ptr_eq(one, record)));
            }
        }
        Resident::Answer(gone) => {
            index.remove_if(key, |answer| Arc::ptr_eq(answer, gone));
        }
    }
}

fn weigh(_key: &Key, resident: &Resident) -> u32 {
    let bytes = match resident {
        Resident::Customer(record) => record_bytes(record),
        Resident::Answer(answer) => {
            KEY_OVERHEAD + answer.records.iter().map(|record| record_bytes(record)).sum::<usize>()
        }
    };
    u32::try_from(bytes + RESIDENT_OVERHEAD).unwrap_or(u32::MAX)
}

fn record_bytes(record: &Record) -> usize {
    record.json.len() + record.ids.len() * KEY_OVERHEAD
}

#[cfg(test)]
mod tests;
