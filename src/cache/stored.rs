//! What is beyond the memory: answers that a [store](crate::store) keeps.
//!
//! - **Saved** is what the cache itself holds after an upstream request: the versions that won.
//! - **Recalled** is what the memory does not have, with its true age; it is judged as anything that comes late is, so that it
//!   never takes the place of something newer.
//! - **Forgotten** is forgotten here first, then on the disk; from before the first until after the second nothing is recalled.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Answer, Cache, Forgotten, Taken, Whose,
    fetch::Fetch,
    versions::{Answered, Version},
};
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    record::Record,
    shape::Shape,
    store::{Erased, Late, Saving, Store},
};

/// What is still being forgotten by the store.
#[must_use]
pub struct Forgetting<'a>(Option<(&'a Store, oneshot::Receiver<Erased>)>);

impl Forgetting<'_> {
    /// Waits until it is forgotten for good. Nothing where there is no store.
    ///
    /// # Errors
    /// When a store that others use, too, cannot be asked now.
    pub async fn over(self) -> Result<Erased, Late> {
        match self.0 {
            Some((store, told)) => store.erased(told).await,
            None => Ok(Erased::default()),
        }
    }
}

impl Cache {
    /// The same cache with a store behind it.
    #[must_use]
    pub fn with_store(self, store: Store) -> Self {
        for lookup in 0..=u8::MAX {
            if let Some(envelope) = store.envelope(lookup) {
                self.learn_envelope(lookup, envelope);
            }
        }
        Self { store: Some(store), ..self }
    }

    /// What is behind it.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Takes in what the store has of these keys, which are not held, and returns it.
    pub async fn recall(&self, scope: &Arc<Scope>, shape: &Arc<Shape>, ids: Vec<Id>) -> Vec<(Id, Answer)> {
        let Some(store) = &self.store else { return Vec::new() };
        let scope = self.scopes.enter(scope);
        let Some(loaded) = store.load(&scope, shape, ids).await else { return Vec::new() };
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: whatever is saved or forgotten has been, or will be after this.
        let answers = loaded.believe(&scope);
        let mut recalled = Vec::with_capacity(answers.len());
        for answered in answers {
            let versions: Vec<Version> = answered.records.iter().map(|record| self.come_back(record, shape)).collect();
            let key = Key { scope: Arc::clone(&scope), id: answered.id };
            if let Answered::Held(answer) = self.settle((&key, true), shape, versions.iter(), answered.fetched_at) {
                recalled.push((key.id, Taken::Held(answer)));
            }
        }
        self.settle_residents();
        self.drop_homeless(&scope, &recalled);
        let answer = |(id, taken)| match taken {
            Taken::Held(answer) | Taken::Outdated(answer) => (id, answer),
        };
        recalled.into_iter().map(answer).collect()
    }

    /// A record comes from the store: the one that is held, if it is as new.
    fn come_back(&self, record: &Record, shape: &Shape) -> Version {
        let identity = record.identity().map(|identity| record.key(identity));
        let held = identity.and_then(|identity| self.held(&identity));
        if let Some(held) = held.filter(|held| held.fetched_at() >= record.fetched_at()) {
            return Version::Held(held);
        }
        let packed = self.packing.as_ref().map(|packing| packing.come(record));
        self.take(packed.as_ref().unwrap_or(record), shape)
    }

    /// Forgets these ids here and in the store, which says when it is done.
    pub fn forget_for_good(
        &self,
        (lookup, shape): (u8, &Shape),
        whose: Whose<'_>,
        (ids, is_purge): (&[Id], bool),
        now: Instant,
    ) -> (Forgotten, Forgetting<'_>) {
        let Some(store) = &self.store else {
            return (self.forget((lookup, shape), whose, ids, now), Forgetting(None));
        };
        let erasing = store.begin_erasure();
        let forgotten = self.forget((lookup, shape), whose, ids, now);
        let whose = match whose {
            Whose::Everybodys => None,
            Whose::Credentials(credential) => Some(credential),
        };
        (forgotten, Forgetting(Some((store, store.erase(erasing, lookup, whose, (ids, is_purge))))))
    }

    /// Forgets everything here and in the store.
    ///
    /// # Errors
    /// When a store that others use, too, cannot be asked now.
    pub async fn forget_all_for_good(&self, now: Instant) -> Result<Forgotten, Late> {
        let Some(store) = &self.store else { return Ok(self.forget_all(now)) };
        let erasing = store.begin_erasure();
        let mut forgotten = self.forget_all(now);
        let (keys, customers) = store.erase_all(erasing).await?;
        let at_least = |held: usize, stored: u64| held.max(usize::try_from(stored).unwrap_or(usize::MAX));
        forgotten.keys = at_least(forgotten.keys, keys);
        forgotten.records = at_least(forgotten.records, customers);
        Ok(forgotten)
    }

    /// Adds what only the store had to what was forgotten.
    pub fn add_erased(&self, forgotten: &mut Forgotten, erased: &Erased) {
        let Some(store) = &self.store else { return };
        let (keys, customers) = store.more(erased, &forgotten.answered, &forgotten.customers);
        forgotten.keys += keys;
        forgotten.records += customers;
    }

    /// Hands what an upstream request brought over to the store: what of it is held, and what was outdated meanwhile.
    pub(super) fn save(
        &self,
        fetch: &Fetch,
        envelope: Bytes,
        brought: Vec<(&Record, &Version)>,
        stored: &[(Id, bool, Taken)],
    ) {
        let Some(store) = &self.store else { return };
        // Who asked has handed it over.
        if fetch.is_elsewheres() && store.is_shared() {
            return;
        }
        let mut saving = Saving {
            scope: Arc::clone(fetch.scope()),
            envelope,
            records: Vec::new(),
            answers: Vec::new(),
            gone: Vec::new(),
        };
        // What another gateway had kept already is older than its request, and is there to be had again.
        let is_new = fetch.age().is_zero();
        for (record, version) in brought {
            match version {
                Version::Held(best) if best.is(record) && is_new => saving.records.push(best.clone()),
                Version::Held(best) if !best.is(record) => {}
                Version::Held(_) | Version::Outdated => {
                    saving.gone.extend(record.identity().map(crate::key::IdRef::to_owned));
                }
            }
        }
        for (id, keep, taken) in stored {
            match taken {
                Taken::Held(answer) if *keep && is_new && answer.fetched_at() == fetch.started() => {
                    saving.answers.push((id.clone(), answer.fetched_at(), answer.records().to_vec()));
                }
                Taken::Held(_) if is_new || !keep => {}
                Taken::Held(_) | Taken::Outdated(_) => saving.gone.push(id.clone()),
            }
        }
        store.save(saving);
    }
}

impl Answered {
    /// What became of it, for who asked.
    pub(super) fn taken(self, said: impl FnOnce() -> Answer) -> Taken {
        match self {
            Self::Held(answer) => Taken::Held(answer),
            Self::Outdated => Taken::Outdated(said()),
        }
    }
}
