//! Coalescing, merging, saturation: what the queue is for.

use std::time::Duration;

use audience_gateway::simulator::{LimitCounts, LimitPer, Outcome};
use http::Method;
use tokio::time::Instant;

use crate::harness::{DETAIL, Setup, all};

fn by_id(id: i64) -> String {
    format!(r#"{{"audienceUserIdList":[{id}]}}"#)
}

#[tokio::test(start_paused = true)]
async fn three_hundred_callers_of_one_key_make_one_upstream_request() {
    let app = Setup::new().start();
    let body = by_id(app.simulator.customer(2).id);
    let replies = all((0..300).map(|_| app.caller().lookup(body.clone()))).await;
    assert!(replies.iter().all(|reply| reply.records().len() == 1));
    assert_eq!(app.upstream_lookups().len(), 1);
    let collapsed = replies.iter().filter(|reply| reply.header("cache-status").contains("; collapsed; ")).count();
    assert_eq!(collapsed, 299);
    assert_eq!(app.metric("gateway_coalesced_keys_total").await, 299.0);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_callers_of_as_many_keys_make_three_upstream_requests() {
    let app = Setup::new().start();
    let bodies = (0..250).map(|index| by_id(app.simulator.customer(index).id));
    let replies = all(bodies.map(|body| app.caller().lookup(body)).collect::<Vec<_>>()).await;
    assert!(replies.iter().all(|reply| reply.records().len() == 1));
    assert_eq!(app.upstream_lookups().iter().map(|lookup| lookup.key_count).collect::<Vec<_>>(), [100, 100, 50]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn however_many_wait_for_one_batch_each_is_answered_once_with_what_it_asked_for() {
    let app = Setup::new().start();
    let ids: Vec<i64> = (0..100).map(|index| app.simulator.customer(index).id).collect();
    let asked = |number: usize| [ids[number % 100], ids[(number + 7) % 100]];
    let replies = all((0..1300).map(|number| {
        let [one, other] = asked(number);
        app.caller().lookup(format!(r#"{{"audienceUserIdList":[{one},{other}]}}"#))
    }))
    .await;
    for (number, reply) in replies.iter().enumerate() {
        let wanted = asked(number).map(|id| app.simulator.expected("", "", "audienceUserIdList", &id.to_string()));
        assert_eq!(reply.records(), wanted.concat());
    }
    assert_eq!(app.upstream_lookups().iter().map(|lookup| lookup.key_count).collect::<Vec<_>>(), [100]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn under_saturation_every_slot_is_used_every_batch_is_full_and_nothing_is_refused() {
    let app = Setup::new()
        .config("[[lookup]]\nmax_batch_keys = 20\ntimeout = \"10m\"")
        .upstream(|upstream| {
            upstream.jitter = Duration::from_millis(20);
            upstream.limit_counts = LimitCounts::Arrivals;
        })
        .start();
    let ids: Vec<i64> = (0..600).map(|index| app.simulator.customer(index).id).collect();
    let began = Instant::now();
    let callers = ids.chunks(25).map(|own| {
        let (caller, own) = (app.caller(), own.to_vec());
        async move {
            for pair in own.chunks(5) {
                let ids: Vec<String> = pair.iter().map(ToString::to_string).collect();
                let reply = caller.clone().lookup(format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))).await;
                assert_eq!(reply.records().len(), 5);
            }
        }
    });
    all(callers.collect::<Vec<_>>()).await;
    let lookups = app.upstream_lookups();
    let first_twenty = lookups.iter().filter(|lookup| lookup.moment - began < Duration::from_secs(20));
    assert!(first_twenty.count() >= 19, "{} slots", lookups.len());
    let full = lookups.iter().filter(|lookup| lookup.key_count == 20).count();
    assert!(full >= 28, "{full} of {} batches are full", lookups.len());
    assert!(lookups.iter().all(|lookup| lookup.outcome == Outcome::Accepted));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_hit_is_answered_at_once_while_thousands_of_keys_wait() {
    let app = Setup::new().config("[[lookup]]\ntimeout = \"10m\"").start();
    let hit = by_id(app.simulator.customer(2).id);
    app.lookup(&hit).await;
    let bulk: Vec<String> = (0..5000).map(|number| format!("\"nobody-{number}\"")).collect();
    let bulk = bulk.chunks(1000).map(|own| format!(r#"{{"thirdIdList":[{}]}}"#, own.join(",")));
    let waiting: Vec<_> = bulk.map(|body| app.caller().lookup(body)).collect();
    let mut waiters = tokio::task::JoinSet::new();
    waiting.into_iter().for_each(|waiter| drop(waiters.spawn(waiter)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(app.metric("gateway_queue_keys{class=\"waiting\"}").await > 4000.0);
    let began = Instant::now();
    assert!(app.lookup(&hit).await.header("cache-status").contains("; hit"));
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(waiters);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lone_key_does_not_wait_behind_a_bulk_caller() {
    let app = Setup::new().config("[[lookup]]\nmax_batch_keys = 50\ntimeout = \"10m\"").start();
    let bulk: Vec<String> = (0..1000).map(|number| format!("\"nobody-{number}\"")).collect();
    let bulk = app.caller().lookup(format!(r#"{{"thirdIdList":[{}]}}"#, bulk.join(",")));
    let mut waiters = tokio::task::JoinSet::new();
    waiters.spawn(bulk);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let began = Instant::now();
    assert_eq!(app.lookup(&by_id(app.simulator.customer(2).id)).await.records().len(), 1);
    assert!(began.elapsed() < Duration::from_millis(2200), "{:?}", began.elapsed());
    drop(waiters);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_slower_than_the_interval_has_several_requests_under_way_and_never_too_many() {
    let app = Setup::new()
        .config("[[lookup]]\nmax_in_flight = 3\nmax_batch_keys = 1\ntimeout = \"2m\"")
        .upstream(|upstream| upstream.latency = Duration::from_secs(5))
        .start();
    let bodies = (0..9).map(|index| by_id(app.simulator.customer(index).id));
    let began = Instant::now();
    all(bodies.map(|body| app.caller().lookup(body)).collect::<Vec<_>>()).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let under_way = app.upstream_lookups().iter().map(|lookup| lookup.in_flight).max();
    assert_eq!(under_way, Some(3));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rival_that_steals_slots_is_never_seen_by_callers_and_nothing_wrong_is_cached() {
    for status in [200, 429, 500] {
        let app = Setup::new()
            .upstream(|upstream| {
                upstream.refusal_status = status;
                upstream.limit_counts = LimitCounts::Accepted;
            })
            .start();
        let rival = app.simulator.clone();
        let mut stealing = tokio::task::JoinSet::new();
        stealing.spawn(async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            let mut serving = tokio::task::JoinSet::new();
            serving.spawn(rival.serve_connection(far));
            let io = hyper_util::rt::TokioIo::new(near);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            serving.spawn(async move { drop(connection.await) });
            for _ in 0..20 {
                let steal = crate::harness::request(Method::POST, DETAIL, r#"{"thirdIdList":["rival"]}"#, &[]);
                let reply = sender.send_request(steal).await.unwrap();
                http_body_util::BodyExt::collect(reply.into_body()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        });
        for index in 0..5 {
            let id = app.simulator.customer(index).id;
            for _ in 0..2 {
                let reply = app.lookup(&by_id(id)).await;
                assert_eq!(reply.records(), app.simulator.expected("", "", "audienceUserIdList", &id.to_string()));
            }
        }
        let refused = app.upstream_lookups().iter().filter(|lookup| lookup.outcome == Outcome::Throttled).count();
        assert!(refused > 0, "the rival got in the way");
        drop(stealing);
        app.stop_without_pace_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_what_is_ready_gets_the_hits_what_has_come_and_the_rest_as_pending() {
    let app = Setup::new().config("[[lookup]]\nmax_batch_keys = 10").start();
    let ids: Vec<String> = (0..42).map(|index| app.simulator.customer(index).id.to_string()).collect();
    app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, ids[..2].join(","))).await;
    let began = Instant::now();
    let prefer = [("prefer", "wait=2, partial-results")];
    let reply = app.lookup_with(&format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(",")), &prefer).await;
    assert!(began.elapsed() <= Duration::from_millis(2500), "{:?}", began.elapsed());
    let pending = reply.json()["pending"]["audienceUserIdList"].as_array().map_or(0, Vec::len);
    assert!(reply.records().len() >= 12, "{} records", reply.records().len());
    assert_eq!(reply.records().len() + pending, 42);
    assert_eq!(reply.header("preference-applied"), "partial-results");
    // What was asked for stays queued: a retry finds it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = app.lookup_with(&format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(",")), &prefer).await;
    assert!(again.header("cache-status").contains("; hit; "), "{:?}", again.headers);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_deadline_never_shortens_anothers() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_secs(4)).start();
    let body = by_id(app.simulator.customer(2).id);
    let impatient = app.caller();
    let (short, long) = tokio::join!(
        impatient.lookup_with(body.clone(), &[("prefer", "wait=1")]),
        app.lookup_with(&body, &[("prefer", "wait=20")])
    );
    assert_eq!((short.status.as_u16(), short.error_code().as_str()), (504, "LOOKUP_TIMEOUT"));
    assert_eq!(long.records().len(), 1);
    assert_eq!(app.upstream_lookups().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_less_than_configured_is_learned_and_hardly_ever_asked_for_more() {
    let app = Setup::new()
        .config("[[lookup]]\ntimeout = \"10m\"")
        .upstream(|upstream| {
            upstream.max_keys = 40;
            upstream.customers = 10_000;
        })
        .start();
    let ids: Vec<String> = (0..4000).map(|index| app.simulator.customer(index).id.to_string()).collect();
    let bodies = ids.chunks(200).map(|own| format!(r#"{{"audienceUserIdList":[{}]}}"#, own.join(",")));
    let replies = all(bodies.map(|body| app.caller().lookup(body)).collect::<Vec<_>>()).await;
    assert!(replies.iter().all(|reply| reply.records().len() == 200));
    let lookups = app.upstream_lookups();
    let over = lookups.iter().filter(|lookup| lookup.key_count > 40).count();
    assert!(over <= 6, "{over} of {} requests were over 40", lookups.len());
    assert!(lookups.len() < 130, "{} requests for 4000 keys", lookups.len());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn with_a_limit_per_credential_each_token_has_a_pace_and_a_queue_of_its_own() {
    let app = Setup::new()
        .config("[[lookup]]\nmax_batch_keys = 1\nlimit_per = \"credential\"")
        .upstream(|upstream| upstream.limit_per = LimitPer::Token)
        .start();
    let tokens = ["one", "two", "three"];
    let began = Instant::now();
    let calls = (0..15).map(|number| {
        let (caller, body) = (app.caller(), by_id(app.simulator.customer(number).id));
        async move { caller.lookup_with(body, &[("x-token", tokens[usize::try_from(number % 3).unwrap()])]).await }
    });
    assert!(all(calls.collect::<Vec<_>>()).await.iter().all(|reply| reply.records().len() == 1));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let lookups = app.upstream_lookups();
    assert!(lookups.iter().all(|lookup| lookup.outcome == Outcome::Accepted));
    for token in tokens {
        let own: Vec<_> = lookups.iter().filter(|lookup| lookup.token.as_deref() == Some(token)).collect();
        assert_eq!(own.len(), 5);
        assert!(own.windows(2).all(|pair| pair[1].moment - pair[0].moment >= Duration::from_secs(1)));
    }
    app.stop_without_pace_check().await;
}

#[tokio::test(start_paused = true)]
async fn the_tag_path_has_a_queue_and_an_interval_of_its_own() {
    let app = Setup::new().config("[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"").start();
    let id = app.simulator.customer(2).id;
    let tags = app.send(Method::POST, "/api/audience/user/tag/batchlist", &by_id(id), &[]).await;
    assert_eq!(tags.records(), app.simulator.expected_tags("", "", &id.to_string()));
    let detail = app.lookup(&by_id(id)).await;
    assert_eq!(detail.records(), app.simulator.expected("", "", "audienceUserIdList", &id.to_string()));
    let again = app.send(Method::POST, "/api/audience/user/tag/batchlist/", &by_id(id), &[]).await;
    assert_eq!(again.body, tags.body);
    assert!(again.header("cache-status").contains("; hit"));
    app.finish().await;
}
