//! Draining: every waiting caller is answered, nobody new is let in, and it ends in time.

use std::{io::ErrorKind, time::Duration};

use audience_gateway::simulator::Fault;
use http::Method;
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::harness::{App, DETAIL, Reply, Setup, read_reply, request};

/// Callers who have asked when this returns: each for `each` customers of its own.
async fn callers(app: &App, count: u64, each: u64) -> JoinSet<(Reply, Instant)> {
    let mut waiting = JoinSet::new();
    for number in 0..count {
        let ids: Vec<_> = (0..each).map(|n| app.simulator.customer(number * each + n).id.to_string()).collect();
        let caller = app.caller();
        waiting.spawn(async move {
            let reply = caller.lookup(format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))).await;
            (reply, Instant::now())
        });
    }
    settle().await;
    waiting
}

/// What is under way gets where it is going: a millisecond in which every task runs.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// A request by hand that is under way when this returns.
async fn under_way(app: &App, text: &str) -> tokio::io::DuplexStream {
    let mut io = app.connect().await.expect("the gateway listens");
    io.write_all(text.as_bytes()).await.expect("it is read");
    settle().await;
    io
}

#[tokio::test(start_paused = true)]
async fn callers_whose_turn_comes_within_the_grace_get_their_records_and_readyz_says_draining_meanwhile() {
    let mut app = Setup::new().config("[[lookup]]\nmax_batch_keys = 10").start();
    let mut waiting = callers(&app, 5, 10).await;
    let stopped = Instant::now();
    app.begin_to_stop();
    for after in [1, 1000, 2000] {
        sleep(Duration::from_millis(after)).await;
        let ready = app.admin("/readyz").await;
        assert_eq!((ready.status.as_u16(), ready.text().trim_end()), (503, "draining"));
        assert_eq!(app.admin("/livez").await.status, 200);
        assert_eq!(app.admin("/status.json").await.json()["phase"], "draining");
    }
    let mut last = stopped;
    while let Some(answered) = waiting.join_next().await {
        let (reply, at) = answered.unwrap();
        assert_eq!(reply.records().len(), 10);
        last = last.max(at);
    }
    assert!(last - stopped > Duration::from_secs(4), "five slots took {:?}", last - stopped);
    let ended = app.ended().await;
    assert!(ended - last < Duration::from_millis(100), "it went on for {:?}", ended - last);
    assert_eq!(app.upstream_lookups().len(), 5);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn callers_whose_turn_does_not_come_are_told_before_the_grace_ends() {
    let grace = Duration::from_secs(3);
    let mut app = Setup::new().config("server.shutdown_grace = \"3s\"\n[[lookup]]\nmax_batch_keys = 10").start();
    let mut waiting = callers(&app, 10, 10).await;
    let stopped = Instant::now();
    app.begin_to_stop();
    let (mut answered, mut told) = (0, 0);
    while let Some(reply) = waiting.join_next().await {
        let (reply, at) = reply.unwrap();
        assert!(at - stopped < grace, "answered after {:?}", at - stopped);
        if reply.status == 200 {
            assert_eq!(reply.records().len(), 10);
            answered += 1;
        } else {
            assert_eq!((reply.status.as_u16(), &*reply.error_code()), (503, "SHUTTING_DOWN"));
            assert_eq!(reply.header("retry-after"), "1");
            assert_eq!(reply.json()["data"], serde_json::Value::Null);
            told += 1;
        }
    }
    assert_eq!((answered, told), (3, 7), "three slots open within 2.7 s");
    assert!(app.ended().await - stopped <= grace);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_an_upstream_that_hangs_is_told_and_holds_nothing_up() {
    let mut app = Setup::new()
        .config("server.shutdown_grace = \"5s\"\nupstream.request_timeout = \"60s\"")
        .upstream(|upstream| (upstream.fault, upstream.fault_rate) = (Fault::Hang, 1.0))
        .start();
    let mut waiting = callers(&app, 3, 1).await;
    sleep(Duration::from_secs(2)).await;
    let stopped = Instant::now();
    app.begin_to_stop();
    while let Some(reply) = waiting.join_next().await {
        let (reply, at) = reply.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.error_code()), (503, "SHUTTING_DOWN"));
        assert!(at - stopped < Duration::from_secs(5));
    }
    assert!(app.ended().await - stopped <= Duration::from_secs(5));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_gateway_takes_no_new_connection() {
    let mut app = Setup::new().config("[[lookup]]\nmax_batch_keys = 10").start();
    let mut waiting = callers(&app, 3, 10).await;
    app.begin_to_stop();
    settle().await;
    let refused = app.connect().await.map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
    while let Some(answered) = waiting.join_next().await {
        assert_eq!(answered.unwrap().0.status, 200);
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_nobody_waits_for_ends_at_once() {
    let mut app = Setup::new().start();
    let id = app.simulator.customer(2).id;
    app.lookup(&format!(r#"{{"audienceUserIdList":[{id}]}}"#)).await;
    let mut idle = under_way(&app, "GET /echo HTTP/1.1\r\nhost: gateway\r\n\r\n").await;
    let unused = app.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let stopped = Instant::now();
    app.begin_to_stop();
    assert!(read_reply(&mut idle).await.status == 200, "the connection was kept, and is closed now");
    drop((idle, unused));
    assert_eq!(app.ended().await - stopped, Duration::ZERO);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_arrives_whole_does_not_outlast_the_grace() {
    let mut app = Setup::new().config("server.shutdown_grace = \"3s\"\nserver.header_timeout = \"60s\"").start();
    let head = format!("POST {DETAIL} HTTP/1.1\r\nhost: gateway\r\ncontent-length: 100\r\n\r\n{{");
    let half = under_way(&app, &head).await;
    let stopped = Instant::now();
    app.begin_to_stop();
    assert_eq!(app.ended().await - stopped, Duration::from_secs(3));
    drop(half);
    assert!(app.upstream_lookups().is_empty());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_progress_finishes() {
    let mut app = Setup::new().start();
    let mut stream = under_way(&app, "GET /slow?ms=2000 HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await;
    sleep(Duration::from_millis(500)).await;
    let stopped = Instant::now();
    app.begin_to_stop();
    let reply = read_reply(&mut stream).await;
    drop(stream);
    assert_eq!(reply.text().matches("drop\n").count(), 10);
    assert!(reply.text().ends_with("0\r\n\r\n"), "the whole of it: {}", reply.text());
    let took = app.ended().await - stopped;
    assert!((Duration::from_millis(1400)..Duration::from_millis(1700)).contains(&took), "{took:?}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_longer_than_the_grace_is_cut_off() {
    let mut app = Setup::new().config("server.shutdown_grace = \"3s\"").start();
    let mut stream = under_way(&app, "GET /slow?ms=60000 HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await;
    let stopped = Instant::now();
    app.begin_to_stop();
    assert_eq!(app.ended().await - stopped, Duration::from_secs(3));
    let reply = timeout(Duration::from_secs(1), read_reply(&mut stream)).await.expect("the connection is closed");
    assert!(!reply.text().ends_with("0\r\n\r\n"), "it must not look whole");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn with_no_grace_at_all_it_ends_at_once_and_nobody_is_left_waiting() {
    let mut app = Setup::new().config("server.shutdown_grace = \"0s\"").start();
    let io = app.connect().await.unwrap();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(io)).await.unwrap();
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        sender.send_request(request(Method::POST, DETAIL, &body, &[])).await.map(|response| response.status())
    });
    settle().await;
    let stopped = Instant::now();
    app.begin_to_stop();
    assert_eq!(app.ended().await - stopped, Duration::ZERO);
    let told = timeout(Duration::from_secs(1), waiting.join_next()).await.expect("its connection is closed");
    if let Ok(status) = told.unwrap().unwrap() {
        assert_eq!(status, 503);
    }
    app.finish().await;
}
