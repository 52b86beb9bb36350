//! One case after the other, and in each the servers in turn, round after round.

use std::{path::Path, time::Duration};

use crate::{
    customers,
    load::{Ask, Load},
    options::{Build, Keys, Options},
    peers,
    reply::Protocol,
    server::Server,
    usage::{self, Cpu},
};

/// Keys in one lookup while a gateway's cache is filled: as many as one upstream request carries.
const BATCH: usize = 100;
/// Connections that fill a cache.
const FILLERS: usize = 16;
/// Answers that are compared with what they should be, before anything is measured.
const COMPARED: usize = 200;
/// A server that is asked for more than this part of what it can do keeps no pace: its latency would say nothing.
const KEEPS_UP: f64 = 0.95;

/// What the upstream may run for while nobody asks it: it notices that connections are closed.
const IDLE: Duration = Duration::from_millis(20);

/// The same lookups of every server.
pub(crate) struct Case {
    /// Keys of a lookup.
    pub(crate) keys: Keys,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests in a second while latency was measured.
    pub(crate) per_second: f64,
    /// A row for each server.
    pub(crate) rows: Vec<Row>,
}

/// What a server needed: medians of all rounds.
#[derive(Debug)]
pub(crate) struct Row {
    /// Which one.
    pub(crate) name: String,
    /// Microseconds of processor time for one request.
    pub(crate) cpu: f64,
    /// The part of it that is the program's own.
    pub(crate) user_part: f64,
    /// The same in every round.
    cpus: Vec<f64>,
    /// Requests in a second with all connections asking.
    pub(crate) per_second: f64,
    /// 50th, 99th and 99.9th percentile of latency in microseconds, where it could keep up.
    pub(crate) latency: Option<[f64; 3]>,
    /// The 99th percentile in every round.
    p99s: Vec<f64>,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

/// A server, what it is asked, and what it needed in each round.
struct Turn {
    server: Server,
    asks: Vec<Ask>,
    load: Load,
    pids: Vec<u32>,
    closed: Vec<(Cpu, u64, Duration)>,
    open: Vec<[f64; 3]>,
}

impl Case {
    /// How many times what another server needs this one needs, by what is taken of both in each round.
    fn ratio(&self, row: &Row, other: &str, of: fn(&Row) -> &[f64]) -> Option<f64> {
        let other = self.rows.iter().find(|row| row.name == other)?;
        let ratios = of(row).iter().zip(of(other)).map(|(one, other)| one / other);
        median(ratios.collect())
    }

    /// Processor time by another server's.
    pub(crate) fn cpu_ratio(&self, row: &Row, other: &str) -> Option<f64> {
        self.ratio(row, other, |row| &row.cpus)
    }

