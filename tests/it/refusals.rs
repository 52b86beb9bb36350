//! The error table: every row that a lookup can reach, and that nothing of what is refused goes upstream.
//!
//! 401 is not among them: telling callers apart by token is not built yet. 503 `SHUTTING_DOWN` is in `shutdown.rs`.

use std::time::Duration;

use audience_gateway::simulator::Fault;
use http::Method;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep, sleep_until},
};

use crate::harness::{App, DETAIL, Reply, Setup, all, read_reply, request};

/// What stands in bodies that are refused, and never in what is said of them.
const PERSONAL: &str = "13800138000";

/// Every list of the lookup.
const LISTS: [&str; 3] = ["audienceUserIdList", "thirdIdList", "phoneList"];

/// Spellings that all mean the lookup.
const SPELLINGS: [&str; 7] = [
    DETAIL,
    "/api/open/api/audience/detail",
    "/api/audience/detail/",
    "/API/audience/Detail?x=1",
    "/api/audience/%64etail",
    "//api/./audience/detail;v=1",
    "/api%2Faudience%2fdetail",
];

/// Checks status, media type and envelope.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, error_code: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    let envelope = reply.json();
    let members: Vec<_> = envelope.as_object().expect("an envelope").keys().map(String::as_str).collect();
    assert_eq!(members, ["code", "data", "errorCode", "msg"]);
    assert_eq!(envelope["code"], status.to_string());
    assert_eq!(envelope["errorCode"], error_code);
    assert_eq!(envelope["data"], serde_json::Value::Null);
    assert!(!message(reply).is_empty());
    assert_eq!(reply.header("cache-status"), "", "a refusal says nothing of the cache");
}

fn message(reply: &Reply) -> String {
    reply.json()["msg"].as_str().unwrap_or_default().to_owned()
}

/// The seconds of `Retry-After`.
#[track_caller]
fn retry_after(reply: &Reply) -> u64 {
    reply.header("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After in {:?}", reply.headers))
}

/// A body that asks for these customers by id.
fn by_ids(app: &App, customers: impl IntoIterator<Item = u64>) -> String {
    let ids: Vec<_> = customers.into_iter().map(|index| app.simulator.customer(index).id.to_string()).collect();
    format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
}

