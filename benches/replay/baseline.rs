//! The policies that the gateway is compared with: a small simulator of their own, pure, on a clock of its own.
//!
//! Each lacks one idea and has the rest: they keep the gateway's gap and `linger`, fill batches of the same size, keep as
//! many customers in a cache of the least recently used, wait for the same deadline, and turn a lookup away that cannot
//! make it. Because they serve in the order of arrival, they know their waits exactly. What they leave out:
//! - places that nobody waits for any more are dropped when their turn comes, never asked;
//! - their queue has no limit but the deadline, nothing fails, and all answers take equally long;
//! - all lifetimes are equal, nothing is refreshed behind, and nobody comes back who was turned away;
//! - the whole-body cache forgets part of an answer where a cache would forget all of it; either way it is a miss.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use audience_gateway::{clock, dispatch::pacer::Pacer};

use crate::{
    load::{Customer, Lookup},
    measure::{Fate, LATENCY, Measure, Row, Slots, Told},
    options::{Options, Policy},
    recent::Recent,
};

/// A place in the queue.
#[derive(Clone, Copy)]
struct Item {
    /// What is asked: while it is queued or under way, whoever wants the same waits for it.
    asked: u64,
    /// What its answer is kept as.
    kept_as: u64,
    /// Its number, or that of its request where a request is not shared.
    serial: usize,
}

/// What is known of something that is asked.
#[derive(Default)]
struct Wanted {
    /// Its number while it is queued.
    serial: Option<usize>,
    /// The lookups that wait for it.
    lookups: Vec<usize>,
}

/// A lookup that waits.
struct Open {
    told: Told,
    since: Duration,
    left: usize,
}

/// A request that is under way.
struct Flight {
    started_at: Duration,
    items: Vec<Item>,
}

/// One policy's run.
struct Baseline<'a> {
    policy: Policy,
    options: &'a Options,
    lookups: &'a [Lookup],
    gap: Duration,
    slots: Slots,
    measure: Measure,
    cache: Recent,
    /// The bodies seen so far, by the whole set of their keys.
    bodies: HashMap<Vec<Customer>, u64>,
    queue: VecDeque<Item>,
    /// The number of the next item, or request.
    serial: usize,
    /// The number of the next thing that is asked for one lookup alone.
    unshared: u64,
    wanted: HashMap<u64, Wanted>,
    open: HashMap<usize, Open>,
    flights: VecDeque<Flight>,
}

/// Runs one policy over the lookups.
pub(crate) fn run(policy: Policy, options: &Options, lookups: &[Lookup]) -> Row {
    let gap = Pacer::new(options.interval, clock::now()).gap();
    let mut run = Baseline {
        policy,
        options,
        lookups,
        gap,
        slots: Slots::new(gap),
        measure: Measure::new(options),
        cache: Recent::new(options.capacity, options.ttl),
        bodies: HashMap::new(),
        queue: VecDeque::new(),
        serial: 0,
        unshared: 0,
        wanted: HashMap::new(),
        open: HashMap::new(),
        flights: VecDeque::new(),
    };
    let mut next = 0;
    loop {
        let answer = run.flights.front().map(|flight| flight.started_at + LATENCY);
        let arrival = lookups.get(next).map(|lookup| lookup.at);
        let slot = run.slots.opens_at();
        let Some(now) = [answer, arrival, slot].into_iter().flatten().min() else { break };
        // What has come is applied before anything new is sent.
        if answer == Some(now) {
            run.answered(now);
        } else if arrival == Some(now) {
            run.arrives(next);
            next += 1;
        } else {
            run.send(now);
        }
    }
    assert!(run.open.is_empty() && run.wanted.is_empty(), "nobody is left");
    run.measure.row(&run.slots)
}