    /// The 99th percentile of latency by another server's.
    pub(crate) fn p99_ratio(&self, row: &Row, other: &str) -> Option<f64> {
        self.ratio(row, other, |row| &row.p99s)
    }
}

/// All servers, with lookups of so many keys: a case for each number of connections.
pub(crate) fn compare(options: &Options, keys: Keys, desk: &Path) -> Vec<Case> {
    let desk = tempfile::tempdir_in(desk).unwrap();
    let ids = customers::ids(options.customers);
    let lists = customers::lists(&ids, keys);
    let upstream = Server::upstream(desk.path());
    let mut servers = start(options, keys, &upstream, desk.path());
    for server in &servers {
        fill(server, &ids, &lists);
    }
    let (behind, mut cases) = (upstream.processes(), Vec::new());
    let before = usage::cpu(&behind);
    for &connections in &options.connections {
        let mut turns: Vec<Turn> = servers.drain(..).map(|server| Turn::new(server, &lists, connections)).collect();
        let per_second = measure(options, &mut turns);
        let rows = turns.iter().map(Turn::row).collect();
        servers.extend(turns.into_iter().map(|turn| turn.server));
        cases.push(Case { keys, connections, per_second, rows });
    }
    let asked = usage::since(&before).total;
    assert!(asked < IDLE, "every lookup is a hit, but the upstream ran for {asked:?}");
    cases
}

/// The servers that are wanted.
fn start(options: &Options, keys: Keys, upstream: &Server, desk: &Path) -> Vec<Server> {
    let pins = options.pins();
    let mut servers = Vec::new();
    if options.wants("floor") {
        servers.push(Server::floor(customers::answer_length(keys.count()), pins, desk));
    }
    if options.wants("gateway") {
        let build = Build { name: "gateway".to_owned(), path: env!("CARGO_BIN_EXE_audience-gateway").into() };
        servers.push(Server::gateway(&build, upstream.address, pins, desk));
    }
    servers.extend(options.gateway.iter().map(|build| Server::gateway(build, upstream.address, pins, desk)));
    if options.wants("nginx") {
        servers.push(peers::nginx(upstream.address, desk));
    }
    if options.wants("varnish") {
        servers.push(peers::varnish(upstream.address, desk));
    }
    if options.wants("redis") {
        servers.push(peers::redis(desk));
    }
    servers
}

/// Has a server see everything once, and compares some of what it then answers.
fn fill(server: &Server, ids: &[usize], lists: &[Vec<usize>]) {
    let mut load = Load::connect(server.address, server.protocol, FILLERS);
    let some = &lists[..lists.len().min(COMPARED)];
    let asks: Vec<Ask> = some.iter().map(|list| customers::http(list)).collect();
    match &*server.name {
        "floor" => {}
        "redis" => {
            let sets: Vec<Ask> = ids.iter().map(|&id| customers::set(id)).collect();
            load.each(&sets, None);
            let asks: Vec<Ask> = some.iter().map(|list| customers::mget(list)).collect();
            load.each(&asks, Some(&|index| customers::mget_answer(&some[index])));
        }
        "nginx" | "varnish" => {
            let all: Vec<Ask> = lists.iter().map(|list| customers::http(list)).collect();
            load.each(&all, None);
            load.each(&asks, Some(&|index| customers::answer(&some[index])));
        }
        _ => {
            let batches: Vec<Ask> = ids.chunks(BATCH).map(customers::http).collect();
            load.each(&batches, None);
            load.each(&asks, Some(&|index| customers::answer(&some[index])));
        }
    }
}

/// All rounds; at how many requests a second latency was measured.
fn measure(options: &Options, turns: &mut [Turn]) -> f64 {
    let lasts = Duration::from_secs_f64(options.seconds);
    // A first round that does not count: what is lazily made is made then.
    for turn in &mut *turns {
        turn.load.closed(&turn.asks, lasts / 4);
    }
    for _ in 0..options.rounds {
        turns.iter_mut().for_each(|turn| turn.closed(lasts));
    }
    let pace = turns.iter().find(|turn| turn.server.name == "gateway").or(turns.first()).map_or(1.0, Turn::saturated);
    let half = pace / 2.0;
    for _ in 0..options.rounds {
        for turn in turns.iter_mut().filter(|turn| turn.saturated() * KEEPS_UP > half) {
            turn.open(half, lasts);
        }
    }
    half
}

impl Turn {
    fn new(server: Server, lists: &[Vec<usize>], connections: usize) -> Self {
        let ask = if server.protocol == Protocol::Redis { customers::mget } else { customers::http };
        let asks = lists.iter().map(|list| ask(list)).collect();
        let load = Load::connect(server.address, server.protocol, connections);
        let pids = server.processes();
        Self { server, asks, load, pids, closed: Vec::new(), open: Vec::new() }
    }

    fn closed(&mut self, lasts: Duration) {
        let before = usage::cpu(&self.pids);
        let (answered, took) = self.load.closed(&self.asks, lasts);
        self.closed.push((usage::since(&before), answered, took));
    }

    fn open(&mut self, per_second: f64, lasts: Duration) {
        let took = self.load.open(&self.asks, per_second, lasts);
        self.open.push([0.5, 0.99, 0.999].map(|part| took.value_at_quantile(part) as f64 / 1e3));
    }

    /// Requests in a second when all connections ask.
    fn saturated(&self) -> f64 {
        median(self.closed.iter().map(|(_, answered, took)| *answered as f64 / took.as_secs_f64()).collect()).unwrap()
    }

    fn row(&self) -> Row {
        let cpus: Vec<f64> =
            self.closed.iter().map(|(cpu, answered, _)| cpu.total.as_secs_f64() * 1e6 / *answered as f64).collect();
        let percentile = |index: usize| median(self.open.iter().map(|all| all[index]).collect());
        let latency = percentile(0).zip(percentile(1)).zip(percentile(2));
        Row {
            name: self.server.name.clone(),
            cpu: median(cpus.clone()).unwrap(),
            user_part: median(self.closed.iter().map(|(cpu, ..)| cpu.user_part()).collect()).unwrap(),
            cpus,
            per_second: self.saturated(),
            latency: latency.map(|((p50, p99), p999)| [p50, p99, p999]),
            p99s: self.open.iter().map(|all| all[1]).collect(),
            resident: usage::resident(&self.pids),
        }
    }
}

/// The one in the middle.
fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}
