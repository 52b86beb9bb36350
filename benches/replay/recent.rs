//! The cache of the simple policies: so many entries, each good for a time, the least recently used first out.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Names of what was used lately.
pub(crate) struct Recent {
    capacity: usize,
    ttl: Duration,
    serial: u64,
    /// When each was fetched, and its last use.
    entries: HashMap<u64, (Duration, u64)>,
    /// What was used, the least recent first.
    uses: BTreeMap<u64, u64>,
}

impl Recent {
    pub(crate) fn new(capacity: usize, ttl: Duration) -> Self {
        Self { capacity, ttl, serial: 0, entries: HashMap::new(), uses: BTreeMap::new() }
    }

    /// Whether it is there and still good. Counts as a use.
    pub(crate) fn get(&mut self, name: u64, now: Duration) -> bool {
        let Some((fetched_at, used)) = self.entries.get_mut(&name) else { return false };
        self.serial += 1;
        self.uses.remove(used);
        self.uses.insert(self.serial, name);
        *used = self.serial;
        now < *fetched_at + self.ttl
    }

    pub(crate) fn insert(&mut self, name: u64, fetched_at: Duration) {
        self.serial += 1;
        if let Some((_, used)) = self.entries.insert(name, (fetched_at, self.serial)) {
            self.uses.remove(&used);
        }
        self.uses.insert(self.serial, name);
        while self.entries.len() > self.capacity
            && let Some((_, oldest)) = self.uses.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}
