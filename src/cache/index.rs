//! Which answer stands behind each key: what a lookup reads.
//!
//! An entry is two words: a pointer to the answer, and so much of the key's hash that a table can grow without reading any key.
//! The key itself stands where the pointer leads, which is what whoever looks for it wants to read.
//!
//! Whoever looks for many keys waits for memory more than for anything else; so they are looked for in steps, each for all of
//! the keys, in which no read depends on another, and the processor waits for several of them at once.
//!
//! Sharded so that readers on several threads rarely meet; a lock is held for one operation of a table and never across an
//! `.await`. What stays and what goes is not decided here but by the cache's [residents](super::resident).

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

use super::{
    Found,
    entry::{Answer, List},
};
use crate::{
    key::{Id, IdRef, Key, Scope},
    record::Record,
};

/// Enough that two threads rarely want the same one, and that none is long in growing; a power of two.
const SHARDS: usize = u64::BITS as usize;

/// From so many keys on they are looked for together.
const MANY: usize = 4;

/// Bytes of an entry, with its share of the room that a table keeps free: between an eighth and nine sixteenths.
pub(super) const ENTRY: usize = 26;

/// An answer and what leads to it.
enum Entry {
    /// `at` is where the key stands in the record.
    Customer { at: u16, hash: u32, record: Record },
    /// The key stands in the list.
    List { hash: u32, list: Arc<List> },
}

impl Entry {
    fn new(key: &Key, hash: u32, answer: Answer) -> Self {
        match answer {
            Answer::Customer(record) => {
                let at = record.find(key.id.borrowed()).and_then(|place| place.near());
                let at = at.expect("this holds because an answer is only made of a record in which its key is found");
                Self::Customer { at, hash, record }
            }
            Answer::List(list) => Self::List { hash, list },
        }
    }

    fn answer(&self) -> Answer {
        match self {
            Self::Customer { record, .. } => Answer::Customer(record.clone()),
            Self::List { list, .. } => Answer::List(Arc::clone(list)),
        }
    }

    fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Customer { record: one, .. }, Answer::Customer(two)) => one.is(two),
            (Self::List { list: one, .. }, Answer::List(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Whether its key may have this hash.
    fn is_alike(&self, wanted: u32) -> bool {
        let (Self::Customer { hash, .. } | Self::List { hash, .. }) = self;
        *hash == wanted
    }

    fn has(&self, scope: &Scope, id: IdRef<'_>, wanted: u32) -> bool {
        let same_scope = |own: &Arc<Scope>| std::ptr::eq(&**own, scope) || **own == *scope;
        match self {
            Self::Customer { at, hash, record } => {
                *hash == wanted && record.at((*at).into()) == id && same_scope(record.scope())
            }
            Self::List { hash, list } => {
                let own = || list.key().is_some_and(|key| key.id.borrowed() == id && same_scope(&key.scope));
                *hash == wanted && own()
            }
        }
    }

    fn hash(&self) -> u64 {
        let (Self::Customer { hash, .. } | Self::List { hash, .. }) = self;
        spread(*hash)
    }
}

/// Both ends of a table's hash count: the low bits place an entry, the high ones tell it from its neighbours.
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

type Shard = HashTable<Entry>;

/// The map from keys to answers.
pub(super) struct Index {
    shards: Box<[RwLock<Shard>]>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }

    /// What stands behind an id in its scope.
    pub(super) fn find(&self, scope: &Scope, id: &Id) -> Option<Answer> {
        let id = id.borrowed();
        let (hash, shard) = place(scope, id);
        let shard = read(&self.shards[shard]);
        shard.find(spread(hash), |entry| entry.has(scope, id, hash)).map(Entry::answer)
    }

    /// What stands behind each of these ids in their scope.
    pub(super) fn find_all(&self, scope: &Scope, ids: &[Id]) -> Found {
        if ids.len() < MANY {
            return ids.iter().map(|id| self.find(scope, id)).collect();
        }
        let places: Vec<(u32, usize)> = ids.iter().map(|id| place(scope, id.borrowed())).collect();
        let mut guards = [const { None }; SHARDS];
        // Each shard once, and everybody in the same order: a reader may have to wait behind a writer who waits for another.
        let wanted = places.iter().fold(0_u64, |wanted, (_, shard)| wanted | 1 << shard);
        for shard in (0..SHARDS).filter(|shard| wanted >> shard & 1 == 1) {
            guards[shard] = Some(read(&self.shards[shard]));
        }
        let guard = |shard: usize| guards[shard].as_ref().expect("this holds because it was taken above");
        // By the hash alone: the tables are read, and nothing that they point at.
        let alike = |(hash, shard): &(u32, usize)| guard(*shard).find(spread(*hash), |entry| entry.is_alike(*hash));
        let alike: Vec<Option<&Entry>> = places.iter().map(alike).collect();
        let found = alike.iter().zip(ids).zip(&places).map(|((entry, id), (hash, shard))| {
            let id = id.borrowed();
            match entry {
                // Another key may have the same hash.
                Some(entry) if !entry.has(scope, id, *hash) => {
                    guard(*shard).find(spread(*hash), |entry| entry.has(scope, id, *hash))
                }
                found => *found,
            }
        });
        let found: Vec<Option<&Entry>> = found.collect();
        found.into_iter().map(|entry| entry.map(Entry::answer)).collect()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Answer> {
        self.find(&key.scope, &key.id)
    }

    pub(super) fn insert(&self, key: &Key, answer: Answer) {
        let id = key.id.borrowed();
        let (hash, shard) = place(&key.scope, id);
        let mut shard = write(&self.shards[shard]);
        let entry = Entry::new(key, hash, answer);
        match shard.find_mut(spread(hash), |entry| entry.has(&key.scope, id, hash)) {
            Some(held) => *held = entry,
            None => {
                shard.insert_unique(spread(hash), entry, Entry::hash);
            }
        }
    }

    /// Gives the key another answer, if the one that it has is the one meant: what has gone meanwhile stays away.
    pub(super) fn replace_if(&self, key: &Key, meant: &Answer, answer: Answer) {
        let id = key.id.borrowed();
        let (hash, shard) = place(&key.scope, id);
        let mut shard = write(&self.shards[shard]);
        let held = shard.find_mut(spread(hash), |entry| entry.has(&key.scope, id, hash));
        if let Some(held) = held.filter(|held| held.is(meant)) {
            *held = Entry::new(key, hash, answer);
        }
    }

    /// Removes the key if its answer is one of those meant; what has been replaced meanwhile stays.
    pub(super) fn remove_if(&self, key: &Key, meant: impl FnOnce(&Answer) -> bool) -> bool {
        let id = key.id.borrowed();
        let (hash, shard) = place(&key.scope, id);
        let mut shard = write(&self.shards[shard]);
        let Ok(held) = shard.find_entry(spread(hash), |entry| entry.has(&key.scope, id, hash)) else { return false };
        let removed = meant(&held.get().answer());
        if removed {
            held.remove();
        }
        removed
    }

    /// Removes everything, and returns how many keys that were.
    pub(super) fn clear(&self) -> usize {
        self.shards.iter().map(|shard| std::mem::take(&mut *write(shard)).len()).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).len()).sum()
    }
}

/// So much of a key's hash as is kept, and the shard that the rest of it chooses.
fn place(scope: &Scope, id: IdRef<'_>) -> (u32, usize) {
    let digest = id.digest(scope);
    (digest as u32, (digest >> 32) as usize % SHARDS)
}

/// For one step, which no panic interrupts.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

/// For one step, which no panic interrupts.
fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Value};

    #[test]
    fn an_entry_is_two_words() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn many_keys_are_found_together_as_each_is_by_itself() {
        let index = Index::new();
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        let id = |number| Id { kind: Kind(0), value: Value::Int(number) };
        let now = crate::clock::now();
        for number in 0..3000 {
            let key = Key { scope: Arc::clone(&scope), id: id(number) };
            index.insert(&key, Answer::of(&key, vec![], now));
        }
        let ids: Vec<Id> = (0..100).map(|number| id(number * 37 % 4000)).collect();
        let together = index.find_all(&scope, &ids);
        assert_eq!(together.len(), ids.len());
        for (id, found) in ids.iter().zip(together) {
            let alone = index.find(&scope, id);
            assert!(alone.as_ref().is_none_or(|alone| found.as_ref().is_some_and(|found| found.is(alone))));
            assert_eq!(alone.is_some(), found.is_some());
        }
        let other = Scope::new(0, vec![], r#"{"companyId":1}"#, "");
        assert!(index.find_all(&other, &ids).iter().all(Option::is_none));
    }
}
