//! Callers with a token: who is let in, how often, and that the token goes no further.

use std::{io::Write as _, time::Duration};

use audience_gateway::simulator::Call;
use http::Method;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::harness::{App, DETAIL, Reply, Setup, all};

/// What the clients say, and the file that knows them. `printf %s red-canary | sha256sum` makes such a hash.
const CRM: &str = "red-canary";
const BULK: &str = "blue-canary";
const CRM_HASH: &str = "a6693b9dcf0bc84ac553d2f0a9f5c501788c3a1cc08b036ce6e15f0e2dc86711";
const BULK_HASH: &str = "544f6db81a3e7c9bbf51e1b7c76a3082c9a1ec428f339a0d0935fbd19a24eb46";

/// Gateways whose callers need a token. The file is read at the start, and may go then.
fn with_clients(more: &str) -> (Setup, NamedTempFile) {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "# who may call\ncrm:{CRM_HASH}\n\nbulk:{BULK_HASH}").unwrap();
    let setup = Setup::new().config(&format!("clients.tokens_file = {:?}\n{more}", file.path()));
    (setup, file)
}

fn start(more: &str) -> App {
    with_clients(more).0.start()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn id(number: u64, app: &App) -> String {
    format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(number).id)
}

async fn look_as(app: &App, token: &str, body: &str) -> Reply {
    app.lookup_with(body, &[("authorization", &bearer(token)), ("x-token", "alice")]).await
}

