//! SIGHUP: the configuration is read again whole; what may change does, what may not is named, and a mistake changes nothing.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    harness::{DETAIL, request},
    program::{Desk, Program, by_id, customer, get, lookup, send, serve, simulate, until},
};

/// The lines that say something of a key, in the order in which they were written.
fn said_of(program: &Program, key: &str) -> Vec<String> {
    let log = program.stderr();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| line["key"] == key);
    lines.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A gateway with these lines, and then, once it has read them, with those.
async fn reloaded(
    desk: &Desk,
    upstream: SocketAddr,
    before: &str,
    after: &str,
    last: &str,
) -> (Program, SocketAddr, SocketAddr) {
    let (gateway, callers, operators) = serve(desk, &desk.config(upstream, before)).await;
    desk.config(upstream, after);
    gateway.signal("HUP");
    until("it to be read again", async || (!said_of(&gateway, last).is_empty()).then_some(())).await;
    (gateway, callers, operators)
}

#[tokio::test]
async fn what_may_change_does_and_what_may_not_is_named_once_for_each_reading() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "20ms"]).await;
    let before = "[[lookup]]\ninterval = \"30ms\"\n";
    let after = "cache.ttl = \"50ms\"\ncache.stale_while_revalidate = \"0s\"\ncache.capacity = \"1MiB\"\nserver.max_body = \"60B\"\n\
                 passthrough.allow = [\"/echo/only\"]\nlog.format = \"text\"\n\
                 [[lookup]]\ninterval = \"40ms\"\nmax_keys_per_request = 2\nmax_batch_keys = 3\nmixed_lists = \"never\"\n";
    let (gateway, callers, operators) = reloaded(&desk, upstream, before, after, "log.format").await;
    for key in [
        "cache.ttl",
        "cache.stale_while_revalidate",
        "server.max_body",
        "passthrough.allow",
        "lookup[0].interval",
        "lookup[0].max_keys_per_request",
        "lookup[0].max_batch_keys",
    ] {
        assert_eq!(said_of(&gateway, key), ["read again"], "{key}");
    }
    for key in ["cache.capacity", "log.format", "lookup[0].mixed_lists"] {
        let said = said_of(&gateway, key);
        assert!(said.len() == 1 && said[0].contains("needs a restart"), "{key}: {said:?}");
    }
    assert_eq!(get(callers, "/echo").await.status, 404);
    assert_eq!(get(callers, "/echo/only").await.status, 200);
    let three = r#"{"audienceUserIdList":[1,2,3]}"#;
    assert_eq!(lookup(callers, three).await.error_code(), "INVALID_REQUEST");
    assert_eq!(lookup(callers, &format!("{}{}", by_id(2), " ".repeat(60))).await.status, 413);
    let status = get(operators, "/status.json").await.json();
    assert_eq!(
        (&status["lookups"][0]["interval_seconds"], &status["lookups"][0]["max_batch_keys"]),
        (&0.04.into(), &3.into())
    );
    assert!(status["lookups"][0]["gap_seconds"].as_f64().unwrap() >= 0.04, "{status}");
    assert_eq!(status["lookups"][0]["learned_max_batch_keys"], 3);
    lookup(callers, &by_id(2)).await;
    until("it not to be fresh any more", async || {
        lookup(callers, &by_id(2)).await.header("cache-status").contains("fwd=stale").then_some(())
    })
    .await;

    // What is back as it was is not named, and the rest is again.
    desk.config(upstream, before);
    gateway.signal("HUP");
    until("the second reading", async || (said_of(&gateway, "cache.ttl").len() == 2).then_some(())).await;
    assert_eq!(said_of(&gateway, "log.format").len(), 1);
    assert_eq!(get(callers, "/echo").await.status, 200);
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_every_problem_is_named() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let broken =
        "log.level = \"loud hunter2\"\nserver.max_body = \"7B\"\ncache.ttl = 5\nclients.tokens_file = \"nowhere\"\n";
    let (mut gateway, callers, operators) = reloaded(&desk, upstream, "", broken, "log.level").await;
    for key in ["log.level", "cache.ttl", "clients.tokens_file"] {
        assert_eq!(said_of(&gateway, key), ["not read again: what was there before goes on"], "{key}");
    }
    assert_eq!(lookup(callers, &by_id(2)).await.records().len(), 1);
    assert_eq!(get(operators, "/log").await.json()["level"], "info");
    desk.write("gateway.toml", "[server\n");
    gateway.signal("HUP");
    until("the syntax error", async || gateway.stderr().contains("line 1").then_some(())).await;
    std::fs::remove_file(desk.0.path().join("gateway.toml")).unwrap();
    gateway.signal("HUP");
    until("the missing file", async || gateway.stderr().contains("cannot be read").then_some(())).await;
    assert!(!gateway.stderr().contains("hunter2"));
    assert_eq!(lookup(callers, &by_id(2)).await.status, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_level_in_the_file_counts_again_after_it_was_set_by_hand() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (gateway, _, operators) = serve(&desk, &desk.config(upstream, "")).await;
    assert_eq!(send(operators, Method::PUT, "/log", "debug", &[]).await.status, 200);
    gateway.signal("HUP");
    until("the level to be the file's", async || {
        (get(operators, "/log").await.json()["level"] == "info").then_some(())
    })
    .await;
    desk.config(upstream, "log.level = \"warn,audience_gateway::gateway=debug\"");
    gateway.signal("HUP");
    until("the new level", async || {
        let level = get(operators, "/log").await.json()["level"].clone();
        (level == "warn,audience_gateway::gateway=debug").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clients_rate_and_the_time_a_caller_waits_may_change() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--latency", "3s"]).await;
    // `printf %s red-canary | sha256sum`
    desk.write("tokens", "a:a6693b9dcf0bc84ac553d2f0a9f5c501788c3a1cc08b036ce6e15f0e2dc86711\n");
    let tokens = "clients.tokens_file = \"tokens\"\n";
    let after = format!("{tokens}clients.requests_per_second = 0.001\n[[lookup]]\ntimeout = \"200ms\"\n");
    let (_gateway, callers, _) = reloaded(&desk, upstream, tokens, &after, "lookup[0].timeout").await;
    let headers = [("authorization", "Bearer red-canary")];
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, customer(2).id);
    let began = tokio::time::Instant::now();
    let late = send(callers, Method::POST, DETAIL, &body, &headers).await;
    assert_eq!(late.error_code(), "LOOKUP_TIMEOUT");
    assert!(began.elapsed() < Duration::from_secs(2));
    let again = send(callers, Method::POST, DETAIL, &body, &headers).await;
    assert_eq!((again.status.as_u16(), again.error_code()), (429, "TOO_FREQUENT".to_owned()));
}

#[tokio::test]
async fn fewer_connections_and_less_memory_count_for_who_comes_next() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "10ms"]).await;
    let after = "server.max_connections = 1\nserver.max_buffered = \"50KiB\"\n";
    let config = desk.config(upstream, "[[lookup]]\ninterval = \"20ms\"\n");
    let (gateway, callers, _) = serve(&desk, &config).await;
    let io = TokioIo::new(TcpStream::connect(callers).await.unwrap());
    let (mut stays, connection) = http1::handshake(io).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let body = format!("{}{}", by_id(2), " ".repeat(100_000));
    let mut on_it = async || {
        stays.ready().await.unwrap();
        let response = stays.send_request(request(Method::POST, DETAIL, &body, &[])).await.unwrap();
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        status
    };
    assert_eq!(on_it().await, 200);
    desk.config(upstream, after);
    gateway.signal("HUP");
    until("it to be read again", async || (!said_of(&gateway, "server.max_connections").is_empty()).then_some(()))
        .await;
    assert_eq!(said_of(&gateway, "server.max_buffered"), ["read again"]);
    assert_eq!(lookup(callers, &by_id(2)).await.error_code(), "OVERLOADED", "one connection is there already");
    assert_eq!(on_it().await, 503, "its body is longer");
    desk.config(upstream, "");
    gateway.signal("HUP");
    until("it to be as before", async || (said_of(&gateway, "server.max_connections").len() == 2).then_some(())).await;
    assert_eq!(lookup(callers, &body).await.status, 200);
}
