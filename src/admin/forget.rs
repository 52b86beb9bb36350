//! Forgetting customers on every lookup path, for everybody.
//!
//! The keys that are named lead to records, and the records to further ids. An id that names one customer and no other is
//! followed to every credential, every company and every path that has a list of that name: a customer whose phone was
//! named is forgotten on a path that knows ids only. An id that customers may share is not followed: it would lead from
//! one customer to the next.

use std::collections::HashSet;

use super::{Admin, Path};
use crate::{
    cache::{Forgotten, Whose},
    clock::Instant,
    key::Id,
    key_log::Cause,
};

/// The ids meant of each lookup path, in the order of the paths.
pub(super) type Named = Vec<Vec<Id>>;

impl Admin {
    /// Forgets the customers who are named. Returns what was forgotten of each path.
    pub(super) async fn forget(&self, mut named: Named, cause: Cause, now: Instant) -> Vec<Forgotten> {
        let mut known: Vec<HashSet<Id>> = vec![HashSet::new(); self.paths.len()];
        let mut all: Vec<Forgotten> = self.paths.iter().map(|_| Forgotten::default()).collect();
        while !named.iter().all(Vec::is_empty) {
            let mut next: Named = vec![Vec::new(); self.paths.len()];
            for (position, path) in self.paths.iter().enumerate() {
                named[position].retain(|id| known[position].insert(id.clone()));
                if named[position].is_empty() {
                    continue;
                }
                let lookup = (path.position, &*path.shape);
                let (mut forgotten, store) =
                    self.cache.forget_for_good(lookup, Whose::Everybodys, &named[position], now);
                let erased = store.over().await.unwrap_or_default();
                self.cache.add_erased(&mut forgotten, &erased);
                let meant = forgotten.meant.iter().map(|key| &key.id).chain(&erased.ids);
                for id in meant.filter(|id| path.shape.list(id.kind).unique) {
                    self.follow(path, id, &mut next);
                }
                add(&mut all[position], forgotten);
            }
            named = next;
        }
        for ((path, known), forgotten) in self.paths.iter().zip(&known).zip(&all) {
            let keys = known.iter().chain(forgotten.meant.iter().map(|key| &key.id));
            self.key_log.forgotten(&path.shape, cause, keys);
        }
        all
    }

    /// Names on every path what a unique id of one path names there.
    fn follow(&self, path: &Path, id: &Id, named: &mut Named) {
        let own = path.shape.list(id.kind);
        for (other, named) in self.paths.iter().zip(named) {
            let same = other.shape.kinds().find(|(_, list)| list.name == own.name && list.value_type == own.value_type);
            if let Some((kind, list)) = same
                && list.unique
            {
                named.push(Id { kind, value: id.value.clone() });
            }
        }
    }
}

/// Adds up what was forgotten of one path.
fn add(sum: &mut Forgotten, more: Forgotten) {
    sum.keys += more.keys;
    sum.records += more.records;
    sum.held.extend(more.held);
    sum.meant.extend(more.meant);
}
