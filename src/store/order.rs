//! In which order things happen to the store: what is to be written, and what must not be believed meanwhile.
//!
//! - **Saves** wait here until the store's thread writes them. There is room for [`MOST_SAVES`]; when it is gone the oldest is let
//!   go, and of its keys it is only written that nothing is known of them.
//! - **Loads** are not believed of a key that something was saved of which was not written when they began: they may have read what
//!   was there before. So saves are remembered until they are written and every load is over that began before.
//! - **Erasures** outdate every load that is under way when they begin, and none begins before they are over.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Erasing, Saving,
    erased::{Erased, Order},
};
use crate::{key::Id, record::Record};

/// Saves that wait, at most: those of half a minute of a path whose interval is half a second.
const MOST_SAVES: usize = 64;

/// Erasures that wait, at most: so many come while a store cannot be reached.
const MOST_ERASURES: usize = 1024;

/// What the store's thread is to do.
pub(super) enum Job {
    /// Write what an upstream request brought: its number, and the last erasure by others of which had been heard.
    Save(Saving, u64, u64),
    /// Erase, and say what.
    Erase(Order, Erasing, oneshot::Sender<Erased>),
    /// Erase everything, and say how many keys and customers that were.
    EraseAll(Erasing, oneshot::Sender<(u64, u64)>),
    /// Say when everything before is done.
    Flush(oneshot::Sender<()>),
}

/// What a save is about, until nobody can have read what was there before.
struct Recent {
    number: u64,
    is_written: bool,
    keys: HashSet<u64>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    saves: usize,
    recent: VecDeque<Recent>,
    /// The number of the next save.
    next: u64,
    /// How many loads are under way that do not know of the saves from a number on.
    loads: BTreeMap<u64, usize>,
    erasures: usize,
    /// How many erasures have begun.
    erased: u64,
    is_alarmed: bool,
    is_closed: bool,
    is_over: bool,
}

/// The order of things; see the module's words.
#[derive(Default)]
pub(super) struct Sequence {
    state: Mutex<State>,
    bell: Condvar,
}

/// What a load must know when it is over.
#[derive(Clone, Copy)]
pub(super) struct Since {
    from: u64,
    erased: u64,
}

impl Sequence {
    /// Takes something to be saved. Whether something else had to be let go.
    pub(super) fn save(&self, saving: Saving, heard: u64) -> bool {
        let keys = saving.digests();
        let mut state = self.lock();
        if state.is_over {
            return true;
        }
        let number = state.next;
        state.next += 1;
        state.recent.push_back(Recent { number, is_written: false, keys });
        let is_over = state.saves >= MOST_SAVES;
        if is_over {
            let full = state.jobs.iter_mut().find_map(|job| match job {
                Job::Save(saving, ..) if !saving.is_empty() => Some(saving),
                _ => None,
            });
            full.into_iter().for_each(Saving::let_go);
        } else {
            state.saves += 1;
        }
        state.jobs.push_back(Job::Save(saving, number, heard));
        self.bell.notify_one();
        is_over
    }

    /// Takes anything else; whoever waits for it is told at once if nobody works any more. Of more erasures than
    /// [`MOST_ERASURES`] becomes one of everything.
    pub(super) fn add(&self, job: Job) {
        let mut state = self.lock();
        let mut replaced = VecDeque::new();
        if !state.is_over {
            let is_erasure = |job: &Job| matches!(job, Job::Erase(..));
            let job = match job {
                Job::Erase(_, erasing, _)
                    if state.jobs.iter().filter(|job| is_erasure(job)).count() >= MOST_ERASURES =>
                {
                    let (erasures, others) = std::mem::take(&mut state.jobs).into_iter().partition(is_erasure);
                    (replaced, state.jobs) = (erasures, others);
                    Job::EraseAll(erasing, oneshot::channel().0)
                }
                job => job,
            };
            state.jobs.push_back(job);
        }
        drop(state);
        // Each tells whoever waits for it, and ends an erasure: after there is the one that takes their place.
        drop(replaced);
        self.bell.notify_one();
    }

