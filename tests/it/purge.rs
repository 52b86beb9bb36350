//! `POST /purge`: customers who are erased are gone under every key, and nothing that was under way brings them back.

use std::time::Duration;

use fastrand::Rng;
use http::Method;
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::harness::{App, Reply, Setup, all, read_reply};

/// The tag lookup below the base URL.
const TAGS: &str = "/api/audience/user/tag/batchlist";
/// Both lookup paths.
const BOTH_LOOKUPS: &str = "[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"";
/// Reads from the cache alone.
const CACHED: [(&str, &str); 1] = [("cache-control", "only-if-cached")];

/// How many keys and records a purge forgot.
fn counts(reply: &Reply) -> (u64, u64) {
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (200, "SUCCESS"), "{}", reply.text());
    let data = &reply.json()["data"];
    (data["keys"].as_u64().unwrap(), data["records"].as_u64().unwrap())
}

async fn purge(app: &App, body: &str) -> (u64, u64) {
    counts(&app.order("/purge", body).await)
}

/// Has every key of a customer answered from the cache from now on.
async fn load(app: &App, customer: u64) {
    for way in app.ways(customer) {
        assert_eq!(app.lookup(&way).await.status, 200);
        assert!(app.is_cached(&way, &[]).await, "{way}");
    }
}

