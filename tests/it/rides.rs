//! Free rides: room in requests that go anyway, and idle slots, keep fresh what is read.
//!
//! The lifetime is 100 s here: less its spread a key may ride from the 75th second on at the latest, and is fresh up to
//! the 95th at least.

use std::time::Duration;

use audience_gateway::simulator::{Arrival, Outcome};
use http::Method;
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{App, DETAIL, Reply, Setup, request};

const TTL: &str = "cache.ttl = \"100s\"";
const RIDDEN: &str = "gateway_refreshed_keys_total{how=\"ride\"}";
const IDLE: &str = "gateway_refreshed_keys_total{how=\"idle\"}";

const SECOND: Duration = Duration::from_secs(1);

/// A body that asks for these customers by id.
fn by_ids(app: &App, customers: impl IntoIterator<Item = u64>) -> String {
    let ids: Vec<_> = customers.into_iter().map(|index| app.simulator.customer(index).id.to_string()).collect();
    format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
}

fn is_hit(reply: &Reply) -> bool {
    reply.status == 200
        && reply.header("cache-status").contains("; hit;")
        && reply.header("cache-status").contains("stale=0")
}

fn age(reply: &Reply) -> u64 {
    reply.header("age").parse().unwrap_or_else(|_| panic!("no Age in {:?}", reply.headers))
}

/// How many upstream requests asked for a customer by id.
fn times_asked(app: &App, customer: u64) -> usize {
    let id = app.simulator.customer(customer).id.to_string();
    app.upstream_lookups().iter().filter(|lookup| lookup.list("audienceUserIdList").contains(&id)).count()
}

/// How many keys each upstream request carried.
fn sizes(lookups: &[Arrival]) -> Vec<usize> {
    lookups.iter().map(|lookup| lookup.key_count).collect()
}

