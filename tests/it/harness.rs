//! A gateway in front of the simulated upstream, all in this process and on tokio's clock.
//!
//! [`App::finish`] must be called at the end: it stops the gateway, and checks what must hold in every test: no two
//! lookups of a path reached the upstream closer than the interval, none carried two scopes, and every task ended. An
//! [`App`] that is dropped without it fails the test.

use std::{sync::Arc, time::Duration};

use audience_gateway::{
    config::Config,
    gateway::Gateway,
    server::duplex::{self, Connector},
    simulator::{self, Arrival, Simulator},
    upstream::connect::{Dial, Dialing, Io},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

/// The detail call below the base URL.
pub const DETAIL: &str = "/api/audience/detail";

/// Bytes that a connection holds in each direction.
const BUFFER: usize = 64 * 1024;

/// What a test starts with.
pub struct Setup {
    config: String,
    simulator: simulator::Config,
    interval: Duration,
}

impl Setup {
    /// The defaults, and an honest upstream without jitter.
    pub fn new() -> Self {
        let simulator = simulator::Config { jitter: Duration::ZERO, customers: 1000, ..simulator::Config::default() };
        Self { config: String::new(), simulator, interval: Duration::from_secs(1) }
    }

    /// Lines of configuration besides `upstream.base_url`.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// What the upstream is like.
    pub fn upstream(mut self, change: impl FnOnce(&mut simulator::Config)) -> Self {
        change(&mut self.simulator);
        self
    }

    /// The gap that is checked at the end, where the configuration sets another interval.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Starts everything.
    pub fn start(self) -> App {
        let text = format!("upstream.base_url = \"http://upstream/api/open\"\n{}", self.config);
        let config = Config::parse(&text, std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
        let simulator = Simulator::new(self.simulator);
        let mut tasks = JoinSet::new();
        let dial = Pipes::new(simulator.clone(), &mut tasks);
        let gateway = Gateway::new(config, Arc::new(dial)).expect("every path has a safe form");
        let (callers, listener) = duplex::pair();
        let (operators, admin) = duplex::pair();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ended, end) = oneshot::channel();
        tasks.spawn(async move {
            let shutdown = async {
                let _told = stopped.await;
            };
            gateway.serve(listener, admin, shutdown).await;
            let _nobody = ended.send(Instant::now());
        });
        App { simulator, callers, operators, stop: Some(stop), end: Some(end), interval: self.interval, tasks }
    }
}

/// Connects to the simulator through memory.
pub struct Pipes {
    connections: mpsc::Sender<DuplexStream>,
}

impl Pipes {
    pub fn new(simulator: Simulator, tasks: &mut JoinSet<()>) -> Self {
        let (connections, mut accepts) = mpsc::channel(64);
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Some(io) = accepts.recv().await {
                serving.spawn(simulator.clone().serve_connection(io));
            }
            serving.join_all().await;
        });
        Self { connections }
    }
}

impl Dial for Pipes {
    fn dial(&self, _to: Uri) -> Dialing {
        let connections = self.connections.clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(BUFFER);
            connections.send(far).await?;
            Ok((Box::new(near) as Box<dyn Io>, false))
        })
    }
}

/// A running gateway and its upstream.
pub struct App {
    pub simulator: Simulator,
    callers: Connector,
    operators: Connector,
    stop: Option<oneshot::Sender<()>>,
    end: Option<oneshot::Receiver<Instant>>,
    interval: Duration,
    tasks: JoinSet<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer is text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header is text"))
    }

    /// The records, byte for byte.
    pub fn records(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            data: Vec<&'a serde_json::value::RawValue>,
        }
        assert_eq!(self.status, 200, "{}", self.text());
        let envelope: Envelope<'_> = serde_json::from_slice(&self.body).expect("an envelope");
        envelope.data.into_iter().map(|record| record.get().to_owned()).collect()
    }

    /// The name in `errorCode`.
    pub fn error_code(&self) -> String {
        self.json()["errorCode"].as_str().unwrap_or_default().to_owned()
    }
}

impl App {
    /// Looks up with this body.
    pub async fn lookup(&self, body: &str) -> Reply {
        self.lookup_with(body, &[]).await
    }

    /// Looks up with this body and these headers.
    pub async fn lookup_with(&self, body: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::POST, DETAIL, body, headers).await
    }

    /// Sends any request.
    pub async fn send(&self, method: Method, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
        call(&self.callers, request(method, path, body, headers)).await
    }

    /// A lookup that somebody else waits for: everything it needs is its own.
    pub fn caller(&self) -> Caller {
        Caller(self.callers.clone())
    }

    /// Asks the admin listener.
    pub async fn admin(&self, path: &str) -> Reply {
        call(&self.operators, request(Method::GET, path, "", &[])).await
    }

    /// One metric's value: the sample whose line begins with this.
    pub async fn metric(&self, sample: &str) -> f64 {
        let reply = self.admin("/metrics").await;
        let line =
            reply.text().lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no sample {sample} in\n{}", reply.text()));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a sample ends in a number")
    }

    /// The lookups that reached the upstream.
    pub fn upstream_lookups(&self) -> Vec<Arrival> {
        self.simulator.lookups()
    }

    /// Tells the gateway to stop, and goes on.
    pub fn begin_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// When the gateway ended; waits for it.
    pub async fn ended(&mut self) -> Instant {
        self.end.take().expect("it ends once").await.expect("the gateway ends by itself")
    }

    /// Stops everything, in a test in which somebody else asks the upstream too.
    pub async fn stop_without_pace_check(mut self) {
        self.interval = Duration::ZERO;
        self.finish().await;
    }

    /// Stops everything and checks what must hold in every test.
    pub async fn finish(mut self) {
        self.begin_to_stop();
        if self.end.is_some() {
            self.ended().await;
        }
        let arrivals = self.upstream_lookups();
        for (one, next) in arrivals.iter().zip(arrivals.iter().skip(1)) {
            let gap = next.moment - one.moment;
            assert!(gap >= self.interval, "two lookups reached the upstream {gap:?} apart");
        }
        self.tasks.shutdown().await;
        self.tasks = JoinSet::new();
        self.interval = Duration::ZERO;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.interval.is_zero(), "App::finish was not called");
        }
    }
}

