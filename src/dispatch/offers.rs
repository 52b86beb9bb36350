//! The queue as one of several: what it would like to have asked, and batches that were chosen for all.
//!
//! - **Offers** change nothing that counts: a key stays where it is until a batch with it is sealed here, because this
//!   gateway or another has been granted a slot for it.
//! - **A batch chosen for all** is boarded at every gateway alike: keys that somebody waits for here leave the queue, the
//!   others are riders, who leave no trace when it fails.
//! - **Halves** of a rejected batch go as they are: nobody else's keys ride with them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    batch::{Batch, BatchId},
    compose::Turn,
    entry::{Again, Entry, Held, Lane, Place},
    queue::Queue,
    share::share,
    ticket::Client,
};
use crate::{
    clock::Instant,
    key::{Key, Kind, Scope},
    replicas::{Demand, Lookup, Wish, client_name},
};

/// Lanes that are offered at once. A grant is for one of them; the others wait for the next.
const LANES: usize = 4;

/// What would be sealed of one lane.
pub(super) struct Offered {
    pub(super) scope: Arc<Scope>,
    pub(super) lane: Lane,
    /// Whether it must go exactly as it is.
    pub(super) exact: bool,
    /// Whether nobody waits for it.
    pub(super) background: bool,
    pub(super) waited: Duration,
    pub(super) room: usize,
    pub(super) demands: Vec<Demand>,
    pub(super) behind: Vec<Wish>,
}

/// This moment, and what the clock of the exchange shows in it, in microseconds.
#[derive(Clone, Copy)]
pub(super) struct Shown(pub(super) Instant, pub(super) u64);

impl Shown {
    /// What it showed then.
    fn at(self, then: Instant) -> u64 {
        let ago = self.0.saturating_duration_since(then).as_micros();
        self.1.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
    }
}

/// A client's name at every gateway. Those without any are told apart by nobody.
fn name(client: Client) -> String {
    match client {
        Client::Named(number) => client_name(&number.to_be_bytes()),
        Client::Peer(address) => client_name(address.to_string().as_bytes()),
        Client::Unknown => String::new(),
    }
}

impl Lane {
    /// The lane's name among those of a scope.
    pub(super) fn tag(self) -> String {
        match self {
            Self::Mixed => "mixed".to_owned(),
            Self::List(kind) => format!("list{}", kind.0),
            Self::Alone => "alone".to_owned(),
        }
    }

    /// The lane of that name.
    pub(super) fn of_tag(tag: &str) -> Option<Self> {
        match tag {
            "mixed" => Some(Self::Mixed),
            "alone" => Some(Self::Alone),
            _ => Some(Self::List(Kind(tag.strip_prefix("list")?.parse().ok()?))),
        }
    }
}

/// Whether a slot of the lane of that name takes along as many as there is room for.
pub(super) fn has_room(name: &str) -> bool {
    let lane = name.split_once(':').and_then(|(_, tag)| Lane::of_tag(tag));
    matches!(lane, Some(Lane::Mixed | Lane::List(_)))
}

impl<W> Queue<W> {
    /// Changes whenever what could be offered may have changed.
    pub(super) fn stamp(&self) -> u64 {
        self.serial()
    }

    /// What would be sealed next, the first few lanes of it.
    pub(super) fn offers(&mut self, shown: Shown) -> Vec<Offered> {
        let now = shown.0;
        self.expire(now);
        self.suspects.retain(|_, until| *until > now);
        self.release(now);
        let mut offers: Vec<Offered> = Vec::new();
        for (since, scope, lane) in self.waiting_lanes().into_iter().take(LANES) {
            let waited = now.saturating_duration_since(since);
            offers.push(self.offered((&scope, lane), waited, false, shown));
        }
        let half = self.held.front().filter(|held| held.is_half() && (!self.half_went || offers.is_empty()));
        if let Some(half) = half {
            let since = half.keys.iter().filter_map(|key| Some(self.entries.get(key)?.since)).min().unwrap_or(now);
            offers.push(Offered {
                scope: Arc::clone(&half.keys[0].scope),
                lane: half.lane,
                exact: true,
                background: false,
                waited: now.saturating_duration_since(since),
                room: half.keys.len(),
                demands: Vec::new(),
                behind: Vec::new(),
            });
        }
        if offers.is_empty()
            && let Some((key, since)) = self.background.values().next().cloned()
        {
            let lane = Lane::of(self.entries[&key].need, key.id.kind);
            offers.push(self.offered((&key.scope, lane), now.saturating_duration_since(since), true, shown));
        }
        offers
    }

    /// The lane of a batch that is under way.
    pub(super) fn lane_of(&self, batch: BatchId) -> Option<Lane> {
        self.flights.get(&batch).map(|flight| flight.lane)
    }

    /// Held => Queued: a batch that was refused is composed anew, of all gateways' keys. Its own are the oldest.
    fn release(&mut self, now: Instant) {
        let (halves, filled): (VecDeque<Held>, VecDeque<Held>) =
            std::mem::take(&mut self.held).into_iter().partition(Held::is_half);
        self.held = halves;
        for held in filled {
            let _wanted = self.still_wanted(held.keys, held.how, now);
        }
    }

