//! Writes that pass through: what they change is seen by the next lookup, and what they do not change stays cached.

use std::time::Duration;

use audience_gateway::simulator::{Call, Customer};
use http::Method;
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::harness::{App, Reply, Setup, all, read_reply};

const BATCH_ADD: &str = "/audience/info/batchAdd";

/// A lookup's body that asks for one key.
fn asks(list: &str, value: &str) -> String {
    let value = if list == "audienceUserIdList" { value.to_owned() } else { format!("{value:?}") };
    format!(r#"{{"{list}":[{value}]}}"#)
}

/// A write of one item, whose members are given.
fn adds(item: &str) -> String {
    format!(r#"{{"publicParams":{{}},"data":[{{{item},"nickname":"changed"}}]}}"#)
}

/// Each list of the lookup with the value by which the customer stands in it.
fn keys(customer: &Customer) -> [(&'static str, String); 3] {
    [
        ("audienceUserIdList", customer.id.to_string()),
        ("thirdIdList", customer.third_id.clone().expect("a customer with a third id")),
        ("phoneList", customer.phones[0].clone()),
    ]
}

async fn write(app: &App, path: &str, body: &str) -> Reply {
    app.send(Method::POST, path, body, &[]).await
}

/// Looks the customer up by each of its keys, and says for each whether it came from the cache.
async fn look(app: &App, customer: &Customer) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    for (list, value) in keys(customer) {
        let reply = app.lookup(&asks(list, &value)).await;
        found.push((reply.records(), reply.header("cache-status").starts_with("audience-gateway; hit")));
    }
    found
}

/// Asserts that every key gives what the upstream has now.
async fn is_as_upstream(app: &App, customer: &Customer) {
    for ((records, _), (list, value)) in look(app, customer).await.into_iter().zip(keys(customer)) {
        assert_eq!(records, app.simulator.expected("", "", list, &value), "{list}");
        assert!(records[0].contains("changed"), "{list}: {}", records[0]);
    }
}

/// Asserts that every key is a hit that asks the upstream nothing, and gives what it gave before.
async fn is_cached(app: &App, customer: &Customer, before: &[(Vec<String>, bool)]) {
    let asked = app.upstream_lookups().len();
    for ((records, hit), (before, _)) in look(app, customer).await.iter().zip(before) {
        assert!(*hit);
        assert_eq!(records, before);
    }
    assert_eq!(app.upstream_lookups().len(), asked);
}

/// How often each outcome was counted: applied, not applied, too large, unreadable.
async fn outcomes(app: &App) -> [f64; 4] {
    let mut counts = [0.0; 4];
    for (count, outcome) in counts.iter_mut().zip(["applied", "not_applied", "too_large", "unreadable"]) {
        *count = app.metric(&format!("gateway_invalidations_total{{outcome=\"{outcome}\"}}")).await;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn a_write_by_any_key_is_seen_by_the_next_lookup_by_any_key() {
    for kind in 0..3 {
        let app = Setup::new().start();
        let customer = app.simulator.customer(13);
        let before = look(&app, &customer).await;
        is_cached(&app, &customer, &before).await;
        let [(_, id), (_, third_id), (_, phone)] = keys(&customer);
        let item = [
            format!(r#""audienceUserId":"{id}""#),
            format!(r#""thirdId":"{third_id}""#),
            format!(r#""phone":"{phone}""#),
        ];
        let reply = write(&app, BATCH_ADD, &adds(&item[kind])).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (200, &"200".into()));
        is_as_upstream(&app, &customer).await;
        assert_eq!(outcomes(&app).await, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(app.metric("gateway_invalidated_keys_total").await, 3.0);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn both_paths_in_any_spelling_are_the_write() {
    let app = Setup::new().start();
    let customer = app.simulator.customer(13);
    let paths = [
        "/audience/info/batchAdd",
        "/api/open/audience/info/batchAdd",
        "/api/integrate/audience/info/batchAdd",
        "/api/open/api/integrate/audience/info/batchAdd?x=/y",
        "/API/Open//audience/x/../info/;a=1/%62atchADD/",
    ];
    for (path, count) in paths.into_iter().zip(1u8..) {
        let before = look(&app, &customer).await;
        write(&app, path, &adds(&format!(r#""audienceUserId":{},"city":"{count}""#, customer.id))).await;
        is_as_upstream(&app, &customer).await;
        assert_ne!(look(&app, &customer).await[0].0, before[0].0, "{path}");
        assert_eq!(outcomes(&app).await[0], f64::from(count), "{path}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_further_path_is_a_write_with_any_method_that_may_change_something() {
    let config = "[[passthrough.invalidate]]\npath = \"/Echo/Write\"\nitems = \"customers\"";
    let app = Setup::new().config(config).start();
    let customer = app.simulator.customer(13);
    let body = format!(r#"{{"data":[],"customers":[{{"audienceUserId":{}}}]}}"#, customer.id);
    let mut before = look(&app, &customer).await;
    for (method, path, changes) in [
        (Method::POST, "/api/open/echo/%77rite/", true),
        (Method::PUT, "/echo/write", true),
        (Method::PATCH, "/echo/write", true),
        (Method::DELETE, "/echo/write", true),
        (Method::GET, "/echo/write", false),
        (Method::OPTIONS, "/echo/write", false),
        (Method::POST, "/echo/write/more", false),
        (Method::POST, "/echo", false),
    ] {
        app.simulator.touch(13);
        let reply = app.send(method.clone(), path, &body, &[]).await;
        assert_eq!(reply.json()["body"], *body, "{method} {path}");
        if !changes {
            is_cached(&app, &customer, &before).await;
            continue;
        }
        let after = look(&app, &customer).await;
        assert_eq!(after[0].0, app.simulator.expected("", "", "audienceUserIdList", &customer.id.to_string()));
        assert_ne!(after[0].0, before[0].0, "{method} {path}");
        before = after;
    }
    assert_eq!(outcomes(&app).await, [4.0, 0.0, 0.0, 0.0]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_customer_that_a_write_creates_takes_the_place_of_nobody() {
    let app = Setup::new().start();
    let body = asks("phoneList", "19912345678");
    assert_eq!(app.lookup(&body).await.records().len(), 0);
    write(&app, BATCH_ADD, &adds(r#""thirdId":"new","phone":"19912345678""#)).await;
    let records = app.lookup(&body).await.records();
    assert_eq!(records, app.simulator.expected("", "", "thirdIdList", "new"));
    assert_eq!(records.len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_write_takes_from_a_customer_stops_reaching_it() {
    let app = Setup::new().start();
    let customer = app.simulator.customer(2);
    let [by_id, _, (list, old_phone)] = keys(&customer);
    look(&app, &customer).await;
    write(&app, BATCH_ADD, &adds(&format!(r#""audienceUserId":{},"phone":"19912345678""#, by_id.1))).await;
    assert_eq!(app.lookup(&asks(list, &old_phone)).await.records().len(), 0);
    assert_eq!(app.lookup(&asks(list, "19912345678")).await.records().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_write_does_not_name_stays_cached() {
    let app = Setup::new().start();
    let (changed, other) = (app.simulator.customer(13), app.simulator.customer(25));
    look(&app, &changed).await;
    let before = look(&app, &other).await;
    write(&app, BATCH_ADD, &adds(&format!(r#""audienceUserId":{}"#, changed.id))).await;
    is_cached(&app, &other, &before).await;
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_without_success_makes_nothing_old() {
    let items: Vec<_> = (0..501).map(|n| format!(r#"{{"thirdId":"crm-{n}"}}"#)).collect();
    let too_many = |id: i64| format!(r#"{{"data":[{{"audienceUserId":{id}}},{}]}}"#, items.join(","));
    for status in [200, 400, 500] {
        let app = Setup::new().upstream(|upstream| upstream.rejection_status = status).start();
        let customer = app.simulator.customer(13);
        let before = look(&app, &customer).await;
        let reply = write(&app, BATCH_ADD, &too_many(customer.id)).await;
        assert_eq!((reply.status.as_u16(), &*reply.error_code()), (status, "400003"));
        is_cached(&app, &customer, &before).await;

        app.simulator.reconfigure(|upstream| upstream.require_token = true);
        let reply = write(&app, BATCH_ADD, &adds(&format!(r#""audienceUserId":{}"#, customer.id))).await;
        assert_eq!((reply.status.as_u16(), &*reply.error_code()), (status, "100200"));
        is_cached(&app, &customer, &before).await;
        assert_eq!(outcomes(&app).await, [0.0, 2.0, 0.0, 0.0]);
        assert_eq!(app.metric("gateway_invalidated_keys_total").await, 0.0);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_credentials_answers_stay_and_every_scope_of_the_writers_own_is_asked_anew() {
    let app = Setup::new().start();
    let customer = app.simulator.customer(13);
    let plain = asks("audienceUserIdList", &customer.id.to_string());
    let company = plain.replace('{', r#"{"companyId":"42","#);
    let mut before = Vec::new();
    for (token, body) in [("alice", &plain), ("alice", &company), ("bob", &plain)] {
        before.push(app.lookup_with(body, &[("x-token", token)]).await.records());
    }
    app.simulator.touch(13);
    let reply = app
        .send(
            Method::POST,
            BATCH_ADD,
            &adds(&format!(r#""audienceUserId":{}"#, customer.id)),
            &[("x-token", "alice"), ("content-encoding", "Identity")],
        )
        .await;
    assert_eq!(reply.json()["code"], "200");
    for (token, body, company, before, changes) in [
        ("alice", &plain, "", &before[0], true),
        ("alice", &company, "42", &before[1], true),
        ("bob", &plain, "", &before[2], false),
    ] {
        let reply = app.lookup_with(body, &[("x-token", token)]).await;
        assert_eq!(reply.header("cache-status").starts_with("audience-gateway; hit"), !changes, "{token} {company}");
        assert_eq!(&reply.records() == before, !changes);
        if changes {
            let id = customer.id.to_string();
            assert_eq!(reply.records(), app.simulator.expected(token, company, "audienceUserIdList", &id));
        }
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_be_read_passes_whole_and_makes_nothing_old() {
    let app = Setup::new().config("server.max_body = \"4KiB\"").start();
    let customer = app.simulator.customer(13);
    let body = |bytes: usize| {
        let start = format!(r#"{{"data":[{{"audienceUserId":{},"position":""#, customer.id);
        let end = r#"","nickname":"changed"}]}"#;
        let fill = "x".repeat(bytes - start.len() - end.len());
        format!("{start}{fill}{end}")
    };
    let before = look(&app, &customer).await;
    for bytes in [4097, 1 << 20] {
        assert_eq!(write(&app, BATCH_ADD, &body(bytes)).await.json()["code"], "200");
        let upstream = app.simulator.expected("", "", "audienceUserIdList", &customer.id.to_string());
        assert!(upstream[0].contains(&"x".repeat(bytes - 200)), "it was written whole");
        is_cached(&app, &customer, &before).await;
    }
    assert_eq!(outcomes(&app).await, [0.0, 0.0, 2.0, 0.0]);
    write(&app, BATCH_ADD, &body(4096)).await;
    is_as_upstream(&app, &customer).await;
    assert_eq!(outcomes(&app).await, [1.0, 0.0, 2.0, 0.0]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_makes_nothing_old_and_is_counted() {
    let app = Setup::new().config("[[passthrough.invalidate]]\npath = \"/echo/write\"").start();
    let customer = app.simulator.customer(13);
    let before = look(&app, &customer).await;
    let item = format!(r#"{{"audienceUserId":{}}}"#, customer.id);
    let list = format!(r#"{{"data":[{item}]}}"#);
    let form = format!("audienceUserId={}", customer.id);
    let unread = [
        (&*list, "gzip"),
        (&*list, "identity, br"),
        (&*form, "identity"),
        (&*item, "identity"),
        (&*format!(r#"{{"data":{item}}}"#), "identity"),
        (&*format!(r#"[{list}]"#), "identity"),
        (&list[..list.len() - 1], "identity"),
        ("", "identity"),
    ]
    .map(|(body, coding)| (body.to_owned(), coding));
    for (body, coding) in &unread {
        let reply = app.send(Method::POST, "/echo/write", body, &[("content-encoding", coding)]).await;
        assert_eq!(reply.json()["body"], **body);
        is_cached(&app, &customer, &before).await;
    }
    assert_eq!(outcomes(&app).await, [0.0, 0.0, 0.0, unread.len() as f64]);
    // An empty list names nobody, and so does an item without a key.
    for body in [r#"{"data":[]}"#, r#"{"data":[{"openid":"o"}]}"#] {
        app.send(Method::POST, "/echo/write", body, &[]).await;
    }
    is_cached(&app, &customer, &before).await;
    assert_eq!(outcomes(&app).await[0], 2.0);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_before_the_answer_may_have_written() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_millis(500)).start();
    let customer = app.simulator.customer(13);
    look(&app, &customer).await;
    let body = adds(&format!(r#""audienceUserId":{}"#, customer.id));
    let mut caller = app.connect().await.unwrap();
    let head = format!("POST {BATCH_ADD} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    caller.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    // The upstream has written it, and its answer is on the way.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(app.simulator.arrivals().last().unwrap().call, Call::BatchAdd);
    assert_eq!(outcomes(&app).await, [0.0; 4]);
    drop(caller);
    // Until the gateway speaks to it, the caller might still be reading.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(outcomes(&app).await, [1.0, 0.0, 0.0, 0.0]);
    is_as_upstream(&app, &customer).await;
    assert_eq!(outcomes(&app).await, [1.0, 0.0, 0.0, 0.0]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_names_nobody() {
    let app = Setup::new().start();
    let customer = app.simulator.customer(13);
    let before = look(&app, &customer).await;
    let body = adds(&format!(r#""audienceUserId":{}"#, customer.id));
    let mut caller = app.connect().await.unwrap();
    let head = format!("POST {BATCH_ADD} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len() + 1);
    caller.write_all(format!("{head}{}", &body[..20]).as_bytes()).await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_reply(&mut caller).await.status, 400);
    is_cached(&app, &customer, &before).await;
    assert_eq!(outcomes(&app).await, [0.0, 0.0, 0.0, 1.0]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_under_way_does_not_bring_back_what_a_write_changed() {
    let app = Setup::new().upstream(|upstream| upstream.latency = Duration::from_millis(800)).start();
    let customer = app.simulator.customer(13);
    let body = asks("audienceUserIdList", &customer.id.to_string());
    let old = app.simulator.expected("", "", "audienceUserIdList", &customer.id.to_string());
    let start = Instant::now();
    let mut early = JoinSet::new();
    early.spawn(app.caller().lookup(body.clone()));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(app.upstream_lookups().len(), 1, "it was asked, and its answer is on the way");
    app.simulator.reconfigure(|upstream| upstream.latency = Duration::from_millis(50));
    write(&app, BATCH_ADD, &adds(&format!(r#""audienceUserId":{}"#, customer.id))).await;
    assert!(start.elapsed() < Duration::from_millis(200));
    let (late, later) = {
        let mut replies = all([app.caller().lookup(body.clone()), app.caller().lookup(body.clone())]).await;
        (replies.remove(0), replies.remove(0))
    };
    let new = app.simulator.expected("", "", "audienceUserIdList", &customer.id.to_string());
    assert_ne!(old, new);
    assert_eq!((late.records(), later.records()), (new.clone(), new.clone()));
    // Who asked before the write was answered as it was then.
    assert_eq!(early.join_next().await.unwrap().unwrap().records(), old);
    let reply = app.lookup(&body).await;
    assert!(reply.header("cache-status").starts_with("audience-gateway; hit"), "{:?}", reply.headers);
    assert_eq!(reply.records(), new);
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn both_lookup_paths_ask_anew_for_what_a_write_names() {
    let path = "/api/audience/user/tag/batchlist";
    let app = Setup::new().config(&format!("[[lookup]]\n[[lookup]]\npath = \"{path}\"")).start();
    let customer = app.simulator.customer(13);
    let body = asks("audienceUserIdList", &customer.id.to_string());
    look(&app, &customer).await;
    for expected in ["fwd=miss", "hit"] {
        let reply = app.send(Method::POST, path, &body, &[]).await;
        assert!(reply.header("cache-status").starts_with(&format!("audience-gateway; {expected};")));
    }
    write(&app, BATCH_ADD, &adds(&format!(r#""audienceUserId":{}"#, customer.id))).await;
    is_as_upstream(&app, &customer).await;
    let reply = app.send(Method::POST, path, &body, &[]).await;
    assert!(reply.header("cache-status").starts_with("audience-gateway; fwd=miss;"), "{:?}", reply.headers);
    assert_eq!(app.metric("gateway_invalidated_keys_total").await, 4.0);
    app.finish().await;
}
