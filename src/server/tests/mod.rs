//! The server as its clients see it, in paused time over in-memory streams.
//!
//! The harness is a server with a service that behaves as the path tells it, and a client that speaks plain text.

mod framing;
mod http2;
mod requests;
mod shutdown;
mod timeouts;
mod tls;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::oneshot,
    task::JoinSet,
    time::Instant,
};
use tower::{BoxError, service_fn};

use super::{Config, Listener, Peer, Reason, Received, Server, Stats, duplex};
use crate::clock;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const MIN_RATE: u64 = 240;
/// How long the service takes over `/slow`: longer than any timeout.
const SLOW: Duration = Duration::from_secs(200);
/// Bytes of the answer of `/whole` and `/pieces`: more than hyper and the stream buffer.
const LARGE: usize = 4 << 20;

/// A running server.
struct Fixture {
    connector: duplex::Connector,
    stats: Arc<Stats>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinSet<()>,
}

impl Fixture {
    fn new() -> Self {
        Self::limited_to(1000)
    }

    fn limited_to(max_connections: usize) -> Self {
        let (connector, listener) = duplex::pair();
        let (stats, stop, running) = start(listener, max_connections);
        Self { connector, stats, stop: Some(stop), running }
    }

    async fn connect(&self) -> Client<DuplexStream> {
        Client::new(self.connector.connect(64 << 10).await.expect("the server listens"))
    }

    /// A connection that has had an answer and is idle.
    async fn connect_idle(&self) -> Client<DuplexStream> {
        let mut client = self.connect().await;
        client.ask("/").await;
        assert!(client.answer().await.ends_with("hello"));
        client
    }

    fn begin_shutdown(&mut self) {
        self.stop.take().expect("shutdown begins once").send(()).expect("the server runs");
    }

    async fn wait_for_the_end(&mut self) {
        self.running.join_next().await.expect("the server was started").expect("the server does not panic");
    }
}

fn start<L: Listener + 'static>(listener: L, max_connections: usize) -> (Arc<Stats>, oneshot::Sender<()>, JoinSet<()>) {
    run(Server::new(config(max_connections)), listener)
}

fn config(max_connections: usize) -> Config {
    Config { max_connections, header_timeout: HEADER_TIMEOUT, idle_timeout: IDLE_TIMEOUT, min_rate: MIN_RATE }
}

fn run<L: Listener + 'static>(server: Server, listener: L) -> (Arc<Stats>, oneshot::Sender<()>, JoinSet<()>) {
    let stats = server.stats();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    running.spawn(server.serve(listener, service_fn(answer), async {
        // A dropped sender is no reason to stop: the fixture may be half gone.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    (stats, stop, running)
}

async fn answer(request: Request<Received>) -> Result<Response<Either<Full<Bytes>, Pieces>>, BoxError> {
    let peer = request.body().peer();
    let mut status = StatusCode::OK;
    let body = match request.uri().path() {
        "/" => Bytes::from("hello"),
        "/echo" => request.into_body().collect().await?.to_bytes(),
        "/peer" => Bytes::from(format!("{peer:?}")),
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            Bytes::from("slow")
        }
        "/whole" => Bytes::from(vec![b'x'; LARGE]),
        "/pieces" => return Ok(Response::new(Either::Right(Pieces { left: LARGE, pause: None }))),
        "/trickle" => {
            let pause = Some(Box::pin(tokio::time::sleep(IDLE_TIMEOUT)));
            return Ok(Response::new(Either::Right(Pieces { left: 4 * PIECE.len(), pause })));
        }
        // Waits for its body no longer than a client may take over its head.
        "/patient" => match tokio::time::timeout(HEADER_TIMEOUT, request.into_body().collect()).await {
            Ok(body) => body.map_or("broken".into(), |body| body.to_bytes()),
            Err(_elapsed) => {
                status = StatusCode::REQUEST_TIMEOUT;
                "late".into()
            }
        },
        "/408" => {
            status = StatusCode::REQUEST_TIMEOUT;
            "for reasons of its own".into()
        }
        "/panic" => panic!("the service panics because the test asks for it"),
        "/error" => return Err("the service fails because the test asks for it".into()),
        // Answers without reading the body.
        _ => {
            status = StatusCode::PAYLOAD_TOO_LARGE;
            Bytes::from("too large")
        }
    };
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    Ok(response)
}

/// A body in pieces: it is not given to hyper whole, so that its request stays under way until it is read.
struct Pieces {
    left: usize,
    /// Runs down before each of them.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

const PIECE: Bytes = Bytes::from_static(&[b'x'; 16 << 10]);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            pause.as_mut().reset(clock::now() + IDLE_TIMEOUT);
        }
        self.left -= PIECE.len();
        Poll::Ready(Some(Ok(Frame::data(PIECE))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// One end of a connection that speaks plain text.
struct Client<Io> {
    io: Io,
    since: Instant,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Client<Io> {
    fn new(io: Io) -> Self {
        Self { io, since: clock::now() }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.expect("the connection is open");
    }

    async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
    }

    /// The next answer, as long as its `content-length` says.
    async fn answer(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.io.read_u8().await.expect("an answer has a whole head"));
        }
        let head = String::from_utf8(text).expect("a head is text");
        let (_, rest) = head.split_once("content-length: ").expect("an answer has a length");
        let length = rest.lines().next().and_then(|length| length.parse().ok()).expect("a length is a number");
        let mut body = vec![0; length];
        self.io.read_exact(&mut body).await.expect("an answer has a whole body");
        head + &String::from_utf8(body).expect("these bodies are text")
    }

    /// Everything up to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        self.io.read_to_end(&mut text).await.expect("the connection ends orderly");
        String::from_utf8(text).expect("these answers are text")
    }

    /// Time since the client connected.
    fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// Lets every task do all that it can without time going on.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_ends_its_connection() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.ask("/error").await;
    assert_eq!(client.rest().await, "");
    fixture.connect_idle().await;
}

#[expect(dead_code, reason = "says at compile time that a service may be infallible")]
fn an_infallible_service_is_one(server: Server, listener: duplex::Duplex) -> impl Future<Output = ()> + Send {
    let service =
        service_fn(|_request: Request<Received>| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) });
    server.serve(listener, service, std::future::pending())
}
