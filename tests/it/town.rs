//! Several gateways as processes, a real Redis between them, and the upstream in the test, so that it is seen when each
//! request arrives.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use audience_gateway::simulator::{self, Outcome, Simulator};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::program::{Desk, Program, customer, get, lookup_unless_killed, until};

/// The interval that the upstream allows.
const INTERVAL: Duration = Duration::from_millis(100);

/// The interval that the gateways keep. It is longer by what a machine that builds something else meanwhile may be late: two
/// slots that were granted as one are still seen, and that the pace is exact is shown where time is virtual.
pub const KEPT: Duration = Duration::from_millis(300);

/// More than all tests together ask for.
const CUSTOMERS: u64 = 1_000_000;

/// A redis-server on a port of its own, which keeps nothing on disk but what it is told to save.
pub struct Redis {
    child: Child,
    pub port: u16,
    folder: PathBuf,
    more: Vec<String>,
}

/// libfaketime, where Debian puts it.
pub fn faketime() -> String {
    let of = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    let found = std::fs::read_dir("/usr/lib").unwrap().map(|folder| of(folder.unwrap())).find(|path| path.exists());
    found.expect("libfaketime is installed by tests/setup.sh").to_str().unwrap().to_owned()
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_in(Path::new("/tmp"), &[]).await
    }

    /// One that keeps in this directory what it is told to save, with these arguments, in which `PORT` stands for its
    /// port.
    pub async fn start_in(folder: &Path, more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more: Vec<String> = more.iter().map(|more| more.replace("PORT", &port.to_string())).collect();
        let redis = Self { child: Self::spawn(port, (folder, &more)), port, folder: folder.to_owned(), more };
        redis.ready().await;
        redis
    }

    fn spawn(port: u16, (folder, more): (&Path, &[String])) -> Child {
        let (port, folder) = (port.to_string(), folder.to_str().unwrap());
        let file = format!("{port}.rdb");
        let arguments = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir", folder];
        let mut command = Command::new("redis-server");
        command.args(arguments).args(["--dbfilename", &file]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server is installed by tests/setup.sh")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What it saved last.
    pub fn saved(&self) -> PathBuf {
        self.folder.join(format!("{}.rdb", self.port))
    }

    async fn ready(&self) {
        let address = ("127.0.0.1", self.port);
        until("redis to listen", async || TcpStream::connect(address).await.ok()).await;
    }

    /// Ends it, and starts another in its place that knows nothing but what was saved.
    pub async fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(self.port, (&self.folder, &self.more));
        self.ready().await;
    }

    pub fn stop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -s $0 $1", name, &id]).status().unwrap().success());
    }

    /// Sends it a command, as a person would.
    pub fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let mut command = Command::new("redis-cli");
        let said = command.args(["-h", "127.0.0.1", "-p", &port]).args(words).output().unwrap();
        assert!(said.status.success(), "{words:?}");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An upstream, a Redis, and gateways between them.
pub struct Town {
    pub desk: Desk,
    pub simulator: Simulator,
    pub redis: Redis,
    pub gateways: Vec<Gateway>,
    /// What `[replicas]` says beside the kind, of the gateways that are started next.
    pub replicas: String,
    /// Where they take the upstream to be.
    pub upstream: SocketAddr,
    started: usize,
    _tasks: JoinSet<()>,
}

pub struct Gateway {
    pub program: Program,
    pub callers: SocketAddr,
    pub operators: SocketAddr,
}

impl Town {
    pub async fn new(gateways: usize, more: &str) -> Self {
        let redis = Redis::start().await;
        let replicas = format!("url = \"redis://127.0.0.1:{}\"\n{more}", redis.port);
        let mut town = Self::around(redis, replicas).await;
        for _ in 0..gateways {
            let gateway = town.gateway().await;
            town.gateways.push(gateway);
        }
        town
    }

