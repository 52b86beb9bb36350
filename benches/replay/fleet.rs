//! Many gateways in front of one upstream, and what each thing that they share buys: on paper, because a machine that holds
//! fifty gateways and ten million customers is not at hand.
//!
//! ```sh
//! cargo bench --bench replay -- --fleet 50 --customers 10000000 --zipf 1.1 --rate 10000 --requests 36000000 --ttl 24h --capacity 250000
//! ```
//! A lookup has one key and comes to any of the gateways; customers are drawn by Zipf. Each row shares more than the one above:
//!
//! | row | means |
//! |---|---|
//! | `rate/n` | nothing: each gateway keeps to its part of the rate |
//! | `one-slot` | the slot: it goes to the gateway whose oldest key waits longest, for its own keys |
//! | `one-queue` | the queue: a request carries the keys of all, and answers whoever waits for them |
//! | `one-store` | the answers as well: what one has fetched no other asks again |
//!
//! What it leaves out: places are given in the order of arrival, nothing fails, nothing is refreshed behind, the store is as
//! large as it must be and answers at once, and nobody comes back who was turned away. A key whose place is too far back for
//! its caller's deadline is refused.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write},
    time::Duration,
};

use audience_gateway::{clock, dispatch::pacer::Pacer};
use fastrand::Rng;

use crate::{
    load::{Customer, Zipf},
    measure::LATENCY,
    options::Options,
    recent::Recent,
};

/// The part of the time, at its end, of which the hits are counted once more: the caches are warm by then, if ever.
const LAST: f64 = 0.1;

/// What the gateways have together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Shared {
    Nothing,
    Slot,
    Queue,
    Store,
}

impl Shared {
    const ALL: [Self; 4] = [Self::Nothing, Self::Slot, Self::Queue, Self::Store];

    fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "rate/n",
            Self::Slot => "one-slot",
            Self::Queue => "one-queue",
            Self::Store => "one-store",
        }
    }
}

/// What became of the lookups.
#[derive(Clone, PartialEq, Default, Debug)]
struct Row {
    lookups: u64,
    hits: u64,
    late_lookups: u64,
    late_hits: u64,
    refused: u64,
    requests: u64,
    keys: u64,
    /// Keys that were fetched although another gateway had a good answer.
    again: u64,
    /// In seconds, of those that waited.
    waits: Vec<f32>,
}

/// Keys that wait, and requests on their way.
#[derive(Default)]
struct Line {
    queue: VecDeque<Customer>,
    /// Who waits for what is queued or under way: which gateway, since when.
    waiting: HashMap<Customer, Vec<(usize, Duration)>>,
    flights: VecDeque<(Duration, Vec<Customer>)>,
    free_at: Duration,
}

struct Run<'a> {
    options: &'a Options,
    shared: Shared,
    gap: Duration,
    caches: Vec<Recent>,
    /// When each customer was last fetched by anybody.
    store: Vec<Option<Duration>>,
    lines: Vec<Line>,
    /// When the one slot is free, where there is one.
    free_at: Duration,
    /// Nothing happens before.
    next: Duration,
    row: Row,
}

/// Prints the table.
pub(crate) fn compare(options: &Options, to: &mut impl Write) -> io::Result<()> {
    let seconds = options.requests as f64 / options.rate;
    let (gateways, customers) = (options.fleet, options.customers);
    writeln!(to, "{gateways} gateways, {customers} customers, {} lookups in {seconds:.0} s\n", options.requests)?;
    writeln!(
        to,
        "| shared    |   hits | at the end | refused | wait p50 |    p99 | requests | keys each | asked again |"
    )?;
    writeln!(
        to,
        "|-----------|-------:|-----------:|--------:|---------:|-------:|---------:|----------:|------------:|"
    )?;
    for shared in Shared::ALL {
        let row = run(options, shared);
        writeln!(to, "{}", row.line(shared))?;
    }
    Ok(())
}

/// The same seed gives the same rows, and each thing that is shared helps.
pub(crate) fn smoke(options: &Options) {
    let options = Options {
        fleet: 8,
        customers: 20_000,
        requests: 60_000,
        rate: 400.0,
        zipf: 1.0,
        capacity: 2_000,
        ..options.clone()
    };
    let rows = Shared::ALL.map(|shared| run(&options, shared));
    assert_eq!(rows, Shared::ALL.map(|shared| run(&options, shared)), "the same seed gives the same rows");
    let [nothing, slot, queue, store] = rows;
    assert!(nothing.hits < queue.hits && slot.hits < queue.hits && queue.hits < store.hits);
    assert!(store.again == 0 && queue.again > 0 && store.refused < nothing.refused);
    assert!([&nothing, &slot, &queue, &store].iter().all(|row| row.keys <= row.requests * options.batch as u64));
}

fn run(options: &Options, shared: Shared) -> Row {
    let gateways = options.fleet;
    let (mut rng, zipf) = (Rng::with_seed(options.seed), Zipf::new(options.zipf, options.customers));
    let end = options.requests as f64 / options.rate;
    let lines = if shared < Shared::Queue { gateways } else { 1 };
    let mut run = Run {
        options,
        shared,
        gap: Pacer::new(options.interval, clock::now()).gap(),
        caches: (0..gateways).map(|_| Recent::new(options.capacity, options.ttl)).collect(),
        store: vec![None; options.customers],
        lines: (0..lines).map(|_| Line::default()).collect(),
        free_at: Duration::ZERO,
        next: Duration::MAX,
        row: Row::default(),
    };
    let mut clock = 0.0;
    for _ in 0..options.requests {
        clock += -(1.0 - rng.f64()).ln() / options.rate;
        let (gateway, customer) = (rng.usize(..gateways), zipf.draw(&mut rng));
        run.ask(Duration::from_secs_f64(clock), gateway, customer, clock > end * (1.0 - LAST));
    }
    run.row.waits.sort_unstable_by(f32::total_cmp);
    run.row
}

