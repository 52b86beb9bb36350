//! Which version of a customer every key gives: the newest, whatever the order in which versions arrive.
//!
//! - **Newer.** A record that was asked for later takes the place of the one held, under every key that carries both.
//!   Keys that it no longer carries give nothing from then on.
//! - **Older.** A record that arrives late changes nothing: its keys are answered with the version held, as far as that
//!   one carries them. For a key that it does not carry, the late answer is [outdated](Answered::Outdated).
//! - **Refuted.** A later list of a key's customers that lacks one who carries the key shows that this one has changed:
//!   no key gives that version any more.
//! - **Barred.** What was forgotten, evicted or refuted after the request was started is outdated too.

use std::{slice, sync::Arc, time::Duration};

use super::{Cache, bars::Bars, entry::Answer, fetch::Taken};
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    record::Record,
    shape::Shape,
};

/// What a record that arrived is worth.
pub(super) enum Version {
    /// This is the version of its customer that every key gives.
    Held(Record),
    /// It must not be kept: something has outdated it.
    Outdated,
}

/// What a key's answer is worth.
pub(super) enum Answered {
    /// This is what the key gives.
    Held(Answer),
    /// It must not be kept: something has outdated it.
    Outdated,
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
    pub(super) fn judge(&self, record: &Record, shape: &Shape) -> Version {
        let identity = record.identity().map(|identity| record.key(identity));
        let held = identity.as_ref().and_then(|identity| self.held(identity));
        if let Some(newer) = held.as_ref().filter(|held| held.fetched_at() > record.fetched_at()) {
            return Version::Held(newer.clone());
        }
        if !self.is_refuted(record, shape) {
            return Version::Held(record.clone());
        }
        // It is not kept, but requests that were started before it know even less.
        record.ids().for_each(|id| self.bars.raise_before(record.fetched_at(), record.key(id)));
        if let Some(older) = held {
            // What is outdated shows that what is older still is outdated, too.
            self.supersede(&older, None);
            self.release(&Answer::Customer(older));
        }
        Version::Outdated
    }

    /// Makes a record the version of its customer that every key gives, unless something newer is known.
    pub(super) fn take(&self, record: &Record, shape: &Shape) -> Version {
        let version = self.judge(record, shape);
        let (Version::Held(best), Some(identity)) = (&version, record.identity()) else { return version };
        if !best.is(record) {
            return version;
        }
        let identity = record.key(identity);
        let held = self.held(&identity).filter(|held| !held.is(record));
        if let Some(held) = &held {
            self.supersede(held, Some(record));
            self.carriers.remove(held);
        }
        for id in record.ids() {
            let key = record.key(id);
            if shape.list(id.kind).unique {
                self.refute(&key, slice::from_ref(record), record.fetched_at());
                self.put(&key, vec![record.clone()], record.fetched_at());
            } else {
                // An older list of this key's customers did not have this one: it is not the whole list any more.
                self.index.remove_if(&key, |answer| {
                    let own = answer.records().iter().find(|one| one.same_customer(record));
                    answer.fetched_at() < record.fetched_at() && own.is_none_or(|own| !own.is(record))
                });
                self.bars.raise_before(record.fetched_at(), key);
            }
        }
        self.carriers.add(record, shape);
        self.residents.put(Answer::Customer(record.clone()), held.map(Answer::Customer).as_ref());
        version
    }

    /// Whether a record that is not held is known to be outdated: one of its keys was forgotten, or a later request found
    /// another customer, or none, behind a key that only one has.
    fn is_refuted(&self, record: &Record, shape: &Shape) -> bool {
        let mut unique = record.ids().filter(|id| shape.list(id.kind).unique);
        let later = unique.any(|id| {
            let answer = self.index.get(&record.key(id)).filter(|answer| answer.fetched_at() > record.fetched_at());
            answer.is_some_and(|answer| !answer.records().iter().any(|one| one.identity() == record.identity()))
        });
        // The bars last: what has just left the index was barred before it left.
        later || self.bars.stand_against(record.fetched_at(), record.ids().map(|id| record.key(id)))
    }

    /// The version of an identified customer that is held now.
    pub(super) fn held(&self, identity: &Key) -> Option<Record> {
        let answer = self.index.get(identity)?;
        answer.records().iter().find(|record| record.identity() == Some(identity.id.borrowed())).cloned()
    }