#[track_caller]
fn is_refused(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, "Bearer"), "{}", reply.text());
    if !reply.body.is_empty() {
        assert_eq!(reply.error_code(), "UNAUTHENTICATED");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_no_token_that_is_known_is_refused_whatever_the_request_and_nothing_goes_upstream() {
    let app = start("");
    let body = id(1, &app);
    let sent = [None, Some(""), Some("Bearer"), Some("Bearer wrong"), Some("Basic red-canary"), Some("red-canary")];
    let requests = [
        (Method::POST, DETAIL),
        (Method::GET, DETAIL),
        (Method::OPTIONS, DETAIL),
        (Method::GET, "/echo"),
        (Method::OPTIONS, "/echo"),
        (Method::HEAD, "/echo"),
        (Method::GET, "/a%5cb"),
    ];
    for authorization in sent {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
        for (method, path) in &requests {
            is_refused(&app.send(method.clone(), path, &body, &headers).await);
        }
    }
    // The hash is not the token.
    is_refused(&look_as(&app, CRM_HASH, &body).await);
    let twice = [("authorization", &*bearer(CRM)), ("authorization", &*bearer(CRM))];
    is_refused(&app.lookup_with(&body, &twice).await);
    assert!(app.simulator.arrivals().is_empty());
    let refused = app.metric(&format!(r#"gateway_requests_total{{route="{DETAIL}",status="401"}}"#)).await;
    assert!((refused - 20.0).abs() < 0.5, "{refused}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let app = start("");
    let began = Instant::now();
    for path in [DETAIL, "/echo"] {
        // The body never comes.
        let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: 100\r\nconnection: close\r\n\r\n");
        is_refused(&app.raw(&head).await);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn clients_share_the_cache_and_none_of_their_tokens_goes_upstream() {
    let app = start("");
    let body = id(1, &app);
    assert_eq!(look_as(&app, CRM, &body).await.records().len(), 1);
    let second = look_as(&app, BULK, &body).await;
    assert!(second.header("cache-status").starts_with("audience-gateway; hit"), "{:?}", second.headers);
    let echo = app.send(Method::POST, "/echo", "hello", &[("authorization", &bearer(CRM)), ("x-token", "alice")]).await;
    assert!(echo.text().contains("alice") && echo.text().contains("hello"), "{}", echo.text());
    assert!(!echo.text().contains("authorization") && !echo.text().contains("canary"), "{}", echo.text());
    let arrivals = app.simulator.arrivals();
    assert_eq!(arrivals.iter().map(|arrival| arrival.call).collect::<Vec<_>>(), [Call::Detail, Call::Echo]);
    for arrival in &arrivals {
        assert_eq!((arrival.token.as_deref(), arrival.authorization.as_deref()), (Some("alice"), None));
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn any_other_header_carries_the_token_alone_and_authorization_passes() {
    let app = start("clients.header = \"X-Client\"");
    let body = id(1, &app);
    is_refused(&look_as(&app, CRM, &body).await);
    is_refused(&app.lookup_with(&body, &[("x-client", &bearer(CRM))]).await);
    assert_eq!(app.lookup_with(&body, &[("x-client", CRM)]).await.status, 200);
    let headers = [("x-client", CRM), ("authorization", "Basic eA==")];
    let echo = app.send(Method::GET, "/echo", "", &headers).await;
    assert!(echo.text().contains("Basic eA==") && !echo.text().contains("x-client"), "{}", echo.text());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_the_unit_of_fairness_wherever_it_calls_from() {
    // Over connections in memory, all callers have the same address: none.
    let app = start("[[lookup]]\nmax_batch_keys = 10\nmax_pending_keys = 1000");
    let bodies = |range: std::ops::Range<u64>| {
        let ids: Vec<_> = range.map(|number| app.simulator.customer(number).id.to_string()).collect();
        format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
    };
    let ask = |token: &'static str, body: String, after: u64| {
        let caller = app.caller();
        async move {
            sleep(Duration::from_millis(after)).await;
            let began = Instant::now();
            let reply = caller.lookup_with(body, &[("authorization", &bearer(token))]).await;
            (reply.status.as_u16(), began.elapsed())
        }
    };
    // Small lookups, ten keys' worth for each of ten slots, and then the one of somebody else.
    let mut calls: Vec<_> = (0..20).map(|number| ask(BULK, bodies(number * 5..number * 5 + 5), 0)).collect();
    calls.push(ask(CRM, bodies(200..205), 100));
    let mut waits = all(calls).await;
    let (status, wait) = waits.pop().expect("the last one");
    assert_eq!(status, 200);
    assert!(wait < Duration::from_millis(1200), "it rides in the very next slot, not after {wait:?}");
    let longest = waits.iter().map(|(_, wait)| *wait).max().expect("some");
    assert!(longest > Duration::from_secs(9), "{longest:?}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_often_is_told_when_to_come_back_and_nobody_else_is() {
    let app = start("clients.requests_per_second = 0.5");
    let body = id(1, &app);
    assert_eq!(look_as(&app, CRM, &body).await.status, 200);
    let began = Instant::now();
    for path in [DETAIL, "/echo"] {
        let refused = app.send(Method::POST, path, &body, &[("authorization", &bearer(CRM))]).await;
        assert_eq!((refused.status.as_u16(), &*refused.error_code()), (429, "TOO_FREQUENT"));
        assert_eq!(refused.header("retry-after"), "2", "{:?}", began.elapsed());
    }
    assert_eq!(look_as(&app, BULK, &body).await.status, 200);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(look_as(&app, CRM, &body).await.status, 200);
    let of = |name: &str| format!(r#"gateway_client_requests_total{{client="{name}"}}"#);
    let counts = [app.metric(&of("crm")).await, app.metric(&of("bulk")).await, app.metric(&of("other")).await];
    assert!(counts.iter().zip([4.0, 1.0, 0.0]).all(|(count, expected)| (count - expected).abs() < 0.5), "{counts:?}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_32_series_come_from_names() {
    let mut file = NamedTempFile::new().unwrap();
    for number in 0..100 {
        writeln!(file, "client-{number}:{number:064x}").unwrap();
    }
    writeln!(file, "crm:{CRM_HASH}").unwrap();
    let both = "[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"\n";
    let app = Setup::new().config(&format!("clients.tokens_file = {:?}\n{both}", file.path())).start();
    assert_eq!(look_as(&app, CRM, &id(1, &app)).await.status, 200);
    let metrics = app.admin("/metrics").await;
    let samples = metrics.text().lines().filter(|line| line.starts_with("gateway_client_requests_total{"));
    assert_eq!(samples.count(), 32);
    assert!((app.metric(r#"gateway_client_requests_total{client="other"}"#).await - 1.0).abs() < 0.5);
    let series = metrics.text().lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 300, "{series}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn operators_need_no_token() {
    let app = start("");
    for path in ["/livez", "/readyz", "/metrics", "/status.json"] {
        assert_eq!(app.admin(path).await.status, 200, "{path}");
    }
    assert_eq!(app.order("/purge", &id(1, &app)).await.status, 200);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn neither_a_token_nor_its_hash_is_in_a_metric_or_the_status() {
    let app = start("clients.requests_per_second = 1");
    let body = id(1, &app);
    for token in [CRM, CRM, "green-canary", BULK] {
        look_as(&app, token, &body).await;
        app.send(Method::GET, "/nowhere", "", &[("authorization", &bearer(token))]).await;
        sleep(Duration::from_secs(1)).await;
        app.send(Method::GET, "/echo", "", &[("authorization", &bearer(token))]).await;
    }
    let mut shown = app.admin("/metrics").await.text().to_owned();
    shown.push_str(app.admin("/status.json").await.text());
    app.finish().await;
    for secret in ["canary", &CRM_HASH[..16], &BULK_HASH[..16]] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}