    /// One without gateways yet.
    pub async fn around(redis: Redis, replicas: String) -> Self {
        let config = simulator::Config {
            interval: INTERVAL,
            customers: CUSTOMERS,
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            ..simulator::Config::default()
        };
        let (simulator, listener) = (Simulator::new(config), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let upstream = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(simulator.clone().serve(listener, std::future::pending()));
        let (desk, gateways) = (Desk::new(), Vec::new());
        Self { desk, simulator, redis, gateways, replicas, upstream, started: 0, _tasks: tasks }
    }

    /// The next gateway's configuration.
    pub fn config(&self) -> PathBuf {
        let more = format!(
            "upstream.connect_timeout = \"500ms\"\ncache.negative_ttl = \"1h\"\n[[lookup]]\npath = \"/api/audience/detail\"\n\
             interval = \"300ms\"\n[replicas]\nkind = \"redis\"\n{}",
            self.replicas
        );
        self.desk.config(self.upstream, &more)
    }

    /// Starts another gateway, and waits until it has found Redis.
    pub async fn gateway(&mut self) -> Gateway {
        let config = self.config();
        self.started += 1;
        let name = format!("gateway-{}", self.started);
        // Their clocks are hours apart, as far as they show the time of day.
        let skew = format!("{:+}h", (self.started as i64 % 5 - 2) * 7);
        let environment = [("LD_PRELOAD", &*faketime()), ("FAKETIME", &*skew), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let (program, callers, operators) = crate::program::serve_as(&self.desk, &name, &config, &environment).await;
        until("the gateway to find redis", async || {
            get(operators, "/metrics").await.text().contains("gateway_replicas_connected 1").then_some(())
        })
        .await;
        Gateway { program, callers, operators }
    }

    /// Where callers reach each gateway.
    pub fn callers(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(|gateway| gateway.callers).collect()
    }

    /// What the upstream must never have seen, whatever happened.
    pub fn check_arrivals(&self) -> usize {
        let arrivals = self.simulator.lookups();
        let gaps: Vec<Duration> = arrivals.windows(2).map(|pair| pair[1].judged - pair[0].judged).collect();
        let least = gaps.iter().min().copied().unwrap_or(INTERVAL);
        assert!(
            least >= INTERVAL,
            "two requests arrived {least:?} apart, the {}th of {}",
            gaps.iter().position(|gap| *gap == least).unwrap(),
            gaps.len()
        );
        assert!(arrivals.iter().all(|arrival| arrival.outcome != Outcome::Throttled));
        arrivals.len()
    }

    /// How often keys were asked of which nobody had to ask again.
    pub fn repeats(&self) -> usize {
        let arrivals = self.simulator.lookups();
        let mut seen = HashSet::new();
        arrivals
            .iter()
            .flat_map(|arrival| arrival.list("audienceUserIdList").to_vec())
            .filter(|key| !seen.insert(key.clone()))
            .count()
    }
}

/// Callers of one gateway, one after another, each with keys that nobody has asked for.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

/// Numbers of customers that no test has used.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A lookup of so many customers, and what must be answered.
pub fn question(count: usize) -> (String, Vec<String>) {
    let first = NEXT.fetch_add(count, Ordering::Relaxed) as u64;
    let ids: Vec<String> = (first..first + count as u64).map(|index| customer(index).id.to_string()).collect();
    (format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(",")), ids)
}

impl Load {
    /// So many callers at a time, each with so many keys, until it is stopped. What is answered is checked; where the
    /// gateway is gone or refuses, that is counted.
    pub fn start(gateways: &[SocketAddr], callers: usize, keys: usize) -> Self {
        let mut load =
            Self { stop: Arc::default(), answered: Arc::default(), refused: Arc::default(), tasks: JoinSet::new() };
        for &gateway in gateways {
            for _ in 0..callers {
                let (stop, answered, refused) =
                    (Arc::clone(&load.stop), Arc::clone(&load.answered), Arc::clone(&load.refused));
                load.tasks.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let (body, ids) = question(keys);
                        let Some(reply) = lookup_unless_killed(gateway, body).await else { return };
                        if reply.status == 200 {
                            let text = reply.text();
                            assert!(ids.iter().all(|id| text.contains(&**id)), "a customer is missing");
                            answered.fetch_add(1, Ordering::Relaxed);
                        } else {
                            assert!([429, 502, 503, 504].contains(&reply.status.as_u16()), "{}", reply.status);
                            refused.fetch_add(1, Ordering::Relaxed);
                            sleep(Duration::from_millis(50)).await;
                        }
                    }
                });
            }
        }
        load
    }

    /// Lets everybody who still waits have an answer. How many were answered, and how many were not.
    pub async fn finish(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

impl Gateway {
    /// One figure of its metrics.
    pub async fn figure(&self, name: &str) -> f64 {
        let metrics = get(self.operators, "/metrics").await;
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or_else(|| panic!("no {name}"))
    }
}
