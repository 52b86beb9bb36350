//! What operators see: health, metrics, status, and nothing that belongs to a caller.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::{App, DETAIL, Setup, all};

/// The contract's list of metrics: each name without its prefix, and its labels. All of them are built.
const METRICS: [(&str, &[&str]); 33] = [
    ("requests_total", &["route", "status"]),
    ("client_requests_total", &["client"]),
    ("request_duration_seconds", &["route"]),
    ("lookup_keys_total", &["kind", "result"]),
    ("cache_entries", &[]),
    ("cache_bytes", &[]),
    ("cache_evicted_age_seconds", &[]),
    ("upstream_token_expiry_timestamp_seconds", &[]),
    ("cache_evictions_total", &["cause"]),
    ("cache_compressed_records_total", &[]),
    ("cache_compressed_bytes_total", &["stage"]),
    ("cache_dictionaries_trained_total", &[]),
    ("queue_keys", &["class"]),
    ("queue_oldest_seconds", &[]),
    ("queue_wait_seconds", &[]),
    ("queue_rejected_total", &["reason"]),
    ("upstream_requests_total", &["lookup", "outcome"]),
    ("upstream_duration_seconds", &[]),
    ("upstream_batch_keys", &[]),
    ("upstream_slots_total", &["used"]),
    ("upstream_interval_seconds", &["lookup"]),
    ("upstream_up", &["lookup"]),
    ("coalesced_keys_total", &[]),
    ("refreshed_keys_total", &["how"]),
    ("passthrough_requests_total", &["status"]),
    ("invalidations_total", &["outcome"]),
    ("invalidated_keys_total", &[]),
    ("events_total", &["outcome"]),
    ("purged_keys_total", &[]),
    ("warmup_keys_total", &["result"]),
    ("warmup_pages_total", &["outcome"]),
    ("connections_ended_total", &["reason"]),
    ("build_info", &["version", "revision"]),
];

/// The process metrics that every dashboard knows.
const PROCESS_METRICS: [&str; 4] =
    ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"];

/// Both lookup paths, as somebody configures them who uses everything there is.
const BOTH_LOOKUPS: &str = "[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"";

