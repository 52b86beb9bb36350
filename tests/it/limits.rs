//! Limits on what a caller, an operator or the upstream may send: how deep it is nested, and how much of it is in memory.

use std::time::Duration;

use audience_gateway::simulator::Fault;
use http::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, sleep},
};

use crate::harness::{App, DETAIL, Reply, Setup, read_reply};

const MIB: usize = 1 << 20;

/// Bodies with up to a MiB of brackets, closed and left open, where a value may stand.
fn nested(bytes: usize) -> Vec<String> {
    let (open, close) = ("[".repeat(bytes / 2 - 100), "]".repeat(bytes / 2 - 100));
    let objects = "{\"a\":".repeat(bytes / 5 - 100);
    let mut bodies = vec!["[".repeat(bytes), "{".repeat(bytes), objects.clone(), format!("{open}{close}")];
    for name in ["companyId", "phoneList", "audienceUserId", "phone", "all", "data", ""] {
        bodies.push(format!("{{\"{name}\":{open}{close}}}"));
        bodies.push(format!("{{\"{name}\":{open}"));
        bodies.push(format!("{{\"{name}\":[{objects}"));
    }
    bodies
}

/// Checks that it is refused for what it is.
#[track_caller]
fn assert_invalid(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), &*reply.error_code()), (400, "INVALID_REQUEST"), "{}", reply.text());
    assert!(!reply.text().contains("[["), "it is quoted");
}

