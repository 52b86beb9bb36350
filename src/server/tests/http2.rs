//! HTTP/2: what a stream may do, and what a connection may wait for.

use http::{HeaderMap, Method};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

type Body2 = Full<Bytes>;

/// One end of a connection that speaks HTTP/2.
struct Caller {
    send: SendRequest<Body2>,
    running: JoinSet<()>,
    since: Instant,
}

impl Caller {
    async fn connect(fixture: &Fixture) -> Self {
        let io = fixture.connector.connect(64 << 10).await.expect("the server listens");
        let (send, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("HTTP/2 is spoken");
        let mut running = JoinSet::new();
        running.spawn(async move {
            // An error is seen by whoever waits for an answer.
            let _over = connection.await;
        });
        Self { send, running, since: clock::now() }
    }

    async fn ask(&mut self, request: Request<Body2>) -> hyper::Result<Response<Incoming>> {
        self.send.ready().await?;
        self.send.send_request(request).await
    }

    async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.ask(request(Method::GET, path, &[])).await
    }

    /// Waits for the end of the connection.
    async fn closed(&mut self) -> Duration {
        self.running.join_next().await.expect("it was started").expect("the client does not panic");
        self.since.elapsed()
    }
}

fn request(method: Method, path: &str, lines: &[(&'static str, &'static str)]) -> Request<Body2> {
    let request = Request::builder().method(method).uri(format!("http://test{path}"));
    let request = lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Full::default()).expect("a request")
}

async fn text(response: Response<Incoming>) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("these bodies are text"))
}