impl Run<'_> {
    fn ask(&mut self, now: Duration, gateway: usize, customer: Customer, late: bool) {
        self.advance(now);
        let is_good = |fetched_at: &Duration| now < *fetched_at + self.options.ttl;
        let known = self.store[customer as usize].filter(is_good);
        let mut hit = self.caches[gateway].get(customer.into(), now);
        if let Some(fetched_at) = known.filter(|_| !hit && self.shared == Shared::Store) {
            self.caches[gateway].insert(customer.into(), fetched_at);
            hit = true;
        }
        self.row.lookups += 1;
        self.row.hits += u64::from(hit);
        self.row.late_lookups += u64::from(late);
        self.row.late_hits += u64::from(hit && late);
        if hit {
            return;
        }
        let promise = self.promise(now, gateway);
        let own = gateway % self.lines.len();
        let line = &mut self.lines[own];
        if let Some(waiters) = line.waiting.get_mut(&customer) {
            return waiters.push((gateway, now));
        }
        if promise > self.options.timeout {
            self.row.refused += 1;
            return;
        }
        self.row.again += u64::from(known.is_some());
        line.waiting.insert(customer, vec![(gateway, now)]);
        line.queue.push_back(customer);
        self.next = self.next.min(now);
        self.advance(now);
    }

    /// How long a key would wait that came now.
    fn promise(&self, now: Duration, gateway: usize) -> Duration {
        let line = &self.lines[gateway % self.lines.len()];
        let slots = u32::try_from(line.queue.len() / self.options.batch).unwrap_or(u32::MAX);
        let busy = self.lines.iter().filter(|line| !line.queue.is_empty()).count().max(1);
        let (free_at, gap) = match self.shared {
            Shared::Nothing => (line.free_at, self.gap * u32::try_from(self.lines.len()).unwrap_or(u32::MAX)),
            Shared::Slot => (self.free_at, self.gap * u32::try_from(busy).unwrap_or(u32::MAX)),
            Shared::Queue | Shared::Store => (self.free_at, self.gap),
        };
        free_at.saturating_sub(now) + gap * slots + LATENCY
    }

    /// Lets happen what happens until then.
    fn advance(&mut self, now: Duration) {
        while self.next <= now {
            let landed = (0..self.lines.len()).filter_map(|at| Some((self.lines[at].flights.front()?.0, at))).min();
            let opened = self.opened();
            match (landed, opened) {
                (Some((ends, at)), opened) if ends <= now && opened.is_none_or(|(opens, _)| ends <= opens) => {
                    self.land(at);
                }
                (_, Some((opens, at))) if opens <= now => self.send(opens, at),
                (landed, opened) => {
                    let next = landed.into_iter().chain(opened).map(|(at, _)| at).min();
                    self.next = next.unwrap_or(Duration::MAX);
                    return;
                }
            }
        }
    }

    /// When the next request may start, and whose it is.
    fn opened(&self) -> Option<(Duration, usize)> {
        let since = |line: &Line| Some(line.waiting[line.queue.front()?][0].1);
        let waiting = self.lines.iter().enumerate().filter_map(|(at, line)| Some((since(line)?, at)));
        match self.shared {
            Shared::Nothing => waiting.map(|(since, at)| (since.max(self.lines[at].free_at), at)).min(),
            _ => waiting.min().map(|(since, at)| (since.max(self.free_at), at)),
        }
    }

    fn send(&mut self, now: Duration, at: usize) {
        let lines = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
        let line = &mut self.lines[at];
        let keys: Vec<_> = line.queue.drain(..line.queue.len().min(self.options.batch)).collect();
        self.row.requests += 1;
        self.row.keys += keys.len() as u64;
        match self.shared {
            Shared::Nothing => line.free_at = now + self.gap * lines,
            _ => self.free_at = now + self.gap,
        }
        line.flights.push_back((now + LATENCY, keys));
    }

    fn land(&mut self, at: usize) {
        let Some((now, keys)) = self.lines[at].flights.pop_front() else { return };
        for customer in keys {
            self.store[customer as usize] = Some(now - LATENCY);
            for (gateway, since) in self.lines[at].waiting.remove(&customer).unwrap_or_default() {
                self.row.waits.push((now - since).as_secs_f32());
                self.caches[gateway].insert(customer.into(), now - LATENCY);
            }
        }
    }
}

impl Row {
    fn line(&self, shared: Shared) -> String {
        let percent = |part: u64, whole: u64| format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64);
        let wait = |part: f64| {
            let at = (self.waits.len() as f64 * part) as usize;
            format!("{:.1} s", self.waits.get(at).copied().unwrap_or_default())
        };
        format!(
            "| {:<9} | {:>6} | {:>10} | {:>7} | {:>8} | {:>6} | {:>8} | {:>9.1} | {:>11} |",
            shared.as_str(),
            percent(self.hits, self.lookups),
            percent(self.late_hits, self.late_lookups),
            percent(self.refused, self.lookups),
            wait(0.5),
            wait(0.99),
            self.requests,
            self.keys as f64 / self.requests.max(1) as f64,
            percent(self.again, self.keys),
        )
    }
}