/// Fetches these customers in one request, and reads each of them from the cache so many times.
async fn fetch_and_read(app: &App, customers: impl IntoIterator<Item = (u64, usize)>, headers: &[(&str, &str)]) {
    let customers: Vec<_> = customers.into_iter().collect();
    let all = by_ids(app, customers.iter().map(|(customer, _)| *customer));
    assert_eq!(app.lookup_with(&all, headers).await.records().len(), customers.len());
    for (customer, reads) in customers {
        for _ in 0..reads {
            assert!(is_hit(&app.lookup_with(&by_ids(app, [customer]), headers).await));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_read_and_about_to_expire_rides_in_somebody_elses_request_and_is_fresh_again() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 1)], &[]).await;
    sleep(80 * SECOND).await;
    app.simulator.touch(2);
    let reply = app.lookup(&by_ids(&app, [12])).await;
    assert_eq!(reply.records().len(), 1, "the miss is answered with its own customer only");
    assert_eq!(sizes(&app.upstream_lookups()), [1, 2]);
    assert_eq!(times_asked(&app, 2), 2);
    assert_eq!(app.metric(RIDDEN).await, 1.0);
    sleep(40 * SECOND).await;
    let read = app.lookup(&by_ids(&app, [2])).await;
    assert!(is_hit(&read) && (39..=41).contains(&age(&read)), "{:?}", read.headers);
    let id = app.simulator.customer(2).id.to_string();
    assert_eq!(read.records(), app.simulator.expected("", "", "audienceUserIdList", &id), "the version of the ride");
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_has_read_since_it_was_fetched_does_not_ride() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 0), (7, 1)], &[]).await;
    sleep(80 * SECOND).await;
    app.lookup(&by_ids(&app, [12])).await;
    assert_eq!((times_asked(&app, 2), times_asked(&app, 7)), (1, 2));
    // What rode was not read since: it does not ride a second time.
    sleep(80 * SECOND).await;
    app.lookup(&by_ids(&app, [15])).await;
    assert_eq!((times_asked(&app, 2), times_asked(&app, 7)), (1, 2));
    assert_eq!(app.metric(RIDDEN).await, 1.0);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_early_in_its_lifetime_does_not_ride_and_one_in_its_last_quarter_does() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 3)], &[]).await;
    for (customer, moment, asked) in [(12, 35, 1), (15, 70, 1), (17, 77, 2)] {
        let now = app.upstream_lookups()[0].moment.elapsed();
        sleep(moment * SECOND - now).await;
        app.lookup(&by_ids(&app, [customer])).await;
        assert_eq!(times_asked(&app, 2), asked, "after {moment} s");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn keys_of_another_token_or_company_never_ride() {
    let app = Setup::new().config(TTL).start();
    let token: &[_] = &[("x-token", "one")];
    fetch_and_read(&app, [(2, 1)], token).await;
    let of_company = |customer| by_ids(&app, [customer]).replace('{', r#"{"companyId":"31","#);
    for _ in 0..2 {
        app.lookup(&of_company(7)).await;
    }
    sleep(80 * SECOND).await;
    let other: &[_] = &[("x-token", "two")];
    app.lookup(&by_ids(&app, [12])).await;
    app.lookup_with(&by_ids(&app, [12]), other).await;
    app.lookup_with(&of_company(12), other).await;
    assert_eq!(app.metric(RIDDEN).await, 0.0);
    // Their own scopes' requests take them along.
    app.lookup_with(&by_ids(&app, [12]), token).await;
    app.lookup(&of_company(12)).await;
    assert_eq!(app.metric(RIDDEN).await, 2.0);
    assert_eq!(sizes(&app.upstream_lookups()), [1, 1, 1, 1, 1, 2, 2]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_most_read_ride_first_where_there_are_few_places() {
    let app = Setup::new().config(&format!("{TTL}\n[[lookup]]\nmax_batch_keys = 3")).start();
    // The more read a customer is, the later it was fetched, so that neither order is the order of arrival.
    for (customer, reads) in [(12, 4), (15, 1), (17, 3), (22, 2)] {
        fetch_and_read(&app, [(customer, reads)], &[]).await;
    }
    sleep(77 * SECOND).await;
    app.lookup(&by_ids(&app, [32])).await;
    assert_eq!([12, 15, 17, 22].map(|customer| times_asked(&app, customer)), [2, 1, 2, 1]);
    app.lookup(&by_ids(&app, [35])).await;
    assert_eq!([12, 15, 17, 22].map(|customer| times_asked(&app, customer)), [2, 2, 2, 2]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn riders_take_no_place_from_a_key_that_is_waited_for() {
    let app = Setup::new().config(&format!("{TTL}\n[[lookup]]\nmax_batch_keys = 3")).start();
    fetch_and_read(&app, [(2, 5), (7, 5), (11, 5)], &[]).await;
    sleep(80 * SECOND).await;
    let began = Instant::now();
    assert_eq!(app.lookup(&by_ids(&app, 20..27)).await.records().len(), 7);
    assert!(began.elapsed() < 3 * SECOND, "{:?} for three batches", began.elapsed());
    assert_eq!(sizes(&app.upstream_lookups()), [3, 3, 3, 3]);
    assert_eq!(app.metric(RIDDEN).await, 2.0, "the two places that the last batch had left");
    let waited_for: Vec<_> = (20..27).map(|index| app.simulator.customer(index).id.to_string()).collect();
    for full in &app.upstream_lookups()[1..3] {
        assert!(full.list("audienceUserIdList").iter().all(|id| waited_for.contains(id)));
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn rides_never_cause_a_request_of_their_own() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 5), (7, 5)], &[]).await;
    sleep(90 * SECOND).await;
    assert!(is_hit(&app.lookup(&by_ids(&app, [2])).await));
    sleep(90 * SECOND).await;
    assert_eq!(app.upstream_lookups().len(), 1, "with idle_refresh = 0");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn until_a_union_is_proved_no_ride_of_another_list_joins_a_waiting_phone() {
    for (mixed_lists, expected) in [("auto", vec![1, 1]), ("union", vec![1, 2]), ("never", vec![1, 1])] {
        let app = Setup::new().config(&format!("{TTL}\n[[lookup]]\nmixed_lists = \"{mixed_lists}\"")).start();
        fetch_and_read(&app, [(2, 1)], &[]).await;
        sleep(80 * SECOND).await;
        assert!(app.lookup(r#"{"phoneList":["10000"]}"#).await.records().is_empty());
        assert_eq!(sizes(&app.upstream_lookups()), expected, "{mixed_lists}: not found is believed at once");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn once_a_union_is_proved_a_ride_of_another_list_joins_and_not_found_is_still_believed_at_once() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 1)], &[]).await;
    let phone = &app.simulator.customer(12).phones[0];
    let proof = by_ids(&app, [13]).replace('{', &format!(r#"{{"phoneList":["{phone}"],"#));
    assert_eq!(app.lookup(&proof).await.records().len(), 2);
    sleep(80 * SECOND).await;
    assert!(app.lookup(r#"{"phoneList":["10000"]}"#).await.records().is_empty());
    assert_eq!(sizes(&app.upstream_lookups()), [1, 2, 2]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_with_riders_goes_again_and_its_riders_keep_their_old_answers() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 3)], &[]).await;
    sleep(80 * SECOND).await;
    // Somebody else uses the slot right before.
    app.ask_upstream(request(Method::POST, DETAIL, &by_ids(&app, [40]), &[])).await;
    let began = Instant::now();
    assert_eq!(app.lookup(&by_ids(&app, [12])).await.records().len(), 1);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    let lookups = app.upstream_lookups();
    let outcomes: Vec<_> = lookups[2..].iter().map(|lookup| lookup.outcome).collect();
    assert_eq!(outcomes, [Outcome::Throttled, Outcome::Accepted]);
    assert_eq!((lookups[2].key_count, times_asked(&app, 12)), (2, 2));
    let ridden = app.metric(RIDDEN).await;
    assert_eq!(ridden, f64::from(u8::from(lookups[3].key_count == 2)), "only what was answered is refreshed");
    assert!(is_hit(&app.lookup(&by_ids(&app, [2])).await));
    app.stop_without_pace_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_rejected_rider_costs_the_waiting_caller_one_slot_and_fails_nobody() {
    let app = Setup::new().config(TTL).start();
    fetch_and_read(&app, [(2, 3), (7, 3)], &[]).await;
    sleep(80 * SECOND).await;
    let bad = app.simulator.customer(2).id.to_string();
    app.simulator.reconfigure(|upstream| upstream.bad_keys = vec![bad]);
    let began = Instant::now();
    assert_eq!(app.lookup(&by_ids(&app, [12, 15])).await.records().len(), 2);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(sizes(&app.upstream_lookups()), [2, 4, 2]);
    assert_eq!(app.metric(RIDDEN).await, 0.0);
    for customer in [2, 7] {
        let read = app.lookup(&by_ids(&app, [customer])).await;
        assert!(is_hit(&read) && age(&read) > 80, "the old answer stays");
    }
    app.finish().await;
}

/// Reads these customers one by one, once a second for so many seconds, and asserts that each read is a hit.
async fn keep_reading(app: &App, customers: std::ops::Range<u64>, seconds: u32) {
    let began = Instant::now();
    for second in 0..seconds {
        for customer in customers.clone() {
            let reply = app.lookup(&by_ids(app, [customer])).await;
            assert!(is_hit(&reply), "customer {customer} after {second} s: {:?}", reply.headers);
        }
        sleep_until(began + (second + 1) * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_idle_refresh_what_is_read_stays_fresh_in_at_most_its_part_of_the_slots() {
    let config = "cache.ttl = \"40s\"\ncache.idle_refresh = 0.5\n[[lookup]]\nmax_batch_keys = 5";
    let app = Setup::new().config(config).start();
    assert_eq!(app.lookup(&by_ids(&app, 100..120)).await.records().len(), 20);
    keep_reading(&app, 100..120, 60).await;
    let (asked, counted) = (app.upstream_lookups().len(), app.metric(IDLE).await);
    keep_reading(&app, 100..120, 60).await;
    let spent = app.upstream_lookups().len() - asked;
    assert!((6..=30).contains(&spent), "{spent} of 60 slots");
    let refreshed = app.metric(IDLE).await - counted;
    assert!((20.0..=60.0).contains(&refreshed), "{refreshed} for 20 customers, each once in 28 to 40 s");
    assert_eq!(app.metric(RIDDEN).await, 0.0);
    // A miss comes at any moment between two of them.
    for (customer, phase) in (300..).zip((0..2100).step_by(100)) {
        keep_reading(&app, 100..120, 2).await;
        sleep(Duration::from_millis(phase)).await;
        let began = Instant::now();
        assert_eq!(app.lookup(&by_ids(&app, [customer])).await.records().len(), 1);
        let took = began.elapsed();
        assert!(took <= SECOND + Duration::from_millis(115), "{took:?} at {phase} ms: an interval, and the answer");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn idle_refresh_takes_no_more_slots_than_granted_however_many_keys_want_them() {
    for (share, most) in [(0.1, 6), (0.25, 15), (0.5, 30)] {
        let config = format!("{TTL}\ncache.idle_refresh = {share}\n[[lookup]]\nmax_batch_keys = 1\ntimeout = \"2m\"");
        let app = Setup::new().config(&config).start();
        fetch_and_read(&app, (100..160).map(|customer| (customer, 1)), &[]).await;
        let loaded = app.upstream_lookups()[0].moment;
        sleep_until(loaded + 76 * SECOND).await;
        let asked = app.upstream_lookups().len();
        sleep(60 * SECOND).await;
        let spent = app.upstream_lookups().len() - asked;
        assert!((most - 1..=most).contains(&spent), "{spent} of 60 slots at {share}");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_refresh_stops_when_nobody_reads_any_more() {
    let app = Setup::new().config(&format!("{TTL}\ncache.idle_refresh = 1.0")).start();
    fetch_and_read(&app, (100..110).map(|customer| (customer, 1)), &[]).await;
    sleep(99 * SECOND).await;
    assert_eq!(times_asked(&app, 100), 2, "it was read since it was fetched");
    let asked = app.upstream_lookups().len();
    sleep(1000 * SECOND).await;
    assert_eq!(app.upstream_lookups().len(), asked, "what was refreshed was not read since");
    assert_eq!(app.metric(IDLE).await, 10.0);
    app.finish().await;
}
