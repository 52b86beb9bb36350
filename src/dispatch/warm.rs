//! Keys that nobody has asked for yet, fetched in idle slots so that they are there when somebody does.
//!
//! - **Order.** They go in the order in which they were handed over, as many at once as a request may carry; what is
//!   cached by then is passed over.
//! - **Last of all.** Only while nothing waits and nothing is under way, within their share of the slots, and while the
//!   cache holds less than it may fill.
//! - **Not lost.** Keys of a request that was refused or failed go again, first, after a pause that grows. After a failure
//!   one key goes alone, and twice as many after each success: a key that makes requests fail is found in a few of
//!   them, and let go after [`MAX_ATTEMPTS`] of its own.
//! - **Careful.** While the upstream counts as down it is left to those who wait to find out when it is back: an attempt
//!   that is under way would have them refused.
//! - **Erased** is erased: a key that was forgotten is not asked for any more.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    Handle, Share, Worker,
    batch::{Batch, MAX_ATTEMPTS},
    handle::State,
    idle::Budget,
    spare::Spare,
};
use crate::{
    clock::Instant,
    key::{Key, Scope},
    upstream::verdict::Verdict,
};

/// The pause after the first refusal or failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause: the warm-up is in no hurry, but an upstream that is back for five minutes should be used.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What the warm-up is doing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Warming {
    /// Nothing: it is not configured for this path.
    #[default]
    Off,
    /// It waits until the upstream has answered somebody, whose credential it then uses.
    WaitingForCredential,
    /// It asks for the next page of the list, as soon as it may.
    Paging,
    /// The keys of a page are being fetched.
    Fetching,
    /// The cache is filled as far as it may be.
    Full,
    /// The next page did not come; it is asked for again.
    Failing,
    /// The whole list has been gone through.
    Done,
}

impl Warming {
    /// The word in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::WaitingForCredential => "waiting_for_credential",
            Self::Paging => "paging",
            Self::Fetching => "fetching",
            Self::Full => "full",
            Self::Failing => "failing",
            Self::Done => "done",
        }
    }
}

/// How far the keys are that were handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WarmingKeys {
    /// Those that are still to be asked for.
    pub queued: usize,
    /// Whether some are under way, and may yet have to be asked for again.
    pub under_way: bool,
    /// Whether the cache was filled as far as it may be when that was last looked at.
    pub full: bool,
    /// Whether their credential was refused: they stay where they are.
    pub refused: bool,
    /// Whether nobody waits and the upstream is not down.
    pub calm: bool,
}

/// Keys that nobody has asked for, in the order in which they are to be asked; all of one scope.
#[derive(Debug)]
pub(super) struct Cold {
    keys: VecDeque<Key>,
    scope: Option<Arc<Scope>>,
    budget: Budget,
    /// Keys in one request, at most.
    configured: usize,
    /// Keys in the next request.
    most: usize,
    /// Requests that failed or were refused since one was answered.
    failures: u32,
    /// The pause that runs after them.
    pause: Option<Instant>,
    /// How often the first key has failed alone.
    attempts: u8,
    full: bool,
    refused: bool,
    /// Whether a request with some of them is under way.
    under_way: bool,
}