/// The head of a request that is written by hand, on a connection that is closed after it.
fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test(start_paused = true)]
async fn what_is_not_one_json_object_is_refused() {
    let app = Setup::new().start();
    for body in ["", " ", "{", "[]", "null", "17", "\"13800138000\"", "{\"phoneList\":[\"13800138000\"]} 13800138000"] {
        let reply = app.lookup(body).await;
        assert_refused(&reply, 400, "INVALID_REQUEST");
        assert!(message(&reply).contains("JSON"), "{body}: {}", message(&reply));
        assert!(!reply.text().contains(PERSONAL), "{}", reply.text());
    }
    assert!(app.upstream_lookups().is_empty());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_type_is_refused_by_the_name_of_its_list_and_never_by_its_value() {
    let app = Setup::new().start();
    let mut refused = 0;
    for list in LISTS {
        let own = if list == "audienceUserIdList" { r#"["13800138000x"]"# } else { "[13800138000]" };
        let odd = [
            own,
            r#""13800138000""#,
            r#"{"13800138000":1}"#,
            r#"["1",{"13800138000":"13800138000"}]"#,
            r#"["1",["13800138000"]]"#,
            "[1.13800138000]",
            "[true]",
            r#"["13800138000\ud83d"]"#,
            r#"["13800138000"],"LIST":["13800138000"]"#,
        ];
        for odd in odd {
            let reply = app.lookup(&format!(r#"{{"{list}":{}}}"#, odd.replace("LIST", list))).await;
            assert_refused(&reply, 400, "INVALID_REQUEST");
            assert!(message(&reply).contains(list), "{odd}: {}", message(&reply));
            assert!(!reply.text().contains(PERSONAL), "{}", reply.text());
            refused += 1;
        }
    }
    assert_eq!(refused, 27);
    assert!(app.upstream_lookups().is_empty());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_key_at_all_and_too_many_keys_are_refused() {
    let app = Setup::new().config("[[lookup]]\nmax_keys_per_request = 3").start();
    for body in
        ["{}", r#"{"companyId":"31"}"#, r#"{"phoneList":null}"#, r#"{"phoneList":["",null," "],"thirdIdList":[]}"#]
    {
        let reply = app.lookup(body).await;
        assert_refused(&reply, 400, "INVALID_REQUEST");
        for list in LISTS {
            assert!(message(&reply).contains(list), "{body}: {}", message(&reply));
        }
    }
    let reply = app.lookup(r#"{"phoneList":["13800138000","2"],"thirdIdList":["3","4"]}"#).await;
    assert_refused(&reply, 400, "INVALID_REQUEST");
    assert!(message(&reply).contains("at most 3"), "{}", message(&reply));
    assert!(app.upstream_lookups().is_empty());
    let duplicates = app.lookup(r#"{"phoneList":["1","2","1"],"thirdIdList":["3","3"]}"#).await;
    assert_eq!(duplicates.status, 200, "duplicates count once");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_however_its_length_is_told() {
    let app = Setup::new().config("server.max_body = \"1KiB\"").start();
    let padded = |length: usize| {
        let body = by_ids(&app, [2]);
        let padding = " ".repeat(length - body.len());
        format!("{body}{padding}")
    };
    let large = padded(1025);
    let told = app.lookup(&large).await;
    let only_told = app.raw(&head("POST", DETAIL, "content-length: 1025\r\n")).await;
    let absurd = app.raw(&head("POST", DETAIL, "content-length: 9007199254740993\r\n")).await;
    let chunked = head("POST", DETAIL, "transfer-encoding: chunked\r\n");
    let (one, two) = large.split_at(1000);
    let untold = app.raw(&format!("{chunked}3e8\r\n{one}\r\n19\r\n{two}\r\n0\r\n\r\n")).await;
    let unfinished = app.raw(&format!("{chunked}401\r\n{large}\r\n")).await;
    for reply in [told, only_told, absurd, untold, unfinished] {
        assert_refused(&reply, 413, "BODY_TOO_LARGE");
        assert!(message(&reply).contains("1024"), "{}", message(&reply));
    }
    assert!(app.upstream_lookups().is_empty());
    let whole = padded(1024);
    assert_eq!(app.lookup(&whole).await.records().len(), 1, "the limit itself is allowed");
    let (one, two) = whole.split_at(1000);
    let chunks = app.raw(&format!("{chunked}3e8\r\n{one}\r\n18\r\n{two}\r\n0\r\n\r\n")).await;
    assert_eq!(chunks.records().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_waited_for_and_refused() {
    let app = Setup::new().config("server.header_timeout = \"2s\"").start();
    let begin = Instant::now();
    let mut io = app.connect().await.unwrap();
    let text = format!("{}{{\"phoneList\"", head("POST", DETAIL, "content-length: 100\r\n"));
    io.write_all(text.as_bytes()).await.unwrap();
    assert_refused(&read_reply(&mut io).await, 408, "REQUEST_TIMEOUT");
    assert_eq!(begin.elapsed().as_secs(), 2);
    assert!(app.upstream_lookups().is_empty());
    drop(io);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_no_json_is_refused_and_one_that_says_nothing_is_read() {
    let app = Setup::new().start();
    let body = by_ids(&app, [2]);
    let refused: [&[(&str, &str)]; 6] = [
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[("content-type", "application/xml")],
        &[("content-type", "application/json"), ("content-type", "text/plain")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ];
    for headers in refused {
        assert_refused(&app.lookup_with(&body, headers).await, 415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert!(app.upstream_lookups().is_empty());
    let read: [&[(&str, &str)]; 4] = [
        &[],
        &[("content-type", "application/json")],
        &[("content-type", "Application/JSON; charset=UTF-8")],
        &[("content-encoding", "identity")],
    ];
    for headers in read {
        assert_eq!(app.lookup_with(&body, headers).await.records().len(), 1, "{headers:?}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn another_method_on_a_lookup_path_is_refused_in_every_spelling() {
    let app = Setup::new().start();
    let body = by_ids(&app, [2]);
    let mut refused = 0;
    for path in SPELLINGS {
        for method in ["GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "post", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let body = if method == Method::PUT { &*body } else { "" };
            let reply = app.send(method.clone(), path, body, &[]).await;
            assert_eq!(reply.header("allow"), "POST", "{method} {path}");
            if method == Method::HEAD {
                assert_eq!((reply.status.as_u16(), reply.body.len()), (405, 0), "{path}");
            } else {
                assert_refused(&reply, 405, "METHOD_NOT_ALLOWED");
            }
            refused += 1;
        }
    }
    assert_eq!(refused, 63);
    assert!(app.simulator.arrivals().is_empty(), "not by passing through, either");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_two_servers_may_read_differently_is_refused() {
    let app = Setup::new().start();
    let body = by_ids(&app, [2]);
    let length = format!("content-length: {}\r\n", body.len());
    let paths = [
        "/api/audience/detail%2f",
        "/api/audience%2f%2fdetail",
        "/api/audience%2f.%2fdetail",
        "/api/audience%2fdetail;v=1%2fx",
        "/api/audience%5cdetail",
        "/api/audience\\detail",
        "/api/audience/%2564etail",
        "/api/audience/%64etail%252f",
        "/api/audience/detail%00",
        "/api/audience/detail%0a",
        "/api/audience/deta%zzil",
        "/api/audience/detail%",
        "/api/audience/d%c0%65tail",
        "/../api/audience/detail",
        "/x/..%2f../api/audience/detail",
    ];
    for path in paths {
        for method in ["POST", "GET"] {
            let reply = app.raw(&format!("{}{body}", head(method, path, &length))).await;
            assert_refused(&reply, 400, "INVALID_REQUEST");
            assert!(!reply.text().contains("audience"), "the path is not quoted: {}", reply.text());
        }
    }
    assert!(app.simulator.arrivals().is_empty());
    app.finish().await;
}

/// Four callers of two keys each, in a queue that takes two keys a second.
fn crowded(timeout: &str) -> App {
    Setup::new().config(&format!("[[lookup]]\nmax_batch_keys = 2\ntimeout = \"{timeout}\"")).start()
}

async fn crowd(app: &App) -> Vec<(String, Reply)> {
    let bodies: Vec<_> = (0..4).map(|n| by_ids(app, [20 + 2 * n, 21 + 2 * n])).collect();
    let replies = all(bodies.iter().cloned().map(|body| app.caller().lookup(body))).await;
    bodies.into_iter().zip(replies).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_cannot_make_its_deadline_is_told_at_once_how_long_it_would_take() {
    let patient = crowded("60s");
    let begin = Instant::now();
    assert!(crowd(&patient).await.iter().all(|(_, reply)| reply.status == 200));
    let needed = begin.elapsed();
    patient.finish().await;

    let app = crowded("3s");
    let begin = Instant::now();
    let (answered, refused): (Vec<_>, Vec<_>) =
        crowd(&app).await.into_iter().partition(|(_, reply)| reply.status == 200);
    let [(body, reply)] = &refused[..] else { panic!("{} are refused", refused.len()) };
    assert_refused(reply, 429, "TOO_FREQUENT");
    assert_eq!(message(reply), "操作频繁,请稍后重试");
    let told = Duration::from_secs(retry_after(reply));
    assert!(told.abs_diff(needed) <= Duration::from_secs(1), "told {told:?}, and it takes {needed:?}");
    assert!(answered.iter().all(|(_, reply)| reply.records().len() == 2));
    let arrivals = app.upstream_lookups();
    assert_eq!(arrivals.len(), 3);
    for key in arrivals.iter().flat_map(|arrival| arrival.list("audienceUserIdList")) {
        assert!(!body.contains(key), "a refused key went upstream");
    }
    sleep_until(begin + told).await;
    let asked = Instant::now();
    assert_eq!(app.lookup(body).await.records().len(), 2);
    assert!(asked.elapsed() < Duration::from_secs(1), "who comes back when told is served at once");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_is_refused_without_a_wait() {
    let app = crowded("3s");
    let begin = Instant::now();
    let reply = app.lookup(&by_ids(&app, 30..40)).await;
    assert_refused(&reply, 429, "TOO_FREQUENT");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(retry_after(&reply), 5, "five slots: four gaps of a second and a margin");
    let impatient = app.lookup_with(&by_ids(&app, 30..34), &[("prefer", "wait=1")]).await;
    assert_refused(&impatient, 429, "TOO_FREQUENT");
    assert!(app.upstream_lookups().is_empty());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_finds_the_queue_full_is_refused() {
    let app = Setup::new().config("[[lookup]]\nmax_pending_keys = 4").start();
    let bodies: Vec<_> = (0..3).map(|n| by_ids(&app, [20 + 2 * n, 21 + 2 * n])).collect();
    let replies = all(bodies.into_iter().map(|body| app.caller().lookup(body))).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert_eq!(refused.len(), 1);
    assert_refused(refused[0], 429, "TOO_FREQUENT");
    assert!(retry_after(refused[0]) >= 1);
    assert_eq!(app.upstream_lookups().iter().map(|arrival| arrival.key_count).sum::<usize>(), 4);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_is_answered_from_the_cache_or_refused() {
    let app = Setup::new().start();
    let only = [("cache-control", "only-if-cached")];
    let (one, both) = (by_ids(&app, [2]), by_ids(&app, [2, 5]));
    assert_refused(&app.lookup_with(&one, &only).await, 504, "NOT_CACHED");
    assert!(app.upstream_lookups().is_empty());
    app.lookup(&one).await;
    assert_eq!(app.lookup_with(&one, &only).await.records().len(), 1);
    assert_refused(&app.lookup_with(&both, &only).await, 504, "NOT_CACHED");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(app.upstream_lookups().len(), 1, "what was missing is not queued, either");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_is_told_and_a_retry_joins_what_is_under_way() {
    let upstream_takes = Duration::from_secs(5);
    let app = Setup::new()
        .config("[[lookup]]\ntimeout = \"3s\"")
        .upstream(|upstream| upstream.latency = upstream_takes)
        .start();
    let body = by_ids(&app, [2]);
    let begin = Instant::now();
    let reply = app.lookup(&body).await;
    assert_refused(&reply, 504, "LOOKUP_TIMEOUT");
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    assert!(retry_after(&reply) >= 1);
    let retry = app.lookup(&body).await;
    assert_eq!(retry.records().len(), 1);
    assert!(retry.header("cache-status").contains("fwd=miss; collapsed"), "{:?}", retry.headers);
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert_eq!(app.upstream_lookups().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn after_an_upstream_that_hung_a_retry_finds_the_answer() {
    let app = Setup::new()
        .config("[[lookup]]\ntimeout = \"3s\"")
        .upstream(|upstream| (upstream.fault, upstream.fault_count) = (Fault::Hang, 1))
        .start();
    let body = by_ids(&app, [2]);
    assert_refused(&app.lookup(&body).await, 504, "LOOKUP_TIMEOUT");
    // The request is given up after ten seconds, and its keys ride again although nobody waits any more.
    sleep(Duration::from_secs(12)).await;
    assert_eq!(app.upstream_lookups().len(), 2);
    let retry = app.lookup(&body).await;
    assert_eq!(retry.records().len(), 1);
    assert!(retry.header("cache-status").contains("; hit;"), "{:?}", retry.headers);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_prefers_a_shorter_wait_is_told_after_it() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_secs(5)).start();
    let begin = Instant::now();
    let reply = app.lookup_with(&by_ids(&app, [2]), &[("prefer", "wait=2")]).await;
    assert_refused(&reply, 504, "LOOKUP_TIMEOUT");
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_keeps_failing_is_tried_a_bounded_number_of_times() {
    let faults = [
        Fault::Status500,
        Fault::Html502,
        Fault::Truncated,
        Fault::WrongShape,
        Fault::Deep,
        Fault::CloseEarly,
        Fault::CloseMidBody,
        Fault::Hang,
    ];
    for fault in faults {
        let app = Setup::new()
            .config("upstream.request_timeout = \"2s\"")
            .upstream(|upstream| (upstream.fault, upstream.fault_rate) = (fault, 1.0))
            .start();
        let reply = app.lookup(&by_ids(&app, [2])).await;
        assert_refused(&reply, 502, "UPSTREAM_UNAVAILABLE");
        let wait = retry_after(&reply);
        assert!((1..=10).contains(&wait), "{fault:?}: {wait}");
        assert_eq!(app.upstream_lookups().len(), 3, "{fault:?}");

        let begin = Instant::now();
        let next = app.lookup(&by_ids(&app, [5])).await;
        assert_refused(&next, 502, "UPSTREAM_UNAVAILABLE");
        assert!(retry_after(&next) >= 1);
        assert_eq!(begin.elapsed(), Duration::ZERO, "{fault:?}: a miss fails fast while the upstream is down");
        assert_eq!(app.upstream_lookups().len(), 3, "{fault:?}");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_refusal_of_a_key_or_a_token_is_passed_on_as_it_came() {
    for (status, token) in [(200, None), (400, None), (200, Some("expired")), (401, Some("expired"))] {
        let headers = token.map(|token| ("x-token", token));
        let headers = headers.as_slice();
        let app = Setup::new()
            .upstream(|upstream| {
                upstream.rejection_status = status;
                upstream.bad_keys = vec!["bad".to_owned()];
            })
            .start();
        app.simulator.expire_token("expired");
        let body = r#"{"thirdIdList":["bad"]}"#;
        let reply = app.lookup_with(body, headers).await;
        sleep(Duration::from_secs(2)).await;
        let path = "/api/open/api/audience/detail";
        let direct = app.ask_upstream(request(Method::POST, path, body, headers)).await;
        assert_eq!(reply.status, direct.status);
        assert_eq!(reply.status, status);
        assert_eq!(reply.body, direct.body);
        assert_eq!(reply.header("content-type"), direct.header("content-type"));
        assert_eq!(reply.error_code(), if token.is_some() { "100200" } else { "400001" });
        assert_eq!(app.upstream_lookups().len(), 2, "it is not tried again");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_callers_bad_key_or_token_fails_nobody_else() {
    let app = Setup::new()
        .upstream(|upstream| {
            upstream.bad_keys = vec!["bad".to_owned()];
            upstream.require_token = true;
        })
        .start();
    let good = by_ids(&app, [2, 5]);
    let calls = [
        (good.clone(), Some("alice")),
        (r#"{"thirdIdList":["bad"]}"#.to_owned(), Some("alice")),
        (good.clone(), None),
        (good, Some("bob")),
    ];
    let replies = all(calls.into_iter().map(|(body, token)| {
        let caller = app.caller();
        async move {
            let headers = token.map(|token| ("x-token", token));
            caller.lookup_with(body, headers.as_slice()).await
        }
    }))
    .await;
    assert_eq!(replies[0].records().len(), 2);
    assert_eq!(replies[1].error_code(), "400001");
    assert_eq!(replies[2].error_code(), "100200");
    assert_eq!(replies[3].records().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_is_told_so() {
    let app = Setup::new().config("server.max_connections = 2").start();
    let held = [app.connect().await.unwrap(), app.connect().await.unwrap()];
    let reply = app.lookup(&by_ids(&app, [2])).await;
    assert_refused(&reply, 503, "OVERLOADED");
    assert_eq!(retry_after(&reply), 1);
    assert!(app.upstream_lookups().is_empty());
    assert_eq!(app.admin("/status.json").await.json()["connections"]["refused"], 1);
    drop(held);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(app.lookup(&by_ids(&app, [2])).await.records().len(), 1, "there is room again");
    app.finish().await;
}
