//! What the worker does with room that nobody has asked for: places in a request that goes anyway, and idle slots.

use std::cell::RefCell;

use super::{LimitPer, Worker, absence::Absence, batch::Batch, handle::State};
use crate::{
    clock::Instant,
    key::{Key, Kind, Scope},
    metrics::Refresh,
    upstream,
};

/// The kinds of keys in a request, as riders join it.
struct Company<'a> {
    absence: &'a Absence,
    kinds: RefCell<Vec<Kind>>,
}

impl<'a> Company<'a> {
    fn new(absence: &'a Absence, kinds: Vec<Kind>) -> Self {
        Self { absence, kinds: RefCell::new(kinds) }
    }

    /// Whether a key of this kind may join; then it has.
    fn admits(&self, kind: Kind) -> bool {
        let mut kinds = self.kinds.borrow_mut();
        let admits = self.absence.may_join(kind, &kinds);
        if admits && !kinds.contains(&kind) {
            kinds.push(kind);
        }
        admits
    }
}

/// Why the keys at the end of a batch are asked although nobody waits for them and nobody queued them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spare {
    /// They are about to expire and there was room.
    Ride,
    /// They are about to expire and the slot was idle.
    Idle,
    /// Nobody has asked for them yet, and the slot was idle.
    Warmup,
    /// It is another gateway's request.
    Elsewhere,
}

impl Spare {
    /// How their refreshes are counted; those of the warm-up are none.
    pub(super) fn refresh(self) -> Option<Refresh> {
        match self {
            Self::Ride => Some(Refresh::Ride),
            Self::Idle => Some(Refresh::Idle),
            Self::Warmup | Self::Elsewhere => None,
        }
    }
}

impl Worker {
    /// Fills the free places of a batch with keys of its scope that are about to expire, of such kinds that the answer
    /// proves no less than it would without them.
    pub(super) fn fill_up(&self, state: &mut State, batch: &mut Batch, now: Instant) {
        if self.shared.config.kind == upstream::Kind::Gateway {
            return; // Whoever waits would wait for what that one has to fetch; and it refreshes by itself.
        }
        let places = state.queue.free_places(batch);
        if places == 0 {
            return;
        }
        let kinds = batch.ask.ids.iter().map(|id| id.kind).collect();
        let (queue, company) = (&state.queue, Company::new(&state.absence, kinds));
        let fits = |key: &Key| queue.may_board(batch, key, now) && company.admits(key.id.kind);
        let riders = self.cache.expiring((&batch.ask.scope, &self.shape), now, places, fits);
        state.queue.board(batch, riders, now);
    }

    /// Uses an idle slot, if one is granted for something that there is. Returns when to look again, if that is known.
    pub(super) fn use_idle_slot(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        if !self.fetches.is_empty() || state.drain_at.is_some() {
            return None;
        }
        let refresh = if state.pacer.is_troubled() { None } else { self.idle_refresh(state, now) };
        let warmup = if self.fetches.is_empty() { self.warm_up(state, now) } else { None };
        let next = [refresh, warmup].into_iter().flatten().min();
        // Something was sent: its end wakes the worker.
        if self.fetches.is_empty() { next } else { None }
    }

    fn idle_refresh(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        let ready_at = state.idle.refresh.ready_at()?.max(state.pacer.ready_at());
        if now < ready_at {
            return Some(ready_at);
        }
        // Reads do not wake the worker: it looks at each slot.
        let next_slot = Some(now + state.pacer.gap());
        let Some(scope) = self.cache.next_expiring(now, |scope| self.serves(scope)) else { return next_slot };
        let (queue, company) = (&state.queue, Company::new(&state.absence, Vec::new()));
        let fits = |key: &Key| queue.may_ride(key, now) && company.admits(key.id.kind);
        let keys = self.cache.expiring((&scope, &self.shape), now, queue.idle_room(), fits);
        if self.send_spare(state, keys, Spare::Idle, now) {
            state.idle.refresh.spend(now, state.pacer.gap());
        }
        next_slot
    }

    pub(super) fn send_spare(&mut self, state: &mut State, keys: Vec<Key>, why: Spare, now: Instant) -> bool {
        let need = state.need(now);
        if let Some(seat) = self.seat.as_mut().filter(|seat| seat.needs_grant()) {
            seat.idle = true;
            return false;
        }
        let Some(batch) = state.queue.seal_idle(keys, need, now) else { return false };
        state.count_idle_slots(now, &self.shared.metrics);
        if state.pacer.start(now).is_err() {
            state.queue.put_back(batch.id, now);
            return false;
        }
        self.start(state, batch, why, now);
        true
    }

    /// Whether this worker asks for the keys of a scope.
    fn serves(&self, scope: &Scope) -> bool {
        let own_path = scope.lookup == self.shared.config.lookup;
        match self.shared.config.limit_per {
            LimitPer::Gateway => own_path,
            LimitPer::Credential => own_path && scope.credential == self.credential,
        }
    }
}
