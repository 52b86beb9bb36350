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
//! - **Taken** it is once. If nothing comes of that, its next read notes it again.
//! - **Of a customer** one unique key is enough: the record that comes answers the others. A key that several customers may
//!   share is asked for itself.
//! - **Not every key may ride.** One that its records do not carry would not be recognised in company, and neither would a
//!   text that nobody had and somebody has by now, spelled in another way: who waits beside it would have to be asked for
//!   again.
//! - There is a [limit](MOST). At the limit what is over is let go in every scope, also in those that nobody asks in any
//!   more; beyond it nothing is noted, and what is read much tries again whenever its reads have doubled.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    entry::{Answer, Policy},
    index::Index,
    terms::Terms,
};
use crate::{
    clock::Instant,
    key::{Id, Key, Kind, Scope, Value},
};

/// Keys noted at once. At 100 keys a second, more cannot be asked again within ten minutes, the default `ttl`; some
/// 200 bytes each.
const MOST: usize = 65_536;

/// Keys looked at for each that is wanted, where many are of a kind that cannot be used now.
const PATIENCE: usize = 8;

/// Moments that are attended to at once, at most: a millisecond or so. What is left comes with the next request.
const AT_ONCE: usize = 4096;

/// How long after a search of a full list it is not searched again.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// The keys that are noted, by scope.
pub(super) struct Ahead {
    index: Arc<Index>,
    terms: Terms,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    scopes: HashMap<Arc<Scope>, Noted>,
    count: usize,
    serial: u64,
    /// When what is over may be searched for again by whoever finds the list full.
    search_at: Option<Instant>,
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
    pub(super) fn new(index: Arc<Index>, terms: Terms) -> Self {
        Self { index, terms, state: Mutex::default() }
    }

    /// Notes a key that was just read.
    pub(super) fn note(&self, (scope, id): (&Arc<Scope>, &Id), answer: &Answer, now: Instant) {
        let mut state = self.lock();
        if state.count >= MOST && state.search_at.is_none_or(|search_at| search_at <= now) {
            state.search_at = Some(now + SEARCH_PAUSE);
            self.let_go(&mut state, now);
        }
        if state.count >= MOST || !answer.marks().set_noted() {
            return;
        }
        state.count += 1;
        state.serial += 1;
        let place = (answer.due_at(&self.terms.now()), state.serial);
        let noted = match state.scopes.get_mut(scope) {
            Some(noted) => noted,
            None => state.scopes.entry(Arc::clone(scope)).or_default(),
        };
        noted.moments.insert(place, Moment::Due(id.clone()));
    }

    /// Up to so many keys of a scope that are ready and usable. Of a customer that several keys identify, one is enough.
    pub(super) fn take(
        &self,
        scope: &Arc<Scope>,
        now: Instant,
        most: usize,
        (usable, is_unique): (impl Fn(&Key) -> bool, impl Fn(Kind) -> bool),
    ) -> Vec<Key> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(noted) = state.scopes.get_mut(scope) else { return Vec::new() };
        let mut left = AT_ONCE;
        state.count -= noted.advance(scope, now, |key| self.due(key, now), (&self.terms.now(), &mut left));
        let mut taken = Vec::new();
        let mut customers: HashSet<usize> = HashSet::new();
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
            if !usable(&key) {
                continue;
            }
            over.push(*place);
            answer.marks().forget_noted();
            let mut new = answer.records().is_empty() || !is_unique(id.kind);
            for record in answer.records() {
                new |= customers.insert(record.address());
            }
            if new {
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

    /// The scope, of those that may be asked, that has the most read of the ready keys.
    pub(super) fn next(&self, now: Instant, may: impl Fn(&Scope) -> bool) -> Option<Arc<Scope>> {
        let mut state = self.lock();
        self.let_go(&mut state, now);
        let ready = state.scopes.iter().filter(|(scope, _)| may(scope));
        let most = |(scope, noted): (&Arc<Scope>, &Noted)| {
            let ((Reverse(reads), _), _) = noted.ready.first_key_value()?;
            Some((*reads, Arc::clone(scope)))
        };
        ready.filter_map(most).max_by_key(|(reads, _)| *reads).map(|(_, scope)| scope)
    }

    /// Makes ready what is due and lets go what is over in every scope.
    fn let_go(&self, state: &mut State, now: Instant) {
        let mut left = AT_ONCE;
        let mut gone = 0;
        for (scope, noted) in &mut state.scopes {
            gone += noted.advance(scope, now, |key| self.due(key, now), (&self.terms.now(), &mut left));
        }
        state.count -= gone;
        state.scopes.retain(|_, noted| !noted.moments.is_empty());
    }

    /// Forgets these keys, which must not be seen again. Each scope is searched once, however many they are.
    pub(super) fn forget(&self, keys: &[Key]) {
        let mut meant: HashMap<&Arc<Scope>, HashSet<&Id>> = HashMap::new();
        for key in keys {
            meant.entry(&key.scope).or_default().insert(&key.id);
        }
        let mut state = self.lock();
        let mut gone = 0;
        for (scope, ids) in meant {
            let Some(noted) = state.scopes.get_mut(scope) else { continue };
            let before = noted.moments.len();
            noted.moments.retain(|_, moment| !matches!(moment, Moment::Due(id) if ids.contains(id)));
            gone += before - noted.moments.len();
            // The end of what was ready comes in its time, and finds nothing.
            noted.ready.retain(|_, id| !ids.contains(id));
        }
        state.count -= gone;
    }

    /// Forgets everything that was noted.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
    }

    /// What is held behind a key, if it is late enough in its lifetime.
    fn due(&self, key: &Key, now: Instant) -> Option<Answer> {
        self.index.get(key).filter(|answer| answer.due_at(&self.terms.now()) <= now)
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    /// Makes ready what is due and lets go what is over, a limited number of times. Returns how many keys are not noted
    /// any more.
    fn advance(
        &mut self,
        scope: &Arc<Scope>,
        now: Instant,
        due: impl Fn(&Key) -> Option<Answer>,
        (policy, left): (&Policy, &mut usize),
    ) -> usize {
        let mut gone = 0;
        while *left > 0
            && let Some(entry) = self.moments.first_entry().filter(|entry| entry.key().0 <= now)
        {
            *left -= 1;
            gone += 1;
            let ((_, number), moment) = entry.remove_entry();
            let id = match moment {
                Moment::Gone(reads) => {
                    self.ready.remove(&(Reverse(reads), number));
                    continue;
                }
                Moment::Due(id) => id,
            };
            let key = Key { scope: Arc::clone(scope), id };
            let Some(answer) = due(&key) else { continue };
            let Some(reads) = answer.marks().noted_reads().filter(|_| may_ride(&key.id, &answer)) else { continue };
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

/// Whether what comes of this key will be recognised in company.
fn may_ride(id: &Id, answer: &Answer) -> bool {
    match &id.value {
        Value::Text(_) if answer.records().is_empty() => false,
        _ => answer.records().iter().all(|record| record.carries(id)),
    }
}
