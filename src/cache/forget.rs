//! Erasing customers for good: the keys asked, every record that they reach, every other key that reaches those records.
//!
//! A request that is under way does not bring them back: each of these keys is [barred](super::bars), also those under
//! which nothing is held, and a record that carries a barred key is not kept.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use super::{Answer, Cache, Whose};
use crate::{
    clock::Instant,
    key::{Credential, Id, Key},
    record::Record,
    shape::Shape,
};

/// Ids that are forgotten in one turn, at most: a millisecond or so.
const AT_ONCE: usize = 256;

/// What was forgotten.
#[derive(Default, Debug)]
pub struct Forgotten {
    /// Keys that were answered.
    pub keys: usize,
    /// Customers, and answers of which no customer is known.
    pub records: usize,
    /// The keys that bring back what was held and good to be given: one for each customer, and each key that several
    /// customers may share.
    pub held: Vec<Key>,
    /// Every key meant, held or not.
    pub meant: Vec<Key>,
    /// The keys that were answered, where a store may have had more.
    pub answered: Vec<Key>,
    /// The keys that name the customers, where a store may have had more.
    pub customers: Vec<Key>,
}

impl Forgotten {
    /// Every id meant, held or not.
    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        self.meant.iter().map(|key| &key.id)
    }
}

impl Cache {
    /// Forgets these ids of a lookup path in the scopes that are meant. What was asked for before `now` does not bring
    /// them back.
    #[must_use]
    pub fn forget(&self, (lookup, shape): (u8, &Shape), whose: Whose<'_>, ids: &[Id], now: Instant) -> Forgotten {
        let mut forgetting =
            Forgetting { cache: self, shape, now, forgotten: Forgotten::default(), met: HashSet::new() };
        for scope in self.scopes.of(lookup, whose) {
            for ids in ids.chunks(AT_ONCE) {
                // Others have their turn in between.
                let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                for id in ids {
                    forgetting.key(Key { scope: Arc::clone(&scope), id: id.clone() });
                }
            }
        }
        forgetting.forgotten
    }

    /// The credentials with which anything was asked of a lookup path.
    #[must_use]
    pub fn credentials(&self, lookup: u8) -> Vec<Credential> {
        self.scopes.credentials(lookup)
    }

    /// Forgets that these keys were noted to be refreshed ahead: nothing of them is left.
    pub fn forget_noted(&self, keys: &[Key]) {
        self.ahead.forget(keys);
    }

    /// Forgets everything. What was asked for before `now` does not bring anything back.
    #[must_use]
    pub fn forget_all(&self, now: Instant) -> Forgotten {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.raise_all(now);
        let records = self.residents.count();
        let keys = self.index.clear();
        self.ahead.clear();
        self.carriers.clear();
        self.residents.clear();
        self.packing.iter().for_each(super::packing::Packing::forget);
        Forgotten { keys, records, ..Forgotten::default() }
    }
}

/// One erasure under way.
struct Forgetting<'a> {
    cache: &'a Cache,
    shape: &'a Shape,
    now: Instant,
    forgotten: Forgotten,
    /// Records that were met, by address: they live as long as the erasure.
    met: HashSet<usize>,
}

impl Forgetting<'_> {
    /// A key that was asked, with every record that it reaches.
    fn key(&mut self, key: Key) {
        let mut records = self.cache.carriers.of(&key);
        match self.cache.index.get(&key) {
            Some(answer) => {
                records.extend_from_slice(answer.records());
                self.drop_key(key, &answer);
            }
            None => self.bar(key),
        }
        for record in &records {
            self.record(record);
        }
    }

    /// A record, with every key that reaches it.
    fn record(&mut self, record: &Record) {
        if !self.met.insert(record.address()) {
            return;
        }
        self.forgotten.records += 1;
        for id in record.ids() {
            let key = record.key(id);
            match self.cache.index.get(&key) {
                Some(answer) if answer.gives(record) => {
                    self.drop_key(key, &answer);
                }
                _ => self.bar(key),
            }
        }
        if let Some(identity) = record.identity() {
            self.forgotten.customers.extend(self.cache.store.is_some().then(|| record.key(identity)));
            if self.is_good(record.fetched_at()) {
                self.forgotten.held.push(record.key(identity));
            }
            self.cache.release(&Answer::Customer(record.clone()));
        }
    }

    fn drop_key(&mut self, key: Key, answer: &Answer) {
        self.bar(key.clone());
        if !self.cache.index.remove_if(&key, |held| held.is(answer)) {
            return; // It has just been evicted.
        }
        self.forgotten.keys += 1;
        self.forgotten.answered.extend(self.cache.store.is_some().then(|| key.clone()));
        let identified = answer.is_identified();
        if !identified {
            self.cache.release(answer);
            self.forgotten.records += usize::from(answer.records().is_empty());
        }
        if self.is_good(answer.fetched_at()) && (!identified || !self.shape.list(key.id.kind).unique) {
            self.forgotten.held.push(key);
        }
    }

    /// Whether what was asked then was still given to callers: nobody misses what was not.
    fn is_good(&self, fetched_at: Instant) -> bool {
        let policy = self.cache.policy();
        self.now.saturating_duration_since(fetched_at) < policy.ttl + policy.stale_while_revalidate
    }

    fn bar(&mut self, key: Key) {
        self.cache.bars.raise(|| key.clone(), self.now);
        self.forgotten.meant.push(key);
    }
}