fn by_phone(app: &App, customer: u64, more: &str) -> String {
    format!(r#"{{"phoneList":["{}"]{more}}}"#, app.simulator.customer(customer).phones[0])
}

#[tokio::test(start_paused = true)]
async fn a_lookup_a_purge_and_an_event_that_are_nested_too_deeply_are_refused_however_deep_that_is() {
    let app = Setup::new().start();
    let bodies = nested(MIB);
    assert_eq!(bodies.len(), 25);
    for body in &bodies {
        assert_invalid(&app.lookup(body).await);
        assert_invalid(&app.order("/purge", body).await);
    }
    for body in nested(60 << 10) {
        assert_invalid(&app.order("/events", &body).await);
    }
    assert!(app.upstream_lookups().is_empty());
    let deep = by_phone(&app, 2, &format!(r#","companyId":{}1{}"#, "[".repeat(65), "]".repeat(65)));
    for reply in [app.lookup(&deep).await, app.order("/purge", &deep).await, app.order("/events", &deep).await] {
        assert_invalid(&reply);
        assert!(reply.text().contains("nested more than 64 levels deep"), "{}", reply.text());
    }
    let fits = by_phone(&app, 2, &format!(r#","companyId":{}1{}"#, "[".repeat(63), "]".repeat(63)));
    assert_eq!(app.lookup(&fits).await.records().len(), 1);
    assert_eq!(app.order("/purge", &fits).await.status, 200);
    assert_eq!(app.order("/events", &fits).await.status, 200);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_nested_too_deeply_passes_whole_and_is_not_read() {
    let app = Setup::new().config("[[passthrough.invalidate]]\npath = \"/echo/raw\"").start();
    let customer = by_phone(&app, 2, "");
    app.lookup(&customer).await;
    let bodies = nested(MIB);
    for body in &bodies {
        let reply = app.send(Method::POST, "/echo/raw", body, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.text() == body), (200, true));
    }
    let phone = app.simulator.customer(2).phones[0].clone();
    let item =
        |depth: usize| format!(r#"{{"data":[{{"phone":"{phone}","x":{}{}}}]}}"#, "[".repeat(depth), "]".repeat(depth));
    app.send(Method::POST, "/echo/raw", &item(62), &[]).await;
    assert!(app.is_cached(&customer, &[]).await);
    let unread = app.metric(r#"gateway_invalidations_total{outcome="unreadable"}"#).await;
    assert_eq!(unread as usize, bodies.len() + 1);
    app.send(Method::POST, "/echo/raw", &item(61), &[]).await;
    assert!(!app.is_cached(&customer, &[]).await);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_nested_too_deeply_is_given_to_nobody() {
    let app = Setup::new().upstream(|upstream| (upstream.fault, upstream.fault_rate) = (Fault::Deep, 1.0)).start();
    let reply = app.lookup(&by_phone(&app, 2, "")).await;
    assert_eq!((reply.status.as_u16(), &*reply.error_code()), (502, "UPSTREAM_UNAVAILABLE"));
    let invalid =
        app.metric(&format!(r#"gateway_upstream_requests_total{{lookup="{DETAIL}",outcome="invalid"}}"#)).await;
    assert!(invalid >= 1.0);
    app.simulator.reconfigure(|upstream| upstream.fault = Fault::None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(app.lookup(&by_phone(&app, 2, "")).await.records().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_no_keys_have_a_limit_because_they_are_kept_with_every_key() {
    let app = Setup::new().start();
    let fields = |bytes: usize| by_phone(&app, 2, &format!(r#","companyId":"{}""#, "x".repeat(bytes)));
    assert_eq!(app.lookup(&fields(16_000)).await.records().len(), 1);
    let reply = app.lookup(&fields(17_000)).await;
    assert_invalid(&reply);
    assert!(reply.text().contains("16 KiB"), "{}", reply.text());
    app.finish().await;
}

/// A caller who has sent so much of the body of a lookup, and no more as yet.
async fn begin(app: &App, path: &str, bytes: usize) -> DuplexStream {
    let mut io = app.connect().await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 200000\r\n\r\n");
    io.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..bytes / 1000 {
        io.write_all(&[b' '; 1000]).await.unwrap();
        tokio::task::yield_now().await;
    }
    settle().await;
    io
}

/// Lets every task do what it can.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_being_read_share_a_budget_and_over_it_a_lookup_is_refused() {
    let app = Setup::new().config("server.max_buffered = \"100KiB\"").start();
    let first = begin(&app, DETAIL, 60_000).await;
    let mut second = begin(&app, DETAIL, 60_000).await;
    let at = Instant::now();
    let reply = read_reply(&mut second).await;
    assert_eq!((reply.status.as_u16(), &*reply.error_code(), reply.header("retry-after")), (503, "OVERLOADED", "1"));
    assert_eq!(at.elapsed(), Duration::ZERO);
    // What comes in one piece is in nobody's way, and operators have a budget of their own.
    assert_eq!(app.lookup(&by_phone(&app, 2, "")).await.records().len(), 1);
    let purge = by_phone(&app, 2, &" ".repeat(80_000));
    assert_eq!(app.order("/purge", &purge).await.status, 200);
    // Whatever the first comes to, its part is free again.
    drop(first);
    settle().await;
    let mut third = begin(&app, DETAIL, 90_000).await;
    let body = by_phone(&app, 2, "");
    third.write_all(format!("{}{body}", " ".repeat(110_000 - body.len())).as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut third).await.status, 503, "at the last it was too much");
    let mut fourth = begin(&app, DETAIL, 90_000).await;
    fourth.shutdown().await.unwrap();
    assert_eq!(read_reply(&mut fourth).await.status, 400, "it broke off");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_for_which_there_is_no_room_passes_and_is_not_read() {
    let app = Setup::new()
        .config("server.max_buffered = \"100KiB\"\n[[passthrough.invalidate]]\npath = \"/echo/raw\"")
        .start();
    let customer = by_phone(&app, 2, "");
    app.lookup(&customer).await;
    let phone = app.simulator.customer(2).phones[0].clone();
    let write = format!(r#"{{"data":[{{"phone":"{phone}","x":"{}"}}]}}"#, "x".repeat(60_000));
    let other = begin(&app, DETAIL, 60_000).await;
    let reply = app.send(Method::POST, "/echo/raw", &write, &[]).await;
    assert_eq!((reply.status.as_u16(), reply.text() == write), (200, true));
    assert_eq!(app.metric(r#"gateway_invalidations_total{outcome="no_room"}"#).await, 1.0);
    assert!(app.is_cached(&customer, &[]).await);
    drop(other);
    settle().await;
    app.send(Method::POST, "/echo/raw", &write, &[]).await;
    assert_eq!(app.metric(r#"gateway_invalidations_total{outcome="applied"}"#).await, 1.0);
    assert!(!app.is_cached(&customer, &[]).await);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn larger_answers_count_until_their_callers_have_taken_them() {
    let app = Setup::new().config("server.max_buffered = \"400KiB\"").start();
    let ids: Vec<_> = (10..110).map(|index| app.simulator.customer(index).id.to_string()).collect();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","));
    assert_eq!(app.lookup(&body).await.records().len(), 100);
    // Nobody reads this one.
    let mut slow = app.connect().await.unwrap();
    let head =
        format!("POST {DETAIL} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    slow.write_all((head + &body).as_bytes()).await.unwrap();
    settle().await;
    let reply = app.lookup(&body).await;
    assert_eq!((reply.status.as_u16(), &*reply.error_code()), (503, "OVERLOADED"), "{}", reply.body.len());
    assert_eq!(app.lookup(&by_phone(&app, 10, "")).await.records().len(), 1);
    let mut whole = Vec::new();
    slow.read_to_end(&mut whole).await.unwrap();
    assert_eq!(app.lookup(&body).await.records().len(), 100);
    app.finish().await;
}