    /// Nobody works any more: nothing is loaded or saved from now on.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.is_alarmed = true;
        let left = std::mem::take(&mut state.jobs);
        // Each tells whoever waits for it, and may end an erasure.
        drop(state);
        drop(left);
    }

    /// Everything that is to be done; nothing after a while, so that what is old can be removed. None when it is over.
    pub(super) fn next(&self, patience: Duration) -> Option<Vec<Job>> {
        let state = self.lock();
        let waits = |state: &mut State| state.jobs.is_empty() && !state.is_closed && !state.is_alarmed;
        let waited = self.bell.wait_timeout_while(state, patience, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.jobs.is_empty() && state.is_closed {
            return None;
        }
        state.saves = 0;
        Some(state.jobs.drain(..).collect())
    }

    /// Waits a while, because something cannot be done. Whether there is time to try again.
    pub(super) fn pause(&self, patience: Duration) -> bool {
        let waits = |state: &mut State| !state.is_closed && !state.is_alarmed;
        let waited = self.bell.wait_timeout_while(self.lock(), patience, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.is_closed
    }

    /// Saves up to this number are written, or will never be.
    pub(super) fn written(&self, number: u64) {
        let mut state = self.lock();
        let of_number = state.recent.iter_mut().find(|recent| recent.number == number);
        of_number.into_iter().for_each(|recent| recent.is_written = true);
        state.let_go();
    }

    /// A load begins; none may while something is erased.
    pub(super) fn begin_load(&self) -> Option<Since> {
        let mut state = self.lock();
        if state.erasures > 0 || state.is_alarmed {
            return None;
        }
        let unwritten = state.recent.iter().find(|recent| !recent.is_written).map(|recent| recent.number);
        let from = unwritten.unwrap_or(state.next);
        *state.loads.entry(from).or_default() += 1;
        Some(Since { from, erased: state.erased })
    }

    /// Which of these answers can be believed of a load that began then.
    pub(super) fn believe(&self, since: Since, mut is_about: impl FnMut(&HashSet<u64>)) -> bool {
        let state = self.lock();
        if state.erased != since.erased || state.erasures > 0 {
            return false;
        }
        state.recent.iter().filter(|recent| recent.number >= since.from).for_each(|recent| is_about(&recent.keys));
        true
    }

    /// A load is over.
    pub(super) fn end_load(&self, since: Since) {
        let mut state = self.lock();
        if let Some(count) = state.loads.get_mut(&since.from) {
            *count -= 1;
            if *count == 0 {
                state.loads.remove(&since.from);
            }
        }
        state.let_go();
    }

    /// An erasure begins.
    pub(super) fn begin_erasure(&self) {
        let mut state = self.lock();
        state.erasures += 1;
        state.erased += 1;
    }

    /// An erasure is over.
    pub(super) fn end_erasure(&self) {
        self.lock().erasures -= 1;
    }

    /// Something is wrong; nothing is loaded until that is taken notice of.
    pub(super) fn alarm(&self) {
        self.lock().is_alarmed = true;
        self.bell.notify_one();
    }

    /// Whether something was wrong, which is forgotten by that.
    pub(super) fn take_alarm(&self) -> bool {
        std::mem::take(&mut self.lock().is_alarmed)
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.bell.notify_all();
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets saves that are written and older than every load.
    fn let_go(&mut self) {
        let oldest = self.loads.first_key_value().map_or(u64::MAX, |(from, _)| *from);
        while self.recent.front().is_some_and(|recent| recent.is_written && recent.number < oldest) {
            self.recent.pop_front();
        }
    }
}

impl Saving {
    /// Everything that it is about, by a hash that may be another key's as well.
    pub(super) fn digests(&self) -> HashSet<u64> {
        let of_record = |record: &Record| record.ids().map(|id| id.digest(&self.scope)).collect::<Vec<_>>();
        let answered = self.answers.iter().map(|(id, ..)| id);
        let ids = answered.chain(&self.gone).map(|id| id.borrowed().digest(&self.scope));
        ids.chain(self.records.iter().flat_map(of_record)).collect()
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.records.is_empty()
    }

    /// There is no room for it: what it is about is not known any more.
    pub(super) fn let_go(&mut self) {
        let records = std::mem::take(&mut self.records);
        let answers = std::mem::take(&mut self.answers);
        let ids = records.iter().flat_map(|record| record.ids().map(crate::key::IdRef::to_owned));
        let gone: HashSet<Id> = ids.chain(answers.into_iter().map(|(id, ..)| id)).chain(self.gone.drain(..)).collect();
        self.gone = gone.into_iter().collect();
    }
}
