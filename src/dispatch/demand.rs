//! What the callers of a batch want of it besides its keys, for an upstream that understands it: another gateway.

use super::{queue::Queue, ticket::TicketId};
use crate::{key::Key, upstream::verdict::Demand};

impl<W> Queue<W> {
    /// What the caller of a ticket wants.
    pub fn demand(&mut self, ticket: TicketId, demand: Demand) {
        if let Some(ticket) = self.tickets.get_mut(ticket) {
            ticket.demand = demand;
        }
    }

    /// What all who wait for these keys want together.
    pub(super) fn demand_of(&self, keys: &[Key]) -> Demand {
        let waiters = keys.iter().filter_map(|key| self.entries.get(key)).flat_map(|entry| entry.waiters.keys());
        let demands = waiters.filter_map(|ticket| self.tickets.get(*ticket)).map(|ticket| ticket.demand);
        demands.fold(Demand::default(), Demand::and)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        dispatch::{entry::Need, queue::Order, ticket::Client},
        key::{Id, Kind, Scope, Value},
    };

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_as_long_as_its_most_patient_caller_and_is_as_new_as_its_strictest_wants_it() {
        let (mut queue, now) = (Queue::new(10, 100), crate::clock::now());
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        let seconds = Duration::from_secs;
        let demand = |wait, max_age| Demand { until: Some(now + seconds(wait)), max_age, no_cache: false };
        for (number, demand) in [(1, demand(3, None)), (2, demand(7, Some(seconds(60)))), (1, demand(1, None))] {
            let keys = vec![Key { scope: Arc::clone(&scope), id: Id { kind: Kind(0), value: Value::Int(number) } }];
            let (client, need) = (Client::Unknown, Need::Company);
            let order = Order { client, keys, fallback: vec![], need, fresh: false, no_store: false, waker: () };
            let submitted = queue.submit(now, order).expect("there is room");
            queue.demand(submitted.ticket, demand);
        }
        let batch = queue.seal(now).expect("somebody waits");
        assert_eq!(batch.ask.demand, demand(7, Some(seconds(60))));
    }
}
