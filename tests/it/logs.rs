//! What the program writes of its work, how that is changed while it runs, and where a caller's trace goes.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use audience_gateway::server::{self, Received};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};
use tower::service_fn;

use crate::{
    harness::{DETAIL, Setup},
    program::{Desk, Program, by_id, get, lookup, send, serve, simulate, until},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// The lines with this message, once there are so many.
async fn lines(program: &Program, message: &str, least: usize) -> Vec<Value> {
    until(message, async || {
        let log = program.stderr();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["message"] == message).collect();
        (lines.len() >= least).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn each_upstream_request_is_a_line_at_info_and_each_callers_at_debug() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "20ms"]).await;
    let config = desk.config(upstream, "log.level = \"debug\"\n[[lookup]]\ninterval = \"25ms\"\n");
    let (gateway, callers, _) = serve(&desk, &config).await;
    let traced = [("traceparent", PARENT), ("x-token", "one")];
    for headers in [&traced[..], &traced, &[("traceparent", "00-canary"), ("x-token", "other")]] {
        assert_eq!(send(callers, Method::POST, DETAIL, &by_id(2), headers).await.status, 200);
    }
    send(callers, Method::GET, "/echo/canary?canary=1", "", &[("traceparent", PARENT)]).await;
    send(callers, Method::GET, DETAIL, "", &[]).await;

    let asked = lines(&gateway, "upstream request", 2).await;
    assert_eq!(asked.len(), 2, "the second was a hit");
    for line in &asked {
        assert_eq!((&line["level"], &line["outcome"], &line["keys"]), (&"INFO".into(), &"success".into(), &1.into()));
        assert!(line["waited_ms"].is_u64() && line["took_ms"].is_u64(), "{line}");
        let scope = line["scope"].as_str().unwrap();
        assert!(scope.len() == 16 && scope.bytes().all(|byte| byte.is_ascii_hexdigit()), "{scope}");
    }
    assert_ne!(asked[0]["scope"], asked[1]["scope"], "two tokens are two scopes");
    assert_eq!((&asked[0]["trace_id"], asked[1].get("trace_id")), (&TRACE.into(), None));

    let requests = lines(&gateway, "request", 5).await;
    assert_eq!(requests.len(), 5);
    let of = |line: &Value| {
        (
            line["route"].clone(),
            line["status"].as_u64(),
            line["keys"].as_u64(),
            line["hits"].as_u64(),
            line["trace_id"].clone(),
        )
    };
    let null = Value::Null;
    for (line, expected) in requests.iter().zip([
        (DETAIL.into(), Some(200), Some(1), Some(0), TRACE.into()),
        (DETAIL.into(), Some(200), Some(1), Some(1), TRACE.into()),
        (DETAIL.into(), Some(200), Some(1), Some(0), null.clone()),
        ("passthrough".into(), Some(200), None, None, TRACE.into()),
        (DETAIL.into(), Some(405), None, None, null),
    ]) {
        assert_eq!(of(line), expected, "{line}");
        assert!(line["level"] == "DEBUG" && line["duration_ms"].is_f64(), "{line}");
    }
    assert!(!gateway.stderr().contains("canary"));
}

#[tokio::test]
async fn at_info_there_is_no_line_for_a_callers_request() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (gateway, callers, _) = serve(&desk, &desk.config(upstream, "")).await;
    lookup(callers, &by_id(2)).await;
    lines(&gateway, "upstream request", 1).await;
    assert!(!gateway.stderr().contains("\"request\"") && !gateway.stderr().contains("DEBUG"));
}

