//! An upstream, a Redis, and gateways between them: started together, and ended with this value.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use audience_gateway::simulator::{self, Arrival, Outcome, Simulator};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::{
    options::{Options, Size},
    redis::Redis,
};

/// How often it is looked whether a gateway is ready: 5 ms apart, so for 20 s.
const PATIENCE: usize = 4_000;

/// All of them.
pub(crate) struct Town {
    desk: TempDir,
    size: Size,
    interval: Duration,
    /// The upstream, to be asked what it has and what arrived.
    pub(crate) simulator: Simulator,
    upstream: SocketAddr,
    /// What is between the gateways; without them knowing, where one is alone.
    pub(crate) redis: Redis,
    /// The gateways.
    pub(crate) gateways: Vec<Gateway>,
    _serving: oneshot::Sender<()>,
}

/// One of them.
pub(crate) struct Gateway {
    child: Child,
    /// Where it is asked.
    pub(crate) address: SocketAddr,
    operators: SocketAddr,
    config: PathBuf,
    /// How often it was killed and how often it was ready again: odd while it is not.
    lives: AtomicU64,
}

impl Town {
    /// Starts so many, and waits until they have found each other.
    pub(crate) fn start(options: &Options, size: Size, interval: Duration, customers: usize) -> Self {
        let (allowed, customers) = (options.allowed(interval), u64::try_from(customers).unwrap());
        let simulator =
            Simulator::new(simulator::Config { interval: allowed, customers, ..simulator::Config::default() });
        let (upstream, serving) = serve(&simulator);
        let (desk, redis) = (tempfile::tempdir().unwrap(), Redis::start());
        let mut town =
            Self { desk, size, interval, simulator, upstream, redis, gateways: Vec::new(), _serving: serving };
        for number in 0..size.count() {
            let gateway = town.gateway(number);
            town.gateways.push(gateway);
        }
        town.gateways.iter().for_each(|gateway| gateway.ready(size));
        town
    }

    /// A gateway's configuration, all of it.
    fn configuration(&self, listen: SocketAddr, operators: SocketAddr) -> String {
        let (upstream, interval) = (self.upstream, humantime::format_duration(self.interval));
        let mut text = format!(
            "[server]\nlisten = \"{listen}\"\nadmin_listen = \"{operators}\"\n\
             [upstream]\nbase_url = \"http://{upstream}/api/open\"\n\
             [[lookup]]\npath = \"/api/audience/detail\"\ninterval = \"{interval}\"\n[log]\nlevel = \"warn\"\n"
        );
        if let Size::Shared(count) = self.size {
            let port = self.redis.port;
            text += &format!(
                "[replicas]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\nmax_replicas = {}\n",
                count.max(2)
            );
        }
        text
    }

    fn gateway(&self, number: usize) -> Gateway {
        let [address, operators] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let config = self.desk.path().join(format!("gateway-{number}.toml"));
        fs::write(&config, self.configuration(address, operators)).unwrap();
        let child = spawn(&config);
        Gateway { child, address, operators, config, lives: AtomicU64::new(0) }
    }

    /// Kills a gateway and starts it anew; the callers whom it takes with it know by its lives.
    pub(crate) fn kill(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        gateway.lives.fetch_add(1, Ordering::SeqCst);
        gateway.child.kill().unwrap();
        gateway.child.wait().unwrap();
        gateway.child = spawn(&gateway.config);
    }

    /// What arrived upstream.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.simulator.lookups()
    }
}

impl Gateway {
    /// Waits until it serves, and has found Redis.
    fn ready(&self, size: Size) {
        for _ in 0..PATIENCE {
            let metrics = crate::ask::metrics(self.operators);
            let connected = metrics.is_some_and(|text| text.contains("gateway_replicas_connected 1"));
            if connected || (size == Size::Alone && TcpStream::connect(self.address).is_ok()) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("a gateway is not ready");
    }

    /// Which of its lives it is in; odd while it has just been killed.
    pub(crate) fn life(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    /// Notes that it is ready again, if it is.
    pub(crate) fn look(&self) {
        if self.life() % 2 == 1 && TcpStream::connect(self.address).is_ok() {
            self.lives.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How many were refused, and the least time between two in milliseconds.
pub(crate) fn judge(arrivals: &[Arrival]) -> (usize, f64) {
    let refused = arrivals.iter().filter(|arrival| arrival.outcome == Outcome::Throttled).count();
    let gaps = arrivals.windows(2).map(|pair| (pair[1].judged - pair[0].judged).as_secs_f64() * 1e3);
    (refused, gaps.fold(f64::INFINITY, f64::min))
}

/// Serves the upstream in a thread of its own, for as long as what is returned is kept.
fn serve(simulator: &Simulator) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (serving, ended) = oneshot::channel::<()>();
    let simulator = simulator.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let shutdown = async {
                // It ends by being dropped.
                let _dropped = ended.await;
            };
            simulator.serve(listener, shutdown).await;
        });
    });
    (address, serving)
}

fn spawn(config: &PathBuf) -> Child {
    let log = File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
    let mut command = with_this(env!("CARGO_BIN_EXE_audience-gateway"));
    command.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

/// A program that ends when this one does, however that ends.
pub(crate) fn with_this(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
