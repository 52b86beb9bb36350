//! The warm-up: customers are fetched before anybody asks, in slots that nobody wants, and nobody waits for it.

use std::time::Duration;

use audience_gateway::simulator::{Arrival, Fault};
use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness::{App, DETAIL, Setup};

/// The call that lists the ids.
const ID_LIST: &str = "/api/audience/user/id/list";

/// Small batches, so that a list takes several slots.
const TENS: &str = "[[lookup]]\nmax_batch_keys = 10";

/// The pace that the gateway keeps while the upstream refuses nothing.
const GAP: Duration = Duration::from_millis(1025);

/// A gateway that warms up with these further settings, in front of so many customers.
fn warm(customers: u64, settings: &str) -> Setup {
    let setup = Setup::new().config(TENS).config("[warmup]\nenabled = true").config(settings);
    setup.upstream(|upstream| upstream.customers = customers)
}

fn id(app: &App, customer: u64) -> String {
    app.simulator.customer(customer).id.to_string()
}

fn ids(app: &App, customers: std::ops::Range<u64>) -> Vec<String> {
    customers.map(|customer| id(app, customer)).collect()
}

fn body(id: &str) -> String {
    format!(r#"{{"audienceUserIdList":[{id}]}}"#)
}

/// The ids that lookups asked the upstream for, in order.
fn asked(lookups: &[Arrival]) -> Vec<String> {
    lookups.iter().flat_map(|lookup| lookup.list("audienceUserIdList").to_vec()).collect()
}

fn pages(app: &App) -> Vec<Arrival> {
    let mut pages = app.simulator.arrivals();
    pages.retain(|arrival| arrival.method == Method::GET);
    pages
}

async fn warmup(app: &App) -> Value {
    app.admin("/status.json").await.json()["warmup"].clone()
}

async fn state(app: &App) -> String {
    warmup(app).await["state"].as_str().unwrap().to_owned()
}

async fn keys(app: &App, result: &str) -> u64 {
    app.metric(&format!(r#"gateway_warmup_keys_total{{result="{result}"}}"#)).await as u64
}

async fn counted_pages(app: &App, outcome: &str) -> u64 {
    app.metric(&format!(r#"gateway_warmup_pages_total{{outcome="{outcome}"}}"#)).await as u64
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_off_by_default() {
    let app = Setup::new().start();
    app.lookup(&body(&id(&app, 2))).await;
    seconds(600).await;
    assert_eq!(app.simulator.arrivals().len(), 1);
    assert_eq!(warmup(&app).await, serde_json::json!({ "state": "off", "keys_fetched": 0, "keys_queued": 0 }));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_the_upstream_has_answered_somebody() {
    let app = warm(20, "").upstream(|upstream| upstream.require_token = true).start();
    seconds(600).await;
    assert_eq!(app.lookup(&body(&id(&app, 2))).await.error_code(), "100200");
    seconds(600).await;
    assert_eq!(app.simulator.arrivals().len(), 1, "whose credential is refused is of no use");
    assert_eq!(state(&app).await, "waiting_for_credential");
    // Nor does it take the credential of somebody who wants nothing kept.
    let headers = [("x-token", "a"), ("cache-control", "no-store")];
    assert_eq!(app.lookup_with(&body(&id(&app, 2)), &headers).await.status, 200);
    seconds(600).await;
    assert_eq!(app.simulator.arrivals().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_listed_is_fetched_in_the_lists_order_and_then_found() {
    for limit_per in ["gateway", "credential"] {
        let setup = Setup::new().config(&format!("{TENS}\nlimit_per = \"{limit_per}\"\n[warmup]\nenabled = true"));
        let app = setup.upstream(|upstream| upstream.customers = 25).start();
        let headers = [("x-token", "a")];
        app.lookup_with(&body(&id(&app, 7)), &headers).await;
        seconds(60).await;
        let lookups = app.upstream_lookups();
        let sizes: Vec<_> = lookups.iter().map(|lookup| lookup.key_count).collect();
        assert_eq!(sizes, [1, 10, 10, 4]);
        let expected: Vec<_> = [ids(&app, 0..7), ids(&app, 8..25)].concat();
        assert_eq!(asked(&lookups)[1..], expected, "all but who was cached, in order");
        assert!(app.simulator.arrivals().iter().all(|arrival| arrival.token.as_deref() == Some("a")));
        for customer in 0..25 {
            let reply = app.lookup_with(&body(&id(&app, customer)), &headers).await;
            assert!(reply.header("cache-status").contains("; hit;"), "{}", reply.header("cache-status"));
            let record = app.simulator.expected("a", "", "audienceUserIdList", &id(&app, customer));
            assert_eq!(reply.records(), record);
        }
        assert_eq!((keys(&app, "fetched").await, keys(&app, "already_cached").await), (24, 1));
        assert_eq!((counted_pages(&app, "success").await, counted_pages(&app, "failed").await), (2, 0));
        let done = serde_json::json!({ "state": "done", "keys_fetched": 24, "keys_queued": 0 });
        assert_eq!(warmup(&app).await, done);
        // After the last page it is over, whatever happens.
        app.lookup_with(&body(&id(&app, 2)), &[("x-token", "b")]).await;
        seconds(600).await;
        assert_eq!(app.simulator.arrivals().len(), 4 + 2 + 1);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_uses_no_more_than_its_share_of_the_slots() {
    for (share, slots) in [(1.0, 1), (0.5, 2), (0.1, 10)] {
        let app = warm(100, &format!("slot_share = {share}")).start();
        app.lookup(&body(&id(&app, 0))).await;
        seconds(150).await;
        let lookups = app.upstream_lookups();
        assert_eq!(asked(&lookups).len(), 100);
        for (one, next) in lookups[1..].iter().zip(&lookups[2..]) {
            let gap = next.moment - one.moment;
            assert!(gap >= GAP * slots && gap < GAP * slots + Duration::from_millis(100), "{share}: {gap:?}");
        }
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_takes_the_next_slot_and_then_it_goes_on() {
    // Slow enough that requests of both kinds are under way at once.
    for latency in [80, 2500].map(Duration::from_millis) {
        let setup = warm(300, "slot_share = 1.0").upstream(|upstream| upstream.latency = latency);
        let app = setup.start();
        app.lookup(&body(&id(&app, 0))).await;
        for number in 0..15u64 {
            sleep(Duration::from_millis(900 + number * 137)).await;
            let began = Instant::now();
            app.lookup(&format!(r#"{{"thirdIdList":["nobody-{number}"]}}"#)).await;
            let waited = began.elapsed();
            assert!(waited <= GAP + latency + Duration::from_millis(20), "{number}: {waited:?}");
        }
        assert!(asked(&app.upstream_lookups()).len() < 300, "it was not over before");
        seconds(200).await;
        assert_eq!(asked(&app.upstream_lookups()), ids(&app, 0..300), "each once");
        assert_eq!(state(&app).await, "done");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_lookups_wait_it_asks_for_nothing() {
    let app = warm(1000, "slot_share = 1.0").start();
    // 300 keys in tens: thirty slots in which somebody waits.
    let many: Vec<_> = (0..300).map(|number| format!("\"nobody-{number}\"")).collect();
    let caller = app.caller();
    let many = format!(r#"{{"thirdIdList":[{}]}}"#, many.join(","));
    let (_, seen) = tokio::join!(caller.lookup_with(many, &[("prefer", "partial-results")]), async {
        app.lookup(&body(&id(&app, 0))).await;
        seconds(20).await;
        app.simulator.arrivals()
    });
    assert!(seen.len() > 15);
    assert!(seen.iter().all(|arrival| arrival.method == Method::POST), "no page");
    assert_eq!(asked(&seen).len(), 1, "only what somebody asked for");
    seconds(60).await;
    assert!(asked(&app.upstream_lookups()).len() > 100);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_fills_the_cache_to_its_share_and_goes_on_when_there_is_room() {
    let app = warm(1000, "page_size = 40\ncapacity_share = 0.25\n[cache]\ncapacity = \"400KiB\"").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(600).await;
    let bytes = app.metric("gateway_cache_bytes").await;
    let most = 100.0 * 1024.0;
    assert!(bytes >= most && bytes < most + 10.0 * 8192.0, "one batch over at most: {bytes}");
    assert_eq!(state(&app).await, "full");
    let (asked, fetched) = (app.simulator.arrivals().len(), keys(&app, "fetched").await);
    seconds(600).await;
    assert_eq!(app.simulator.arrivals().len(), asked, "and not a page either");
    app.order("/purge", r#"{"all":true}"#).await;
    seconds(600).await;
    assert!(keys(&app, "fetched").await >= fetched + 10);
    assert_eq!(state(&app).await, "full");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_costs_a_pause_and_no_customer() {
    for fault in [Fault::Status500, Fault::CloseEarly, Fault::Truncated, Fault::Status429] {
        let app = warm(100, "").start();
        app.lookup(&body(&id(&app, 0))).await;
        seconds(5).await;
        app.simulator.reconfigure(|upstream| {
            upstream.fault = fault;
            upstream.fault_count = 2;
        });
        // Nobody calls meanwhile.
        seconds(200).await;
        assert_eq!(keys(&app, "fetched").await, 99, "{fault:?}");
        for customer in 0..100 {
            assert!(app.is_cached(&body(&id(&app, customer)), &[]).await, "{fault:?} {customer}");
        }
        assert_eq!(state(&app).await, "done");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_it_resumes_where_it_was() {
    let app = warm(100, "page_size = 30").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(8).await;
    app.simulator.reconfigure(|upstream| {
        upstream.fault = Fault::Status500;
        upstream.fault_rate = 1.0;
    });
    let before = app.simulator.arrivals().len();
    let fetched = keys(&app, "fetched").await;
    assert!((10..90).contains(&fetched), "{fetched}");
    seconds(1800).await;
    let tries = app.simulator.arrivals().len() - before;
    assert!((1..=4).contains(&tries), "an upstream that is down is left alone: {tries}");
    assert_eq!(keys(&app, "fetched").await, fetched);
    app.simulator.reconfigure(|upstream| upstream.fault_rate = 0.0);
    // Whoever comes finds out that it is back.
    assert_eq!(app.lookup(r#"{"thirdIdList":["nobody"]}"#).await.status, 200);
    seconds(300).await;
    assert_eq!(keys(&app, "fetched").await, 99);
    assert_eq!(state(&app).await, "done");
    // The page that it was in was not asked for again.
    let queries: Vec<_> = pages(&app).into_iter().filter_map(|page| page.query).collect();
    let last_seen = |customer: u64| format!("audienceUserId={}&size=30", id(&app, customer));
    let expected = ["audienceUserId=0&size=30".to_owned(), last_seen(29), last_seen(59), last_seen(89), last_seen(99)];
    assert_eq!(queries, expected);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_not_done_before_the_last_customer_is_fetched() {
    let setup = warm(11, "page_interval = \"1s\"").upstream(|upstream| upstream.latency = Duration::from_secs(5));
    let app = setup.start();
    app.lookup(&body(&id(&app, 0))).await;
    app.simulator.reconfigure(|upstream| {
        upstream.fault = Fault::Status500;
        upstream.fault_count = 1;
    });
    while state(&app).await != "done" {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(pages(&app).len(), 2);
    assert_eq!(keys(&app, "fetched").await, 10, "although the list was through before the first request failed");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_refuses_is_asked_less_and_less_often() {
    let app = warm(100, "slot_share = 1.0").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(5).await;
    let before = app.upstream_lookups().len();
    app.simulator.reconfigure(|upstream| {
        upstream.fault = Fault::Status429;
        upstream.fault_rate = 1.0;
    });
    seconds(1000).await;
    let refused: Vec<_> = app.upstream_lookups().split_off(before);
    let gaps: Vec<_> =
        refused.iter().zip(&refused[1..]).map(|(one, next)| (next.moment - one.moment).as_secs()).collect();
    assert_eq!(gaps, [10, 20, 40, 80, 160, 300, 300]);
    app.simulator.reconfigure(|upstream| upstream.fault_rate = 0.0);
    // Somebody whose lookup is answered ends the pause.
    app.lookup(r#"{"thirdIdList":["nobody"]}"#).await;
    seconds(60).await;
    assert_eq!(keys(&app, "fetched").await, 99);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_that_makes_requests_fail_is_passed_over() {
    let app = warm(60, "slot_share = 1.0").start();
    let bad = id(&app, 13);
    app.simulator.reconfigure(|upstream| upstream.bad_keys.push(bad.clone()));
    app.lookup(&body(&id(&app, 0))).await;
    seconds(300).await;
    for customer in (0..60).filter(|customer| *customer != 13) {
        assert!(app.is_cached(&body(&id(&app, customer)), &[]).await, "{customer}");
    }
    assert_eq!((keys(&app, "fetched").await, state(&app).await.as_str()), (58, "done"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn when_its_credential_is_refused_it_waits_for_another_and_starts_over() {
    let app = warm(50, "").start();
    app.lookup_with(&body(&id(&app, 0)), &[("x-token", "a")]).await;
    seconds(5).await;
    app.simulator.expire_token("a");
    let with = |token: &str| app.upstream_lookups().iter().filter(|l| l.token.as_deref() == Some(token)).count();
    let before = with("a");
    seconds(600).await;
    assert_eq!(with("a"), before + 1, "one refusal is enough");
    assert_eq!(state(&app).await, "waiting_for_credential");
    // A caller who still has it is told so, and that changes nothing.
    assert_eq!(app.lookup_with(&body("5"), &[("x-token", "a")]).await.error_code(), "100200");
    seconds(600).await;
    assert_eq!(with("a"), before + 2);
    app.lookup_with(&body(&id(&app, 49)), &[("x-token", "b")]).await;
    seconds(60).await;
    for customer in 0..50 {
        assert!(app.is_cached(&body(&id(&app, customer)), &[("x-token", "b")]).await, "{customer}");
    }
    assert_eq!((with("a"), state(&app).await.as_str()), (before + 2, "done"));
    assert!(pages(&app).iter().skip(1).all(|page| page.token.as_deref() == Some("b")));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn with_the_same_credential_it_goes_on_where_it_was() {
    let app = warm(50, "").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(4).await;
    app.simulator.reconfigure(|upstream| upstream.require_token = true);
    seconds(100).await;
    assert_eq!(state(&app).await, "waiting_for_credential");
    let queued = warmup(&app).await["keys_queued"].as_u64().unwrap();
    let fetched = keys(&app, "fetched").await;
    assert!(fetched > 0 && queued + fetched == 49, "what was refused is still there: {fetched}, {queued}");
    app.simulator.reconfigure(|upstream| upstream.require_token = false);
    seconds(100).await;
    assert_eq!(keys(&app, "fetched").await, fetched, "it does not try on its own");
    app.lookup(r#"{"thirdIdList":["nobody"]}"#).await;
    seconds(100).await;
    assert_eq!((keys(&app, "fetched").await, state(&app).await.as_str()), (49, "done"));
    assert_eq!(pages(&app).len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_refused_for_its_credential_waits_for_it_too() {
    let app = warm(30, "page_size = 10\npage_interval = \"1m\"").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(30).await;
    app.simulator.reconfigure(|upstream| upstream.require_token = true);
    seconds(600).await;
    assert_eq!((pages(&app).len(), state(&app).await.as_str()), (2, "waiting_for_credential"));
    assert_eq!(counted_pages(&app, "failed").await, 1);
    app.simulator.reconfigure(|upstream| upstream.require_token = false);
    app.lookup(r#"{"thirdIdList":["nobody"]}"#).await;
    seconds(300).await;
    assert_eq!((keys(&app, "fetched").await, state(&app).await.as_str()), (29, "done"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pages_are_bounded_and_paced() {
    let app = warm(30, "page_size = 7\npage_interval = \"20s\"").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(300).await;
    let pages = pages(&app);
    assert_eq!(pages.len(), 6, "five with ids and an empty one");
    for page in &pages {
        assert!(page.path.ends_with(ID_LIST) && page.query.as_deref().unwrap().ends_with("&size=7"), "{page:?}");
    }
    for (one, next) in pages.iter().zip(&pages[1..]) {
        let gap = next.moment - one.moment;
        assert!(gap >= Duration::from_secs(20) && gap < Duration::from_millis(21_100), "{gap:?}");
    }
    assert_eq!(asked(&app.upstream_lookups()), ids(&app, 0..30));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_come_is_asked_for_less_and_less_often() {
    let app = warm(30, "path = \"/no/such/list\"").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(3000).await;
    let pages = pages(&app);
    let gaps: Vec<_> = pages.iter().zip(&pages[1..]).map(|(one, next)| (next.moment - one.moment).as_secs()).collect();
    assert_eq!(gaps, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    assert_eq!(counted_pages(&app, "failed").await, pages.len() as u64);
    assert_eq!((app.upstream_lookups().len(), state(&app).await.as_str()), (1, "failing"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_purged_before_the_turn_came_is_not_fetched() {
    let app = warm(60, "").start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(5).await;
    assert!(!asked(&app.upstream_lookups()).contains(&id(&app, 50)));
    assert_eq!(app.order("/purge", &body(&id(&app, 50))).await.status, 200);
    seconds(100).await;
    assert_eq!(state(&app).await, "done");
    let expected: Vec<_> = [ids(&app, 0..50), ids(&app, 51..60)].concat();
    assert_eq!(asked(&app.upstream_lookups()), expected);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_fetches_for_nobody() {
    let mut app = warm(1000, "slot_share = 1.0").upstream(|up| up.latency = Duration::from_secs(5)).start();
    app.lookup(&body(&id(&app, 0))).await;
    seconds(10).await;
    let before = app.simulator.arrivals().len();
    // Somebody still waits for an answer while it drains, which leaves it several slots.
    let waiting = app.caller().lookup(r#"{"thirdIdList":["nobody"]}"#.to_owned());
    let (reply, ()) = tokio::join!(waiting, async {
        sleep(Duration::from_millis(10)).await;
        app.begin_to_stop();
    });
    assert_eq!(reply.status, 200);
    app.ended().await;
    assert_eq!(app.simulator.arrivals().len(), before + 1, "only what somebody waited for");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_for_the_first_lookup_that_has_such_a_list() {
    let text = "[[lookup]]\npath = \"/own\"\nkey = [{ list = \"names\", record = [\"name\"] }]\n\
                [[lookup]]\npath = \"/api/audience/user/tag/batchlist\"\n[warmup]\nenabled = true";
    let app = Setup::new().config(text).upstream(|upstream| upstream.customers = 20).start();
    let tags = "/api/audience/user/tag/batchlist";
    assert_eq!(app.send(Method::POST, tags, &body(&id(&app, 3)), &[]).await.status, 200);
    seconds(30).await;
    let reply = app.send(Method::POST, tags, &body(&id(&app, 19)), &[("cache-control", "only-if-cached")]).await;
    assert_eq!(reply.records(), app.simulator.expected_tags("", "", &id(&app, 19)));
    assert_eq!((keys(&app, "fetched").await, state(&app).await.as_str()), (19, "done"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_shows_no_customer_and_no_credential() {
    let app = warm(60, "").start();
    app.lookup_with(&body(&id(&app, 0)), &[("x-token", "hidden-token")]).await;
    seconds(5).await;
    assert_eq!(state(&app).await, "fetching");
    for path in ["/metrics", "/status.json"] {
        let reply = app.admin(path).await;
        for secret in ids(&app, 0..60).iter().map(String::as_str).chain(["hidden-token"]) {
            assert!(!reply.text().contains(secret), "{path} shows {secret}");
        }
    }
    assert_eq!(app.send(Method::POST, DETAIL, &body(&id(&app, 0)), &[]).await.status, 200);
    app.finish().await;
}
