//! Stale answers while the upstream fails, refreshes beside misses, and newer versions of a customer.

use std::time::Duration;

use audience_gateway::simulator::Fault;
use http::Method;
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{App, Reply, Setup, request};

const SECOND: Duration = Duration::from_secs(1);

/// Short enough to be called at once, in virtual time that only waits let pass.
const AT_ONCE: Duration = Duration::from_millis(5);

/// A body that asks for these customers by id.
fn by_ids(app: &App, customers: impl IntoIterator<Item = u64>) -> String {
    let ids: Vec<_> = customers.into_iter().map(|index| app.simulator.customer(index).id.to_string()).collect();
    format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
}

fn age(reply: &Reply) -> u64 {
    reply.header("age").parse().unwrap_or_else(|_| panic!("no Age in {:?}", reply.headers))
}

/// Looks up, and says how long that took.
async fn timed(app: &App, body: &str) -> (Reply, Duration) {
    let began = Instant::now();
    let reply = app.lookup(body).await;
    (reply, began.elapsed())
}

/// Asserts that the answer is the cached one of `fetched`, too old and given all the same.
#[track_caller]
fn assert_stale(reply: &Reply, records: &[String], fetched: Instant) {
    assert_eq!(reply.records(), records);
    assert!(reply.header("cache-status").contains("stale=1 negative=0 miss=0"), "{:?}", reply.headers);
    // Fetched is when the caller asked: its request went up to `linger` later.
    let true_age = fetched.elapsed().as_secs();
    assert!((true_age.saturating_sub(1)..=true_age).contains(&age(reply)), "{} for {true_age}", age(reply));
}

/// What an upstream is like that does not answer: a fault, or a refusal of everything.
fn break_upstream(app: &App, fault: Option<Fault>) {
    app.simulator.reconfigure(|upstream| match fault {
        Some(fault) => (upstream.fault, upstream.fault_rate) = (fault, 1.0),
        None => upstream.interval = 24 * 3600 * SECOND,
    });
}

