//! Which answer stands behind each key: what a lookup reads.
//!
//! Sharded so that readers on several threads rarely meet; a lock is held for one map operation and never across an
//! `.await`. What stays and what goes is not decided here but by the cache's residents, see [`super`].

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, PoisonError, RwLock},
};

use super::entry::Answer;
use crate::key::Key;

/// Enough that two threads rarely want the same one; a power of two.
const SHARDS: usize = 64;

type Shard = HashMap<Key, Arc<Answer>>;

/// The map from keys to answers.
pub(super) struct Index {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Answer>> {
        self.shard(key).read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn insert(&self, key: Key, answer: Arc<Answer>) {
        self.shard(&key).write().unwrap_or_else(PoisonError::into_inner).insert(key, answer);
    }

    /// Gives the key another answer, if the one that it has is the one meant: what has gone meanwhile stays away.
    pub(super) fn replace_if(&self, key: &Key, meant: &Arc<Answer>, answer: Arc<Answer>) {
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shard.get_mut(key).filter(|held| Arc::ptr_eq(held, meant)) {
            *held = answer;
        }
    }

    /// Removes the key if its answer is one of those meant; what has been replaced meanwhile stays.
    pub(super) fn remove_if(&self, key: &Key, meant: impl FnOnce(&Arc<Answer>) -> bool) -> bool {
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        let removed = shard.get(key).is_some_and(meant);
        if removed {
            shard.remove(key);
        }
        removed
    }

    /// Removes everything, and returns how many keys that were.
    pub(super) fn clear(&self) -> usize {
        let clear = |shard: &RwLock<Shard>| {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *shard).len()
        };
        self.shards.iter().map(clear).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard> {
        // The high bits choose the shard: the map itself uses the low ones.
        let position = self.hasher.hash_one(key) >> (64 - SHARDS.trailing_zeros());
        &self.shards[usize::try_from(position).expect("this holds because it is below SHARDS")]
    }
}
