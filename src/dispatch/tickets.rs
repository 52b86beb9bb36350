//! The tickets that wait, under their numbers and in the order in which they came.
//!
//! Thousands may wait for one batch and are over at once, so what counts is what it takes to find one, to take it out and to
//! go on with the next: they lie side by side in slots that are used again, where memory that was read for one has been read
//! for its neighbour, and nothing is given back to the allocator one by one.

use std::collections::{BTreeMap, btree_map::Entry::Occupied};

use slab::Slab;

use super::ticket::{Ticket, TicketId};

/// Slots that are kept although nobody waits.
const KEPT_SLOTS: usize = 1024;

/// Every ticket of a queue.
pub(super) struct Tickets<W> {
    /// The slot of each.
    slots: BTreeMap<TicketId, usize>,
    tickets: Slab<Ticket<W>>,
}

impl<W> Tickets<W> {
    pub(super) fn new() -> Self {
        Self { slots: BTreeMap::new(), tickets: Slab::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The numbers of all, oldest first.
    pub(super) fn ids(&self) -> impl Iterator<Item = TicketId> {
        self.slots.keys().copied()
    }

    /// All of them, oldest first.
    pub(super) fn values(&self) -> impl Iterator<Item = &Ticket<W>> {
        self.slots.values().map(|slot| &self.tickets[*slot])
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Ticket<W>> {
        self.slots.get(&id).map(|slot| &self.tickets[*slot])
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut Ticket<W>> {
        self.slots.get(&id).map(|slot| &mut self.tickets[*slot])
    }

    pub(super) fn insert(&mut self, id: TicketId, ticket: Ticket<W>) {
        let slot = self.tickets.insert(ticket);
        self.slots.insert(id, slot);
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Ticket<W>> {
        self.remove_if(id, |_| true)
    }

    /// Takes one out, if it is over once this is done to it.
    pub(super) fn remove_if(
        &mut self,
        id: TicketId,
        is_over: impl FnOnce(&mut Ticket<W>) -> bool,
    ) -> Option<Ticket<W>> {
        let Occupied(held) = self.slots.entry(id) else { return None };
        if !is_over(&mut self.tickets[*held.get()]) {
            return None;
        }
        let ticket = self.tickets.remove(held.remove());
        if self.tickets.is_empty() && self.tickets.capacity() > KEPT_SLOTS {
            self.tickets = Slab::new();
        }
        Some(ticket)
    }
}
