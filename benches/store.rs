//! What the store costs: a disk, or a Redis, with many customers, after a `kill -9`.
//!
//! ```sh
//! make store
//! make store ARGS="--redis"
//! cargo bench --bench store -- --customers 1000000
//! ```
//! A process of its own saves customers, each under an id, a third id and a phone, as many at a time as an upstream request
//! brings, and is killed. Then another opens what it left:
//!
//! | row | means |
//! |---|---|
//! | fill | customers saved in a second, one request after another, and bytes on the disk, or of Redis' memory, for each |
//! | open | from nothing until the first key can be read |
//! | 1 key, 50 keys | reading so many keys, drawn at random, that the process has not read before; and reading them again |
//! | a request behind | from when a request's hundred answers are handed over until they survive any crash |
//! | memory | the growth of the process by all of that |
//!
//! The system's own cache of the files is as it is after filling: warm, where they fit into memory. Without `--bench`, which
//! `cargo bench` says, a few customers: a smoke test.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

use std::{
    convert::Infallible,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use audience_gateway::{
    clock::{self, Instant},
    key::{Id, Kind, Scope, Value},
    link,
    metrics::Metrics,
    record::{Parts, Record},
    shape::Shape,
    store::{Config, InRedis, OnDisk, Opened, Saving, Store},
};
use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Customers that one upstream request brings.
const BATCH: usize = 100;
/// Bytes of one record: what the platform's own examples have.
const RECORD: usize = 1541;
/// The first customer's id.
const FIRST: usize = 10_000_000;
/// Who owns the store.
const OWNER: &str = "bench";
/// Requests that are handed over before they are waited for: fewer than may wait.
const AHEAD: usize = 32;

/// Where the store is.
#[derive(Clone, Debug)]
enum Place {
    Disk(PathBuf),
    Redis(u16),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_no_port| Self::Disk(text.into()), Self::Redis))
    }
}

/// Fills a store, kills whoever did, and reads it.
#[derive(Clone, Parser, Debug)]
#[command(name = "store")]
struct Options {
    /// Customers in the store.
    #[arg(long, default_value_t = 100_000)]
    customers: usize,
    /// In a redis-server of its own, on this machine.
    #[arg(long)]
    redis: bool,
    /// Fills a directory, or the Redis at a port, and waits to be killed.
    #[arg(long, hide = true)]
    fill: Option<Place>,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
    /// A smoke test, whatever else is said.
    #[arg(long)]
    test: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    if let Some(place) = &options.fill {
        return fill(place, options.customers).await;
    }
    let customers = if options.bench && !options.test { options.customers } else { 500 };
    let folder = tempfile::tempdir().unwrap();
    let redis = options.redis.then(Redis::start);
    let place = match &redis {
        Some(redis) => Place::Redis(redis.port),
        None => Place::Disk(folder.path().join("store")),
    };
    let empty = place.bytes();
    let took = fill_and_kill(&place, customers);
    let kept = place.bytes() - empty;
    let rate = customers as f64 / took.as_secs_f64();
    say(&format!("| {customers} customers | p50 | p99 |\n|---|---:|---:|"));
    say(&format!("| fill | {rate:.0}/s | {} B each |", kept / customers as u64));

    let before = resident();
    let began = clock::now();
    let (store, _connection) = start(&place);
    let mut chance = fastrand::Rng::with_seed(1);
    assert_eq!(load(&store, &[chance.usize(..customers)]).await, 1);
    row("open", &[clock::now().saturating_duration_since(began)]);
    for (keys, rounds) in [(1, 2000), (50, 200)] {
        let rounds = rounds.min(customers / keys);
        let asked: Vec<Vec<usize>> =
            (0..rounds).map(|_| (0..keys).map(|_| chance.usize(..customers)).collect()).collect();
        for what in ["", " again"] {
            let mut took = Vec::with_capacity(rounds);
            for customers in &asked {
                let began = clock::now();
                let found = load(&store, customers).await;
                took.push(clock::now().saturating_duration_since(began));
                assert_eq!(found, keys, "everything is there");
            }
            row(&format!("{keys} key{}{what}", if keys == 1 { "" } else { "s" }), &took);
        }
    }
    let mut took = Vec::new();
    for request in 0..20 {
        let saving = saving(customers + request * BATCH..customers + (request + 1) * BATCH);
        let began = clock::now();
        store.save(saving);
        store.flush().await;
        took.push(clock::now().saturating_duration_since(began));
    }
    row("a request behind", &took);
    say(&format!("| memory | {} MiB | |", (resident() - before) >> 20));
}

/// Says it at once: whoever fills is killed.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn row(name: &str, took: &[Duration]) {
    let mut all = Histogram::<u64>::new(3).unwrap();
    took.iter().for_each(|took| all.record(u64::try_from(took.as_nanos()).unwrap()).unwrap());
    let micros = |part| all.value_at_quantile(part) as f64 / 1000.0;
    say(&format!("| {name} | {:.0} µs | {:.0} µs |", micros(0.5), micros(0.99)));
}

