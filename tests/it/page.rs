//! The status page, and the figures behind it: what they say is what the metrics say. A browser looks at it in `make page`.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::{App, DETAIL, Setup, request};

async fn status(app: &App) -> Value {
    app.admin("/status.json").await.json()
}

/// What the slots of the first lookup path come to, for one member.
fn total(status: &Value, member: &str) -> u64 {
    let slots = status["lookups"][0]["slots"].as_array().unwrap();
    slots.iter().map(|slot| slot[member].as_u64().unwrap()).sum()
}

async fn ask(app: &App, customers: std::ops::Range<u64>) {
    let ids: Vec<_> = customers.map(|index| app.simulator.customer(index).id.to_string()).collect();
    app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))).await;
}

#[tokio::test(start_paused = true)]
async fn the_page_is_one_document_that_may_ask_nobody_but_its_own_origin() {
    let app = Setup::new().start();
    let page = app.admin("/").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    for part in ["unsafe", "*", "http", "data:;'"] {
        assert!(!policy.contains(part), "{policy}");
    }
    let text = page.text();
    assert!(text.starts_with("<!doctype html>") && text.trim_end().ends_with("</html>"));
    for part in ["<style></style>", "<script></script>", "/* page.css */", "/* page.js */"] {
        assert!(!text.contains(part), "{part}");
    }
    for part in ["src=\"", "<link rel=\"stylesheet", "@import", "https:"] {
        assert!(!text.contains(part), "{part}");
    }
    let addresses =
        text.match_indices("http:").filter(|(at, _)| !text[*at..].starts_with("http://www.w3.org/2000/svg"));
    assert_eq!(addresses.count(), 0);
    assert_eq!(app.admin("/?x=1").await.text(), text, "it is the same for everybody");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_slots_of_two_minutes_are_those_that_the_metrics_count() {
    let app = Setup::new().start();
    ask(&app, 0..7).await;
    sleep(Duration::from_secs(20)).await;
    ask(&app, 10..40).await;
    sleep(Duration::from_secs(10)).await;
    let shown = status(&app).await;
    let counted = async |used| app.metric(&format!(r#"gateway_upstream_slots_total{{used="{used}"}}"#)).await;
    assert_eq!(total(&shown, "answered"), 2);
    assert_eq!(total(&shown, "answered") as f64, counted(true).await);
    assert_eq!(total(&shown, "idle") as f64, counted(false).await);
    assert_eq!(total(&shown, "keys") as f64, app.metric("gateway_upstream_batch_keys_sum").await);
    assert_eq!(total(&shown, "refused") + total(&shown, "failed") + total(&shown, "under_way"), 0);
    let ages: Vec<_> = shown["lookups"][0]["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| slot["seconds_ago"].as_f64().unwrap())
        .collect();
    assert!(ages.is_sorted_by(|older, newer| *older >= newer + 1.0), "oldest first, an interval apart: {ages:?}");

    sleep(Duration::from_secs(3600)).await;
    let shown = status(&app).await;
    assert_eq!((total(&shown, "answered"), total(&shown, "keys")), (0, 0));
    assert!((115..=118).contains(&total(&shown, "idle")), "two minutes of nothing: {}", total(&shown, "idle"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_under_way_until_it_is_answered_or_refused_or_has_failed() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_millis(300)).start();
    let asking = async {
        ask(&app, 0..7).await;
        // A rival takes the slot in front of the next one.
        app.ask_upstream(request(Method::POST, "/api/open/api/audience/detail", r#"{"phoneList":["1"]}"#, &[])).await;
        ask(&app, 20..25).await;
    };
    let look = async {
        sleep(Duration::from_millis(150)).await;
        let shown = status(&app).await;
        assert_eq!((total(&shown, "under_way"), total(&shown, "keys")), (1, 7));
    };
    tokio::join!(asking, look);
    let shown = status(&app).await;
    assert_eq!((total(&shown, "under_way"), total(&shown, "answered"), total(&shown, "refused")), (0, 2, 1));
    assert_eq!(total(&shown, "keys"), 7 + 5 + 5, "the keys that were refused rode again");
    let requests = &shown["lookups"][0]["upstream"]["requests"];
    for (outcome, number) in [("success", 2), ("throttled", 1), ("unavailable", 0)] {
        assert_eq!(requests[outcome], number, "{outcome}");
        let sample = format!(r#"gateway_upstream_requests_total{{lookup="{DETAIL}",outcome="{outcome}"}}"#);
        assert_eq!(app.metric(&sample).await, f64::from(number), "{outcome}");
    }
    app.stop_without_pace_check().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_how_is_there_at_once_for_whoever_comes_to_look() {
    let app = Setup::new().start();
    ask(&app, 0..4).await;
    sleep(Duration::from_secs(10)).await;
    for _ in 0..3 {
        ask(&app, 0..4).await;
    }
    app.lookup(r#"{"phoneList":["1"]}"#).await;
    app.lookup(r#"{"phoneList":["1"]}"#).await;
    sleep(Duration::from_secs(3)).await;
    let shown = status(&app).await;
    let spans = shown["history"]["keys"].as_array().unwrap();
    assert!((6..=8).contains(&spans.len()), "{}", spans.len());
    for (result, number) in [("hit", 12), ("stale", 0), ("negative", 1), ("miss", 5), ("bypass", 0)] {
        assert_eq!(shown["keys"][result], number, "{result}");
        let counted: u64 = spans.iter().map(|span| span[result].as_u64().unwrap()).sum();
        assert_eq!(counted, number, "{result}");
        let mut in_metrics = 0.0;
        for kind in ["audienceUserId", "thirdId", "phone"] {
            let sample = format!(r#"gateway_lookup_keys_total{{kind="{kind}",result="{result}"}}"#);
            in_metrics += app.metric(&sample).await;
        }
        assert_eq!(in_metrics, number as f64, "{result}");
    }
    sleep(Duration::from_secs(200)).await;
    let shown = status(&app).await;
    let spans = shown["history"]["keys"].as_array().unwrap();
    assert_eq!(spans.len(), 60);
    assert!(spans.iter().all(|span| span["hit"] == 0 && span["seconds_ago"].as_f64().unwrap() <= 120.0));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_lookup_paths_have_slots_of_their_own() {
    let app = Setup::new().config("[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"").start();
    ask(&app, 0..3).await;
    let shown = status(&app).await;
    assert_eq!(shown["lookups"][0]["path"], DETAIL);
    assert_eq!(total(&shown, "answered"), 1);
    let others = shown["lookups"][1]["slots"].as_array().unwrap();
    assert!(others.iter().all(|slot| slot["answered"] == 0 && slot["keys"] == 0));
    app.finish().await;
}