    fn offered(&self, (scope, lane): (&Arc<Scope>, Lane), waited: Duration, background: bool, shown: Shown) -> Offered {
        let room = if lane == Lane::Alone { 1 } else { self.room() };
        let wish = |key: &Key| Wish { id: key.id.clone(), keep: self.entries.get(key).is_some_and(|entry| entry.keep) };
        let waiting = self.demands(scope, lane, &Default::default());
        let sizes: Vec<usize> = waiting.iter().map(super::compose::Demand::size).collect();
        let mut demands = Vec::with_capacity(waiting.len());
        let mut left = room;
        for (demand, places) in waiting.iter().zip(share(room, &sizes)).filter(|(_, places)| *places > 0) {
            left -= places;
            let sizes: Vec<usize> = demand.tickets.iter().map(Vec::len).collect();
            let lookup = |(ticket, places): (&Vec<Key>, usize)| Lookup {
                size: ticket.len(),
                wishes: ticket.iter().take(places).map(wish).collect(),
            };
            let tickets = demand.tickets.iter().zip(share(places, &sizes)).filter(|(_, places)| *places > 0);
            demands.push(Demand {
                client: name(demand.client),
                arrived: shown.at(demand.arrived),
                served: self.turns.get(&demand.client).map_or(0, |turn| shown.at(turn.at)),
                size: demand.size(),
                tickets: tickets.map(lookup).collect(),
            });
        }
        let fits = |key: &Key| key.scope == *scope && lane.takes(self.entries[key].need, key.id.kind);
        let behind = self.background.values().map(|(key, _)| key).filter(|key| fits(key)).take(left);
        let behind = behind.map(wish).collect();
        Offered { scope: Arc::clone(scope), lane, exact: false, background, waited, room, demands, behind }
    }

    /// Seals the batch of these keys, which was chosen for all gateways; what may not ride in it, or rides elsewhere, is
    /// left out. With `asked_by` it is another gateway's request, which was started then.
    pub(super) fn seal_chosen(
        &mut self,
        (scope, lane): (&Arc<Scope>, Lane),
        wishes: &[Wish],
        asked_by: Option<Instant>,
        now: Instant,
    ) -> Option<Batch> {
        self.forecast = None;
        self.half_went = false;
        let (mut own, mut riders): (Vec<Key>, Vec<(Key, bool)>) = Default::default();
        for wish in wishes {
            let key = Key { scope: Arc::clone(scope), id: wish.id.clone() };
            match self.entries.get(&key) {
                Some(entry) if entry.place == Place::Queued && lane.takes(entry.need, key.id.kind) => own.push(key),
                // What nobody may keep is of no use to who does not wait for it.
                None if wish.keep || asked_by.is_none() => riders.push((key, wish.keep)),
                Some(_) | None => {}
            }
        }
        if let Some(started) = asked_by {
            own.iter().for_each(|key| self.wait_for_later(key, started));
        }
        self.serve(&own, now);
        let need = super::ride::need_of(lane);
        let mut batch = match own.is_empty() {
            false => self.send(own, lane, Again::Filled, now),
            true => {
                let (first, keep) = riders.pop()?;
                self.enqueue(first.clone(), Entry { keep, ..Entry::rider(need, now) }, now);
                let mut batch = self.send(vec![first], lane, Again::Filled, now);
                batch.waits.clear();
                batch.riders = 1;
                batch
            }
        };
        self.add_riders(&mut batch, riders, now);
        Some(batch)
    }

    /// Whoever waits for one of these keys has had places.
    fn serve(&mut self, keys: &[Key], now: Instant) {
        let turn = Turn { number: self.next(), at: now };
        let waiters = keys.iter().filter_map(|key| self.entries.get(key)).flat_map(|entry| entry.waiters.keys());
        let clients = waiters.filter_map(|id| Some((self.tickets.get(*id)?.client, turn)));
        self.turns.extend(clients);
    }

    /// Whoever wanted a request that starts later than this one waits for the next.
    fn wait_for_later(&mut self, key: &Key, started: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let tickets = &self.tickets;
        let too_early = |id: &_| tickets.get(*id).is_some_and(|ticket| ticket.fresh && ticket.arrived > started);
        let later: Vec<_> = entry.waiters.keys().filter(|id| too_early(id)).copied().collect();
        for id in later {
            if let Some(position) = entry.waiters.remove(&id) {
                entry.later.insert(id, position);
            }
        }
    }

    /// Every lane that somebody waits in and since when it has waited for a slot, the oldest first.
    fn waiting_lanes(&mut self) -> Vec<(Instant, Arc<Scope>, Lane)> {
        let mut lanes: HashMap<(Arc<Scope>, Lane), Instant> = HashMap::new();
        self.forget_turns();
        for ticket in self.tickets.values() {
            for (key, lane) in self.queued(ticket) {
                let name = (Arc::clone(&key.scope), lane);
                let served = self.served.get(&name);
                let since = served.map_or(ticket.arrived, |served| ticket.arrived.max(*served));
                let known = lanes.entry(name).or_insert(since);
                *known = since.min(*known);
            }
        }
        let mut lanes: Vec<_> = lanes.into_iter().map(|((scope, lane), since)| (since, scope, lane)).collect();
        lanes.sort_by_key(|(since, _, _)| *since);
        lanes
    }
}