/// The samples of a scrape.
async fn samples(app: &App) -> Vec<String> {
    let reply = app.admin("/metrics").await;
    reply.text().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// The names of the labels of one sample.
fn labels(sample: &str) -> BTreeSet<&str> {
    let Some((_, rest)) = sample.split_once('{') else { return BTreeSet::new() };
    let (inside, _) = rest.rsplit_once('}').expect("labels end");
    inside.split("\",").map(|pair| pair.split('=').next().expect("a label has a name")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_serves_is_alive_and_ready() {
    let app = Setup::new().start();
    for path in ["/livez", "/readyz", "/livez?verbose=1"] {
        let reply = app.admin(path).await;
        assert_eq!((reply.status.as_u16(), reply.text().trim_end()), (200, "ok"), "{path}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_metric_of_the_contract_is_there_from_the_start_with_its_labels_and_no_other() {
    let app = Setup::new().start();
    let reply = app.admin("/metrics").await;
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"), "{:?}", reply.headers);
    let text = reply.text();
    let mut exposed: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for (name, expected) in METRICS {
        let name = format!("gateway_{name}");
        let of_type = exposed.iter().find(|line| line.split(' ').next() == Some(&name)).copied();
        assert!(of_type.is_some_and(|line| exposed.remove(line)), "{name} is not exposed");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
        let of_name = |line: &&str| line.strip_prefix(&*name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
        let sample = text.lines().find(of_name).unwrap_or_else(|| panic!("{name} has no sample"));
        let mut found = labels(sample);
        found.remove("le");
        assert_eq!(found, expected.iter().copied().collect(), "{sample}");
    }
    exposed.retain(|line| line.starts_with("gateway_"));
    assert!(exposed.is_empty(), "not in the contract: {exposed:?}");
    for name in PROCESS_METRICS {
        assert!(text.contains(&format!("\n{name} ")), "{name}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn counters_move_as_keys_are_missed_found_and_fetched_again() {
    let app = Setup::new().start();
    let (one, two) = (app.simulator.customer(2).id, app.simulator.customer(5).id);
    let both = format!(r#"{{"audienceUserIdList":[{one},{two}]}}"#);
    let nobody = r#"{"thirdIdList":["nobody"]}"#;
    for body in [&*both, &*both, nobody, nobody] {
        assert_eq!(app.lookup(body).await.status, 200);
    }
    app.lookup_with(&both, &[("cache-control", "no-cache")]).await;
    assert_eq!(app.lookup("{}").await.status, 400);
    assert_eq!(app.send(Method::GET, DETAIL, "", &[]).await.status, 405);
    assert_eq!(app.send(Method::GET, "/echo", "", &[]).await.status, 200);
    assert_eq!(app.send(Method::GET, "/nowhere", "", &[]).await.status, 404);
    assert_eq!(app.send(Method::GET, "/a%5cb", "", &[]).await.status, 400);

    let expected = [
        (r#"gateway_lookup_keys_total{kind="audienceUserId",result="miss"}"#, 2.0),
        (r#"gateway_lookup_keys_total{kind="audienceUserId",result="hit"}"#, 2.0),
        (r#"gateway_lookup_keys_total{kind="audienceUserId",result="bypass"}"#, 2.0),
        (r#"gateway_lookup_keys_total{kind="thirdId",result="miss"}"#, 1.0),
        (r#"gateway_lookup_keys_total{kind="thirdId",result="negative"}"#, 1.0),
        (r#"gateway_lookup_keys_total{kind="phone",result="miss"}"#, 0.0),
        (r#"gateway_requests_total{route="/api/audience/detail",status="200"}"#, 5.0),
        (r#"gateway_requests_total{route="/api/audience/detail",status="400"}"#, 1.0),
        (r#"gateway_requests_total{route="/api/audience/detail",status="405"}"#, 1.0),
        (r#"gateway_requests_total{route="passthrough",status="200"}"#, 1.0),
        (r#"gateway_requests_total{route="passthrough",status="400"}"#, 1.0),
        (r#"gateway_requests_total{route="passthrough",status="404"}"#, 1.0),
        (r#"gateway_request_duration_seconds_count{route="/api/audience/detail"}"#, 7.0),
        (r#"gateway_passthrough_requests_total{status="200"}"#, 1.0),
        (r#"gateway_passthrough_requests_total{status="404"}"#, 1.0),
        (r#"gateway_upstream_requests_total{lookup="/api/audience/detail",outcome="success"}"#, 3.0),
        (r#"gateway_upstream_slots_total{used="true"}"#, 3.0),
        ("gateway_upstream_batch_keys_sum", 5.0),
        ("gateway_upstream_batch_keys_count", 3.0),
        ("gateway_upstream_duration_seconds_count", 3.0),
        ("gateway_queue_wait_seconds_count", 5.0),
        (r#"gateway_queue_keys{class="waiting"}"#, 0.0),
        ("gateway_queue_oldest_seconds", 0.0),
        (r#"gateway_upstream_interval_seconds{lookup="/api/audience/detail"}"#, 1.025),
    ];
    for (sample, value) in expected {
        assert!((app.metric(sample).await - value).abs() < 1e-9, "{sample} is {}", app.metric(sample).await);
    }
    assert!(app.metric("gateway_cache_entries").await >= 3.0);
    assert!(app.metric("gateway_cache_bytes").await > 100.0);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn counters_move_as_keys_are_shared_refreshed_refused_and_throttled() {
    let app = Setup::new().config("cache.ttl = \"10s\"\n[[lookup]]\nmax_batch_keys = 2\ntimeout = \"3s\"").start();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    all((0..3).map(|_| app.caller().lookup(body.clone()))).await;
    assert!((app.metric("gateway_coalesced_keys_total").await - 2.0).abs() < 1e-9);
    assert_eq!(app.lookup(r#"{"phoneList":["1","2","3","4","5","6","7","8","9"]}"#).await.status, 429);
    assert!((app.metric(r#"gateway_queue_rejected_total{reason="deadline"}"#).await - 1.0).abs() < 1e-9);

    sleep(Duration::from_secs(11)).await;
    // A rival takes the slot in front of the refresh: refused, and asked again.
    let rival = crate::harness::request(Method::POST, "/api/open/api/audience/detail", &body, &[]);
    app.ask_upstream(rival).await;
    app.lookup(&body).await;
    sleep(Duration::from_secs(5)).await;
    let throttled = r#"gateway_upstream_requests_total{lookup="/api/audience/detail",outcome="throttled"}"#;
    assert!((app.metric(throttled).await - 1.0).abs() < 1e-9);
    assert!((app.metric(r#"gateway_refreshed_keys_total{how="revalidate"}"#).await - 1.0).abs() < 1e-9);
    let stale = r#"gateway_lookup_keys_total{kind="audienceUserId",result="stale"}"#;
    assert!((app.metric(stale).await - 1.0).abs() < 1e-9);
    let gap = app.metric(r#"gateway_upstream_interval_seconds{lookup="/api/audience/detail"}"#).await;
    assert!(gap > 1.025, "a refusal widens the gap: {gap}");
    app.stop_without_pace_check().await;
}

#[tokio::test(start_paused = true)]
async fn slots_that_pass_unused_are_counted_even_if_nobody_looks_meanwhile() {
    let app = Setup::new().start();
    for index in [2, 5] {
        app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(index).id)).await;
        sleep(Duration::from_secs(11)).await;
    }
    let unused = app.metric(r#"gateway_upstream_slots_total{used="false"}"#).await;
    assert!((app.metric(r#"gateway_upstream_slots_total{used="true"}"#).await - 2.0).abs() < 1e-9);
    assert!((18.0..=21.0).contains(&unused), "in 22 seconds two slots were used, and {unused} not");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_seen_while_callers_wait_in_it() {
    let app = Setup::new().config("[[lookup]]\nmax_batch_keys = 1").start();
    let callers = all((0..4).map(|index| {
        let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(index).id);
        app.caller().lookup(body)
    }));
    let look = async {
        sleep(Duration::from_millis(500)).await;
        assert!((app.metric(r#"gateway_queue_keys{class="waiting"}"#).await - 3.0).abs() < 1e-9);
        assert!((app.metric("gateway_queue_oldest_seconds").await - 0.5).abs() < 0.01);
        let queue = app.admin("/status.json").await.json()["lookups"][0]["queue"].clone();
        assert_eq!(queue["waiting"], 3);
        let wait = queue["promised_wait_seconds"].as_f64().unwrap();
        assert!((1.5..1.7).contains(&wait), "a caller of another scope has its turn after the next slot: {wait}");
    };
    let (replies, ()) = tokio::join!(callers, look);
    assert!(replies.iter().all(|reply| reply.status == 200));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_gap_that_is_shown_is_the_configured_interval_and_a_margin() {
    let interval = Duration::from_millis(250);
    let app = Setup::new()
        .config("[[lookup]]\ninterval = \"250ms\"\nmax_batch_keys = 1")
        .upstream(|upstream| upstream.interval = interval)
        .interval(interval)
        .start();
    let ids: Vec<_> = (0..4).map(|index| app.simulator.customer(index).id.to_string()).collect();
    app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))).await;
    let shown = &app.admin("/status.json").await.json()["lookups"][0];
    let gap = shown["gap_seconds"].as_f64().unwrap();
    assert!((0.25..0.26).contains(&gap), "{gap}");
    assert_eq!(shown["interval_seconds"].as_f64(), Some(0.25));
    let metric = app.metric(r#"gateway_upstream_interval_seconds{lookup="/api/audience/detail"}"#).await;
    assert!((metric - gap).abs() < 1e-9);
    let arrivals = app.upstream_lookups();
    assert!((arrivals[1].moment - arrivals[0].moment).as_secs_f64() >= gap);
    app.finish().await;
}

/// The names of all members, those of objects within as `outer.inner`.
fn members(value: &Value, prefix: &str) -> Vec<String> {
    match value {
        Value::Object(object) => {
            object.iter().flat_map(|(name, value)| members(value, &format!("{prefix}.{name}"))).collect()
        }
        Value::Array(array) => array.iter().flat_map(|value| members(value, &format!("{prefix}[]"))).collect(),
        _ => vec![prefix.trim_start_matches('.').to_owned()],
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_has_its_fields() {
    let app = Setup::new().start();
    let reply = app.admin("/status.json").await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    let status = reply.json();
    let expected = [
        "cache.bytes",
        "cache.capacity_bytes",
        "cache.keys",
        "connections.open",
        "connections.refused",
        "history.sample_seconds",
        "keys.bypass",
        "keys.hit",
        "keys.miss",
        "keys.negative",
        "keys.stale",
        "lookups[].gap_seconds",
        "lookups[].interval_seconds",
        "lookups[].learned_max_batch_keys",
        "lookups[].max_batch_keys",
        "lookups[].path",
        "lookups[].queue.abandoned",
        "lookups[].queue.oldest_seconds",
        "lookups[].queue.promised_wait_seconds",
        "lookups[].queue.refresh",
        "lookups[].queue.waiting",
        "lookups[].upstream.in_flight",
        "lookups[].upstream.requests.invalid",
        "lookups[].upstream.requests.rejected",
        "lookups[].upstream.requests.success",
        "lookups[].upstream.requests.throttled",
        "lookups[].upstream.requests.unauthorized",
        "lookups[].upstream.requests.unavailable",
        "lookups[].upstream.state",
        "phase",
        "revision",
        "time",
        "uptime_seconds",
        "version",
        "warmup.keys_fetched",
        "warmup.keys_queued",
        "warmup.state",
    ];
    assert_eq!(members(&status, ""), expected);
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["cache"]["capacity_bytes"], 512 << 20);
    assert_eq!(status["lookups"][0]["path"], DETAIL);
    assert_eq!(status["lookups"][0]["upstream"]["state"], "up");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_404_and_what_is_no_get_is_405() {
    let app = Setup::new().start();
    for path in ["/index.html", "/metrics/", "/nowhere", DETAIL, "/debug/pprof"] {
        assert_eq!(app.admin(path).await.status, 404, "{path}");
    }
    for path in ["/", "/livez", "/readyz", "/metrics", "/status.json"] {
        let reply = app.admin_with(Method::POST, path).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET, HEAD"), "{path}");
        let reply = app.admin_with(Method::HEAD, path).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0), "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/status.json", "/purge", "/events"] {
        let reply = app.send(Method::GET, path, "", &[]).await;
        assert_eq!(reply.error_code(), "404", "{path}: the callers' listener passes it on");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_odd_requests_makes_no_series() {
    let app = Setup::new().config(BOTH_LOOKUPS).start();
    let before = samples(&app).await.len();
    for number in 0..600u16 {
        let method = Method::from_bytes(["GET", "POST", "BREW", "M-SEARCH"][usize::from(number % 4)].as_bytes());
        let path = match number % 3 {
            0 => format!("/odd/{number}?phone=1380013{number:04}"),
            1 => format!("/api/audience/user/tag/batchlist{}", "/".repeat(usize::from(number % 7))),
            _ => format!("/api/audience/detail;v={number}"),
        };
        let body = format!(r#"{{"audienceUserIdList":["{number}x"],"field{number}":{number}}}"#);
        let token = format!("token-{number}");
        app.send(method.unwrap(), &path, &body, &[("x-token", &token), ("user-agent", &token)]).await;
    }
    // Whatever status the upstream comes up with.
    for status in (200..600).step_by(7) {
        app.simulator.reconfigure(|upstream| upstream.rejection_status = status);
        app.send(Method::GET, "/app/getOrgAccessToken", "", &[]).await;
    }
    let after = samples(&app).await;
    let unlike = after.iter().filter(|sample| !sample.starts_with("process_")).count();
    assert!(after.len() < 300, "{} series", after.len());
    assert_eq!(after.len(), before, "{unlike} of them are the gateway's own");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_caller_is_shown() {
    let app = Setup::new().config(BOTH_LOOKUPS).start();
    let customer = app.simulator.customer(2);
    let third_id = customer.third_id.unwrap();
    let secrets = ["token-of-alice", "company-31", &customer.phones[0], &third_id, &customer.id.to_string()];
    let [token, company, phone, third_id, id] = secrets;
    let body = format!(
        r#"{{"audienceUserIdList":[{id}],"thirdIdList":["{third_id}"],"phoneList":["{phone}"],"companyId":"{company}"}}"#
    );
    for _ in 0..2 {
        assert_eq!(app.lookup_with(&body, &[("x-token", token)]).await.records().len(), 1);
    }
    let query = format!("/echo/{phone}?token={token}&thirdId={third_id}");
    app.send(Method::GET, &query, "", &[("x-token", token)]).await;
    app.send(Method::POST, &format!("/api/audience/detail;{phone}/..%2f{id}"), &body, &[]).await;
    let event = format!(r#"{{"audienceUserId":{id},"phone":"{phone}"}}"#);
    let mut replies = vec![
        app.order("/events", &event).await,
        app.order("/purge", &body).await,
        app.order("/purge", &body.replace(r#""phoneList":["#, r#""phoneList":[7,"#)).await,
    ];
    for path in ["/metrics", "/status.json", "/readyz", &format!("/{phone}")] {
        replies.push(app.admin(path).await);
    }
    for reply in replies {
        for secret in secrets {
            assert!(!reply.text().contains(secret), "{} shows {secret}", reply.text());
            assert!(!format!("{:?}", reply.headers).contains(secret), "{} shows {secret}", reply.text());
        }
    }
    app.finish().await;
}