/// Which keys of a customer are answered from the cache.
async fn cached(app: &App, customer: u64) -> Vec<String> {
    let mut cached = Vec::new();
    for way in app.ways(customer) {
        if app.is_cached(&way, &[]).await {
            cached.push(way);
        }
    }
    cached
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_any_key_forgets_every_key_of_that_customer_and_no_other() {
    let app = Setup::new().start();
    load(&app, 2).await;
    let ways = app.ways(13);
    assert_eq!(ways.len(), 4, "an id, a third id and two phones");
    for way in &ways {
        load(&app, 13).await;
        assert_eq!(purge(&app, way).await, (4, 1), "{way}");
        assert_eq!(cached(&app, 13).await, [""; 0], "{way}");
        assert_eq!(purge(&app, way).await, (0, 0), "{way}");
    }
    assert_eq!(cached(&app, 2).await.len(), app.ways(2).len());
    assert!((app.metric("gateway_purged_keys_total").await - 16.0).abs() < 1e-9);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_purge_a_lookup_fetches_again() {
    let app = Setup::new().start();
    let ways = app.ways(2);
    app.lookup(&ways[0]).await;
    app.simulator.touch(2);
    purge(&app, &ways[0]).await;
    let id = app.simulator.customer(2).id.to_string();
    assert_eq!(app.lookup(&ways[1]).await.records(), app.simulator.expected("", "", "audienceUserIdList", &id));
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_phone_that_two_customers_share_forgets_both() {
    let app = Setup::new().start();
    let shared = app.ways(51).pop().unwrap();
    assert!(app.ways(50).contains(&shared));
    for customer in [50, 51] {
        load(&app, customer).await;
    }
    assert_eq!(app.lookup(&shared).await.records().len(), 2);
    let keys = app.ways(50).len() + app.ways(51).len() - 1;
    assert_eq!(purge(&app, &shared).await, (keys as u64, 2));
    for customer in [50, 51] {
        assert_eq!(cached(&app, customer).await, [""; 0]);
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_one_of_two_customers_who_share_a_phone_leaves_the_other() {
    let app = Setup::new().start();
    for customer in [50, 51] {
        load(&app, customer).await;
    }
    purge(&app, &app.ways(50)[0]).await;
    assert_eq!(cached(&app, 50).await, [""; 0], "the phone's answer was not the other's alone");
    assert!(app.is_cached(&app.ways(51)[0], &[]).await);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_phone_that_nobody_asked_for_forgets_who_carries_it() {
    let app = Setup::new().start();
    let ways = app.ways(13);
    app.lookup(&ways[0]).await;
    assert!(app.is_cached(&ways[0], &[]).await && app.is_cached(&ways[1], &[]).await);
    assert!(!app.is_cached(&ways[3], &[]).await);
    assert_eq!(purge(&app, &ways[3]).await, (2, 1));
    assert_eq!(cached(&app, 13).await, [""; 0]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_reaches_every_credential_and_company_whatever_it_says_itself() {
    let app = Setup::new().start();
    let ways = app.ways(2);
    let phone = ways.last().unwrap().clone();
    let of_company = |way: &str| way.replacen('{', r#"{"companyId":"31","#, 1);
    let scopes: Vec<(String, &str)> = vec![
        (phone.clone(), "token-a"),
        // The third id only: that the customer has this phone is read from the record.
        (ways[1].clone(), "token-b"),
        (of_company(&phone), "token-a"),
        (of_company(&ways[0]), "token-b"),
    ];
    for (body, token) in &scopes {
        app.lookup_with(body, &[("x-token", token)]).await;
        assert!(app.is_cached(body, &[("x-token", token)]).await);
    }
    let records = scopes.len() as u64;
    assert_eq!(purge(&app, &of_company(&phone).replace("31", "32")).await.1, records);
    for (body, token) in &scopes {
        assert!(!app.is_cached(body, &[("x-token", token)]).await, "{token}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_follows_a_customer_to_the_other_lookup_paths() {
    let app = Setup::new().config(BOTH_LOOKUPS).start();
    let ways = app.ways(2);
    let tags = |headers: &'static [(&str, &str)]| app.send(Method::POST, TAGS, &ways[0], headers);
    assert_eq!(tags(&[]).await.status, 200);
    assert_eq!(tags(&CACHED).await.status, 200);
    app.lookup(&ways[0]).await;
    // By phone, which the tag lookup does not know.
    assert_eq!(purge(&app, ways.last().unwrap()).await.1, 2);
    assert_eq!(tags(&CACHED).await.status, 504);

    // A list that both have names a customer of either.
    tags(&[]).await;
    assert_eq!(purge(&app, &ways[0]).await, (1, 1));
    assert_eq!(tags(&CACHED).await.status, 504);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_that_there_is_no_such_customer() {
    let app = Setup::new().start();
    let nobody = r#"{"thirdIdList":["nobody"]}"#;
    app.lookup(nobody).await;
    assert!(app.is_cached(nobody, &[]).await);
    assert_eq!(purge(&app, nobody).await.0, 1);
    assert!(!app.is_cached(nobody, &[]).await);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_all_forgets_everything() {
    let app = Setup::new().config(BOTH_LOOKUPS).start();
    for customer in [2, 5, 13] {
        load(&app, customer).await;
    }
    let ways = app.ways(2);
    app.lookup_with(&ways[0], &[("x-token", "somebody")]).await;
    app.send(Method::POST, TAGS, &ways[0], &[]).await;
    let keys = app.metric("gateway_cache_entries").await;
    let (forgotten, records) = purge(&app, r#"{"all":true}"#).await;
    assert!((keys - forgotten as f64).abs() < 1e-9, "{keys} keys were cached, and {forgotten} forgotten");
    assert_eq!(records, 5);
    for customer in [2, 5, 13] {
        assert_eq!(cached(&app, customer).await, [""; 0]);
    }
    assert!(!app.is_cached(&ways[0], &[("x-token", "somebody")]).await);
    assert_eq!(app.send(Method::POST, TAGS, &ways[0], &CACHED).await.status, 504);
    assert!(app.metric("gateway_cache_entries").await.abs() < 1e-9);
    assert!(app.metric("gateway_cache_bytes").await.abs() < 1e-9);
    assert_eq!(purge(&app, r#"{"all":true}"#).await, (0, 0));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_purge_is_refused_like_a_lookup_and_forgets_nothing() {
    let app = Setup::new().config("server.max_body = \"100B\"\n[[lookup]]\nmax_keys_per_request = 2").start();
    load(&app, 2).await;
    let id = app.simulator.customer(2).id;
    let rows = [
        (String::new(), 400),
        ("{".to_owned(), 400),
        ("[]".to_owned(), 400),
        ("{}".to_owned(), 400),
        (r#"{"mobileList":["1"]}"#.to_owned(), 400),
        (r#"{"phoneList":[]}"#.to_owned(), 400),
        (r#"{"all":false}"#.to_owned(), 400),
        (r#"{"all":"true"}"#.to_owned(), 400),
        (r#"{"all":1}"#.to_owned(), 400),
        (format!(r#"{{"audienceUserIdList":{id}}}"#), 400),
        (format!(r#"{{"audienceUserIdList":[{id},2,3]}}"#), 400),
        (format!(r#"{{"audienceUserIdList":[{id}],"a":1,"a":2}}"#), 400),
        (format!(r#"{{"audienceUserIdList":[{id}]}}{}"#, " ".repeat(100)), 413),
    ];
    for (body, status) in rows {
        let reply = app.order("/purge", &body).await;
        assert_eq!(reply.status.as_u16(), status, "{body}");
        assert_eq!(reply.json()["code"], status.to_string());
        assert!(!reply.text().contains(&id.to_string()));
    }
    let way = &app.ways(2)[0];
    let reply = app.order_with(Method::POST, "/purge", way, &[("content-type", "text/plain")]).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let reply = app.order_with(method, "/purge", way, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "POST"));
    }
    assert_eq!(cached(&app, 2).await, app.ways(2));
    let reply = app.order_with(Method::POST, "/purge", way, &[]).await;
    assert_eq!(counts(&reply).1, 1, "a body without a type is taken for JSON");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_does_not_arrive_is_given_up_and_forgets_nothing() {
    for path in ["/purge", "/events"] {
        let app = Setup::new().config("server.header_timeout = \"2s\"").start();
        load(&app, 2).await;
        let way = &app.ways(2)[0];
        let mut io = app.connect_operator().await;
        // One byte less than it says.
        let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n", way.len());
        io.write_all(format!("{head}{}", &way[..way.len() - 1]).as_bytes()).await.unwrap();
        let began = Instant::now();
        let reply = read_reply(&mut io).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (408, "REQUEST_TIMEOUT"), "{path}");
        assert!(began.elapsed() < Duration::from_secs(5), "{path}: {:?}", began.elapsed());
        assert_eq!(cached(&app, 2).await, app.ways(2));
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_customer_without_an_identity_is_purged_by_any_phone_it_carries() {
    let phones = "[[lookup]]\n[[lookup.key]]\nlist = \"phoneList\"\nrecord = [\"phone\", \"phoneList[].phone\"]";
    let app = Setup::new().config(phones).start();
    let ways = app.ways(13);
    let [.., one, other] = &ways[..] else { panic!("it has two phones") };
    app.lookup(one).await;
    assert!(app.is_cached(one, &[]).await);
    assert_eq!(purge(&app, other).await, (1, 1));
    assert!(!app.is_cached(one, &[]).await);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_under_way_is_answered_and_leaves_nothing_behind() {
    for purged in ["id", "phone", "all"] {
        let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_secs(3)).start();
        let ways = app.ways(2);
        let body = match purged {
            "id" => &ways[0],
            "phone" => ways.last().unwrap(),
            _ => r#"{"all":true}"#,
        };
        let order = async {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(purge(&app, body).await, (0, 0), "nothing is cached yet");
        };
        let (reply, ()) = tokio::join!(app.lookup(&ways[0]), order);
        assert_eq!(reply.records().len(), 1, "{purged}");
        assert_eq!(cached(&app, 2).await, [""; 0], "{purged}");
        assert_eq!(app.lookup(&ways[0]).await.records().len(), 1);
        assert_eq!(app.upstream_lookups().len(), 2, "{purged}");
        assert!(app.is_cached(&ways[0], &[]).await, "what was asked for after it is kept");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_a_purge_is_not_given_what_was_under_way_before() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_secs(3)).start();
    let ways = app.ways(2);
    let id = app.simulator.customer(2).id.to_string();
    let expected = || app.simulator.expected("", "", "audienceUserIdList", &id);
    let before = expected();
    let after = async {
        sleep(Duration::from_secs(1)).await;
        app.simulator.touch(2);
        // By phone: that this customer is under way is not known.
        purge(&app, ways.last().unwrap()).await;
        sleep(Duration::from_millis(500)).await;
        app.lookup(&ways[0]).await.records()
    };
    let (first, second) = tokio::join!(app.lookup(&ways[0]), after);
    assert_eq!(first.records(), before);
    assert_eq!(second, expected());
    assert_ne!(second, before);
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_queued_does_not_fetch_a_customer_who_was_purged() {
    for body in ["id", "all"] {
        let app = Setup::new().config("cache.ttl = \"10s\"").start();
        let ways = app.ways(2);
        // Once: what was read would ride with the next request before anybody asks.
        app.lookup(&ways[0]).await;
        sleep(Duration::from_secs(11)).await;
        // Somebody else has the slot, and so the refresh waits for the next.
        app.lookup(&app.ways(5)[0]).await;
        let asked = app.upstream_lookups().len();
        assert_eq!(app.lookup(&ways[0]).await.status, 200);
        assert!((app.metric(r#"gateway_queue_keys{class="refresh"}"#).await - 1.0).abs() < 1e-9);
        let body = if body == "id" { ways.last().unwrap() } else { r#"{"all":true}"# };
        purge(&app, body).await;
        assert!(app.metric(r#"gateway_queue_keys{class="refresh"}"#).await.abs() < 1e-9);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(app.upstream_lookups().len(), asked);
        assert_eq!(cached(&app, 2).await, [""; 0]);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_queue_during_a_purge_is_answered() {
    let app = Setup::new().start();
    let ways = app.ways(2);
    // The slot is used: the next lookup waits for a second.
    app.lookup(&app.ways(5)[0]).await;
    let order = async {
        sleep(Duration::from_millis(300)).await;
        purge(&app, &ways[0]).await;
    };
    let (reply, ()) = tokio::join!(app.lookup(&ways[0]), order);
    assert_eq!(reply.records().len(), 1);
    assert!(app.is_cached(&ways[0], &[]).await, "it was fetched after the purge");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_carried_out_while_draining() {
    let mut app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_secs(3)).start();
    load(&app, 2).await;
    let mut waiting = JoinSet::new();
    waiting.spawn(app.caller().lookup(app.ways(5)[0].clone()));
    sleep(Duration::from_millis(100)).await;
    app.begin_to_stop();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(app.admin("/readyz").await.status, 503);
    assert_eq!(purge(&app, &app.ways(2)[0]).await.1, 1);
    assert_eq!(waiting.join_next().await.unwrap().unwrap().status, 200);
    app.finish().await;
}

/// What says that a customer is not to be given any more as it was.
#[derive(Clone, Copy, Debug)]
enum Order {
    Purge,
    Event,
}

/// A random schedule: lookups of a few customers, two of whom share a phone, and one order, for one of them by any key.
/// Just before it that customer changes upstream. Returns how many lookups came after it.
async fn schedule(order: Order, seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let latency = Duration::from_millis(rng.u64(10..4000));
    let app = Setup::new()
        .config("cache.ttl = \"3s\"\n[[lookup]]\nlinger = \"0s\"\nmax_batch_keys = 3")
        .upstream(|upstream| upstream.latency = latency)
        .start();
    let customers = [2, 13, 50, 51];
    let meant = customers[rng.usize(..customers.len())];
    let (start, within) =
        (Instant::now(), |rng: &mut Rng, seconds: u64| Duration::from_millis(rng.u64(0..seconds * 1000)));
    let order_at = start + within(&mut rng, 12);
    let customer = app.simulator.customer(meant);
    let id = customer.id.to_string();
    let (path, body) = match (order, rng.bool()) {
        (Order::Purge, _) => {
            let mut ways = app.ways(meant);
            ("/purge", ways.swap_remove(rng.usize(..ways.len())))
        }
        (Order::Event, true) => ("/events", format!(r#"{{"audienceUserId":{id}}}"#)),
        (Order::Event, false) => ("/events", format!(r#"{{"thirdId":"{}"}}"#, customer.third_id.unwrap())),
    };
    let callers: Vec<_> = (0..40)
        .map(|_| {
            let at = start + within(&mut rng, 20);
            let mut ways = app.ways(customers[rng.usize(..customers.len())]);
            let (way, caller) = (ways.swap_remove(rng.usize(..ways.len())), app.caller());
            async move {
                sleep_until(at).await;
                (at, way.clone(), caller.lookup(way).await)
            }
        })
        .collect();
    let old = app.simulator.expected("", "", "audienceUserIdList", &id);
    let give = async {
        sleep_until(order_at).await;
        app.simulator.touch(meant);
        assert_eq!(app.order(path, &body).await.status, 200);
        Instant::now()
    };
    let (replies, given_at) = tokio::join!(all(callers), give);
    let mut after = 0;
    for (at, way, reply) in replies.into_iter().filter(|(at, ..)| *at > given_at) {
        let told = || format!("seed {seed}: {way} at {:?}, {path} {body} at {:?}", at - start, given_at - start);
        assert_eq!(reply.status, 200, "{}: {}", told(), reply.text());
        assert!(!reply.records().contains(&old[0]), "{}: what was fetched before", told());
        after += 1;
    }
    app.finish().await;
    after
}

#[tokio::test(start_paused = true)]
async fn in_any_interleaving_no_key_gives_what_was_fetched_before_a_purge() {
    let mut after = 0;
    for seed in 0..150 {
        after += schedule(Order::Purge, seed).await;
    }
    assert!(after > 1500, "only {after} lookups came after a purge");
}

#[tokio::test(start_paused = true)]
async fn in_any_interleaving_no_key_gives_what_was_fetched_before_an_event() {
    let mut after = 0;
    for seed in 0..150 {
        after += schedule(Order::Event, seed).await;
    }
    assert!(after > 1500, "only {after} lookups came after an event");
}
