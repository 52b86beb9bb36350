//! Which keys ride in the next batch.
//!
//! - **Turn.** Lanes that somebody waits in go before lanes that nobody waits in, and among them the one that has waited
//!   longest: since its oldest ticket came, or since it last had a slot. So a scope with a long backlog takes turns with
//!   a scope that has just arrived, and keys that must ride alone take turns with everything else.
//! - **Share.** The places are shared max–min fairly, first over clients, then over each client's tickets, small demands
//!   whole ([`share`](super::share)), in the order of arrival; clients that want more than a batch take turns.
//! - **Fill.** What is left goes to refreshes, then to keys whose callers gave up, so that a paid request leaves no room
//!   unused.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    entry::{Lane, Place},
    queue::Queue,
    share::share,
    ticket::{Client, Ticket},
};
use crate::{
    clock::Instant,
    key::{Key, Scope},
};

/// One client's candidates for a batch, by ticket, in the order of arrival.
pub(super) struct Demand {
    pub(super) client: Client,
    /// When the oldest of its tickets came.
    pub(super) arrived: Instant,
    pub(super) tickets: Vec<Vec<Key>>,
}

/// When a client last had places.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// Later ones are greater.
    pub(super) number: u64,
    pub(super) at: Instant,
}

impl Demand {
    /// Its keys, all tickets together.
    pub(super) fn size(&self) -> usize {
        self.tickets.iter().map(Vec::len).sum()
    }
}

impl<W> Queue<W> {
    /// The lane whose turn it is.
    pub(super) fn next_lane(&mut self) -> Option<(Arc<Scope>, Lane)> {
        self.waiting_lane().or_else(|| {
            let (key, _) = self.background.values().next()?;
            Some((Arc::clone(&key.scope), Lane::of(self.entries[key].need, key.id.kind)))
        })
    }

    /// The lane whose turn it is among those that somebody waits in.
    pub(super) fn waiting_lane(&mut self) -> Option<(Arc<Scope>, Lane)> {
        self.forget_turns();
        let mut seen = HashSet::new();
        let mut waiting: Vec<(Instant, &Arc<Scope>, Lane)> = Vec::new();
        for ticket in self.tickets.values() {
            for (key, lane) in self.queued(ticket) {
                if seen.insert((&key.scope, lane)) {
                    let served = self.served.get(&(Arc::clone(&key.scope), lane));
                    let since = served.map_or(ticket.arrived, |served| ticket.arrived.max(*served));
                    waiting.push((since, &key.scope, lane));
                }
            }
        }
        let next = waiting.into_iter().min_by_key(|(since, _, _)| *since);
        next.map(|(_, scope, lane)| (Arc::clone(scope), lane))
    }

    /// Adds to a batch until it is full or nothing is left that may ride in it.
    pub(super) fn fill(&mut self, scope: &Arc<Scope>, lane: Lane, batch: &mut Vec<Key>, now: Instant) {
        let capacity = if lane == Lane::Alone { 1 } else { self.room() };
        let mut chosen: HashSet<Key> = batch.iter().cloned().collect();
        let demands = self.demands(scope, lane, &chosen);
        let sizes: Vec<usize> = demands.iter().map(Demand::size).collect();
        let mut add = |key: &Key, batch: &mut Vec<Key>| {
            if batch.len() < capacity && chosen.insert(key.clone()) {
                batch.push(key.clone());
            }
        };
        let turn = Turn { number: self.next(), at: now };
        let room = capacity.saturating_sub(batch.len());
        for (demand, places) in demands.iter().zip(share(room, &sizes)).filter(|(_, places)| *places > 0) {
            self.turns.insert(demand.client, turn);
            let sizes: Vec<usize> = demand.tickets.iter().map(Vec::len).collect();
            for (ticket, places) in demand.tickets.iter().zip(share(places, &sizes)) {
                for key in ticket.iter().take(places) {
                    add(key, batch);
                }
            }
        }
        // Where clients want the same keys, their shares leave places over.
        for key in demands.iter().flat_map(|demand| demand.tickets.iter().flatten()) {
            add(key, batch);
        }
        for (key, _) in self.background.values() {
            if batch.len() == capacity {
                break;
            }
            if key.scope == *scope && lane.takes(self.entries[key].need, key.id.kind) {
                add(key, batch);
            }
        }
    }

    pub(super) fn demands(&self, scope: &Arc<Scope>, lane: Lane, chosen: &HashSet<Key>) -> Vec<Demand> {
        let mut demands: Vec<Demand> = Vec::new();
        let mut position: HashMap<Client, usize> = HashMap::new();
        for ticket in self.tickets.values() {
            let wanted = |key: &Key| key.scope == *scope && !chosen.contains(key);
            let keys: Vec<Key> = self
                .queued(ticket)
                .filter(|(key, _)| wanted(key) && lane.takes(self.entries[*key].need, key.id.kind))
                .map(|(key, _)| key.clone())
                .collect();
            if keys.is_empty() {
                continue;
            }
            let position = *position.entry(ticket.client).or_insert_with(|| {
                demands.push(Demand { client: ticket.client, arrived: ticket.arrived, tickets: Vec::new() });
                demands.len() - 1
            });
            demands[position].tickets.push(keys);
        }
        // In the order of arrival, so that what was promised is not overtaken. Only those who want more than a batch take
        // turns: where they are more than there are places, each has had one before any has another.
        demands.sort_by_key(|demand| {
            let bulk = demand.size() > self.max_batch_keys();
            if bulk { self.turns.get(&demand.client).map_or(1, |turn| turn.number) } else { 0 }
        });
        demands
    }

    /// A ticket's keys that wait to be chosen, each with its lane.
    pub(super) fn queued<'a>(&'a self, ticket: &'a Ticket<W>) -> impl Iterator<Item = (&'a Key, Lane)> {
        ticket.open().filter_map(|key| {
            let entry = &self.entries[key];
            (entry.place == Place::Queued).then(|| (key, Lane::of(entry.need, key.id.kind)))
        })
    }

    /// Forgets the turns of scopes and clients that have nothing in the queue.
    pub(super) fn forget_turns(&mut self) {
        if self.turns.len() > self.tickets.len() {
            let present: HashSet<Client> = self.tickets.values().map(|ticket| ticket.client).collect();
            self.turns.retain(|client, _| present.contains(client));
        }
        if self.served.len() > self.entries.len() {
            let present: HashSet<Arc<Scope>> = self.entries.keys().map(|key| Arc::clone(&key.scope)).collect();
            self.served.retain(|(scope, _), _| present.contains(scope));
        }
    }
}
