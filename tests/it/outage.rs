//! Redis stands still under load: hits are hits, misses are told so, the upstream is left alone, and afterwards everything
//! goes on by itself.
//!
//! `REDIS_OUTAGE=20 cargo test outage` takes as many seconds; how long hits take then is measured by `make fleet`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    program::{LOOK, lookup, until},
    town::{KEPT, Town, question},
};

/// Between two questions of one caller.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a request that was granted before may take to be upstream.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// A lookup that was made, and its error, if it is one.
struct Told {
    at: Instant,
    took: Duration,
    error: Option<String>,
}

/// How long Redis is away.
fn outage() -> Duration {
    let seconds = std::env::var("REDIS_OUTAGE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Asks for what the gateway has, until it is stopped: always a hit, and always right.
async fn hits(gateway: SocketAddr, (body, ids): (String, Vec<String>), stop: Arc<AtomicBool>) -> Vec<Told> {
    let mut told = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        let reply = lookup(gateway, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(ids.iter().all(|id| reply.text().contains(&**id)), "a customer is missing");
        assert!(reply.header("cache-status").contains("; hit"), "{}", reply.header("cache-status"));
        told.push(Told { at, took: at.elapsed(), error: None });
        sleep(PAUSE).await;
    }
    told
}

/// Asks for what nobody has: what is answered is right, and what is not says why, and when to come again.
async fn misses(gateway: SocketAddr, stop: Arc<AtomicBool>) -> Vec<Told> {
    let mut told = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let ((body, ids), at) = (question(3), Instant::now());
        let reply = lookup(gateway, &body).await;
        let error = (reply.status != 200).then(|| reply.error_code());
        match &error {
            None => assert!(ids.iter().all(|id| reply.text().contains(&**id)), "a customer is missing"),
            Some(_) => assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0)),
        }
        told.push(Told { at, took: at.elapsed(), error });
        sleep(PAUSE).await;
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_hits_are_hits_misses_are_told_and_nothing_is_asked_and_then_it_goes_on() {
    let town = Town::new(3, "").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (mut hitting, mut missing) = (JoinSet::new(), JoinSet::new());
    let cached = question(20);
    for gateway in town.callers() {
        assert_eq!(lookup(gateway, &cached.0).await.status, 200);
        hitting.spawn(hits(gateway, cached.clone(), Arc::clone(&stop)));
        missing.spawn(misses(gateway, Arc::clone(&stop)));
        missing.spawn(misses(gateway, Arc::clone(&stop)));
    }
    sleep(KEPT * 4).await;
    town.redis.signal("STOP");
    let away = Instant::now();
    sleep(outage()).await;
    let before = Instant::now();
    town.redis.signal("CONT");
    let back = Instant::now();
    for gateway in town.callers() {
        until("misses to be answered again", async || {
            (lookup(gateway, &question(1).0).await.status == 200).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (hits, misses) =
        (hitting.join_all().await.into_iter().flatten(), missing.join_all().await.into_iter().flatten());
    let (hits, misses): (Vec<Told>, Vec<Told>) = (hits.collect(), misses.collect());
    town.check_arrivals();
    let arrivals = town.simulator.lookups();
    let meanwhile = arrivals.iter().filter(|arrival| arrival.judged > away + ON_ITS_WAY && arrival.judged < before);
    assert_eq!(meanwhile.count(), 0, "nothing is asked without Redis");

    let is_away = |told: &&Told| told.at > away && told.at < before;
    let mut waits: Vec<Duration> = hits.iter().filter(is_away).map(|told| told.took).collect();
    waits.sort();
    assert!(!waits.is_empty() && waits[waits.len() / 2] < Duration::from_millis(100), "{:?}", waits.last());
    assert!(misses.iter().any(|told| told.at < away && told.error.is_none()));
    assert!(misses.iter().any(|told| told.at > back && told.error.is_none()));
    let told_so = misses.iter().filter(is_away).filter(|told| told.error.is_some()).count();
    assert!(told_so > 0, "those who ask meanwhile are told");
    for told in misses.iter().filter(|told| told.error.is_some()) {
        assert_eq!(told.error.as_deref(), Some("REPLICAS_UNAVAILABLE"));
        assert!(told.at + told.took > away, "it was not away yet");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_can_only_be_read_is_as_good_as_none_until_it_can_be_written_to() {
    let town = Town::new(2, "").await;
    let cached = question(1).0;
    for gateway in town.callers() {
        assert_eq!(lookup(gateway, &cached).await.status, 200);
    }
    // What a failover makes of the one that everybody is connected to.
    town.redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    for gateway in &town.gateways {
        let refused = async || {
            let reply = timeout(LOOK * 10, lookup(gateway.callers, &question(1).0)).await.ok()?;
            (reply.error_code() == "REPLICAS_UNAVAILABLE").then_some(())
        };
        until("misses to be refused", refused).await;
        assert_eq!(lookup(gateway.callers, &cached).await.status, 200);
        let log = gateway.program.stderr();
        assert!(log.contains("it is a replica, and nothing can be written to it (READONLY)"), "{log}");
        assert_eq!(log.matches("not connected to redis").count(), 1, "it is said once: {log}");
    }
    town.redis.command(&["REPLICAOF", "NO", "ONE"]);
    for gateway in town.callers() {
        let answered = async || (lookup(gateway, &question(1).0).await.status == 200).then_some(());
        until("misses to be answered again", answered).await;
    }
    town.check_arrivals();
}
