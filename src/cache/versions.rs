//! Which version of a customer every key gives: the newest, whatever the order in which versions arrive.
//!
//! - **Newer.** A record that was asked for later takes the place of the one held, under every key that carries both.
//!   Keys that it no longer carries give nothing from then on.
//! - **Older.** A record that arrives late changes nothing: its keys are answered with the version held, as far as that
//!   one carries them. For a key that it does not carry, the late answer is [outdated](Answered::Outdated).
//! - **Barred.** What was forgotten, evicted or refuted after the request was started is outdated too.

use std::{sync::Arc, time::Duration};

use super::{Cache, bars::Bars, entry::Answer, fetch::Taken, resident::Resident};
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    record::Record,
    shape::Shape,
};

/// What a record that arrived is worth.
pub(super) enum Version {
    /// This is the version of its customer that every key gives.
    Held(Arc<Record>),
    /// It must not be kept: it was outdated at the moment given.
    Outdated(Instant),
}

/// What a key's answer is worth.
pub(super) enum Answered {
    /// This is what the key gives.
    Held(Arc<Answer>),
    /// It must not be kept: it was outdated at the moment given.
    Outdated(Instant),
}

impl Bars {
    /// A key was refuted, lost or evicted that was asked for at `fetched_at`: what was asked for earlier is outdated.
    pub(super) fn raise_before(&self, fetched_at: Instant, key: Key) {
        if let Some(before) = fetched_at.checked_sub(Duration::from_nanos(1)) {
            self.raise(|| key, before);
        }
    }
}

impl Cache {
    /// What a record that arrived is worth beside what is known.
    pub(super) fn judge(&self, record: &Arc<Record>, shape: &Shape) -> Version {
        if let Some(held) = record.identity().and_then(|identity| self.held(&record.key(identity)))
            && held.fetched_at > record.fetched_at
        {
            return Version::Held(held);
        }
        self.refuted(record, shape).map_or_else(|| Version::Held(Arc::clone(record)), Version::Outdated)
    }

    /// Makes a record the version of its customer that every key gives, unless something newer is known.
    pub(super) fn take(&self, record: &Arc<Record>, shape: &Shape) -> Version {
        let version = self.judge(record, shape);
        let (Version::Held(best), Some(identity)) = (&version, record.identity()) else { return version };
        if !Arc::ptr_eq(best, record) {
            return version;
        }
        let identity = record.key(identity);
        if let Some(held) = self.held(&identity).filter(|held| !Arc::ptr_eq(held, record)) {
            self.supersede(&held, Some(record));
        }
        for id in &record.ids {
            let key = record.key(id);
            if shape.list(id.kind).unique {
                self.put(&key, vec![Arc::clone(record)], record.fetched_at);
            } else {
                // An older list of this key's customers did not have this one: it is not the whole list any more.
                self.index.remove_if(&key, |answer| {
                    answer.fetched_at < record.fetched_at && !answer.records.iter().any(|one| one.same_customer(record))
                });
                self.bars.raise_before(record.fetched_at, key);
            }
        }
        self.residents.insert(identity, Resident::Customer(Arc::clone(record)));
        version
    }

    /// Since when a record that is not held is known to be outdated: one of its keys was forgotten, or a later request
    /// found another customer, or none, behind a key that only one has.
    fn refuted(&self, record: &Record, shape: &Shape) -> Option<Instant> {
        let unique = record.ids.iter().filter(|id| shape.list(id.kind).unique);
        let later = unique.filter_map(|id| {
            let answer = self.index.get(&record.key(id)).filter(|answer| answer.fetched_at > record.fetched_at)?;
            let own = answer.records.iter().any(|one| one.identity() == record.identity());
            (!own).then_some(answer.fetched_at)
        });
        // Read before the bars: what has just left the index was barred before it left.
        let later = later.max();
        later.max(self.bars.since(record.fetched_at, record.ids.iter().map(|id| record.key(id))))
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
                    let records: Vec<_> = records.cloned().collect();
                    self.index.insert(key, Arc::new(answer.with(records)));
                }
                None => {
                    self.index.remove_if(&key, |current| Arc::ptr_eq(current, &answer));
                }
            }
        }
    }

    /// Makes these versions the answer of a key unless a newer one is held or known to be due. Without `keep` it only
    /// says what the answer is worth.
    pub(super) fn settle<'a>(
        &self,
        key: &Key,
        versions: impl Iterator<Item = &'a Version>,
        fetched_at: Instant,
        keep: bool,
    ) -> Answered {
        if let Some(newer) = self.index.get(key).filter(|before| before.fetched_at > fetched_at) {
            return Answered::Held(newer);
        }
        let mut records = Vec::new();
        let mut outdated = self.bars.since(fetched_at, std::iter::once(key.clone()));
        for version in versions {
            match version {
                Version::Outdated(since) => outdated = outdated.max(Some(*since)),
                // A later version of the customer no longer has this key.
                Version::Held(record) if !record.ids.contains(&key.id) => {
                    outdated = outdated.max(Some(record.fetched_at));
                }
                Version::Held(record) => records.push(Arc::clone(record)),
            }
        }
        if let Some(since) = outdated {
            return Answered::Outdated(since);
        }
        if !keep {
            return Answered::Held(Arc::new(Answer::new(records, fetched_at, 0)));
        }
        if records.is_empty()
            && let Some(gone) = self.held(key)
        {
            // The customer that this key identifies is gone: its other keys must not go on giving it.
            self.supersede(&gone, None);
            gone.ids.iter().for_each(|id| self.bars.raise_before(fetched_at, gone.key(id)));
        }
        Answered::Held(self.put(key, records, fetched_at))
    }

    /// Makes `records` the answer of a key unless a newer one is held, and returns the one that holds.
    fn put(&self, key: &Key, records: Vec<Arc<Record>>, fetched_at: Instant) -> Arc<Answer> {
        let before = self.index.get(key);
        if let Some(before) = before.as_ref().filter(|before| before.fetched_at > fetched_at) {
            return Arc::clone(before);
        }
        let answer = Arc::new(Answer::new(records, fetched_at, fastrand::u8(..)));
        self.index.insert(key.clone(), Arc::clone(&answer));
        if !answer.is_identified() {
            self.residents.insert(key.clone(), Resident::Answer(Arc::clone(&answer)));
        } else if before.is_some_and(|before| !before.is_identified()) {
            // What said that there is no such customer is a resident of its own, and no longer needed.
            self.residents.invalidate(key);
        }
        answer
    }

    /// Takes out of the index what was answered just now and let go before it was: with a small capacity moka may drop a
    /// resident while the batch that brought it is still being written.
    pub(super) fn drop_homeless(&self, scope: &Arc<Scope>, stored: &[(Id, Taken)]) {
        for (id, taken) in stored {
            let Taken::Held(answer) = taken else { continue };
            let gone = |record: &Arc<Record>| {
                record.identity().is_some_and(|identity| !self.residents.contains_key(&record.key(identity)))
            };
            if answer.records.iter().any(gone) {
                let key = Key { scope: Arc::clone(scope), id: id.clone() };
                self.index.remove_if(&key, |held| Arc::ptr_eq(held, answer));
            }
        }
    }
}
