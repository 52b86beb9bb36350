//! Callers that leave: at every moment of a lookup, one by one, and nobody else is harmed.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::Setup;

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_at_any_moment_harms_nobody_who_asked_for_the_same() {
    // Before it is queued, while it waits for company, for the slot, for the answer, and after that.
    for leaves_after in [0, 1, 4, 6, 300, 1020, 1030, 1090, 1200] {
        let app = Setup::new().start();
        app.lookup(r#"{"thirdIdList":["takes the first slot"]}"#).await;
        let id = app.simulator.customer(2).id;
        let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
        let mut leader = JoinSet::new();
        leader.spawn(app.caller().lookup(body.clone()));
        tokio::task::yield_now().await;
        let follower = app.caller().lookup(body);
        let leave = async {
            tokio::time::sleep(Duration::from_millis(leaves_after)).await;
            leader.abort_all();
        };
        let (reply, ()) = tokio::join!(follower, leave);
        assert_eq!(reply.records().len(), 1, "after {leaves_after} ms");
        assert_eq!(app.upstream_lookups().len(), 2, "after {leaves_after} ms");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_asked_for_is_there_when_it_comes_back() {
    let app = Setup::new().config("[[lookup]]\ntimeout = \"1s\"").start();
    app.lookup(r#"{"thirdIdList":["takes the first slot"]}"#).await;
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    let headers = [("prefer", "wait=0, partial-results")];
    let partial = app.lookup_with(&body, &headers).await;
    assert_eq!(partial.json()["pending"]["audienceUserIdList"].as_array().map(Vec::len), Some(1));
    assert_eq!(partial.header("preference-applied"), "partial-results");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reply = app.lookup(&body).await;
    assert!(reply.header("cache-status").contains("; hit"), "{:?}", reply.headers);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_that_all_leave_cost_one_request_and_the_next_caller_is_served() {
    let app = Setup::new().start();
    app.lookup(r#"{"thirdIdList":["takes the first slot"]}"#).await;
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        callers.spawn(app.caller().lookup(body.clone()));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    callers.shutdown().await;
    assert_eq!(app.lookup(&body).await.records().len(), 1);
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}