/// A store, and what keeps its connection if it needs one.
fn start(place: &Place) -> (Store, JoinSet<()>) {
    let (max_age, key_file) = (Duration::from_secs(86_400), None);
    let config = match place {
        Place::Disk(path) => Config::Disk(OnDisk { path: path.clone(), capacity: 1 << 40, max_age, key_file }),
        Place::Redis(port) => {
            let (host, tls, ca_file) = ("127.0.0.1".into(), false, None);
            let link = link::Config { host, port: *port, tls, database: 0, username: None, password: None, ca_file };
            Config::Redis(InRedis { link, prefix: "bench".into(), max_age, key_file })
        }
    };
    let opened = Opened::new(&config, OWNER).unwrap();
    let metrics = Metrics::new().store(matches!(place, Place::Redis(_)));
    let store = Store::start(opened, vec![Arc::new(Shape::audience_detail())], metrics);
    let mut tasks = JoinSet::new();
    if let Some(connection) = store.connection() {
        tasks.spawn(connection);
    }
    (store, tasks)
}

/// A redis-server on a port of its own, which keeps nothing on disk.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &text, "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is a package of Debian's");
        let began = clock::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(clock::now() < began + Duration::from_secs(10), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, port }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Place {
    /// As `fill` reads it.
    fn name(&self) -> String {
        match self {
            Self::Disk(path) => path.display().to_string(),
            Self::Redis(port) => port.to_string(),
        }
    }

    /// Bytes that it takes.
    fn bytes(&self) -> u64 {
        match self {
            Self::Disk(path) if !path.exists() => 0,
            Self::Disk(path) => {
                let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
                entries.map(|entry| entry.metadata().unwrap().len()).sum()
            }
            Self::Redis(port) => {
                let mut asking = TcpStream::connect(("127.0.0.1", *port)).unwrap();
                asking.write_all(b"INFO memory\r\nQUIT\r\n").unwrap();
                let mut said = String::new();
                asking.read_to_string(&mut said).unwrap();
                let line = said.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
                line.trim().parse().unwrap()
            }
        }
    }
}

/// Has another process fill the store, and kills it; how long it took.
fn fill_and_kill(place: &Place, customers: usize) -> Duration {
    let program = std::env::current_exe().unwrap();
    let began = clock::now();
    let mut filling = Command::new(program)
        .args(["--customers", &customers.to_string(), "--fill"])
        .arg(place.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(filling.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let took = clock::now().saturating_duration_since(began);
    filling.kill().unwrap();
    filling.wait().unwrap();
    assert_eq!(said, "filled\n");
    took
}

async fn fill(place: &Place, customers: usize) {
    let (store, _connection) = start(place);
    // The first load waits for the connection.
    let _nothing = load(&store, &[0]).await;
    for (number, first) in (0..customers).step_by(BATCH).enumerate() {
        store.save(saving(first..(first + BATCH).min(customers)));
        if number % AHEAD == AHEAD - 1 {
            store.flush().await;
        }
    }
    store.flush().await;
    say("filled");
    std::future::pending::<()>().await;
}

/// What a request brought that asked for these customers by their ids.
fn saving(customers: std::ops::Range<usize>) -> Saving {
    let (scope, at) = (scope(), clock::now());
    let records: Vec<Record> = customers.clone().map(|customer| record(&scope, customer, at)).collect();
    let answer = |customer: usize, record: &Record| {
        ids(customer).map(|id| (id, at, vec![record.clone()])).into_iter().collect::<Vec<_>>()
    };
    let answers = customers.zip(&records).flat_map(|(customer, record)| answer(customer, record)).collect();
    Saving { scope, envelope: Bytes::new(), records, answers, gone: Vec::new() }
}

async fn load(store: &Store, customers: &[usize]) -> usize {
    let scope = scope();
    let asked = customers.iter().map(|&customer| ids(customer)[0].clone()).collect();
    let loaded = store.load(&scope, &Arc::new(Shape::audience_detail()), asked).await;
    loaded.map_or(0, |loaded| loaded.believe(&scope).iter().map(|answer| answer.records.len()).sum())
}

fn scope() -> Arc<Scope> {
    Arc::new(Scope::new(0, Vec::new(), "{}", ""))
}

fn ids(customer: usize) -> [Id; 3] {
    let number = FIRST + customer;
    let text = |kind, text: String| Id { kind: Kind(kind), value: Value::Text(text.into()) };
    [
        Id { kind: Kind(0), value: Value::Int(i64::try_from(number).unwrap()) },
        text(1, format!("crm-{number}")),
        text(2, format!("138{number}")),
    ]
}

/// A record as the upstream gives it: tags that are no two customers' alike.
fn record(scope: &Arc<Scope>, customer: usize, fetched_at: Instant) -> Record {
    let id = FIRST + customer;
    let mut chance = fastrand::Rng::with_seed(id as u64);
    let mut json = format!(r#"{{"audienceUserId":{id},"thirdId":"crm-{id}","phone":"138{id}","tags":["#);
    while json.len() < RECORD - 48 {
        json.push_str(&format!(r#"{{"tagId":{},"name":"标签{}"}},"#, chance.u32(..1_000_000), chance.u16(..1000)));
    }
    json.push_str(r#""last"]}"#);
    let (scope, ids) = (Arc::clone(scope), ids(customer));
    Record::new(Parts { json: json.as_bytes(), scope, ids: &ids, carried: 3, identity: Some(0), fetched_at })
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}
