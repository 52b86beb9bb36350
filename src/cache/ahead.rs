//! What is worth to be asked again before it expires: keys that were read since they were fetched, the most read first.
//!
//! ```text
//! read ──note──▶ noted ──due──▶ ready, by reads ──take──▶ asked again
//!                                  └──gone──▶ nobody had room for it
//! ```
//! - **Noted** is a key when its reads since it was fetched have reached a power of two and it is not noted yet: nearly
//!   always once, at its first read. So a hit costs one addition, and most keys of a large cache, which nobody reads
//!   twice, cost nothing here.
//! - **Ready** it is in the last quarter of its lifetime, and for half a lifetime after that: what is stale is still
//!   worth a place that costs nothing.
//! - **Taken** it is once. If that fails it may be noted again by its later reads.
//! - There is a [limit](MOST). Beyond it nothing is noted; what is read much tries again whenever its reads have doubled.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    entry::{Answer, Policy},
    index::Index,
};
use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
    record::Record,
};

/// Keys noted at once. At 100 keys a second, more cannot be asked again within ten minutes, the default `ttl`; some
/// 200 bytes each.
const MOST: usize = 65_536;

/// Keys looked at for each that is wanted, where many are of a kind that cannot be used now.
const PATIENCE: usize = 8;

/// The keys that are noted, by scope.
pub(super) struct Ahead {
    index: Arc<Index>,
    policy: Policy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    scopes: HashMap<Arc<Scope>, Noted>,
    count: usize,
    serial: u64,
}

/// The noted keys of one scope.
#[derive(Default)]
struct Noted {
    /// What happens when. A number makes each moment distinct.
    moments: BTreeMap<(Instant, u64), Moment>,
    /// Those that may be asked now, the most read first.
    ready: BTreeMap<(Reverse<u32>, u64), Id>,
}

/// What happens to a noted key.
enum Moment {
    /// It is ready.
    Due(Id),
    /// It is not worth anything any more; it was ready with so many reads.
    Gone(u32),
}

impl Ahead {
    /// Nothing is noted. `index` says what is held.
    pub(super) fn new(index: Arc<Index>, policy: Policy) -> Self {
        Self { index, policy, state: Mutex::default() }
    }

    /// Notes a key that was just read.
    pub(super) fn note(&self, key: &Key, answer: &Answer) {
        let mut state = self.lock();
        if state.count >= MOST {
            return;
        }
        answer.set_noted(true);
        state.count += 1;
        state.serial += 1;
        let place = (answer.due_at(&self.policy), state.serial);
        let noted = match state.scopes.get_mut(&key.scope) {
            Some(noted) => noted,
            None => state.scopes.entry(Arc::clone(&key.scope)).or_default(),
        };
        noted.moments.insert(place, Moment::Due(key.id.clone()));
    }

    /// Up to so many keys of a scope that are ready and usable. Of a customer that several keys identify, one is enough.
    pub(super) fn take(
        &self,
        scope: &Arc<Scope>,
        now: Instant,
        most: usize,
        usable: impl Fn(&Key) -> bool,
    ) -> Vec<Key> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(noted) = state.scopes.get_mut(scope) else { return Vec::new() };
        state.count -= noted.advance(scope, now, |key| self.due(key, now), &self.policy);
        let mut taken = Vec::new();
        let mut customers: HashSet<*const Record> = HashSet::new();
        let mut over = Vec::new();
        for (place, id) in noted.ready.iter().take(most * PATIENCE) {
            if taken.len() == most {
                break;
            }
            let key = Key { scope: Arc::clone(scope), id: id.clone() };
            let Some(answer) = self.due(&key, now) else {
                over.push(*place);
                continue;
            };
            let asked_as_it_is = answer.records.iter().all(|record| record.carries(id));
            if !asked_as_it_is || !usable(&key) {
                continue;
            }
            over.push(*place);
            answer.set_noted(false);
            let same = |record: &Arc<Record>| !customers.insert(Arc::as_ptr(record));
            if answer.records.is_empty() || !answer.records.iter().all(same) {
                taken.push(key);
            }
        }
        for place in over {
            noted.ready.remove(&place);
        }
        if noted.moments.is_empty() {
            state.scopes.remove(scope);
        }
        taken
    }

    /// The scope, of those that may be asked, that has the most read of the ready keys; else when there will be one.
    pub(super) fn next(&self, now: Instant, may: impl Fn(&Scope) -> bool) -> Result<Arc<Scope>, Option<Instant>> {
        let mut state = self.lock();
        let mut best: Option<(u32, Arc<Scope>)> = None;
        let mut soonest: Option<Instant> = None;
        let mut gone = 0;
        for (scope, noted) in state.scopes.iter_mut().filter(|(scope, _)| may(scope)) {
            gone += noted.advance(scope, now, |key| self.due(key, now), &self.policy);
            if let Some((Reverse(reads), _)) = noted.ready.first_key_value().map(|(place, _)| *place)
                && best.as_ref().is_none_or(|(most, _)| reads > *most)
            {
                best = Some((reads, Arc::clone(scope)));
            }
            let due = noted.moments.iter().find(|(_, moment)| matches!(moment, Moment::Due(_)));
            soonest = due.map(|((at, _), _)| *at).into_iter().chain(soonest).min();
        }
        state.count -= gone;
        state.scopes.retain(|_, noted| !noted.moments.is_empty());
        best.map(|(_, scope)| scope).ok_or(soonest)
    }

    /// Forgets everything that was noted.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
    }

    /// What is held behind a key, if it is late enough in its lifetime.
    fn due(&self, key: &Key, now: Instant) -> Option<Arc<Answer>> {
        self.index.get(key).filter(|answer| answer.due_at(&self.policy) <= now)
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    /// Makes ready what is due and lets go what is over. Returns how many keys are not noted any more.
    fn advance(
        &mut self,
        scope: &Arc<Scope>,
        now: Instant,
        due: impl Fn(&Key) -> Option<Arc<Answer>>,
        policy: &Policy,
    ) -> usize {
        let mut gone = 0;
        while let Some(entry) = self.moments.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, number), moment) = entry.remove_entry();
            gone += 1;
            let id = match moment {
                Moment::Gone(reads) => {
                    self.ready.remove(&(Reverse(reads), number));
                    continue;
                }
                Moment::Due(id) => id,
            };
            let key = Key { scope: Arc::clone(scope), id };
            let Some(answer) = due(&key) else { continue };
            let Some(reads) = answer.noted_reads() else { continue };
            let gone_at = answer.due_at(policy) + answer.lifetime(policy).mul_f64(0.75);
            if gone_at > now {
                self.ready.insert((Reverse(reads), number), key.id);
                self.moments.insert((gone_at, number), Moment::Gone(reads));
                gone -= 1;
            }
        }
        gone
    }
}
