//! The pass-through between a caller that speaks plain text and an upstream, in paused time over in-memory streams.
//!
//! The upstream is the simulator, or a script where it has to be wrong or to be watched.

mod answers;
mod faults;
mod limit;
mod paced;
mod requests;
mod streams;
mod writes;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinSet,
    time::timeout,
};
use tower::service_fn;

use super::{Cached, Config, Invalidate, Passthrough, Timeouts};
use crate::{
    cache::{self, Cache, Policy},
    key_log::KeyLog,
    live::Count,
    metrics::Metrics,
    request::budget::Budget,
    route::Path,
    server::{self, Demand, Received, duplex::Connector},
    shape::Shape,
    simulator::{self, Simulator},
    upstream::{
        self,
        client::Client,
        connect::{Dial, Dialing, Io},
        credentials::{Credentials, Mode, X_TOKEN},
    },
};

const BASE: &str = "/api/open";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// A piece of 3000 bytes buys all of the grace back.
const CALLER: Demand = Demand { grace: Duration::from_secs(30), min_rate: 100 };
const TIMEOUTS: Timeouts = Timeouts { caller: CALLER, upstream: Duration::from_secs(10) };
/// What one direction of a stream holds.
const PIPE: usize = 64 << 10;

/// What stands at the other end of a connection that was dialled.
type Upstream = Arc<dyn Fn(DuplexStream, &mut JoinSet<()>) + Send + Sync>;

/// Dials in-memory connections.
struct Wire {
    upstream: Option<Upstream>,
    tasks: Mutex<JoinSet<()>>,
}

impl Dial for Wire {
    fn dial(&self, to: Uri) -> Dialing {
        assert_eq!(to.authority().map(|authority| authority.as_str()), Some("upstream:8081"));
        let Some(upstream) = &self.upstream else {
            return Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()) });
        };
        let (near, far) = duplex(PIPE);
        upstream(far, &mut self.tasks.lock().expect("no test panics here"));
        Box::pin(async { Ok((Box::new(near) as Box<dyn Io>, false)) })
    }
}

/// A gateway that only passes through, and the way to it.
struct Fixture {
    connector: Connector,
    metrics: Metrics,
    _running: JoinSet<()>,
}

impl Fixture {
    /// In front of the simulator.
    fn new() -> Self {
        Self::with(&everything(), Some(simulated()))
    }

    /// In front of a script: every connection is given to it.
    fn scripted<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
    ) -> Self {
        let upstream: Upstream = Arc::new(move |io, tasks| drop(tasks.spawn(script(io))));
        Self::with(&everything(), Some(upstream))
    }

    /// In front of an upstream that reads a request's head and sends these bytes.
    fn answering(answer: &'static str) -> Self {
        Self::scripted(move |mut io| async move {
            read_head(&mut io).await;
            io.write_all(answer.as_bytes()).await.unwrap_or(());
            wait_for_end(&mut io).await;
        })
    }

    fn with(config: &Config, upstream: Option<Upstream>) -> Self {
        let metrics = Metrics::new();
        let wire = Wire { upstream, tasks: Mutex::default() };
        let client = Client::new(upstream_config(), Arc::new(wire));
        let cached = cached(&metrics);
        let passthrough = Arc::new(Passthrough::new(config, (client, TIMEOUTS), metrics.passthrough(), cached));
        let service = service_fn(move |request: Request<Received>| {
            let passthrough = Arc::clone(&passthrough);
            let path = Path::normalise(request.uri().path(), BASE).expect("these paths are safe");
            async move { Ok::<_, Infallible>(passthrough.handle(request, path).await) }
        });
        let limits = server::Config {
            max_connections: 100,
            header_timeout: 10 * SECOND,
            idle_timeout: 75 * SECOND,
            min_rate: 0,
        };
        let (connector, listener) = server::duplex::pair();
        let mut running = JoinSet::new();
        running.spawn(server::serve(listener, service, limits, std::future::pending()));
        Self { connector, metrics, _running: running }
    }

    async fn connect(&self) -> DuplexStream {
        self.connector.connect(PIPE).await.expect("the server listens")
    }

    /// Sends a request and returns everything that comes back until the connection is closed.
    async fn ask(&self, request: &str) -> String {
        let mut caller = self.connect().await;
        caller.write_all(request.as_bytes()).await.expect("the connection is open");
        read_all(&mut caller).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")).await
    }

    /// How many answers of a status were counted.
    fn counted(&self, status: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render(0, 0, &[])).expect("metrics are text");
        let name = format!("gateway_passthrough_requests_total{{status=\"{status}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a number"))
    }
}

fn everything() -> Config {
    Config {
        enabled: true,
        allow: vec!["/".to_owned()],
        inject_token: vec![],
        limits: vec![],
        invalidate: Invalidate::built_in(),
    }
}

/// What writes would make old: an empty cache.
fn cached(metrics: &Metrics) -> Cached {
    let policy = Policy { ttl: HOUR, negative_ttl: HOUR, stale_while_revalidate: HOUR, stale_if_error: HOUR };
    Cached {
        cache: Arc::new(Cache::new(
            &cache::Config { capacity: 1 << 20, policy, compression: cache::Compression::Off },
            metrics.cache(),
        )),
        shapes: vec![Arc::new(Shape::audience_detail())],
        credentials: Arc::new(Credentials::new(Mode::Forward(vec![X_TOKEN]))),
        budget: Budget::new(1 << 20),
        max_body: Count::new(1 << 10),
        metrics: metrics.invalidation(),
        key_log: KeyLog::default(),
    }
}

fn simulated() -> Upstream {
    let simulator = Simulator::new(simulator::Config::default());
    Arc::new(move |io, tasks| drop(tasks.spawn(simulator.clone().serve_connection(io))))
}

fn upstream_config() -> upstream::Config {
    upstream::Config {
        kind: upstream::Kind::Platform,
        base_url: Uri::from_static("http://upstream:8081/api/open"),
        connect_timeout: 3 * SECOND,
        request_timeout: TIMEOUTS.upstream,
        max_response: 1 << 20,
        ca_file: None,
        danger_accept_invalid_certs: false,
        credentials: Mode::Forward(Vec::new()),
    }
}

/// Reads up to the empty line.
async fn read_head(io: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("a head is text")
}

async fn read_all(io: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    timeout(1000 * SECOND, io.read_to_end(&mut text)).await.expect("an end in time").expect("an orderly end");
    String::from_utf8(text).expect("these answers are text")
}

/// Reads until the peer has gone, in whatever way.
async fn wait_for_end(io: &mut DuplexStream) {
    io.read_to_end(&mut Vec::new()).await.unwrap_or(0);
}

/// The body that `/echo` sent, as JSON.
fn echoed(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}
