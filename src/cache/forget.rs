//! Erasing customers for good: the keys asked, every record that they reach, every other key that reaches those records.
//!
//! A request that is under way does not bring them back: each of these keys is [barred](super::bars), also those under
//! which nothing is held, and a record that carries a barred key is not kept.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use super::{Answer, Cache, Whose, resident::Resident};
use crate::{
    clock::Instant,
    key::{Id, Key},
    record::Record,
    shape::Shape,
};

/// What was forgotten.
#[derive(Default, Debug)]
pub struct Forgotten {
    /// Keys that were answered.
    pub keys: usize,
    /// Customers, and answers of which no customer is known.
    pub records: usize,
    /// The keys that bring back what was held: one for each customer, and each key that several customers may share.
    pub held: Vec<Key>,
    /// Every key meant, held or not.
    pub meant: Vec<Key>,
}

impl Cache {
    /// Forgets these ids of a lookup path in the scopes that are meant. What was asked for before `now` does not bring
    /// them back.
    #[must_use]
    pub fn forget(&self, (lookup, shape): (u8, &Shape), whose: Whose<'_>, ids: &[Id], now: Instant) -> Forgotten {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut forgetting =
            Forgetting { cache: self, shape, now, forgotten: Forgotten::default(), met: HashSet::new() };
        for scope in self.scopes.of(lookup, whose) {
            for id in ids {
                forgetting.key(Key { scope: Arc::clone(&scope), id: id.clone() });
            }
        }
        self.residents.run_pending_tasks();
        forgetting.forgotten
    }

    /// The ids under which a lookup path holds what carries one of these ids, in any scope, though nobody may have asked for
    /// it by them: two customers may share a phone, so a record does not answer for the phones that it carries. Looks at
    /// everything that is held.
    #[must_use]
    pub fn carriers(&self, lookup: u8, ids: &HashSet<Id>) -> Vec<Id> {
        let carries =
            |resident: &Resident| resident.records().iter().any(|record| record.ids.iter().any(|id| ids.contains(id)));
        if ids.is_empty() {
            return Vec::new();
        }
        let held = self.residents.iter().filter(|(key, resident)| key.scope.lookup == lookup && carries(resident));
        held.map(|(key, _)| key.id.clone()).collect()
    }

    /// Forgets everything. What was asked for before `now` does not bring anything back.
    #[must_use]
    pub fn forget_all(&self, now: Instant) -> Forgotten {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.raise_all(now);
        self.residents.run_pending_tasks();
        let records = usize::try_from(self.residents.entry_count()).unwrap_or(usize::MAX);
        let keys = self.index.clear();
        self.ahead.clear();
        for (key, _) in &self.residents {
            self.residents.invalidate(&*key);
        }
        self.residents.run_pending_tasks();
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
    met: HashSet<*const Record>,
}

impl Forgetting<'_> {
    /// A key that was asked, with every record that it reaches.
    fn key(&mut self, key: Key) {
        let answer = self.cache.index.get(&key);
        let Some(answer) = answer else { return self.bar(key) };
        self.drop_key(key, &answer);
        for record in &answer.records {
            self.record(record);
        }
    }

    /// A record, with every key that reaches it.
    fn record(&mut self, record: &Arc<Record>) {
        if !self.met.insert(Arc::as_ptr(record)) {
            return;
        }
        self.forgotten.records += 1;
        for id in &record.ids {
            let key = record.key(id);
            match self.cache.index.get(&key) {
                Some(answer) if answer.records.iter().any(|one| Arc::ptr_eq(one, record)) => {
                    self.drop_key(key, &answer);
                }
                _ => self.bar(key),
            }
        }
        if let Some(identity) = record.identity() {
            self.forgotten.held.push(record.key(identity));
            self.cache.residents.invalidate(&record.key(identity));
        }
    }

    fn drop_key(&mut self, key: Key, answer: &Arc<Answer>) {
        self.bar(key.clone());
        if !self.cache.index.remove_if(&key, |held| Arc::ptr_eq(held, answer)) {
            return; // It has just been evicted.
        }
        self.forgotten.keys += 1;
        let identified = answer.is_identified();
        if !identified {
            self.cache.residents.invalidate(&key);
            self.forgotten.records += usize::from(answer.records.is_empty());
        }
        if !identified || !self.shape.list(key.id.kind).unique {
            self.forgotten.held.push(key);
        }
    }

    fn bar(&mut self, key: Key) {
        self.cache.bars.raise(|| key.clone(), self.now);
        self.forgotten.meant.push(key);
    }
}
