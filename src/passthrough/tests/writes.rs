//! Writes: what became of them, when it is known, and what was cached of those whom they name.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tower::BoxError;

use super::*;
use crate::{
    cache::{Of, Said},
    clock,
    key::{Id, Key, Kind, Scope, Value},
    passthrough::{Body, judged::HELD},
};

const BODY: &str = r#"{"publicParams":{},"data":[{"audienceUserId":"7"}]}"#;
const DONE: &str = r#"{"code":"200","data":{"total":1},"errorCode":"0","msg":"操作成功"}"#;
const REFUSED: &str = r#"{"code":"100500","errorCode":"100500","msg":"操作频繁,请稍后重试","data":null}"#;

/// A pass-through with one cached answer, and what it counts.
struct Bench {
    passthrough: Passthrough,
    cache: Arc<Cache>,
    key: Key,
    metrics: Metrics,
}

impl Bench {
    /// In front of a script, or of nobody.
    fn new(upstream: Option<Upstream>) -> Self {
        let metrics = Metrics::new();
        let client = Client::new(upstream_config(), Arc::new(Wire { upstream, tasks: Mutex::default() }));
        let cached = cached(&metrics);
        let (cache, shape) = (Arc::clone(&cached.cache), Arc::clone(&cached.shapes[0]));
        let passthrough = Passthrough::new(&everything(), (client, TIMEOUTS), metrics.passthrough(), cached);
        let scope = Arc::new(Scope::new(0, vec![(X_TOKEN, "t".parse().expect("text"))], "{}", ""));
        let id = Id { kind: Kind(0), value: Value::Int(7) };
        let answers = vec![Of { id: id.clone(), records: vec![], keep: true }];
        let fetch = cache.open(&scope, clock::now());
        let _taken = fetch.store(&shape, Said { envelope: Bytes::new(), records: &[], answers });
        let bench = Self { passthrough, cache, key: Key { scope, id }, metrics };
        assert!(!bench.is_forgotten());
        bench
    }

    fn scripted<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::new(Some(Arc::new(move |io, tasks| drop(tasks.spawn(script(io))))))
    }

    /// In front of an upstream that reads a whole request, sends these bytes and closes.
    fn answering(answer: String) -> Self {
        Self::scripted(move |mut io| {
            let answer = answer.clone();
            async move {
                read_request(&mut io).await;
                io.write_all(answer.as_bytes()).await.unwrap_or(());
            }
        })
    }

    async fn write(&self) -> Response<Body> {
        self.send(Full::from(BODY)).await
    }

    async fn send<B>(&self, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let path = "/audience/info/batchAdd";
        let request = Request::post(path).header("x-token", "t").body(body).expect("a request");
        self.passthrough.handle(request, Path::normalise(path, BASE).expect("safe")).await
    }

    fn is_forgotten(&self) -> bool {
        self.cache.get(&self.key.scope, &self.key.id).is_none()
    }

    /// The outcomes counted so far.
    fn outcomes(&self) -> Vec<String> {
        let text = String::from_utf8(self.metrics.render(0, 0, &[])).expect("metrics are text");
        let counts = text.lines().filter_map(|line| line.strip_prefix("gateway_invalidations_total{outcome=\""));
        let counts = counts.filter_map(|line| line.split_once("\"} ")).filter(|(_, count)| *count != "0");
        counts.map(|(outcome, count)| format!("{outcome} {count}")).collect()
    }
}

/// A body in pieces, each sent when it is there.
struct Pieces(mpsc::Receiver<&'static str>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece.into()))))
    }
}

/// Reads a request whose length is told, and gives its body.
async fn read_request(io: &mut DuplexStream) -> String {
    let head = read_head(io).await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    io.read_exact(&mut body).await.expect("a whole body");
    String::from_utf8(body).expect("a body is text")
}

fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(start_paused = true)]
async fn only_a_write_that_certainly_did_not_happen_makes_nothing_old() {
    let long = format!(r#"{REFUSED}{}"#, " ".repeat(HELD));
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}\r\n", &DONE[..5]);
    let rows = [
        // Done.
        (answer(200, DONE), true),
        (answer(201, ""), true),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), true),
        (format!("{chunked}{:x}\r\n{}\r\n0\r\n\r\n", DONE.len() - 5, &DONE[5..]), true),
        (format!("HTTP/1.1 200 OK\r\n\r\n{DONE}"), true),
        // Refused.
        (answer(200, REFUSED), false),
        (format!("HTTP/1.1 200 OK\r\n\r\n{REFUSED}"), false),
        (answer(503, REFUSED), false),
        (answer(400, "no"), false),
        (answer(401, ""), false),
        (answer(400, &long), false),
        (answer(500, "<html>"), false),
        (answer(504, ""), false),
        // Nobody knows.
        (answer(200, &long), true),
        (chunked, true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhal".to_owned(), true),
        ("HTTP/1.1 400 Bad Request\r\ncontent-length: 500\r\n\r\nhal".to_owned(), true),
        ("HTTP/1.1 two hundred\r\n\r\n".to_owned(), true),
        (String::new(), true),
    ];
    for (answer, old) in rows {
        let bench = Bench::answering(answer.clone());
        let mut response = bench.write().await;
        while let Some(Ok(_)) = response.body_mut().frame().await {}
        drop(response);
        assert_eq!(bench.is_forgotten(), old, "{answer}");
        assert_eq!(bench.outcomes(), [if old { "applied 1" } else { "not_applied 1" }], "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_did_not_happen() {
    let bench = Bench::new(None);
    assert_eq!(bench.write().await.status(), StatusCode::BAD_GATEWAY);
    assert!(!bench.is_forgotten());
    assert_eq!(bench.outcomes(), ["not_applied 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_in_time_may_have_happened() {
    let bench = Bench::scripted(|mut io| async move { wait_for_end(&mut io).await });
    assert_eq!(bench.write().await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(bench.is_forgotten());
    assert_eq!(bench.outcomes(), ["applied 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_leaves_may_have_happened() {
    let bench = Bench::scripted(|mut io| async move { wait_for_end(&mut io).await });
    timeout(SECOND, bench.write()).await.expect_err("there is no answer");
    assert!(bench.is_forgotten());
    assert_eq!(bench.outcomes(), ["applied 1"]);

    let bench = Bench::scripted(|mut io| async move {
        read_request(&mut io).await;
        io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhal").await.expect("open");
        wait_for_end(&mut io).await;
    });
    let response = bench.write().await;
    assert!(!bench.is_forgotten());
    drop(response);
    assert!(bench.is_forgotten());
    assert_eq!(bench.outcomes(), ["applied 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_until_its_end_and_what_it_says_is_true_when_it_is_seen() {
    let (go, mut told) = mpsc::channel::<()>(1);
    let told = Arc::new(tokio::sync::Mutex::new(Some(async move { told.recv().await })));
    let bench = Bench::scripted(move |mut io| {
        let told = Arc::clone(&told);
        async move {
            let told = told.lock().await.take().expect("one connection");
            read_request(&mut io).await;
            let (start, end) = DONE.split_at(20);
            let head = format!("HTTP/1.1 200 OK\r\nx-own: 1\r\ncontent-length: {}\r\n\r\n{start}", DONE.len());
            io.write_all(head.as_bytes()).await.expect("open");
            told.await.expect("the test goes on");
            io.write_all(end.as_bytes()).await.expect("open");
            wait_for_end(&mut io).await;
        }
    });
    let mut response = bench.write().await;
    assert_eq!((response.status(), &response.headers()["x-own"]), (StatusCode::OK, &"1".parse().expect("text")));
    assert_eq!(response.body().size_hint().exact(), Some(DONE.len() as u64));
    timeout(SECOND, response.body_mut().frame()).await.expect_err("the end is not there");
    assert!(!bench.is_forgotten() && bench.outcomes().is_empty());
    assert_eq!(response.body().size_hint().exact(), Some(DONE.len() as u64));
    go.send(()).await.expect("the upstream waits");
    let first = response.body_mut().frame().await.expect("a frame").expect("no error");
    assert!(bench.is_forgotten());
    assert!(!response.body().is_end_stream());
    let rest = response.into_body().collect().await.expect("an orderly end").to_bytes();
    assert_eq!([first.into_data().expect("data"), rest].concat(), DONE.as_bytes());
    assert_eq!(bench.outcomes(), ["applied 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_is_seen_when_the_write_is_settled() {
    for head in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
        let bench = Bench::answering(head.to_owned());
        let response = bench.write().await;
        assert!(bench.is_forgotten() && response.body().is_end_stream(), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_streamed() {
    let bench = Bench::scripted(|mut io| async move {
        read_request(&mut io).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", HELD + 2);
        io.write_all(head.as_bytes()).await.expect("open");
        io.write_all(&[b' '; HELD + 1]).await.expect("open");
        wait_for_end(&mut io).await;
    });
    let mut response = bench.write().await;
    let mut seen = 0;
    while seen <= HELD {
        let frame = timeout(SECOND, response.body_mut().frame()).await.expect("it flows before its end is there");
        assert!(bench.is_forgotten());
        seen += frame.expect("more").expect("no error").into_data().expect("data").len();
    }
    timeout(SECOND, response.body_mut().frame()).await.expect_err("the end is not there");
}

#[tokio::test(start_paused = true)]
async fn a_body_flows_while_it_is_copied() {
    let (arrived, mut arrives) = mpsc::channel(8);
    let bench = Arc::new(Bench::scripted(move |mut io| {
        let arrived = arrived.clone();
        async move {
            read_head(&mut io).await;
            let mut seen = String::new();
            while !seen.ends_with("\r\n0\r\n\r\n") {
                seen.push(char::from(io.read_u8().await.expect("more")));
                if seen.ends_with("\"data\"") || seen.ends_with("\"7\"") {
                    arrived.send(()).await.expect("the test waits");
                }
            }
            io.write_all(answer(200, DONE).as_bytes()).await.expect("open");
            wait_for_end(&mut io).await;
        }
    }));
    let (frames, pieces) = mpsc::channel(1);
    let mut sending = JoinSet::new();
    sending.spawn({
        let bench = Arc::clone(&bench);
        async move { bench.send(Pieces(pieces)).await.into_body().collect().await.expect("an orderly end").to_bytes() }
    });
    let (start, rest) = BODY.split_at(BODY.find(":[").expect("a list"));
    let (middle, end) = rest.split_at(rest.find('}').expect("an item"));
    for piece in [start, middle] {
        frames.send(piece).await.expect("open");
        timeout(SECOND, arrives.recv()).await.expect("it arrives before the next is sent").expect("it says so");
        assert!(!bench.is_forgotten());
    }
    frames.send(end).await.expect("open");
    drop(frames);
    let answer = sending.join_next().await.expect("one").expect("no panic");
    assert_eq!(answer, DONE);
    assert!(bench.is_forgotten());
    assert_eq!(bench.outcomes(), ["applied 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_not_read() {
    let upstream = || Bench::answering(answer(200, DONE));
    let padded = |bytes: usize| format!("{BODY}{}", " ".repeat(bytes - BODY.len()));
    let limit = cached(&Metrics::new()).max_body.now();
    for (bytes, old) in [(limit, true), (limit + 1, false), (100 * limit, false)] {
        let bench = upstream();
        let _answer = bench.send(Full::from(padded(bytes))).await.into_body().collect().await.expect("an orderly end");
        assert_eq!(bench.is_forgotten(), old, "{bytes}");
        assert_eq!(bench.outcomes(), [if old { "applied 1" } else { "too_large 1" }], "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_wait_for_the_body_is_believed() {
    let bench = Bench::scripted(|mut io| async move {
        read_head(&mut io).await;
        io.write_all(answer(413, "no").as_bytes()).await.expect("open");
        wait_for_end(&mut io).await;
    });
    let answer = bench.send(Full::from(" ".repeat(4 << 20))).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    drop(answer.into_body().collect().await.expect("an orderly end"));
    assert!(!bench.is_forgotten());
    assert_eq!(bench.outcomes(), ["not_applied 1"]);
}
