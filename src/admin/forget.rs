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
    store::{Erased, Late},
};

/// The ids meant of each lookup path, in the order of the paths.
pub(super) type Named = Vec<Vec<Id>>;

/// An erasure that leads from path to path.
struct Spreading<'a> {
    admin: &'a Admin,
    named: Named,
    known: Vec<HashSet<Id>>,
    all: Vec<Forgotten>,
}

impl Admin {
    /// Forgets the customers who are named. Returns what was forgotten of each path, and whether all of it is forgotten by
    /// the store, too.
    pub(super) async fn forget(&self, named: Named, cause: Cause, now: Instant) -> (Vec<Forgotten>, Result<(), Late>) {
        let is_purge = cause == Cause::Purge;
        let (mut spreading, mut stored) = (Spreading::new(self, named), Ok(()));
        while let Some((path, ids)) = spreading.next() {
            let lookup = (path.position, &*path.shape);
            let (mut forgotten, store) = self.cache.forget_for_good(lookup, Whose::Everybodys, (&ids, is_purge), now);
            let mut erased = Erased::default();
            if stored.is_ok() {
                match store.over().await {
                    Ok(known) => erased = known,
                    // It will not say anything of the others sooner.
                    Err(late) => stored = Err(late),
                }
            }
            self.cache.add_erased(&mut forgotten, &erased);
            spreading.forgotten(path, forgotten, &erased.ids);
        }
        (spreading.over(cause), stored)
    }

    /// Forgets the customers who are named, as far as they are in memory: they have left the store.
    pub(super) fn forget_held(&self, named: Named, is_purge: bool, now: Instant) {
        let mut gone: Vec<HashSet<Id>> = named.iter().map(|ids| ids.iter().cloned().collect()).collect();
        let mut spreading = Spreading::new(self, named);
        while let Some((path, ids)) = spreading.next() {
            let forgotten = self.cache.forget((path.position, &path.shape), Whose::Everybodys, &ids, now);
            spreading.forgotten(path, forgotten, &[]);
        }
        for ((path, gone), forgotten) in self.paths.iter().zip(&mut gone).zip(spreading.over(Cause::Elsewhere)) {
            if is_purge {
                self.cancel(path, gone, forgotten);
            }
        }
    }

    /// Nobody's wish fetches again what was purged from a path.
    pub(super) fn cancel(&self, path: &Path, gone: &mut HashSet<Id>, forgotten: Forgotten) {
        self.cache.forget_noted(&forgotten.meant);
        gone.extend(forgotten.meant.into_iter().map(|key| key.id));
        // By the id alone: in whichever scope it is queued.
        path.dispatch.erase(|key| gone.contains(&key.id));
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

impl<'a> Spreading<'a> {
    fn new(admin: &'a Admin, named: Named) -> Self {
        let paths = admin.paths.len();
        let all = admin.paths.iter().map(|_| Forgotten::default()).collect();
        Self { admin, named, known: vec![HashSet::new(); paths], all }
    }

    /// A path and ids that are still to be forgotten there.
    fn next(&mut self) -> Option<(&'a Path, Vec<Id>)> {
        for ((path, named), known) in self.admin.paths.iter().zip(&mut self.named).zip(&mut self.known) {
            let mut ids = std::mem::take(named);
            ids.retain(|id| known.insert(id.clone()));
            if !ids.is_empty() {
                return Some((path, ids));
            }
        }
        None
    }

    /// This was forgotten of a path, and these ids were known to the store.
    fn forgotten(&mut self, path: &Path, forgotten: Forgotten, stored: &[Id]) {
        let meant = forgotten.ids().chain(stored);
        for id in meant.filter(|id| path.shape.list(id.kind).unique) {
            self.admin.follow(path, id, &mut self.named);
        }
        add(&mut self.all[usize::from(path.position)], forgotten);
    }

    /// What was forgotten of each path, when nothing leads any further.
    fn over(self, cause: Cause) -> Vec<Forgotten> {
        for ((path, known), forgotten) in self.admin.paths.iter().zip(&self.known).zip(&self.all) {
            self.admin.key_log.forgotten(&path.shape, cause, known.iter().chain(forgotten.ids()));
        }
        self.all
    }
}

/// Adds up what was forgotten of one path.
fn add(sum: &mut Forgotten, more: Forgotten) {
    sum.keys += more.keys;
    sum.records += more.records;
    sum.held.extend(more.held);
    sum.meant.extend(more.meant);
}
