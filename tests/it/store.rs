//! What survives a restart: the whole program, killed at any moment.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use http::Method;
use tokio::time::Instant;

use crate::{
    harness::Reply,
    program::{Desk, Program, by_id, customer, get, lookup, send, serve, simulate, until},
};

/// A store in the test's directory, and a path fast enough for a test.
const STORE: &str = "[store]\nkind = \"disk\"\npath = \"store\"\n[[lookup]]\ninterval = \"20ms\"\n";

/// How often the gateway is killed under load.
fn kills() -> u64 {
    std::env::var("STORE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(200)
}

async fn upstream(desk: &Desk) -> (Program, SocketAddr) {
    simulate(desk, &["--interval", "10ms", "--latency", "1ms", "--jitter", "0ms"]).await
}

/// Waits until everything that was fetched is on the disk.
async fn saved(operators: SocketAddr, answers: u64) {
    until("the answers to be stored", async || {
        let metrics = get(operators, "/metrics").await;
        let line = metrics.text().lines().find(|line| line.starts_with("gateway_store_saves_total{result=\"saved\"}"));
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        count.filter(|count| *count >= answers)
    })
    .await;
}

async fn only_if_cached(to: SocketAddr, body: &str) -> Reply {
    send(to, Method::POST, crate::harness::DETAIL, body, &[("cache-control", "only-if-cached")]).await
}

async fn purge(operators: SocketAddr, body: &str) -> serde_json::Value {
    let reply = send(operators, Method::POST, "/purge", body, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["data"].clone()
}

fn is_hit(reply: &Reply) -> bool {
    reply.status == 200 && reply.header("cache-status").contains("; hit")
}

fn by_phone(index: u64) -> String {
    format!(r#"{{"phoneList":["{}"]}}"#, customer(index).phones[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_lookup_after_a_kill_is_a_hit_with_the_same_bytes_and_its_true_age() {
    let desk = Desk::new();
    let (_upstream, address) = upstream(&desk).await;
    let config = desk.config(address, STORE);
    let (program, callers, operators) = serve(&desk, &config).await;
    let mut before = Vec::new();
    for index in 2..12 {
        before.push(lookup(callers, &by_id(index)).await);
    }
    let phone = lookup(callers, &by_phone(2)).await;
    let nobody = r#"{"audienceUserIdList":[1]}"#;
    assert!(lookup(callers, nobody).await.records().is_empty());
    saved(operators, 12).await;
    drop(program);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (program, callers, operators) = serve(&desk, &config).await;
    for (index, before) in (2..12).zip(&before) {
        let after = lookup(callers, &by_id(index)).await;
        assert!(is_hit(&after), "{}", after.header("cache-status"));
        assert_eq!(after.body, before.body);
        assert!(after.header("age").parse::<u64>().unwrap() >= 1);
        let third = customer(index).third_id.map(|third| format!(r#"{{"thirdIdList":["{third}"]}}"#));
        if let Some(third) = third {
            assert!(is_hit(&lookup(callers, &third).await));
        }
    }
    let again = lookup(callers, &by_phone(2)).await;
    assert!(is_hit(&again) && again.body == phone.body);
    assert!(is_hit(&lookup(callers, nobody).await));
    let metrics = get(operators, "/metrics").await;
    assert!(
        !metrics
            .text()
            .contains("gateway_upstream_requests_total{lookup=\"/api/audience/detail\",outcome=\"success\"} 1")
    );
    assert!(metrics.text().contains("gateway_store_reads_total{result=\"found\"}"));
    let series = metrics.text().lines().filter(|line| line.starts_with("gateway_")).count();
    assert!(series < 300, "{series} series");
    // What the files hold is for no other eyes.
    drop(program);
    let secret = customer(2).phones[0].clone();
    for file in fs::read_dir(desk.0.path().join("store")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_purged_is_not_back_after_a_kill_even_if_only_the_disk_knew() {
    let desk = Desk::new();
    let (_upstream, address) = upstream(&desk).await;
    let config = desk.config(address, STORE);
    let (program, callers, operators) = serve(&desk, &config).await;
    for index in 2..6 {
        lookup(callers, &by_id(index)).await;
    }
    let counted = purge(operators, &by_id(2)).await;
    // Killed the moment it was said.
    drop(program);
    let (program, callers, operators) = serve(&desk, &config).await;
    assert_eq!(only_if_cached(callers, &by_id(2)).await.error_code(), "NOT_CACHED");
    assert!(is_hit(&only_if_cached(callers, &by_id(3)).await), "what was saved before the purge was written before it");
    // Nobody has asked for this one since the start.
    assert_eq!(purge(operators, &by_phone(4)).await, counted);
    drop(program);
    let (program, callers, operators) = serve(&desk, &config).await;
    assert_eq!(only_if_cached(callers, &by_id(4)).await.error_code(), "NOT_CACHED");
    let id = customer(5).id;
    let event = send(operators, Method::POST, "/events", &format!(r#"{{"audienceUserId":{id}}}"#), &[]).await;
    assert_eq!(event.status, 200);
    drop(program);
    let (program, callers, operators) = serve(&desk, &config).await;
    assert_eq!(only_if_cached(callers, &by_id(5)).await.error_code(), "NOT_CACHED");
    purge(operators, r#"{"all":true}"#).await;
    drop(program);
    let (_program, callers, _) = serve(&desk, &config).await;
    assert_eq!(only_if_cached(callers, &by_id(3)).await.error_code(), "NOT_CACHED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_holds_more_than_the_memory() {
    let desk = Desk::new();
    let (_upstream, address) = upstream(&desk).await;
    let config = desk.config(address, &format!("cache.capacity = \"40KiB\"\n{STORE}"));
    let (_program, callers, operators) = serve(&desk, &config).await;
    for index in 0..60 {
        assert_eq!(lookup(callers, &by_id(index)).await.status, 200);
    }
    saved(operators, 60).await;
    for index in 0..60 {
        assert!(is_hit(&only_if_cached(callers, &by_id(index)).await), "{index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_corrupt_nothing_and_bring_nobody_back() {
    let desk = Desk::new();
    let (_upstream, address) = upstream(&desk).await;
    let config = desk.config(address, STORE);
    let mut expected = None;
    let (mut purged, mut cached) = (Vec::new(), Vec::new());
    let kills = kills();
    for round in 0..=kills {
        let (program, callers, operators) = serve(&desk, &config).await;
        // Those of the last round; all there were, after the last kill.
        let all = if round == kills { usize::MAX } else { 1 };
        for index in cached.iter().rev().take(all) {
            assert!(is_hit(&only_if_cached(callers, &by_id(*index)).await), "{index} in round {round}");
        }
        for index in purged.iter().rev().take(all) {
            let reply = only_if_cached(callers, &by_id(*index)).await;
            assert_eq!(reply.error_code(), "NOT_CACHED", "{index} in round {round}");
        }
        let first = lookup(callers, &by_id(2)).await;
        let expected = expected.get_or_insert_with(|| first.body.clone());
        assert_eq!(first.body, *expected);
        // A customer who is purged, and one who stays; then new ones, for a while, until the kill comes in between.
        let (gone, stays) = (1000 + 2 * round, 1001 + 2 * round);
        lookup(callers, &by_id(gone)).await;
        lookup(callers, &by_id(stays)).await;
        purge(operators, &by_id(gone)).await;
        purged.push(gone);
        cached.push(stays);
        let until = Instant::now() + Duration::from_millis(fastrand::u64(..60));
        let mut index = 100_000 + 100 * round;
        while Instant::now() < until {
            lookup(callers, &by_id(index)).await;
            index += 1;
        }
        drop(program);
        let log = fs::read_to_string(desk.0.path().join("serve.stderr")).unwrap();
        assert!(!log.contains("set aside") && !log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_and_a_second_process_is_turned_away() {
    let desk = Desk::new();
    let (_upstream, address) = upstream(&desk).await;
    let config = desk.config(address, STORE);
    let (program, callers, operators) = serve(&desk, &config).await;
    lookup(callers, &by_id(2)).await;
    saved(operators, 1).await;
    let second = Program::start(&desk, "second", &["serve", "--config", config.to_str().unwrap()]);
    let (status, _, stderr) = second.finished().await;
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("is in use by another process"), "{stderr}");
    drop(program);
    let store = desk.0.path().join("store");
    for damage in [damage_by_cutting, damage_by_rubbish] {
        damage(&store);
        let (program, callers, operators) = serve(&desk, &config).await;
        let log = program.stderr();
        assert_eq!(log.matches("was set aside").count(), 1, "{log}");
        assert_eq!(only_if_cached(callers, &by_id(2)).await.error_code(), "NOT_CACHED");
        lookup(callers, &by_id(2)).await;
        saved(operators, 1).await;
    }
    let names = fs::read_dir(&store).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".set-aside-")).count(), 1, "only the last is kept");
}

fn damage_by_cutting(store: &Path) {
    let path = store.join("0000000001.rows");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
}

fn damage_by_rubbish(store: &Path) {
    fs::write(store.join("0000000001.rows"), "this is a letter, and no store").unwrap();
}