/// Somebody who calls the gateway from a task of its own.
#[derive(Clone)]
pub struct Caller(Connector);

impl Caller {
    pub async fn lookup(self, body: String) -> Reply {
        self.lookup_with(body, &[]).await
    }

    pub async fn lookup_with(self, body: String, headers: &[(&str, &str)]) -> Reply {
        call(&self.0, request(Method::POST, DETAIL, &body, headers)).await
    }
}

/// A request as a caller with an ordinary library writes it.
pub fn request(method: Method, path: &str, body: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "gateway");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).expect("a request")
}

async fn call(to: &Connector, request: Request<Full<Bytes>>) -> Reply {
    exchange(to.connect(BUFFER).await.expect("the gateway listens"), request).await
}

/// Sends one request over a connection of its own, whatever that runs over.
pub async fn exchange<S>(io: S, request: Request<Full<Bytes>>) -> Reply
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    try_exchange(io, request).await.expect("an answer")
}

/// The same of a gateway that may die meanwhile.
pub async fn try_exchange<S>(io: S, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let response: Response<hyper::body::Incoming> = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: parts.status, headers: parts.headers, body })
}

/// Runs many callers at once and gives their answers in order.
pub async fn all<F>(calls: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut order = Vec::new();
    for call in calls {
        order.push(tasks.spawn(call).id());
    }
    let mut answers = std::collections::HashMap::new();
    while let Some(answer) = tasks.join_next_with_id().await {
        let (id, answer) = answer.expect("a caller does not panic");
        answers.insert(id, answer);
    }
    order.iter().map(|id| answers.remove(id).expect("each is answered")).collect()
}

impl App {
    /// A connection for a caller who speaks HTTP by hand; an error when nobody accepts any more.
    pub async fn connect(&self) -> std::io::Result<DuplexStream> {
        self.callers.connect(BUFFER).await
    }

    /// Sends these bytes, which must ask for the connection to be closed, and reads what comes back.
    pub async fn raw(&self, request: &str) -> Reply {
        let mut io = self.connect().await.expect("the gateway listens");
        // The gateway may answer and close before it has read all of it.
        let _closed = io.write_all(request.as_bytes()).await;
        read_reply(&mut io).await
    }

    /// Asks the admin listener with any method.
    pub async fn admin_with(&self, method: Method, path: &str) -> Reply {
        call(&self.operators, request(method, path, "", &[])).await
    }

    /// A connection for an operator who speaks HTTP by hand.
    pub async fn connect_operator(&self) -> DuplexStream {
        self.operators.connect(BUFFER).await.expect("the admin listener listens")
    }

    /// Sends the admin listener an order.
    pub async fn order(&self, path: &str, body: &str) -> Reply {
        self.order_with(Method::POST, path, body, &[("content-type", "application/json")]).await
    }

    /// Sends the admin listener any request.
    pub async fn order_with(&self, method: Method, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
        call(&self.operators, request(method, path, body, headers)).await
    }

    /// Whether a lookup is answered from the cache alone.
    pub async fn is_cached(&self, body: &str, headers: &[(&str, &str)]) -> bool {
        let headers: Vec<_> = headers.iter().copied().chain([("cache-control", "only-if-cached")]).collect();
        let reply = self.lookup_with(body, &headers).await;
        assert!(reply.status == 200 || reply.error_code() == "NOT_CACHED", "{}", reply.text());
        reply.status == 200
    }

    /// One lookup body for each key of a customer: by id, by third id, by each phone.
    pub fn ways(&self, customer: u64) -> Vec<String> {
        let customer = self.simulator.customer(customer);
        let mut ways = vec![format!(r#"{{"audienceUserIdList":[{}]}}"#, customer.id)];
        ways.extend(customer.third_id.iter().map(|third| format!(r#"{{"thirdIdList":["{third}"]}}"#)));
        ways.extend(customer.phones.iter().map(|phone| format!(r#"{{"phoneList":["{phone}"]}}"#)));
        ways
    }

    /// Asks the upstream without the gateway.
    pub async fn ask_upstream(&self, request: Request<Full<Bytes>>) -> Reply {
        let (near, far) = tokio::io::duplex(BUFFER);
        let mut serving = JoinSet::new();
        serving.spawn(self.simulator.clone().serve_connection(far));
        exchange(near, request).await
    }
}

/// Reads an answer to the end of its connection. Its body is taken as it is framed.
pub async fn read_reply(io: &mut DuplexStream) -> Reply {
    let mut bytes = Vec::new();
    let _reset = io.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("an answer is text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: http::HeaderName = name.parse().expect("a header's name");
        headers.append(name, value.parse().expect("a header's value"));
    }
    Reply { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
}
