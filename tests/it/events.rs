//! `POST /events`: what the upstream says has changed is fetched again, and nothing else is.

use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use crate::harness::{App, Setup};

/// The tag lookup below the base URL.
const TAGS: &str = "/api/audience/user/tag/batchlist";

/// An event as the platform documents it. `who` are further members.
fn event(who: &str) -> String {
    format!(
        r#"{{"orgId":"666037","createTime":1648624613501,"msgType":"event","event":"changeTag","changeType":"update",{who}}}"#
    )
}

/// The event that names a customer by its id.
fn event_of(app: &App, customer: u64) -> String {
    event(&format!(r#""audienceUserId":{},"tagList":["vip"]"#, app.simulator.customer(customer).id))
}

/// Sends an event, which must be taken.
async fn push(app: &App, event: &str) {
    let reply = app.order("/events", event).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.text(), r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":null}"#);
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
}

/// How many events had this outcome.
async fn outcome(app: &App, outcome: &str) -> u64 {
    app.metric(&format!(r#"gateway_events_total{{outcome="{outcome}"}}"#)).await as u64
}

/// The customer's records as they are now.
fn now(app: &App, customer: u64) -> Vec<String> {
    let id = app.simulator.customer(customer).id.to_string();
    app.simulator.expected("", "", "audienceUserIdList", &id)
}

#[tokio::test(start_paused = true)]
async fn a_customer_who_changed_is_fetched_at_once_and_found_under_every_key() {
    let app = Setup::new().config("[[lookup]]\nmixed_lists = \"union\"").start();
    let ways = app.ways(13);
    for way in &ways {
        app.lookup(way).await;
    }
    let asked = app.upstream_lookups().len();
    sleep(Duration::from_secs(5)).await;
    app.simulator.touch(13);
    push(&app, &event_of(&app, 13)).await;
    assert!(!app.is_cached(&ways[0], &[]).await, "the old one is not given any more");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(app.upstream_lookups().len(), asked + 1);
    for way in &ways {
        let reply = app.lookup(way).await;
        assert_eq!(reply.records(), now(&app, 13), "{way}");
        assert!(reply.header("cache-status").contains("; hit;"), "{way}: {}", reply.header("cache-status"));
        assert_eq!(reply.header("age"), "1", "{way}");
    }
    assert_eq!(app.upstream_lookups().len(), asked + 1);
    assert_eq!(outcome(&app, "refreshed").await, 1);
    let keys = app.metric(r#"gateway_refreshed_keys_total{how="event"}"#).await;
    assert!((keys - 3.0).abs() < 1e-9, "the customer and each phone, which might be another's, too: {keys}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_right_after_an_event_waits_for_what_is_already_queued() {
    let app = Setup::new().start();
    let ways = app.ways(2);
    app.lookup(&ways[0]).await;
    app.simulator.touch(2);
    push(&app, &event_of(&app, 2)).await;
    assert_eq!(app.lookup(&ways[0]).await.records(), now(&app, 2));
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_repeated_while_a_refresh_is_queued_costs_nothing() {
    let app = Setup::new().start();
    let ways = app.ways(2);
    app.lookup(&ways[0]).await;
    for _ in 0..10 {
        push(&app, &event_of(&app, 2)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(app.upstream_lookups().len(), 2);
    assert_eq!((outcome(&app, "refreshed").await, outcome(&app, "not_cached").await), (10, 0));
    assert!((app.metric(r#"gateway_refreshed_keys_total{how="event"}"#).await - 1.0).abs() < 1e-9);
    // Late and out of order: older than the one before, and taken all the same.
    push(&app, &event_of(&app, 2).replace("1648624613501", "1500000000000")).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(app.upstream_lookups().len(), 3);
    assert_eq!(app.lookup(&ways[0]).await.records(), now(&app, 2));
    assert_eq!(app.upstream_lookups().len(), 3);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_who_changes_while_being_fetched_is_fetched_once_more() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_secs(3)).start();
    let ways = app.ways(2);
    let before = now(&app, 2);
    let change = async {
        sleep(Duration::from_secs(1)).await;
        app.simulator.touch(2);
        for _ in 0..3 {
            push(&app, &event_of(&app, 2)).await;
        }
    };
    let (reply, ()) = tokio::join!(app.lookup(&ways[0]), change);
    assert_eq!(reply.records(), before, "it was under way");
    assert!(!app.is_cached(&ways[0], &[]).await);
    sleep(Duration::from_secs(5)).await;
    assert!(app.is_cached(&ways[0], &[]).await);
    assert_eq!(app.lookup(&ways[0]).await.records(), now(&app, 2));
    assert_eq!(app.upstream_lookups().len(), 2);
    assert_eq!(outcome(&app, "refreshed").await, 3);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_who_is_not_cached_is_not_fetched() {
    let app = Setup::new().start();
    app.lookup(&app.ways(5)[0]).await;
    for _ in 0..3 {
        push(&app, &event_of(&app, 2)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(app.upstream_lookups().len(), 1);
    assert_eq!((outcome(&app, "refreshed").await, outcome(&app, "not_cached").await), (0, 3));
    assert!(app.is_cached(&app.ways(5)[0], &[]).await, "it has not changed");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_is_fetched_again_for_everybody_who_had_it() {
    let app = Setup::new().start();
    let way = &app.ways(2)[0];
    let of_company = way.replacen('{', r#"{"companyId":"31","#, 1);
    let scopes = [(way, "alice"), (way, "bob"), (&of_company, "alice")];
    for (body, token) in scopes {
        app.lookup_with(body, &[("x-token", token)]).await;
    }
    app.lookup_with(&app.ways(5)[0], &[("x-token", "carol")]).await;
    app.simulator.touch(2);
    push(&app, &event_of(&app, 2)).await;
    sleep(Duration::from_secs(10)).await;
    let asked = app.upstream_lookups();
    assert_eq!(asked.len(), 7, "one for each token and company that had it");
    for (body, token) in scopes {
        assert!(app.is_cached(body, &[("x-token", token)]).await, "{token}");
    }
    assert!(!app.is_cached(way, &[("x-token", "carol")]).await);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_is_fetched_again_by_each_credentials_own_queue() {
    let app = Setup::new()
        .config("[[lookup]]\nlimit_per = \"credential\"")
        .upstream(|upstream| upstream.limit_per = audience_gateway::simulator::LimitPer::Token)
        .start();
    let way = &app.ways(2)[0];
    for token in ["alice", "bob"] {
        app.lookup_with(way, &[("x-token", token)]).await;
    }
    push(&app, &event_of(&app, 2)).await;
    sleep(Duration::from_secs(3)).await;
    for token in ["alice", "bob"] {
        assert!(app.is_cached(way, &[("x-token", token)]).await, "{token}");
    }
    assert_eq!(app.upstream_lookups().len(), 4);
    app.stop_without_pace_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_is_named_by_any_key_and_on_every_lookup_path() {
    let app = Setup::new().config("[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"").start();
    let customer = app.simulator.customer(2);
    let way = &app.ways(2)[0];
    let tags = || app.send(Method::POST, TAGS, way, &[]);
    app.lookup(way).await;
    tags().await;
    let third = customer.third_id.unwrap();
    let phone = &customer.phones[0];
    app.lookup(&app.ways(2).pop().unwrap()).await;
    for who in [
        format!(r#""audienceUserId":"{}""#, customer.id),
        format!(r#""thirdId":"{third}""#),
        format!(r#""phone":"{phone}""#),
        format!(r#""phoneList":[{{"phone":"{phone}"}}]"#),
    ] {
        app.simulator.touch(2);
        push(&app, &event(&who)).await;
        sleep(Duration::from_secs(5)).await;
        let reply = app.lookup(way).await;
        assert_eq!(reply.records(), now(&app, 2), "{who}");
        assert!(reply.header("cache-status").contains("; hit;"), "{who}");
        let reply = tags().await;
        let id = customer.id.to_string();
        assert_eq!(reply.records(), app.simulator.expected_tags("", "", &id), "{who}");
        assert!(reply.header("cache-status").contains("; hit;"), "{who}");
    }
    assert_eq!(outcome(&app, "refreshed").await, 4);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_names_no_customer_is_counted_and_taken() {
    let app = Setup::new().start();
    app.lookup(&app.ways(2)[0]).await;
    let unknown = [
        "{}",
        r#"{"msgType":"event","event":"changeTag"}"#,
        r#"{"audienceUserId":null}"#,
        r#"{"audienceUserId":"","phone":" ","phoneList":[]}"#,
        r#"{"audienceUserId":{"id":1},"phoneList":{"phone":"1"}}"#,
        r#"{"audienceUserIdList":[1],"data":{"audienceUserId":1}}"#,
    ];
    for event in unknown {
        push(&app, event).await;
    }
    assert_eq!(outcome(&app, "unknown").await, unknown.len() as u64);
    assert!(app.is_cached(&app.ways(2)[0], &[]).await);
    assert_eq!(app.upstream_lookups().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_refused_and_counted() {
    let app = Setup::new().config("server.max_body = \"300B\"").start();
    app.lookup(&app.ways(2)[0]).await;
    let named = event_of(&app, 2);
    let large = named.clone() + &" ".repeat(300);
    let listed = format!("[{named}]");
    let cut = &named[..named.len() - 1];
    let json = "application/json";
    let rows = [
        ("", json, 400),
        ("event", json, 400),
        ("null", json, 400),
        ("17", json, 400),
        ("\"event\"", json, 400),
        (&listed, json, 400),
        (cut, json, 400),
        (&large, json, 413),
        (&named, "application/x-www-form-urlencoded", 415),
    ];
    for (body, content_type, status) in rows {
        let reply = app.order_with(Method::POST, "/events", body, &[("content-type", content_type)]).await;
        assert_eq!(reply.status.as_u16(), status, "{body}");
        assert_eq!(reply.json()["code"], status.to_string());
        assert_eq!(reply.json()["data"], serde_json::Value::Null);
    }
    assert_eq!(outcome(&app, "invalid").await, rows.len() as u64);
    let reply = app.order_with(Method::GET, "/events", "", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "POST"));
    assert!(app.is_cached(&app.ways(2)[0], &[]).await);
    assert_eq!(app.upstream_lookups().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_who_is_purged_after_an_event_is_not_fetched() {
    let app = Setup::new().start();
    let way = &app.ways(2)[0];
    app.lookup(way).await;
    push(&app, &event_of(&app, 2)).await;
    assert_eq!(app.order("/purge", way).await.status, 200);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(app.upstream_lookups().len(), 1);
    assert!(!app.is_cached(way, &[]).await);
    app.finish().await;
}
