//! Several gateways in front of one upstream share one slot and one queue, whatever becomes of them and of Redis.
//!
//! Intervals are short, so that a minute's worth of slots takes seconds.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    program::{LOOK, get, lookup, send, until},
    town::{KEPT, Load, Town, question},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_share_use_every_slot_and_no_more() {
    let town = Town::new(3, "").await;
    let all = town.callers();
    let (began, load) = (Instant::now(), Load::start(&all[..2], 4, 30));
    sleep(KEPT * 4).await;
    // A lone miss beside two that are busy.
    let mut waits = Vec::new();
    for _ in 0..6 {
        let (body, ids) = question(1);
        let asked = Instant::now();
        let reply = lookup(all[2], &body).await;
        waits.push(asked.elapsed());
        assert!(reply.status == 200 && reply.text().contains(&*ids[0]));
        sleep(KEPT / 3).await;
    }
    sleep(KEPT * 10).await;
    let slots = began.elapsed().as_secs_f64() / KEPT.as_secs_f64();
    let used = town.check_arrivals();
    let (answered, refused) = load.finish().await;
    let mut operations = 0.0;
    for gateway in &town.gateways {
        operations += gateway.figure("gateway_replicas_operation_seconds_count").await;
    }
    let per_request = operations / town.check_arrivals() as f64;
    assert!(used as f64 >= slots * 0.5, "{used} of {slots} slots were used");
    assert!(answered > 0 && refused == 0);
    assert!(waits.iter().all(|wait| *wait < KEPT * 4), "{waits:?}");
    // A gateway that a busy machine keeps from hearing of a request until the next slot is open asks for its keys once more.
    assert!(town.repeats() <= 100, "{} keys were asked for again", town.repeats());
    assert!(per_request < 30.0, "{per_request} operations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_everybody_wants_is_fetched_once_and_everybody_is_told_at_once() {
    let town = Town::new(3, "").await;
    for _ in 0..5 {
        let (body, ids) = question(1);
        let mut asking = tokio::task::JoinSet::new();
        for gateway in town.callers() {
            let body = body.clone();
            asking.spawn(async move { (lookup(gateway, &body).await, Instant::now()) });
            // Some come while it is under way for another.
            sleep(Duration::from_millis(3)).await;
        }
        let mut told = Vec::new();
        while let Some(answered) = asking.join_next().await {
            let (reply, at) = answered.unwrap();
            assert!(reply.status == 200 && reply.text().contains(&*ids[0]));
            told.push(at);
        }
        let within = *told.iter().max().unwrap() - *told.iter().min().unwrap();
        assert!(within < KEPT, "they were told {within:?} apart: not by one answer");
    }
    // What one gateway has fetched is cached by all that share its scope.
    let (body, _) = question(1);
    assert_eq!(lookup(town.gateways[0].callers, &body).await.status, 200);
    let hit = lookup(town.gateways[1].callers, &body).await;
    assert!(hit.header("cache-status").contains("hit"), "{}", hit.header("cache-status"));
    // A process that stood still has not taken back what it offered, and it may have been asked once more.
    let repeats = town.repeats();
    assert!(repeats <= 1, "{repeats} keys were asked again");
    // Who wants it new has it new, and nobody's cache stands in for the upstream.
    let fresh = [("cache-control", "no-cache")];
    let path = crate::harness::DETAIL;
    let reply = send(town.gateways[1].callers, http::Method::POST, path, &body, &fresh).await;
    assert!(reply.status == 200 && town.repeats() == repeats + 1);
    town.check_arrivals();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_nobody_has_asked_before_waits_for_what_is_under_way_for_another() {
    let town = Town::new(2, "").await;
    town.simulator.reconfigure(|config| config.latency = KEPT * 4);
    let (body, ids) = question(1);
    let (first, again) = (town.gateways[0].callers, body.clone());
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(async move { lookup(first, &again).await });
    until("the request to arrive", async || (town.check_arrivals() == 1).then_some(())).await;
    for reply in [lookup(town.gateways[1].callers, &body).await, asking.join_next().await.unwrap().unwrap()] {
        assert!(reply.status == 200 && reply.text().contains(&*ids[0]));
    }
    assert_eq!(town.check_arrivals(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_are_killed_or_stopped_take_nothing_with_them() {
    let mut town = Town::new(4, "").await;
    let (began, mut loads) = (Instant::now(), Vec::new());
    for gateway in town.callers() {
        loads.push(Load::start(&[gateway], 3, 10));
    }
    let mut killed = Vec::new();
    for turn in 0..8 {
        sleep(Duration::from_millis(fastrand::u64(250..600))).await;
        let at = turn % town.gateways.len();
        if turn % 2 == 0 {
            town.gateways[at].program.signal("KILL");
            let gateway = town.gateway().await;
            killed.push(std::mem::replace(&mut loads[at], Load::start(&[gateway.callers], 3, 10)));
            town.gateways[at] = gateway;
        } else {
            town.gateways[at].program.signal("STOP");
            sleep(Duration::from_millis(fastrand::u64(50..900))).await;
            town.gateways[at].program.signal("CONT");
        }
    }
    sleep(KEPT * 5).await;
    let slots = began.elapsed().as_secs_f64() / KEPT.as_secs_f64();
    let used = town.check_arrivals();
    for load in killed {
        load.finish().await;
    }
    for load in loads {
        let (answered, refused) = load.finish().await;
        assert!(answered > 0 && refused == 0, "{answered} answered, {refused} refused");
    }
    town.check_arrivals();
    assert!(used as f64 >= slots * 0.3, "{used} of {slots} slots were used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_redis_does_nobody_is_asked_too_often_and_everything_goes_on() {
    let mut town = Town::new(3, "").await;
    let load = Load::start(&town.callers(), 3, 10);
    sleep(KEPT * 4).await;
    for command in
        ["CLIENT PAUSE 500", "SCRIPT FLUSH", "FLUSHALL", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"]
    {
        let before = town.check_arrivals();
        town.redis.command(&command.split(' ').collect::<Vec<_>>());
        until(command, async || (town.check_arrivals() > before + 4).then_some(())).await;
    }
    let before = town.check_arrivals();
    town.redis.restart().await;
    until("it is started anew", async || (town.check_arrivals() > before + 4).then_some(())).await;
    town.redis.signal("STOP");
    sleep(Duration::from_millis(400)).await;
    town.redis.signal("CONT");
    let before = town.check_arrivals();
    until("it goes on", async || (town.check_arrivals() > before + 4).then_some(())).await;
    let (answered, _) = load.finish().await;
    assert!(answered > 0);
    town.check_arrivals();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_what_is_cached_is_answered_and_the_rest_is_refused_until_it_is_back() {
    let mut town = Town::new(2, "").await;
    let gateway = town.gateways[0].callers;
    let (cached, _) = question(1);
    assert_eq!(lookup(gateway, &cached).await.status, 200);
    town.redis.signal("STOP");
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { lookup(gateway, &question(1).0).await });
    let refused = until("misses to be refused", async || {
        let reply = tokio::time::timeout(LOOK * 10, lookup(gateway, &question(1).0)).await.ok()?;
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert!(refused.text().contains("REPLICAS_UNAVAILABLE") && refused.header("retry-after") == "2");
    let told = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(told.status, 503, "who waited is told");
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(lookup(gateway, &cached).await.status, 200);
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    }
    assert_eq!(town.gateways[0].figure("gateway_replicas_connected").await, 0.0);
    let before = town.check_arrivals();
    sleep(KEPT * 3).await;
    assert_eq!(town.check_arrivals(), before, "nothing is asked");
    town.redis.signal("CONT");
    let back = async || (lookup(gateway, &question(1).0).await.status == 200).then_some(());
    until("misses to be answered", back).await;
    town.redis.restart().await;
    until("misses to be answered again", back).await;
    town.check_arrivals();
    let ready = get(town.gateways[0].operators, "/readyz").await;
    assert_eq!(ready.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_gateway_may_keep_to_its_part_of_the_rate() {
    let mut town = Town::new(1, "when_redis_is_down = \"share\"\nmax_replicas = 3").await;
    town.redis.stop();
    let load = Load::start(&town.callers(), 2, 10);
    until("its part to be used", async || (town.check_arrivals() >= 5).then_some(())).await;
    let arrivals = town.simulator.lookups();
    let apart: Vec<Duration> = arrivals.windows(2).map(|pair| pair[1].judged - pair[0].judged).collect();
    assert!(apart.iter().all(|gap| *gap >= KEPT * 2), "{apart:?}");
    town.redis.restart().await;
    let before = town.check_arrivals();
    until("all of it to be used again", async || (town.check_arrivals() > before + 3).then_some(())).await;
    load.finish().await;
    let arrivals = town.simulator.lookups();
    let last = arrivals[arrivals.len() - 1].judged - arrivals[arrivals.len() - 2].judged;
    assert!(last < KEPT * 5 / 2, "{last:?}");
}
