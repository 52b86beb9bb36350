//! How many slots a new lookup will have to wait for: what a refusal says in `Retry-After`.
//!
//! Under max–min fairness a client that wants `x` places has them when every other client has had `x` or all it wanted;
//! demands that fit a batch are served whole and in turn, so they count in full. Between scopes, slots go round in turn.
//! The demands are counted once per slot and kept up to date with what is submitted meanwhile; who leaves is noticed at
//! the next slot.

use std::{collections::HashMap, sync::Arc};

use super::{
    entry::Place,
    queue::{Order, Queue},
    ticket::Client,
};
use crate::key::{Key, Scope};

/// Who waits for how many keys: by scope, by client, one number per ticket.
pub(super) type Forecast = HashMap<Arc<Scope>, HashMap<Client, Vec<usize>>>;

impl<W> Queue<W> {
    /// How many of these keys need a place in a batch that is still to be sealed.
    pub fn unsent(&self, keys: &[Key]) -> usize {
        let waiting = |key: &&Key| self.entries.get(key).is_none_or(|entry| entry.place != Place::InFlight);
        keys.iter().filter(waiting).count()
    }

    /// In how many slots from now a lookup with so many unsent keys would have its last one sent, if it came now.
    /// Without a scope it is one that nobody has asked for yet.
    pub fn slots_until(&mut self, client: Client, scope: Option<&Arc<Scope>>, mine: usize) -> usize {
        let room = self.max_batch_keys();
        let upper = (self.pending() + mine).div_ceil(room);
        if mine == 0 || upper <= 1 {
            return mine.div_ceil(room);
        }
        let forecast = self.forecast();
        let own = scope.and_then(|scope| forecast.get(scope)).map_or(mine.div_ceil(room), |clients| {
            let share = share_of(clients.get(&client).into_iter().flatten().copied(), mine, room);
            let others = clients.iter().filter(|(other, _)| **other != client);
            let demands = others.map(|(_, tickets)| tickets.iter().sum());
            share_of(demands, share, room).div_ceil(room)
        });
        let others = forecast.iter().filter(|(other, _)| Some(*other) != scope);
        let total = |clients: &HashMap<Client, Vec<usize>>| clients.values().flatten().sum::<usize>().div_ceil(room);
        own + others.map(|(_, clients)| total(clients).min(own)).sum::<usize>()
    }

    /// Counts a lookup in that has just been taken.
    pub(super) fn forecast_add(&mut self, order: &Order<W>) {
        if let (Some(forecast), Some(first)) = (&mut self.forecast, order.keys.first()) {
            forecast
                .entry(Arc::clone(&first.scope))
                .or_default()
                .entry(order.client)
                .or_default()
                .push(order.keys.len());
        }
    }

    fn forecast(&mut self) -> &Forecast {
        if self.forecast.is_none() {
            let mut forecast = Forecast::new();
            for ticket in self.tickets.values() {
                let waiting = |key: &&Key| self.entries.get(key).is_some_and(|entry| entry.place != Place::InFlight);
                let open = ticket.open().filter(waiting).count();
                if let Some(first) = ticket.keys.first().filter(|_| open > 0) {
                    let clients = forecast.entry(Arc::clone(&first.scope)).or_default();
                    clients.entry(ticket.client).or_default().push(open);
                }
            }
            self.forecast = Some(forecast);
        }
        self.forecast.as_ref().expect("this holds because it has just been counted")
    }
}

/// How many places are given out until somebody who wants `mine` has them, beside these demands.
fn share_of(others: impl Iterator<Item = usize>, mine: usize, room: usize) -> usize {
    mine + others.map(|demand| if demand <= room { demand } else { demand.min(mine) }).sum::<usize>()
}
