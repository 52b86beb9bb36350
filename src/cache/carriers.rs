//! Which customers carry an id that does not lead to them in the index: one that several may share, whether or not anybody has
//! asked for it, and any id of a record that identifies no customer.
//!
//! A record does not answer for its phones until one is asked for, so the index does not lead from a phone to everybody
//! who has it. Who erases a phone, or has written to it, means all of them. An entry is one pointer and a position: the
//! key itself stands in the record, and is compared there.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashTable;

use crate::{key::Key, record::Record, shape::Shape};

/// One of a record's ids, by its position.
type Place = (Arc<Record>, u8);

/// The records that are held, by the ids that are not unique.
#[derive(Default)]
pub(super) struct Carriers {
    table: Mutex<HashTable<Place>>,
    hasher: RandomState,
}

impl Carriers {
    /// A record is held from now on.
    pub(super) fn add(&self, record: &Arc<Record>, shape: &Shape) {
        let mut table = self.lock();
        for (position, id) in (0..=u8::MAX).zip(&record.ids) {
            if !shape.list(id.kind).unique || record.identity.is_none() {
                let hash = self.hash(&record.key(id));
                let rehash = |(record, position): &Place| self.hash(&record.key(&record.ids[usize::from(*position)]));
                table.insert_unique(hash, (Arc::clone(record), position), rehash);
            }
        }
    }

    /// A record is not held any more.
    pub(super) fn remove(&self, record: &Arc<Record>) {
        let mut table = self.lock();
        for (position, id) in (0..=u8::MAX).zip(&record.ids) {
            let own = |place: &Place| Arc::ptr_eq(&place.0, record) && place.1 == position;
            if let Ok(entry) = table.find_entry(self.hash(&record.key(id)), own) {
                entry.remove();
            }
        }
    }

    /// Everybody who carries this key.
    pub(super) fn of(&self, key: &Key) -> Vec<Arc<Record>> {
        let table = self.lock();
        let same = |(record, position): &&Place| record.key(&record.ids[usize::from(*position)]) == *key;
        table.iter_hash(self.hash(key)).filter(same).map(|(record, _)| Arc::clone(record)).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, HashTable<Place>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