#[tokio::test]
async fn the_level_is_seen_and_set_while_it_runs_and_a_bad_one_changes_nothing() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (gateway, callers, operators) = serve(&desk, &desk.config(upstream, "")).await;
    let level = async || get(operators, "/log").await.json()["level"].as_str().unwrap().to_owned();
    assert_eq!(level().await, "info");
    for (body, headers, expected) in [
        (r#"{"level":"debug"}"#, &[("content-type", "application/json")][..], "debug"),
        (
            " info , audience_gateway::gateway = debug\n",
            &[("content-type", "text/plain; charset=utf-8")],
            "info,audience_gateway::gateway=debug",
        ),
        ("WARN", &[("content-type", "application/x-www-form-urlencoded")], "warn"),
        ("trace", &[], "trace"),
    ] {
        let reply = send(operators, Method::PUT, "/log", body, headers).await;
        assert_eq!((reply.status.as_u16(), reply.json()["level"].as_str()), (200, Some(expected)), "{}", reply.text());
        assert_eq!(level().await, expected);
    }
    lookup(callers, &by_id(2)).await;
    lines(&gateway, "request", 1).await;
    let long = "a".repeat(9 << 10);
    for (body, headers, status) in [
        ("canary", &[][..], 400),
        ("", &[], 400),
        (r#"{"level":"canary"}"#, &[], 400),
        (r#"{"level":7}"#, &[], 400),
        (r#"{"level":"info","canary":1}"#, &[], 400),
        (r#"{"canary"#, &[], 400),
        ("info", &[("content-type", "application/xml")], 415),
        ("info", &[("content-encoding", "gzip")], 415),
        (&long, &[], 413),
    ] {
        let reply = send(operators, Method::PUT, "/log", body, headers).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert!(!reply.json()["msg"].as_str().unwrap().contains("canary"));
        assert_eq!(level().await, "trace");
    }
    let other = send(operators, Method::POST, "/log", "info", &[]).await;
    assert_eq!((other.status.as_u16(), other.header("allow")), (405, "GET, HEAD, PUT"));
    let changes = lines(&gateway, "the log level was changed", 4).await;
    let new: Vec<_> = changes.iter().map(|line| (line["level"].as_str(), line["before"].as_str().unwrap())).collect();
    assert_eq!(new.len(), 4, "{changes:?}");
    assert!(!gateway.stderr().contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn the_level_is_for_operators_only() {
    let app = Setup::new().start();
    assert_eq!(app.admin("/log").await.json()["level"], "info");
    assert_eq!(app.order_with(Method::PUT, "/log", "off", &[]).await.status, 200);
    assert_eq!(app.admin("/log").await.json()["level"], "off");
    app.finish().await;
}

#[tokio::test]
async fn rust_log_is_the_level_where_no_variable_of_its_own_says_otherwise() {
    let desk = Desk::new();
    let path = desk.config("127.0.0.1:1".parse().unwrap(), "log.level = \"error\"");
    let check = ["check", "--config", path.to_str().unwrap()];
    for (environment, level) in [
        (&[("RUST_LOG", "info,audience_gateway::dispatch=debug")][..], "info,audience_gateway::dispatch=debug"),
        (&[("RUST_LOG", "debug"), ("GATEWAY_LOG__LEVEL", "warn")], "warn"),
        (&[("RUST_LOG", "")], "error"),
    ] {
        let (status, stdout, stderr) = Program::start_with(&desk, "check", &check, environment).finished().await;
        assert_eq!((status, &*stderr), (Some(0), ""));
        assert!(stdout.contains(&format!("level = \"{level}\"")), "{stdout}");
    }
    let (status, _, stderr) = Program::start_with(&desk, "check", &check, &[("RUST_LOG", "hunter2")]).finished().await;
    assert!(status == Some(64) && stderr.starts_with("audience-gateway: RUST_LOG: must be"), "{stderr}");
    assert!(!stderr.contains("hunter2"));
}

#[tokio::test]
async fn an_outage_is_a_line_when_it_begins_and_one_when_it_ends() {
    let desk = Desk::new();
    let (mut simulator, upstream) = simulate(&desk, &["--interval", "10ms"]).await;
    let config = desk.config(upstream, "[[lookup]]\ninterval = \"20ms\"\n");
    let (gateway, callers, _) = serve(&desk, &config).await;
    simulator.signal("KILL");
    simulator.exit().await;
    for _ in 0..8 {
        lookup(callers, &by_id(2)).await;
        send(callers, Method::GET, "/echo", "", &[]).await;
    }
    assert_eq!(lines(&gateway, "the upstream is down: misses are refused until it is back", 1).await.len(), 1);
    assert_eq!(lines(&gateway, "a request could not be passed through", 1).await.len(), 1);
    let listen = upstream.to_string();
    let _again = Program::start(&desk, "again", &["simulate", "--interval", "10ms", "--listen", &listen]);
    until("the upstream to be back", async || (lookup(callers, &by_id(2)).await.status == 200).then_some(())).await;
    get(callers, "/echo").await;
    for message in ["the upstream is up again", "requests can be passed through again"] {
        let said = lines(&gateway, message, 1).await;
        assert!(said.len() == 1 && said[0]["level"] == "WARN", "{said:?}");
    }
}

#[tokio::test]
async fn refusals_are_a_line_when_they_begin_and_one_when_they_are_over() {
    let desk = Desk::new();
    let (mut simulator, upstream) = simulate(&desk, &["--interval", "60s"]).await;
    let config = desk.config(upstream, "cache.capacity = \"0B\"\n[[lookup]]\ninterval = \"5ms\"\ntimeout = \"1s\"\n");
    let (gateway, callers, _) = serve(&desk, &config).await;
    assert_eq!(lookup(callers, &by_id(2)).await.status, 200);
    // Refused again and again, until its caller has gone.
    lookup(callers, &by_id(3)).await;
    let began = "the upstream says that it is asked too often";
    let line = &lines(&gateway, began, 1).await[0];
    assert!(line["level"] == "WARN" && line["gap_seconds"].is_f64(), "{line}");
    simulator.signal("KILL");
    simulator.exit().await;
    let listen = upstream.to_string();
    let _again = Program::start(&desk, "again", &["simulate", "--interval", "1ms", "--listen", &listen]);
    let ended = "the upstream does not say so any more";
    for _ in 0..500 {
        lookup(callers, &by_id(2)).await;
        if gateway.stderr().contains(ended) {
            break;
        }
    }
    assert_eq!(lines(&gateway, ended, 1).await.len(), 1);
    assert_eq!(lines(&gateway, began, 1).await.len(), 1);
}

#[tokio::test]
async fn the_lines_of_one_module_are_whole() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (gateway, callers, operators) = serve(&desk, &desk.config(upstream, "")).await;
    let filter = "warn,audience_gateway::gateway=debug";
    assert_eq!(send(operators, Method::PUT, "/log", filter, &[]).await.status, 200);
    lookup(callers, &by_id(2)).await;
    lookup(callers, "{}").await;
    let requests = lines(&gateway, "request", 2).await;
    assert_eq!((&requests[0]["keys"], &requests[0]["hits"]), (&1.into(), &0.into()));
    assert_eq!((&requests[1]["status"], requests[1].get("keys")), (&400.into(), None), "it has not been looked for");
    assert!(!gateway.stderr().contains("upstream request"));
}

type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// An upstream that knows nobody, and notes what it was asked.
async fn witness() -> (SocketAddr, Seen, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Received>| {
        noted.lock().unwrap().push((request.uri().path().to_owned(), request.headers().clone()));
        async {
            let body = r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[]}"#;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body.as_bytes()))))
        }
    });
    let limits = server::Config {
        max_connections: 100,
        header_timeout: crate::program::DEADLINE,
        idle_timeout: crate::program::DEADLINE,
        min_rate: 0,
    };
    let mut serving = JoinSet::new();
    serving.spawn(server::serve(listener, service, limits, std::future::pending()));
    (address, seen, serving)
}

/// The trace headers of the last request that came.
fn last(seen: &Seen) -> (Option<String>, Option<String>) {
    let seen = seen.lock().unwrap();
    let headers = &seen.last().expect("a request").1;
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    (text("traceparent"), text("tracestate"))
}

#[tokio::test]
async fn one_callers_trace_goes_on_upstream_as_it_came_and_a_bad_one_does_not() {
    let desk = Desk::new();
    let (upstream, seen, _serving) = witness().await;
    let (_gateway, callers, _) = serve(&desk, &desk.config(upstream, "[[lookup]]\ninterval = \"5ms\"\n")).await;
    let some = |text: &str| Some(text.to_owned());
    for (number, (headers, expected)) in [
        (&[("traceparent", PARENT)][..], (some(PARENT), None)),
        (&[("traceparent", PARENT), ("tracestate", "a=b,c=d")], (some(PARENT), some("a=b,c=d"))),
        (&[("traceparent", PARENT), ("tracestate", "not a list")], (some(PARENT), None)),
        (&[("traceparent", "00-0-0-0"), ("tracestate", "a=b")], (None, None)),
        (&[("tracestate", "a=b")], (None, None)),
        (&[], (None, None)),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(r#"{{"phoneList":["1380000{number}"]}}"#);
        assert_eq!(send(callers, Method::POST, DETAIL, &body, headers).await.status, 200);
        assert_eq!(last(&seen), expected);
    }
    let headers = [("traceparent", PARENT), ("tracestate", "a=b")];
    send(callers, Method::PUT, "/echo", "body", &headers).await;
    assert_eq!(last(&seen), (some(PARENT), some("a=b")), "what passes through passes as it is");
}

#[tokio::test]
async fn a_request_upstream_for_several_traces_has_one_of_its_own_and_the_log_says_whose_they_were() {
    let desk = Desk::new();
    let (upstream, seen, _serving) = witness().await;
    let config = "[[lookup]]\ninterval = \"5ms\"\nlinger = \"500ms\"\n";
    let (gateway, callers, _) = serve(&desk, &desk.config(upstream, config)).await;
    let mut asking = JoinSet::new();
    for (number, parent) in [(1, Some(PARENT)), (2, Some(OTHER)), (3, None)] {
        asking.spawn(async move {
            let headers: Vec<_> = parent.map(|parent| ("traceparent", parent)).into_iter().collect();
            let body = format!(r#"{{"phoneList":["1380000{number}"]}}"#);
            send(callers, Method::POST, DETAIL, &body, &headers).await
        });
    }
    asking.join_all().await;
    assert_eq!(seen.lock().unwrap().len(), 1, "they shared a request");
    let (parent, state) = last(&seen);
    let parent = parent.expect("a trace");
    let id = &parent[3..35];
    assert!(state.is_none() && ![TRACE, &OTHER[3..35]].contains(&id) && parent.ends_with("-03"), "{parent}");
    let line = &lines(&gateway, "upstream request", 1).await[0];
    assert_eq!(line["trace_id"], id);
    let linked: BTreeSet<&str> = line["linked_trace_ids"].as_str().unwrap().split(',').collect();
    assert_eq!(linked, BTreeSet::from([TRACE, &OTHER[3..35]]));
}