impl Cold {
    pub(super) fn new(share: Share, configured: usize, now: Instant) -> Self {
        Self {
            keys: VecDeque::new(),
            scope: None,
            budget: Budget::new(share, now),
            configured,
            most: configured,
            failures: 0,
            pause: None,
            attempts: 0,
            full: false,
            refused: false,
            under_way: false,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn erase(&mut self, is_gone: impl Fn(&Key) -> bool) {
        self.keys.retain(|key| !is_gone(key));
    }

    /// The upstream answered, whoever asked: there is nothing to wait for.
    pub(super) fn recovered(&mut self) {
        self.failures = 0;
        self.pause = None;
    }

    /// When the next slot may be used; never, if none may.
    fn ready_at(&self) -> Option<Instant> {
        let ready_at = self.budget.ready_at()?;
        Some(self.pause.map_or(ready_at, |pause| pause.max(ready_at)))
    }

    /// These keys go again, before all others.
    fn again(&mut self, keys: Vec<Key>) {
        for key in keys.into_iter().rev().filter(|key| self.scope.as_ref() == Some(&key.scope)) {
            self.keys.push_front(key);
        }
    }

    fn rest(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.pause = Some(now + pause);
    }

    /// A request with these keys failed.
    fn failed(&mut self, keys: Vec<Key>, now: Instant) {
        let alone = keys.len() == 1;
        self.attempts = if alone { self.attempts + 1 } else { 0 };
        self.most = 1;
        self.rest(now);
        if self.attempts >= MAX_ATTEMPTS {
            self.attempts = 0;
        } else {
            self.again(keys);
        }
    }

    fn succeeded(&mut self) {
        self.attempts = 0;
        self.most = (self.most * 2).min(self.configured);
    }
}

impl Handle {
    /// Hands over keys of a scope to be fetched in idle slots, in this order, after those that were handed over before.
    pub fn warm(&self, scope: &Arc<Scope>, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.shared.state();
        state.idle.cold.scope = Some(Arc::clone(scope));
        state.idle.cold.keys.extend(keys);
        self.shared.wake.notify_one();
    }

    /// The credential of these keys was refused elsewhere: they stay until it is [taken again](Self::go_on_warming).
    pub fn stop_warming(&self) {
        self.shared.state().idle.cold.refused = true;
    }

    /// The credential of these keys is taken again.
    pub fn go_on_warming(&self) {
        self.shared.state().idle.cold.refused = false;
        self.shared.wake.notify_one();
    }

    /// These keys are not to be fetched any more.
    pub fn end_warming(&self) {
        let cold = &mut self.shared.state().idle.cold;
        cold.keys.clear();
        cold.scope = None;
        cold.refused = false;
    }

    /// How far the keys are that were handed over.
    #[must_use]
    pub fn warming_keys(&self) -> WarmingKeys {
        let state = self.shared.state();
        let cold = &state.idle.cold;
        WarmingKeys {
            queued: cold.queued(),
            under_way: cold.under_way,
            full: cold.full && cold.queued() > 0,
            refused: cold.refused,
            calm: state.queue.work_since().is_none() && !state.pacer.is_down(),
        }
    }

    /// Waits until the last of the keys was taken, or a request with some of them is over.
    pub async fn hungry(&self) {
        self.shared.hungry.notified().await;
    }
}

impl Worker {
    /// Fetches what nobody has asked for yet. Returns when to look again, if that is known.
    pub(super) fn warm_up(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        if state.idle.cold.keys.is_empty() || state.idle.cold.refused || state.pacer.is_down() {
            return None;
        }
        let ready_at = state.idle.cold.ready_at()?.max(state.pacer.ready_at());
        if now < ready_at {
            return Some(ready_at);
        }
        let next_slot = now + state.pacer.gap();
        state.idle.cold.full = self.cache.bytes() >= self.shared.config.warmup_bytes;
        if state.idle.cold.full {
            return Some(next_slot);
        }
        let keys = self.next_cold(state, now);
        if state.idle.cold.keys.is_empty() {
            self.shared.hungry.notify_one();
        }
        if keys.is_empty() {
            return None; // All of them were cached.
        }
        if self.send_spare(state, keys.clone(), Spare::Warmup, now) {
            state.idle.cold.under_way = true;
            state.idle.cold.budget.spend(now, state.pacer.gap());
            Some(now)
        } else {
            state.idle.cold.again(keys);
            Some(next_slot)
        }
    }

    /// Takes the keys of the next request, and leaves out what is cached, asked for already, or under suspicion.
    fn next_cold(&self, state: &mut State, now: Instant) -> Vec<Key> {
        let places = state.queue.idle_room().min(state.idle.cold.most);
        let mut keys = Vec::new();
        while keys.len() < places
            && let Some(key) = state.idle.cold.keys.pop_front()
        {
            if self.cache.holds(&key) {
                self.shared.metrics.warmup.already_cached.inc();
            } else if state.queue.may_ride(&key, now) {
                keys.push(key);
            }
        }
        keys
    }

    /// What became of a request in an idle slot, before the queue forgets its keys.
    pub(super) fn warmed_up(&self, state: &mut State, batch: &Batch, verdict: &Verdict, now: Instant) {
        let keys = state.queue.riders_of(batch.id);
        let cold = &mut state.idle.cold;
        cold.under_way = false;
        // Whether any of them are left is known now.
        self.shared.hungry.notify_one();
        match verdict {
            Verdict::Success(_) => cold.succeeded(),
            Verdict::Unauthorized(_) => {
                cold.refused |= cold.scope.as_ref() == Some(&batch.ask.scope);
                cold.again(keys);
            }
            Verdict::Renewed => cold.again(keys),
            Verdict::Throttled(_) => {
                cold.again(keys);
                cold.rest(now);
            }
            // The next one will be smaller; a key that is rejected alone is let go.
            Verdict::Rejected(_) | Verdict::TooLarge if batch.ask.ids.len() > 1 => {
                cold.most = batch.ask.ids.len() / 2;
                cold.again(keys);
            }
            Verdict::Rejected(_) => {}
            Verdict::Declined(_) | Verdict::TooLarge | Verdict::Unavailable(..) | Verdict::Invalid(_) => {
                cold.failed(keys, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Id, Kind, Value};

    const MOST: usize = 100;

    fn keys(scope: &Arc<Scope>, numbers: std::ops::Range<i64>) -> Vec<Key> {
        let key = |number| Key { scope: Arc::clone(scope), id: Id { kind: Kind(0), value: Value::Int(number) } };
        numbers.map(key).collect()
    }

    fn cold(scope: &Arc<Scope>, now: Instant) -> Cold {
        Cold { scope: Some(Arc::clone(scope)), ..Cold::new(Share::new(1.0), MOST, now) }
    }

    fn scope(number: i64) -> Arc<Scope> {
        Arc::new(Scope::new(0, vec![], number.to_string(), ""))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_makes_requests_fail_is_found_and_let_go_and_no_other_is() {
        let (scope, now) = (scope(0), crate::clock::now());
        for bad in [0, 1, 40, 98, 249] {
            let mut cold = cold(&scope, now);
            let all = keys(&scope, 0..250);
            let bad = &all[bad];
            cold.keys.extend(all.clone());
            let (mut fetched, mut failures) = (Vec::new(), 0);
            while !cold.keys.is_empty() {
                let size = cold.most.min(cold.keys.len());
                let batch: Vec<Key> = cold.keys.drain(..size).collect();
                if batch.contains(bad) {
                    cold.failed(batch, now);
                    failures += 1;
                } else {
                    fetched.extend(batch);
                    cold.succeeded();
                    cold.recovered();
                }
            }
            let expected: Vec<Key> = all.iter().filter(|key| *key != bad).cloned().collect();
            assert!(fetched == expected, "in their order");
            assert!(failures <= 10, "{failures}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_any_answer_ends_them() {
        let (scope, now) = (scope(0), crate::clock::now());
        let mut cold = cold(&scope, now);
        let pauses = [(); 8].map(|()| {
            cold.rest(now);
            cold.ready_at().map_or(0, |ready_at| (ready_at - now).as_secs())
        });
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
        cold.recovered();
        assert_eq!(cold.ready_at(), Some(now));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_of_a_scope_that_was_left_do_not_come_back() {
        let now = crate::clock::now();
        let mut cold = cold(&scope(1), now);
        cold.failed(keys(&scope(0), 0..5), now);
        assert_eq!(cold.queued(), 0);
        cold.failed(keys(&scope(1), 0..5), now);
        assert_eq!(cold.queued(), 5);
    }
}
