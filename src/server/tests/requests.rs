//! What a client gets for its requests.

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::server::goodbye;

#[tokio::test(start_paused = true)]
async fn a_connection_serves_one_request_after_another() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    for _ in 0..3 {
        client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbody").await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");
    }
    assert_eq!((fixture.stats.open(), client.age()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    let echo = |body: &str| format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\n{body}");
    client.send(&["1", "2", "3"].map(echo).concat()).await;
    for body in ["1", "2", "3"] {
        assert!(client.answer().await.ends_with(body));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_shuts_down_its_side_still_gets_its_answer() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.ask("/slow").await;
    client.io.shutdown().await.expect("the connection is open");
    assert!(client.rest().await.ends_with("slow"));
    assert_eq!(client.age(), SLOW);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_between_requests_frees_its_place_at_once() {
    let fixture = Fixture::new();
    let client = fixture.connect_idle().await;
    assert_eq!(fixture.stats.open(), 1);
    drop(client);
    settle().await;
    assert_eq!(fixture.stats.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_connection_only() {
    let fixture = Fixture::new();
    let mut other = fixture.connect_idle().await;
    let mut client = fixture.connect().await;
    client.ask("/panic").await;
    assert_eq!(client.rest().await, "");
    settle().await;
    assert_eq!(fixture.stats.open(), 1);
    other.ask("/").await;
    assert!(other.answer().await.ends_with("hello"));
    fixture.connect_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_told_so() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("GET / HTTP/1.1\r\n").await;
    for number in 0..200 {
        client.send(&format!("header-{number}: value\r\n")).await;
    }
    client.send("\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_is_told_overloaded_and_closed() {
    let fixture = Fixture::limited_to(1);
    let mut first = fixture.connect_idle().await;
    let mut second = fixture.connect().await;
    second.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbo").await;
    let answer = second.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    let envelope: Value = serde_json::from_str(body).expect("an envelope is JSON");
    assert_eq!(envelope["errorCode"], "OVERLOADED");
    assert_eq!(second.rest().await, "");
    assert_eq!((fixture.stats.open(), fixture.stats.ended(Reason::Overloaded)), (1, 1));

    // The one that has a place is not disturbed, and its place is another's when it leaves.
    first.ask("/").await;
    first.answer().await;
    drop(first);
    settle().await;
    fixture.connect_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_over_the_limit_is_closed_soon() {
    let fixture = Fixture::limited_to(0);
    let mut client = fixture.connect().await;
    assert_eq!(client.rest().await, "");
    assert!(client.age() <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_connections_are_told_at_once() {
    let fixture = Fixture::limited_to(0);
    let mut silent = Vec::new();
    for _ in 0..goodbye::AT_ONCE {
        silent.push(fixture.connect().await);
    }
    settle().await;
    let mut one_more = fixture.connect().await;
    assert_eq!(one_more.rest().await, "");
    assert_eq!(one_more.age(), Duration::ZERO);
    assert_eq!(fixture.stats.ended(Reason::Overloaded), goodbye::AT_ONCE as u64 + 1);

    drop(silent);
    settle().await;
    let mut later = fixture.connect().await;
    later.ask("/").await;
    assert!(later.answer().await.starts_with("HTTP/1.1 503"));
}

/// In real time, because it is about sockets: addresses, and answers that a reset would destroy.
#[tokio::test]
async fn over_sockets_requests_have_their_peer_and_an_early_answer_survives_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (_stats, stop, mut running) = start(listener, 1);

    let mut client = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    let own = client.io.local_addr().expect("a connected socket has an address");
    client.ask("/peer").await;
    assert!(client.answer().await.ends_with(&format!("{:?}", Peer::at(Some(own)))));

    let upload = "x".repeat(128 << 10);
    let post = format!("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{upload}", upload.len());
    let mut refused = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    refused.send(&post).await;
    assert!(refused.rest().await.starts_with("HTTP/1.1 503"));
    client.send(&post).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 413"));

    stop.send(()).expect("the server runs");
    drop((client, refused));
    running.join_next().await.expect("the server was started").expect("the server does not panic");
    assert!(TcpStream::connect(address).await.is_err());
}
