//! Which customers carry an id that does not lead to them in the index: one that several may share, whether or not anybody has
//! asked for it, and any id of a record that identifies no customer.
//!
//! A record does not answer for its phones until one is asked for, so the index does not lead from a phone to everybody
//! who has it. Who erases a phone, or has written to it, means all of them. An entry is one pointer, a position and so much of
//! the hash that the table can grow without reading a key: the key itself stands in the record, and is compared there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use super::index::spread;
use crate::{
    key::{IdRef, Key, Scope},
    record::Record,
    shape::Shape,
};

/// One of a record's ids, by its position.
struct Carrier {
    record: Record,
    hash: u32,
    position: u8,
}

/// The records that are held, by the ids that are not unique.
#[derive(Default)]
pub(super) struct Carriers(Mutex<HashTable<Carrier>>);

impl Carrier {
    fn hash(&self) -> u64 {
        spread(self.hash)
    }

    fn has(&self, key: &Key, wanted: u32) -> bool {
        let id = || self.record.ids().nth(usize::from(self.position));
        self.hash == wanted && id() == Some(key.id.borrowed()) && **self.record.scope() == *key.scope
    }
}

impl Carriers {
    /// A record is held from now on.
    pub(super) fn add(&self, record: &Record, shape: &Shape) {
        let mut table = self.lock();
        for (position, id) in (0..=u8::MAX).zip(record.ids()) {
            if !shape.list(id.kind).unique || record.identity().is_none() {
                let hash = digest(record.scope(), id);
                table.insert_unique(spread(hash), Carrier { record: record.clone(), hash, position }, Carrier::hash);
            }
        }
    }

    /// A record is not held any more.
    pub(super) fn remove(&self, record: &Record) {
        let mut table = self.lock();
        for (position, id) in (0..=u8::MAX).zip(record.ids()) {
            let own = |carrier: &Carrier| carrier.record.is(record) && carrier.position == position;
            if let Ok(entry) = table.find_entry(spread(digest(record.scope(), id)), own) {
                entry.remove();
            }
        }
    }

    /// A twin of a record is held in its place.
    pub(super) fn replace(&self, old: &Record, new: &Record) {
        let mut table = self.lock();
        for (position, id) in (0..=u8::MAX).zip(old.ids()) {
            let own = |carrier: &Carrier| carrier.record.is(old) && carrier.position == position;
            if let Some(carrier) = table.find_mut(spread(digest(old.scope(), id)), own) {
                carrier.record = new.clone();
            }
        }
    }

    /// Everybody who carries this key.
    pub(super) fn of(&self, key: &Key) -> Vec<Record> {
        let hash = digest(&key.scope, key.id.borrowed());
        let table = self.lock();
        let same = |carrier: &&Carrier| carrier.has(key, hash);
        table.iter_hash(spread(hash)).filter(same).map(|carrier| carrier.record.clone()).collect()
    }

    /// Nobody carries anything any more.
    pub(super) fn clear(&self) {
        *self.lock() = HashTable::new();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, HashTable<Carrier>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(scope: &Scope, id: IdRef<'_>) -> u32 {
    id.digest(scope) as u32
}