#[tokio::test(start_paused = true)]
async fn requests_on_one_connection_are_answered_side_by_side() {
    let fixture = Fixture::new();
    let mut caller = Caller::connect(&fixture).await;
    caller.send.ready().await.expect("open");
    let slow = caller.send.send_request(request(Method::GET, "/slow", &[]));
    let mut echoes = JoinSet::new();
    for number in 0..300 {
        let body = number.to_string();
        let mut send = caller.send.clone();
        echoes.spawn(async move {
            let request = Request::post("http://test/echo").body(Full::from(body.clone())).expect("a request");
            let (status, _, answer) = text(send.send_request(request).await.expect("an answer")).await;
            assert_eq!((status, answer), (StatusCode::OK, body));
        });
    }
    while let Some(echo) = echoes.join_next().await {
        echo.expect("it is answered");
    }
    assert!(caller.since.elapsed() < SLOW);
    // What is under way has no limit, however long nothing else happens.
    assert_eq!(text(slow.await.expect("an answer")).await.2, "slow");
    assert_eq!(fixture.stats.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_preface_may_come_in_pieces_and_what_only_begins_like_it_is_http_1() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.io.write_all(&[*byte]).await.expect("open");
        settle().await;
    }
    client.io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("open");
    let mut frame = [0; 9];
    client.io.read_exact(&mut frame).await.expect("a frame");
    assert_eq!(frame[3], 4, "the server's settings");

    let mut client = fixture.connect().await;
    client.send("PR").await;
    settle().await;
    client.send("OPFIND /upload HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 413"));

    // What began like it and went no further has a head's time.
    let mut client = fixture.connect().await;
    client.send("PRI").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408"));
    assert_eq!(client.age(), HEADER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_has_the_length_of_the_one_to_get_and_no_body() {
    let fixture = Fixture::new();
    let mut caller = Caller::connect(&fixture).await;
    let answer = caller.ask(request(Method::HEAD, "/", &[])).await.expect("an answer");
    let (status, headers, body) = text(answer).await;
    assert_eq!((status, &headers["content-length"], &*body), (StatusCode::OK, &"5".parse().expect("a value"), ""));
}

#[tokio::test(start_paused = true)]
async fn what_could_be_read_in_two_ways_as_http_1_is_refused_and_the_connection_goes_on() {
    let fixture = Fixture::new();
    let mut caller = Caller::connect(&fixture).await;
    for lines in [
        &[("host", "other")][..],
        &[("host", "test"), ("host", "test")],
        &[("content_length", "5")],
        &[("transfer.encoding", "chunked")],
        &[("content-length", "0"), ("content-length", "0")],
    ] {
        let (status, _, body) = text(caller.ask(request(Method::GET, "/", lines)).await.expect("an answer")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{lines:?}");
        assert!(body.contains(r#""errorCode":"INVALID_REQUEST""#), "{body}");
    }
    let same = [("host", "TEST")];
    assert_eq!(caller.ask(request(Method::GET, "/", &same)).await.expect("an answer").status(), StatusCode::OK);
    let tunnel = Request::connect("test:80").body(Full::default()).expect("a request");
    assert_eq!(caller.ask(tunnel).await.expect("an answer").status(), StatusCode::BAD_REQUEST);
    assert_eq!(caller.get("/").await.expect("an answer").status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_or_fails_resets_its_stream_alone() {
    let fixture = Fixture::new();
    let mut caller = Caller::connect(&fixture).await;
    caller.get("/panic").await.expect_err("the stream is reset");
    caller.get("/error").await.expect_err("the stream is reset");
    assert_eq!(text(caller.get("/").await.expect("an answer")).await.2, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_nothing_under_way_is_closed_after_the_idle_timeout() {
    let fixture = Fixture::new();
    let mut silent = Caller::connect(&fixture).await;
    let mut caller = Caller::connect(&fixture).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    text(caller.get("/").await.expect("an answer")).await;
    assert_eq!(silent.closed().await, IDLE_TIMEOUT);
    assert_eq!(caller.closed().await, Duration::from_secs(30) + IDLE_TIMEOUT);
    settle().await;
    assert_eq!(fixture.stats.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_gone() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("open");
    let mut frames = Vec::new();
    client.io.read_to_end(&mut frames).await.expect("the connection ends orderly");
    assert_eq!(client.age(), Duration::from_secs(20 + 20));
    assert_eq!(fixture.stats.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_its_answer_is_cut_and_one_that_reads_slowly_gets_all_of_it() {
    for path in ["/whole", "/pieces"] {
        let fixture = Fixture::new();
        let mut deaf = Caller::connect(&fixture).await;
        let answer = deaf.get(path).await.expect("an answer");
        let age = deaf.closed().await;
        assert!(age <= IDLE_TIMEOUT * 2, "{path}: {age:?}");
        answer.into_body().collect().await.expect_err("it was cut");

        let mut slow = Caller::connect(&fixture).await;
        let mut body = slow.get(path).await.expect("an answer").into_body();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame.expect("it goes on").into_data().expect("data").len();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(read, LARGE, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_what_comes_late_is_cut_as_soon() {
    let fixture = Fixture::new();
    let mut deaf = Caller::connect(&fixture).await;
    // The windows are used up by what nobody reads before the late answer has anything to send.
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(deaf.get("/pieces").await.expect("an answer"));
    }
    // Its first piece comes after the idle timeout; until then it is not the peer who is waited for.
    let late = deaf.get("/trickle").await.expect("an answer");
    assert_eq!(deaf.closed().await, IDLE_TIMEOUT + IDLE_TIMEOUT);
    drop((unread, late));
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_finishes_what_is_under_way_and_takes_nothing_new() {
    let mut fixture = Fixture::new();
    let mut idle = Caller::connect(&fixture).await;
    let mut busy = Caller::connect(&fixture).await;
    busy.send.ready().await.expect("open");
    let slow = busy.send.send_request(request(Method::GET, "/slow", &[]));
    text(idle.get("/").await.expect("an answer")).await;
    settle().await;
    fixture.begin_shutdown();
    assert_eq!(idle.closed().await, Duration::ZERO);
    settle().await;
    busy.get("/").await.expect_err("nothing new");
    assert_eq!(text(slow.await.expect("an answer")).await.2, "slow");
    fixture.wait_for_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_is_told_so() {
    let fixture = Fixture::limited_to(1);
    let _first = Caller::connect(&fixture).await;
    settle().await;
    let mut second = Caller::connect(&fixture).await;
    assert_eq!(second.get("/").await.expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(second.closed().await < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_caller_takes_back_is_dropped() {
    let mut fixture = Fixture::new();
    let mut caller = Caller::connect(&fixture).await;
    caller.send.ready().await.expect("open");
    let slow = caller.send.send_request(request(Method::GET, "/slow", &[]));
    settle().await;
    drop(slow);
    settle().await;
    // Nothing is left to be finished.
    fixture.begin_shutdown();
    fixture.wait_for_the_end().await;
    assert_eq!(caller.closed().await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_when_its_request_has_so_that_a_client_that_is_still_sending_gets_it_whole() {
    let fixture = Fixture::new();
    let mut caller = Caller::connect(&fixture).await;
    for bytes in [10, 100 << 10, 900 << 10] {
        let request = Request::post("http://test/upload").body(Full::from(vec![b'x'; bytes])).expect("a request");
        let (status, _, body) = text(caller.ask(request).await.expect("an answer")).await;
        assert_eq!((status, &*body), (StatusCode::PAYLOAD_TOO_LARGE, "too large"));
    }
    assert_eq!(text(caller.get("/").await.expect("an answer")).await.2, "hello");
}
