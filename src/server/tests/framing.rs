//! What is no request is refused, and what hyper reads is what was judged.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::Value;

use super::*;
use crate::server::framing::{Framing, MAX_HEAD};

/// Whether this is the envelope's 400, and the last word.
fn is_refusal(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let envelope: Value = serde_json::from_str(body).unwrap_or_default();
    head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n") && envelope["errorCode"] == "INVALID_REQUEST"
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_refused_at_once_and_nothing_after_it_is_served() {
    let fixture = Fixture::new();
    for head in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\nhost: test\n\n", "\u{16}\u{3}\u{1}"] {
        let mut client = fixture.connect().await;
        client.send(&format!("{head}GET / HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        let all = client.rest().await;
        assert!(is_refusal(&all), "{all}");
        assert_eq!(client.age(), Duration::ZERO);
    }
    drop(fixture.connect_idle().await);
    tokio::time::sleep(crate::server::patience::LINGER * 2).await;
    assert_eq!(fixture.stats.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_is_answered_first_however_long_it_takes() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\nGET / HTTP/1.1\r\nhost : test\r\n\r\n").await;
    assert!(client.answer().await.ends_with("slow"));
    assert!(is_refusal(&client.rest().await));
    assert_eq!(client.age(), SLOW);
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_taken_whole_before_the_refusal() {
    for path in ["/whole", "/pieces"] {
        let fixture = Fixture::new();
        let mut client = fixture.connect().await;
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\nnonsense\r\n")).await;
        settle().await;
        assert!(client.answer().await.len() > LARGE);
        assert!(is_refusal(&client.rest().await));
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_has_begun_is_waited_for_when_the_server_drains() {
    let mut fixture = Fixture::new();
    let mut finishing = fixture.connect().await;
    let mut abandoned = fixture.connect_idle().await;
    finishing.send("GET / HT").await;
    abandoned.send("GET / HT").await;
    settle().await;
    fixture.begin_shutdown();
    settle().await;
    finishing.send("TP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(finishing.rest().await.ends_with("hello"));
    assert!(abandoned.rest().await.starts_with("HTTP/1.1 408"));
    drop((finishing, abandoned));
    fixture.wait_for_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_too_long_has_its_own_status() {
    let fixture = Fixture::new();
    let long = "x".repeat(2 * MAX_HEAD);
    for (head, status, code) in [
        (format!("GET / HTTP/1.1\r\nx: {long}"), "431", "HEADERS_TOO_LARGE"),
        (format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(101)), "431", "HEADERS_TOO_LARGE"),
        (format!("GET /{long}"), "414", "URI_TOO_LONG"),
    ] {
        let mut client = fixture.connect().await;
        // It may be closed before all of it is read.
        let _closed = client.io.write_all(head.as_bytes()).await;
        let _closed = client.io.write_all(b" HTTP/1.1\r\nhost: test\r\n\r\n").await;
        let answer = client.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    drop(fixture.connect_idle().await);
    tokio::time::sleep(crate::server::patience::LINGER * 2).await;
    assert_eq!((fixture.stats.open(), fixture.stats.ended(Reason::HeadTooLarge)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_head_of_every_permitted_size_reaches_the_service() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    let rest = "GET / HTTP/1.1\r\nhost: test\r\nx: \r\n\r\n".len();
    for size in [8 << 10, 16 << 10, MAX_HEAD - 1, MAX_HEAD] {
        client.send(&format!("GET / HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n", "x".repeat(size - rest))).await;
        assert!(client.answer().await.ends_with("hello"), "{size}");
    }
    client.send(&format!("GET / HTTP/1.1\r\nhost: test\r\n{}\r\n", "x: y\r\n".repeat(99))).await;
    assert!(client.answer().await.ends_with("hello"));
}

#[tokio::test(start_paused = true)]
async fn the_server_itself_says_which_methods_there_are() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nallow: GET, HEAD, POST, "), "{answer}");
    client.ask("/").await;
    assert!(client.answer().await.ends_with("hello"));
    client.send("GET * HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(is_refusal(&client.rest().await));
}

/// Requests that follow each other, with a few bytes changed.
fn garbled(random: &mut fastrand::Rng) -> Vec<u8> {
    const REQUESTS: [&str; 5] = [
        "GET /a HTTP/1.1\r\nHost: test\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello world",
        "POST /c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
        "PUT http://test/d HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nX: a\tb\r\n\r\n",
        "DELETE /e?f=g HTTP/1.1\r\nConnection: keep-alive\r\nhost:[::1]:80\r\n\r\n",
    ];
    const BYTES: &[u8] = b"\r\n\t \0:;,-_/?#0159aAzZ\"`<\x0b\x7f\x80\xff";
    let mut bytes: Vec<u8> = (0..3).flat_map(|_| REQUESTS[random.usize(..5)].bytes()).collect();
    for _ in 0..random.usize(..4) {
        let (at, byte) = (random.usize(..bytes.len()), BYTES[random.usize(..BYTES.len())]);
        match random.u8(..4) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            2 => bytes.insert(at, bytes[at]),
            _ => bytes[at] = byte,
        }
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn hyper_finds_the_requests_where_they_were_found_and_never_refuses_one_itself() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let service = service_fn(move |request: Request<Received>| {
        count.fetch_add(1, Relaxed);
        async move {
            let body = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(body.map_or_else(|_| Bytes::new(), |body| body.to_bytes()))))
        }
    });
    let (connector, listener) = duplex::pair();
    let config =
        Config { max_connections: 10, header_timeout: HEADER_TIMEOUT, idle_timeout: IDLE_TIMEOUT, min_rate: 0 };
    let mut running = JoinSet::new();
    running.spawn(crate::server::serve(listener, service, config, std::future::pending()));
    let mut faulty = 0;
    for seed in 0..4000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = garbled(&mut random);
        let mut client = Client::new(connector.connect(64 << 10).await.expect("the server listens"));
        for piece in bytes.chunks(random.usize(1..200)) {
            let _closed = client.io.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let _closed = client.io.shutdown().await;
        let mut answers = Vec::new();
        client.io.read_to_end(&mut answers).await.expect("an orderly end");
        let answers = String::from_utf8_lossy(&answers);
        let (heads, is_faulty) = Framing::heads(&bytes);
        faulty += u32::from(is_faulty);
        let text = bytes.escape_ascii();
        let served = served.swap(0, Relaxed);
        // HTTP/1.0 ends with its answer.
        let is_older = answers.contains("HTTP/1.0 ");
        assert!(served == heads || is_older && served < heads, "{served} of {heads}, seed {seed}: {text}\n{answers}");
        let own = answers.matches("HTTP/1.1 400").count() - answers.matches("INVALID_REQUEST").count();
        assert_eq!(own, 0, "hyper refused by itself, seed {seed}: {text}\n{answers}");
    }
    assert!((1000..3000).contains(&faulty), "{faulty} were faulty");
}
