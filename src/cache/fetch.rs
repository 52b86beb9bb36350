//! What one upstream request brings into the cache, and what of it may stay.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::{Cache, entry::Answer};
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    record::Record,
    shape::Shape,
};

/// An upstream request that is under way. While it is, the cache remembers what the request must not bring back.
pub struct Fetch {
    cache: Arc<Cache>,
    scope: Arc<Scope>,
    started: Instant,
    /// How old it was already when it came.
    age: Duration,
    /// Whether it was another gateway's request.
    is_elsewheres: bool,
}

/// What one successful upstream answer said of the keys that it was asked for.
pub struct Said<'a> {
    /// The envelope up to and with `"data":[`.
    pub envelope: Bytes,
    /// The records that came.
    pub records: &'a [Record],
    /// Each key that is answered.
    pub answers: Vec<Of>,
}

/// What was said of one key.
#[derive(Clone, Debug)]
pub struct Of {
    /// The key.
    pub id: Id,
    /// The positions of its records; none: the upstream said there is no such customer.
    pub records: Vec<usize>,
    /// Whether it may be kept: somebody who asked did not say `no-store` (RFC 9111).
    pub keep: bool,
}

/// What became of one key's answer.
#[derive(Clone, Debug)]
pub enum Taken {
    /// This is the key's answer: what was said, or something newer that another request brought meanwhile.
    Held(Answer),
    /// It is what the upstream said, but something that happened while the request was under way has outdated it. It is
    /// good for those who asked before the request was started, and not kept.
    Outdated(Answer),
}

impl Fetch {
    pub(super) fn new(cache: Arc<Cache>, scope: Arc<Scope>, started: Instant) -> Self {
        Self { cache, scope, started, age: Duration::ZERO, is_elsewheres: false }
    }

    /// The scope of its keys: the instance that records should refer to.
    #[must_use]
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// When it was started: what it brings is at least this new.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it brings was so old already when it came.
    #[must_use]
    pub fn aged(self, age: Duration) -> Self {
        let mut fetch = self;
        fetch.age = age;
        fetch
    }

    /// Another gateway has asked, and told what came.
    #[must_use]
    pub fn of_another(self) -> Self {
        let mut fetch = self;
        fetch.is_elsewheres = true;
        fetch
    }

    /// Whether another gateway has asked.
    pub(super) fn is_elsewheres(&self) -> bool {
        self.is_elsewheres
    }

    /// How old what it brings is already.
    pub(super) fn age(&self) -> Duration {
        self.age
    }

    /// Takes in what the upstream said, and returns the answer of each asked key.
    #[must_use]
    pub fn store(&self, shape: &Shape, said: Said<'_>) -> Vec<(Id, Taken)> {
        let cache = &self.cache;
        let packed = cache.packing.as_ref().map(|packing| said.records.iter().map(|one| packing.come(one)).collect());
        let packed: Option<Vec<Record>> = packed;
        let _turn = cache.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Said { envelope, records, answers } = said;
        let records = packed.as_deref().unwrap_or(records);
        records.iter().for_each(|record| record.marks().came_aged(self.age));
        cache.learn_envelope(self.scope.lookup, envelope.clone());
        let kept = answers.iter().filter(|of| of.keep);
        let wanted: HashSet<usize> = kept.flat_map(|of| of.records.iter().copied()).collect();
        let version = |(position, record): (usize, &Record)| match wanted.contains(&position) {
            true => cache.take(record, shape),
            false => cache.judge(record, shape),
        };
        let versions: Vec<_> = records.iter().enumerate().map(version).collect();
        let stored: Vec<_> = answers
            .into_iter()
            .map(|Of { id, records: positions, keep }| {
                let key = Key { scope: Arc::clone(&self.scope), id };
                let own = positions.iter().map(|&position| &versions[position]);
                let settled = cache.settle((&key, keep), shape, own, self.started);
                let said = || positions.iter().map(|&position| records[position].clone()).collect::<Vec<_>>();
                let taken = settled.taken(|| Answer::new(said(), self.started, 0));
                if let Taken::Held(answer) | Taken::Outdated(answer) = &taken
                    && answer.records().is_empty()
                    && answer.fetched_at() == self.started
                {
                    answer.marks().came_aged(self.age);
                }
                (key.id, keep, taken)
            })
            .collect();
        // Before anything of it is let go: what is evicted can be recalled.
        let brought = records.iter().zip(&versions).enumerate().filter(|(position, _)| wanted.contains(position));
        cache.save(self, envelope, brought.map(|(_, brought)| brought).collect(), &stored);
        let stored: Vec<_> = stored.into_iter().map(|(id, _, taken)| (id, taken)).collect();
        cache.settle_residents();
        cache.drop_homeless(&self.scope, &stored);
        stored
    }
}

/// While it is held, the cache remembers what a request must not bring back that was started then, or since, and of
/// which it is told only later.
pub struct Watch {
    cache: Arc<Cache>,
    since: Instant,
}

impl Watch {
    pub(super) fn new(cache: Arc<Cache>, since: Instant) -> Self {
        Self { cache, since }
    }

    /// Since when it is held.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cache.bars.close(self.since);
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.bars.close(self.started);
    }
}