    /// Lets every key that gives `old` give `new` instead, and those that `new` does not carry give nothing.
    fn supersede(&self, old: &Record, new: Option<&Record>) {
        for id in old.ids() {
            let key = old.key(id);
            let Some(answer) = self.index.get(&key) else { continue };
            if !answer.gives(old) {
                continue;
            }
            match new.filter(|new| new.find(id).is_some() && answer.is_identified()) {
                Some(new) => {
                    let records = answer.records().iter();
                    let records = records.map(|record| if record.is(old) { new } else { record });
                    let records: Vec<_> = records.cloned().collect();
                    self.index.replace_if(&key, &answer, answer.with(&key, records));
                }
                None => {
                    self.index.remove_if(&key, |current| current.is(&answer));
                    if !answer.is_identified() {
                        // A resident of its own, which is asked for anew rather than patched: it is rare.
                        self.release(&answer);
                    }
                    self.bars.raise_before(new.map_or(old.fetched_at(), Record::fetched_at), key);
                }
            }
        }
    }

    /// Makes these versions the answer of a key unless a newer one is held or known to be due. Without `keep` it only
    /// says what the answer is worth.
    pub(super) fn settle<'a>(
        &self,
        (key, keep): (&Key, bool),
        shape: &Shape,
        versions: impl Iterator<Item = &'a Version>,
        fetched_at: Instant,
    ) -> Answered {
        if let Some(newer) = self.index.get(key).filter(|before| before.fetched_at() > fetched_at) {
            return Answered::Held(newer);
        }
        let mut records = Vec::new();
        let mut outdated = self.bars.stand_against(fetched_at, std::iter::once(key.clone()));
        for version in versions {
            match version {
                Version::Outdated => outdated = true,
                // A later version of the customer no longer has this key.
                Version::Held(record) if !record.has(&key.id) => outdated = true,
                Version::Held(record) => records.push(record.clone()),
            }
        }
        if outdated {
            // And so is whatever was asked before.
            self.bars.raise_before(fetched_at, key.clone());
            self.refute(key, &[], fetched_at);
            if let Some(older) = self.index.get(key) {
                self.index.remove_if(key, |held| held.is(&older));
                if !older.is_identified() {
                    self.release(&older);
                }
            }
            return Answered::Outdated;
        }
        if !keep {
            return Answered::Held(Answer::new(records, fetched_at, 0));
        }
        self.refute(key, &records, fetched_at);
        for record in records.iter().filter(|record| record.identity().is_none()) {
            self.carriers.add(record, shape);
        }
        Answered::Held(self.put(key, records, fetched_at))
    }

    /// These are all the customers behind a key. Whoever else is held and carries it is gone or has changed: no key must go
    /// on giving that version.
    fn refute(&self, key: &Key, records: &[Record], fetched_at: Instant) {
        let answer = self.index.get(key);
        let held = answer.iter().flat_map(|answer| answer.records().iter().cloned());
        for old in held.chain(self.carriers.of(key)).filter(|old| old.fetched_at() < fetched_at) {
            if old.identity().is_some() && !records.iter().any(|new| new.same_customer(&old)) {
                self.supersede(&old, None);
                old.ids().for_each(|id| self.bars.raise_before(fetched_at, old.key(id)));
                self.release(&Answer::Customer(old));
            }
        }
    }

    /// Makes `records` the answer of a key unless a newer one is held, and returns the one that holds.
    fn put(&self, key: &Key, records: Vec<Record>, fetched_at: Instant) -> Answer {
        let before = self.index.get(key);
        if let Some(before) = before.as_ref().filter(|before| before.fetched_at() > fetched_at) {
            return before.clone();
        }
        let answer = Answer::of(key, records, fetched_at);
        self.index.insert(key, answer.clone());
        let before = before.filter(|before| !before.is_identified());
        if let Some(before) = &before {
            self.forget_carriers(before);
        }
        if !answer.is_identified() {
            self.residents.put(answer.clone(), before.as_ref());
        } else if let Some(before) = &before {
            // What said that there is no such customer is a resident of its own, and no longer needed.
            self.residents.remove(before);
        }
        answer
    }

    /// Takes out of the index what was answered just now and let go before it was: with a small capacity moka may drop a
    /// resident while the batch that brought it is still being written.
    pub(super) fn drop_homeless(&self, scope: &Arc<Scope>, stored: &[(Id, Taken)]) {
        for (id, taken) in stored {
            let Taken::Held(answer) = taken else { continue };
            let gone = |record: &Record| record.identity().is_some() && record.marks().page().is_none();
            if answer.records().iter().any(gone) {
                let key = Key { scope: Arc::clone(scope), id: id.clone() };
                self.index.remove_if(&key, |held| held.is(answer));
            }
        }
    }
}
