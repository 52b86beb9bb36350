//! How many slots a new lookup will have to wait for: what a refusal says in `Retry-After`.
//!
//! The batches to come are shared out in numbers just as they will be in keys ([`share`](super::share)), until the new
//! lookup has its places. Between scopes, slots go round in turn. Who comes later and wants less may still go first; who
//! leaves is noticed at the next slot.
//!
//! The demands are counted once per slot and kept up to date with what is submitted meanwhile.

use std::{collections::HashMap, sync::Arc};

use super::{
    entry::Place,
    queue::{Order, Queue},
    share::share,
    ticket::Client,
};
use crate::key::{Key, Scope};

/// Who waits for how many keys: by client, in the order of arrival.
#[derive(Default)]
pub(super) struct Demands {
    /// One number per ticket.
    clients: Vec<Vec<usize>>,
    position: HashMap<Client, usize>,
}

impl Demands {
    fn add(&mut self, client: Client, keys: usize) {
        let position = *self.position.entry(client).or_insert(self.clients.len());
        if position == self.clients.len() {
            self.clients.push(Vec::new());
        }
        self.clients[position].push(keys);
    }

    fn total(&self) -> usize {
        self.clients.iter().flatten().sum()
    }
}

/// Who waits for how many keys in each scope.
pub(super) type Forecast = HashMap<Arc<Scope>, Demands>;

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
        let own = match scope.and_then(|scope| forecast.get(scope)) {
            Some(clients) => slots_among(room, clients, client, mine),
            None => mine.div_ceil(room),
        };
        let others = forecast.iter().filter(|(other, _)| Some(*other) != scope);
        own + others.map(|(_, clients)| clients.total().div_ceil(room).min(own)).sum::<usize>()
    }

    /// Counts a lookup in that has just been taken.
    pub(super) fn forecast_add(&mut self, order: &Order<W>) {
        if let (Some(forecast), Some(first)) = (&mut self.forecast, order.keys.first()) {
            forecast.entry(Arc::clone(&first.scope)).or_default().add(order.client, order.keys.len());
        }
    }

    fn forecast(&mut self) -> &Forecast {
        if self.forecast.is_none() {
            let mut forecast = Forecast::new();
            for ticket in self.tickets.values() {
                let waiting = |key: &&Key| self.entries.get(key).is_some_and(|entry| entry.place != Place::InFlight);
                let open = ticket.open().filter(waiting).count();
                if let Some(first) = ticket.keys.first().filter(|_| open > 0) {
                    forecast.entry(Arc::clone(&first.scope)).or_default().add(ticket.client, open);
                }
            }
            self.forecast = Some(forecast);
        }
        self.forecast.as_ref().expect("this holds because it has just been counted")
    }
}

/// In how many slots a new ticket of a client has all its keys sent, if nobody else came: the batches to come are shared
/// out in numbers, as [`compose`](super::compose) will share them out in keys.
fn slots_among(room: usize, clients: &Demands, client: Client, mine: usize) -> usize {
    let mut demands: Vec<usize> = clients.clients.iter().map(|tickets| tickets.iter().sum()).collect();
    let position = clients.position.get(&client).copied().unwrap_or(demands.len());
    if position == demands.len() {
        demands.push(0);
    }
    demands[position] += mine;
    let mut own = clients.clients.get(position).cloned().unwrap_or_default();
    own.push(mine);
    let most = demands.iter().sum::<usize>().div_ceil(room);
    for slot in 1..most {
        let shares = share(room, &demands);
        let places = shares[position];
        demands.iter_mut().zip(shares).for_each(|(demand, share)| *demand -= share);
        let shares = share(places, &own);
        own.iter_mut().zip(shares).for_each(|(ticket, share)| *ticket -= share);
        if own.last() == Some(&0) {
            return slot;
        }
    }
    most
}