#[tokio::test(start_paused = true)]
async fn within_stale_if_error_no_second_attempt_is_waited_for_and_later_no_first_one() {
    for fault in [Some(Fault::Status500), Some(Fault::CloseEarly), Some(Fault::Hang), None] {
        let config = "cache.ttl = \"10s\"\ncache.negative_ttl = \"10s\"\ncache.stale_while_revalidate = \"0s\"\n\
                      upstream.request_timeout = \"2s\"";
        let app = Setup::new().config(config).start();
        let (body, nobody) = (by_ids(&app, [2]), r#"{"thirdIdList":["nobody"]}"#);
        let fetched = Instant::now();
        let records = app.lookup(&body).await.records();
        assert!(app.lookup(nobody).await.records().is_empty());
        let asked = app.upstream_lookups().len();
        break_upstream(&app, fault);
        sleep(60 * SECOND).await;
        let (first, took) = timed(&app, &body).await;
        assert_stale(&first, &records, fetched);
        assert!(first.header("cache-status").starts_with("audience-gateway; fwd=stale;"), "{:?}", first.headers);
        assert_eq!(app.upstream_lookups().len(), asked + 1, "{fault:?}: one attempt");
        let attempt = if fault == Some(Fault::Hang) { 2 * SECOND } else { Duration::ZERO };
        assert!(took < attempt + Duration::from_millis(200), "{took:?}, {fault:?}");
        for _ in 0..40 {
            let (again, took) = timed(&app, &body).await;
            assert_stale(&again, &records, fetched);
            assert!(again.header("cache-status").contains("; fwd=stale;") && took < AT_ONCE, "{took:?}, {fault:?}");
            let (absent, took) = timed(&app, nobody).await;
            assert!(absent.records().is_empty() && took < AT_ONCE, "{took:?}, {fault:?}");
            assert!(age(&absent) >= 59 && absent.header("cache-status").contains("; fwd=stale;"));
            sleep(Duration::from_millis(333)).await;
        }
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_stale_if_error_nothing_old_is_given() {
    let config = "cache.ttl = \"10s\"\ncache.stale_while_revalidate = \"0s\"\ncache.stale_if_error = \"60s\"";
    let app = Setup::new().config(config).start();
    let body = by_ids(&app, [2]);
    app.lookup(&body).await;
    break_upstream(&app, Some(Fault::Status500));
    sleep(65 * SECOND).await;
    assert_eq!(app.lookup(&body).await.status, 200);
    sleep(6 * SECOND).await;
    assert_eq!(app.lookup(&body).await.error_code(), "UPSTREAM_UNAVAILABLE");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_keeps_the_old_answer() {
    let app = Setup::new().config("cache.ttl = \"10s\"").start();
    let body = by_ids(&app, [2]);
    let fetched = Instant::now();
    let records = app.lookup(&body).await.records();
    break_upstream(&app, Some(Fault::Status500));
    for _ in 0..30 {
        sleep(20 * SECOND).await;
        let (reply, took) = timed(&app, &body).await;
        assert_stale(&reply, &records, fetched);
        assert!(took < AT_ONCE, "{took:?}");
    }
    assert!(app.upstream_lookups().len() > 30, "each was refreshed behind");
    app.simulator.touch(2);
    app.simulator.reconfigure(|upstream| upstream.fault_rate = 0.0);
    sleep(20 * SECOND).await;
    app.lookup(&body).await;
    sleep(2 * SECOND).await;
    let id = app.simulator.customer(2).id.to_string();
    assert_eq!(app.lookup(&body).await.records(), app.simulator.expected("", "", "audienceUserIdList", &id));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_miss_in_the_middle_of_two_thousand_refreshes_waits_at_most_two_intervals() {
    let app = Setup::new().config("cache.ttl = \"60s\"").upstream(|upstream| upstream.customers = 5000).start();
    let halves = [by_ids(&app, 0..1000), by_ids(&app, 1000..2000)];
    for half in &halves {
        assert_eq!(app.lookup(half).await.records().len(), 1000);
    }
    sleep(300 * SECOND).await;
    let loaded = app.upstream_lookups().len();
    for half in &halves {
        let (reply, took) = timed(&app, half).await;
        assert!(took < AT_ONCE && reply.header("cache-status").contains("stale=1000"), "{took:?}");
    }
    for (customer, phase) in (3000..3009).zip((0..1800).step_by(200)) {
        sleep(Duration::from_millis(phase)).await;
        let before = app.upstream_lookups().len();
        let (reply, took) = timed(&app, &by_ids(&app, [customer])).await;
        assert_eq!(reply.records().len(), 1);
        assert!(took <= 2 * SECOND, "{took:?} at {phase} ms");
        let id = app.simulator.customer(customer).id.to_string();
        let lookups = app.upstream_lookups();
        let slot = lookups[before..].iter().position(|lookup| lookup.list("audienceUserIdList").contains(&id));
        assert!(slot.is_some_and(|slot| slot < 2), "slot {slot:?} at {phase} ms");
    }
    let spent = app.upstream_lookups().len() - loaded;
    assert!(spent < 20, "they came in the middle of it: {spent}");
    sleep(30 * SECOND).await;
    assert_eq!(app.upstream_lookups().len() - loaded, 21, "and cost one request more in all");
    for half in &halves {
        assert!(app.lookup(half).await.header("cache-status").contains("hit=1000"));
    }
    app.finish().await;
}

/// An upstream that is down for a minute and comes back `phase` later: what callers meet until and after that.
async fn outage(fault: Fault, phase: Duration) {
    let config = "cache.ttl = \"10s\"\ncache.stale_while_revalidate = \"0s\"";
    let app = Setup::new().config(config).start();
    let body = by_ids(&app, [2]);
    let fetched = Instant::now();
    let records = app.lookup(&body).await.records();
    sleep(20 * SECOND).await;
    break_upstream(&app, Some(fault));
    let (began, end) = (Instant::now(), Instant::now() + 60 * SECOND + phase);
    let mut misses = 0;
    // The first callers find out; from then on it is known.
    assert_stale(&app.lookup(&body).await, &records, fetched);
    for customer in 100..103 {
        assert_eq!(app.lookup(&by_ids(&app, [customer])).await.error_code(), "UPSTREAM_UNAVAILABLE");
    }
    assert!(began.elapsed() < 15 * SECOND, "{:?} to find out", began.elapsed());
    while Instant::now() + 700 * Duration::from_millis(1) < end {
        let (cached, took) = timed(&app, &body).await;
        assert_stale(&cached, &records, fetched);
        assert!(took < AT_ONCE, "{took:?} after {:?} {fault:?}", began.elapsed());
        let (miss, took) = timed(&app, &by_ids(&app, [200 + misses])).await;
        assert_eq!((miss.status.as_u16(), miss.error_code().as_str()), (502, "UPSTREAM_UNAVAILABLE"));
        assert!(miss.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=5).contains(&wait)));
        assert!(took < SECOND, "{took:?} after {:?} {fault:?}", began.elapsed());
        misses += 1;
        sleep(Duration::from_millis(550)).await;
    }
    assert!(misses > 60);
    sleep_until(end).await;
    app.simulator.reconfigure(|upstream| upstream.fault_rate = 0.0);
    let newcomer = by_ids(&app, [900]);
    while app.lookup(&newcomer).await.status != 200 {
        assert!(end.elapsed() < 5 * SECOND, "still down, {phase:?} {fault:?}");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(end.elapsed() <= 3 * SECOND, "{:?} after recovery, {phase:?} {fault:?}", end.elapsed());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_minute_is_met_with_old_answers_quick_refusals_and_a_quick_return() {
    for fault in [Fault::Status500, Fault::CloseEarly] {
        for phase in (0..3000).step_by(150) {
            outage(fault, Duration::from_millis(phase)).await;
        }
    }
}

/// Writes these items directly at the upstream.
async fn write_upstream(app: &App, items: &str) {
    let body = format!(r#"{{"publicParams":{{}},"data":[{items}]}}"#);
    let reply = app.ask_upstream(request(Method::POST, "/audience/info/batchAdd", &body, &[])).await;
    assert_eq!(reply.json()["code"], "200", "{}", reply.text());
}

const NO_CACHE: &[(&str, &str)] = &[("cache-control", "no-cache")];

#[tokio::test(start_paused = true)]
async fn a_newer_version_under_one_key_is_what_every_other_key_gives() {
    let app = Setup::new().start();
    let ways = app.ways(13);
    assert_eq!(ways.len(), 4, "an id, a third id and two phones");
    for fetched_by in &ways {
        for way in &ways {
            app.lookup(way).await;
        }
        app.simulator.touch(13);
        let newer = app.lookup_with(fetched_by, NO_CACHE).await.records();
        let asked = app.upstream_lookups().len();
        for way in &ways {
            assert_eq!(app.lookup(way).await.records(), newer, "{way}");
        }
        assert_eq!(app.upstream_lookups().len(), asked, "each from the cache");
        let id = app.simulator.customer(13).id.to_string();
        assert_eq!(newer, app.simulator.expected("", "", "audienceUserIdList", &id));
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_phone_and_a_third_id_that_a_customer_lost_stop_reaching_it() {
    let app = Setup::new().start();
    let ways = app.ways(2);
    for way in &ways {
        assert_eq!(app.lookup(way).await.records().len(), 1);
    }
    let id = app.simulator.customer(2).id;
    write_upstream(&app, &format!(r#"{{"audienceUserId":{id},"thirdId":"moved","phone":"19912345678"}}"#)).await;
    let newer = app.lookup_with(&ways[0], NO_CACHE).await.records();
    for lost in &ways[1..] {
        assert!(app.lookup(lost).await.records().is_empty(), "{lost}");
    }
    for gained in [r#"{"thirdIdList":["moved"]}"#, r#"{"phoneList":["19912345678"]}"#] {
        assert_eq!(app.lookup(gained).await.records(), newer, "{gained}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_customer_replaces_the_negative_answers_of_its_keys() {
    let (third, phone) = (r#"{"thirdIdList":["newcomer"]}"#, r#"{"phoneList":["19912345678"]}"#);
    for (seen_by, other) in [(third, phone), (phone, third)] {
        let app = Setup::new().config("cache.negative_ttl = \"1h\"").start();
        for way in [third, phone] {
            assert!(app.lookup(way).await.records().is_empty());
            assert!(app.is_cached(way, &[]).await);
        }
        write_upstream(&app, r#"{"thirdId":"newcomer","phone":"19912345678"}"#).await;
        assert!(app.lookup(other).await.records().is_empty(), "nobody has told the gateway yet");
        let records = app.lookup_with(seen_by, NO_CACHE).await.records();
        assert_eq!(records.len(), 1);
        assert_eq!(app.lookup(other).await.records(), records, "{other}");
        app.finish().await;
    }
}
