//! The upstream fails, hangs, talks rubbish, and comes back.

use std::time::Duration;

use audience_gateway::simulator::Fault;
use tokio::time::Instant;

use crate::harness::Setup;

/// Whether the upstream counts as up.
const UP: &str = "gateway_upstream_up{lookup=\"/api/audience/detail\"}";

const FAULTS: [Fault; 8] = [
    Fault::Status500,
    Fault::Html502,
    Fault::Status429,
    Fault::Truncated,
    Fault::WrongShape,
    Fault::Deep,
    Fault::CloseEarly,
    Fault::CloseMidBody,
];

#[tokio::test(start_paused = true)]
async fn a_passing_fault_is_retried_and_no_caller_sees_it() {
    for fault in FAULTS {
        let app = Setup::new()
            .upstream(|upstream| {
                upstream.fault = fault;
                upstream.fault_count = 1;
            })
            .start();
        let id = app.simulator.customer(2).id.to_string();
        let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{id}]}}"#)).await;
        assert_eq!(reply.records(), app.simulator.expected("", "", "audienceUserIdList", &id), "{fault:?}");
        assert_eq!(app.upstream_lookups().len(), 2, "{fault:?}");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lasting_fault_is_an_answer_after_a_bounded_number_of_tries() {
    for fault in [Fault::Status500, Fault::Truncated, Fault::CloseEarly] {
        let app = Setup::new()
            .upstream(|upstream| {
                upstream.fault = fault;
                upstream.fault_rate = 1.0;
            })
            .start();
        let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
        let reply = app.lookup(&body).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (502, "UPSTREAM_UNAVAILABLE"), "{fault:?}");
        assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1));
        assert_eq!(app.upstream_lookups().len(), 3, "{fault:?}");
        // While it is down, misses fail at once.
        let began = Instant::now();
        assert_eq!(app.lookup(&body).await.status, 502);
        assert!(began.elapsed() < Duration::from_millis(10));
        assert_eq!(app.metric(UP).await, 0.0);
        // And when it is back, so is the gateway.
        app.simulator.reconfigure(|upstream| upstream.fault_rate = 0.0);
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(app.lookup(&body).await.records().len(), 1);
        assert_eq!(app.metric(UP).await, 1.0);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_upstream_fails_what_is_cached_is_given_although_it_is_old() {
    let app = Setup::new().config("cache.ttl = \"10s\"\ncache.stale_while_revalidate = \"0s\"").start();
    let id = app.simulator.customer(2).id;
    let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
    let records = app.lookup(&body).await.records();
    app.simulator.reconfigure(|upstream| {
        upstream.fault = Fault::Status500;
        upstream.fault_rate = 1.0;
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let old = app.lookup(&body).await;
    assert_eq!(old.records(), records);
    assert!(old.header("age").parse::<u64>().unwrap() >= 60);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_upstream_is_left_after_request_timeout_and_asked_again() {
    let app = Setup::new()
        .config("upstream.request_timeout = \"2s\"")
        .upstream(|upstream| {
            upstream.fault = Fault::Hang;
            upstream.fault_count = 1;
        })
        .start();
    let began = Instant::now();
    let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id)).await;
    assert_eq!(reply.records().len(), 1);
    assert!(began.elapsed() > Duration::from_secs(2) && began.elapsed() < Duration::from_secs(5));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_makes_the_upstream_fail_is_isolated_and_the_others_are_answered() {
    let app = Setup::new()
        .upstream(|upstream| {
            upstream.bad_keys = vec!["poison".to_owned()];
            (upstream.rejection_status, upstream.rejection_code) = (500, "500".to_owned());
        })
        .start();
    let good = (0..20).map(|index| format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(index).id));
    let mut bodies: Vec<String> = good.collect();
    bodies.push(r#"{"thirdIdList":["poison"]}"#.to_owned());
    let mut replies = crate::harness::all(bodies.into_iter().map(|body| app.caller().lookup(body))).await;
    let poisoned = replies.pop().unwrap();
    assert_eq!((poisoned.status.as_u16(), poisoned.error_code().as_str()), (502, "UPSTREAM_UNAVAILABLE"));
    for reply in replies {
        assert_eq!(reply.records().len(), 1);
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_limit_fails_its_own_keys_and_is_not_read_to_its_end() {
    let app = Setup::new()
        .config("upstream.max_response = \"64KiB\"")
        .upstream(|upstream| {
            upstream.fault = Fault::Huge;
            upstream.fault_count = 1;
        })
        .start();
    let ids: Vec<String> = [2, 5].iter().map(|index| app.simulator.customer(*index).id.to_string()).collect();
    let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))).await;
    assert_eq!(reply.records().len(), 2, "halved, and each half is small enough");
    assert_eq!(app.upstream_lookups().len(), 3);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn refusals_and_errors_never_enter_the_cache() {
    let app = Setup::new().upstream(|upstream| upstream.require_token = true).start();
    let id = app.simulator.customer(2).id;
    let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
    assert_eq!(app.lookup(&body).await.json()["code"], "100200");
    assert_eq!(app.metric("gateway_cache_entries").await, 0.0);
    assert_eq!(app.lookup_with(&body, &[("x-token", "good")]).await.records().len(), 1);
    assert_eq!(app.lookup(&body).await.json()["code"], "100200", "and the other scope's customer is not given");
    app.finish().await;
}