impl Baseline<'_> {
    /// Whether a request carries the keys of several lookups.
    fn merges(&self) -> bool {
        matches!(self.policy, Policy::Fifo | Policy::NoCoalescing)
    }

    fn arrives(&mut self, number: usize) {
        let Lookup { at: now, client, ref keys, ref hot } = self.lookups[number];
        let mut names = self.names(keys);
        let missing: Vec<bool> = names.iter().map(|name| !self.cache.get(*name, now)).collect();
        if self.policy != Policy::WholeBody {
            names = names.into_iter().zip(&missing).filter(|(_, missing)| **missing).map(|(name, _)| name).collect();
        }
        let told = Told {
            client,
            asked: keys.len(),
            missed: names.len(),
            hot: hot.iter().filter(|hot| **hot).count(),
            hot_fresh: hot.iter().zip(&missing).filter(|(hot, missing)| **hot && !**missing).count(),
            fate: Fate::Hit,
            waited: Duration::ZERO,
            promised: Duration::ZERO,
        };
        if !missing.contains(&true) {
            self.measure.tell(Told { missed: 0, ..told });
            return;
        }
        let items = self.items(&names);
        let promised = self.promise(now, &items);
        let told = Told { promised, fate: Fate::Refused, ..told };
        if promised > self.options.timeout {
            self.measure.tell(told);
            return;
        }
        self.enqueue(number, &items);
        self.open.insert(number, Open { told, since: now, left: items.len() });
        self.slots.waiting(now, !self.queue.is_empty());
    }

    /// What the keys of a lookup are kept as: themselves, or each as its place in the body.
    fn names(&mut self, keys: &[Customer]) -> Vec<u64> {
        if self.policy != Policy::WholeBody {
            return keys.iter().map(|key| u64::from(*key)).collect();
        }
        let mut body = keys.to_vec();
        body.sort_unstable();
        let next = self.bodies.len() as u64;
        let body = *self.bodies.entry(body).or_insert(next);
        (0..keys.len() as u64).map(|place| body << 32 | place).collect()
    }

    /// The places that a lookup would wait for: those of others where they are shared, else new ones.
    fn items(&mut self, names: &[u64]) -> Vec<Item> {
        let mut new = 0;
        let mut items = Vec::with_capacity(names.len());
        for &name in names {
            let asked = if self.policy == Policy::NoCoalescing {
                self.unshared += 1;
                self.unshared
            } else {
                name
            };
            let serial = match self.wanted.get(&asked) {
                Some(wanted) => wanted.serial.unwrap_or(0),
                None if self.merges() => self.serial + new,
                None => self.serial + new / self.options.batch,
            };
            new += usize::from(!self.wanted.contains_key(&asked));
            items.push(Item { asked, kept_as: name, serial });
        }
        items
    }

    /// When the last of these would be answered.
    fn promise(&self, now: Duration, items: &[Item]) -> Duration {
        let front = self.queue.front().map_or(self.serial, |item| item.serial);
        let in_one = if self.merges() { self.options.batch } else { 1 };
        let before = |item: &Item| item.serial.checked_sub(front).map(|before| before / in_one);
        let Some(slots) = items.iter().filter_map(before).max() else { return LATENCY };
        let first = self.slots.free_at().saturating_sub(now);
        first + self.gap * u32::try_from(slots).unwrap_or(u32::MAX) + LATENCY
    }

    fn enqueue(&mut self, number: usize, items: &[Item]) {
        for item in items {
            let new = !self.wanted.contains_key(&item.asked);
            let wanted = self.wanted.entry(item.asked).or_default();
            wanted.lookups.push(number);
            if new {
                wanted.serial = Some(item.serial);
                self.queue.push_back(*item);
                self.serial = item.serial + 1;
            }
        }
    }

    /// A slot has come: the next places in their order.
    fn send(&mut self, now: Duration) {
        let mut items: Vec<Item> = Vec::new();
        while let Some(&item) = self.queue.front() {
            let shared = self.merges() || items.first().is_none_or(|first| first.serial == item.serial);
            if items.len() == self.options.batch || !shared {
                break;
            }
            self.queue.pop_front();
            if self.is_wanted(&item, now) {
                items.push(item);
            } else {
                self.release(&item, now);
            }
        }
        if !items.is_empty() {
            self.slots.sent(now, items.len());
            for item in &items {
                self.wanted.entry(item.asked).or_default().serial = None; // queued => under way
            }
            self.flights.push_back(Flight { started_at: now, items });
        }
        self.slots.waiting(now, !self.queue.is_empty());
    }

    fn is_wanted(&self, item: &Item, now: Duration) -> bool {
        let waits = |lookup: &usize| self.open[lookup].since + self.options.timeout > now;
        self.wanted[&item.asked].lookups.iter().any(waits)
    }

    fn answered(&mut self, now: Duration) {
        let Some(Flight { started_at, items }) = self.flights.pop_front() else { return };
        for item in items {
            self.cache.insert(item.kept_as, started_at);
            self.release(&item, now);
        }
    }

    /// Nobody waits for it any more.
    fn release(&mut self, item: &Item, now: Duration) {
        for number in self.wanted.remove(&item.asked).unwrap_or_default().lookups {
            let open = self.open.get_mut(&number).expect("this holds because it waits for this");
            open.left -= 1;
            if open.left > 0 {
                continue;
            }
            let waited = now - open.since;
            let fate = if waited <= self.options.timeout { Fate::Served } else { Fate::TimedOut };
            let told = Told { fate, waited: waited.min(self.options.timeout), ..open.told };
            self.measure.tell(told);
            self.open.remove(&number);
        }
    }
}
