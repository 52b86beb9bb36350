//! A store in Redis that several gateways have in common: real processes, a real Redis, and wires between them that can be cut.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use audience_gateway::simulator::{self, Simulator};
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::Instant,
};

use crate::{
    authority::Authority,
    guarded,
    harness::{DETAIL, Reply},
    program::{Desk, Program, by_id, customer, get, lookup, send, serve_as, until},
    town::{Redis, faketime},
};

/// A connection to Redis that can be cut, and on which what is sent there can be held up.
struct Wire {
    address: SocketAddr,
    is_held: watch::Sender<bool>,
    is_cut: Arc<Mutex<Option<JoinSet<()>>>>,
    _task: JoinSet<()>,
}

impl Wire {
    async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(Mutex::new(Some(JoinSet::new())));
        let (open, mut task) = (Arc::clone(&is_cut), JoinSet::new());
        let is_held = watch::Sender::new(false);
        let held = is_held.subscribe();
        task.spawn(async move {
            loop {
                let (from, _) = listener.accept().await.unwrap();
                let Some(ends) = &mut *open.lock().unwrap() else { continue };
                let held = held.clone();
                ends.spawn(async move {
                    let Ok(to) = TcpStream::connect(to).await else { return };
                    let ((mut here, mut back), (mut there, to)) = (from.into_split(), to.into_split());
                    tokio::select! {
                        // What it says to Redis.
                        _ended = carry(&mut here, to, held) => {}
                        // What that answers.
                        _ended = tokio::io::copy(&mut there, &mut back) => {}
                    }
                });
            }
        });
        Self { address, is_held, is_cut, _task: task }
    }

    fn cut(&self) {
        *self.is_cut.lock().unwrap() = None;
    }

    /// What is sent from now on arrives when it is let go.
    fn hold(&self) {
        self.is_held.send_replace(true);
    }

    fn let_go(&self) {
        self.is_held.send_replace(false);
    }

    fn mend(&self) {
        *self.is_cut.lock().unwrap() = Some(JoinSet::new());
    }
}

async fn carry(from: &mut OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count) = from.read(&mut bytes).await
        && count > 0
        && held.wait_for(|is_held| !is_held).await.is_ok()
        && to.write_all(&bytes[..count]).await.is_ok()
    {}
}

/// An upstream, a Redis, and room for gateways.
struct Shop {
    desk: Desk,
    redis: Redis,
    simulator: Simulator,
    upstream: SocketAddr,
    started: Mutex<usize>,
    _tasks: JoinSet<()>,
}

struct Shopper {
    program: Program,
    callers: SocketAddr,
    operators: SocketAddr,
    name: String,
}

impl Shop {
    async fn new(redis: &[&str]) -> Self {
        let config = simulator::Config {
            interval: Duration::from_millis(1),
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            ..simulator::Config::default()
        };
        let (simulator, listener) = (Simulator::new(config), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let upstream = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(simulator.clone().serve(listener, std::future::pending()));
        let desk = Desk::new();
        let redis = Redis::start_in(desk.0.path(), redis).await;
        Self { desk, redis, simulator, upstream, started: Mutex::new(0), _tasks: tasks }
    }

    /// Starts a gateway whose store this is, and waits until it has it.
    async fn gateway(&self) -> Shopper {
        let shopper = self.gateway_at(self.redis.address(), "").await;
        shopper.connected(1).await;
        shopper
    }

    async fn gateway_at(&self, redis: SocketAddr, more: &str) -> Shopper {
        self.gateway_with(&format!("url = \"redis://{redis}\"\n{more}")).await
    }

    async fn gateway_with(&self, store: &str) -> Shopper {
        let config = self.config(store);
        let name = {
            let mut started = self.started.lock().unwrap();
            *started += 1;
            format!("gateway-{started}")
        };
        // Their clocks are hours apart, as far as they show the time of day.
        let skew = format!("{:+}h", (name.len() as i64 + *self.started.lock().unwrap() as i64) % 5 * 7 - 14);
        let environment = [("LD_PRELOAD", &*faketime()), ("FAKETIME", &*skew), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let (program, callers, operators) = serve_as(&self.desk, &name, &config, &environment).await;
        Shopper { program, callers, operators, name }
    }

    fn config(&self, store: &str) -> PathBuf {
        let more = format!(
            "[[lookup]]\npath = \"/api/audience/detail\"\ninterval = \"20ms\"\n\
             [[lookup]]\npath = \"/api/audience/user/tag/batchlist\"\ninterval = \"20ms\"\n\
             [store]\nkind = \"redis\"\n{store}"
        );
        self.desk.config(self.upstream, &more)
    }

    /// How many lookups the upstream has had.
    fn asked(&self) -> usize {
        self.simulator.lookups().len()
    }

    /// Rows' names in Redis.
    fn names(&self) -> usize {
        let names = self.redis.command(&["--no-raw", "KEYS", "*"]);
        names.lines().filter(|name| name.contains("}:r:") && !name.contains(":about")).count()
    }
}

impl Shopper {
    async fn connected(&self, expected: u8) {
        until("the gateway to know about redis", async || {
            let metrics = get(self.operators, "/metrics").await;
            metrics.text().contains(&format!("gateway_store_connected {expected}\n")).then_some(())
        })
        .await;
    }

    /// One of its figures.
    async fn figure(&self, name: &str) -> u64 {
        let metrics = get(self.operators, "/metrics").await;
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or_else(|| panic!("no {name}"))
    }

    /// Waits until so many upstream answers are stored.
    async fn saved(&self, expected: u64) {
        until("the answers to be stored", async || {
            (self.figure("gateway_store_saves_total{result=\"saved\"}").await >= expected).then_some(())
        })
        .await;
    }

    async fn lookup(&self, body: &str) -> Reply {
        let reply = lookup(self.callers, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    }

    async fn cached(&self, body: &str) -> Option<Reply> {
        let reply = send(self.callers, Method::POST, DETAIL, body, &[("cache-control", "only-if-cached")]).await;
        if reply.status == 200 {
            return Some(reply);
        }
        assert_eq!(reply.error_code(), "NOT_CACHED");
        None
    }

    async fn purge(&self, body: &str) -> Reply {
        send(self.operators, Method::POST, "/purge", body, &[]).await
    }

    /// Waits until it has forgotten.
    async fn forgets(&self, body: &str) {
        until("it to be forgotten", async || self.cached(body).await.is_none().then_some(())).await;
    }

    /// Waits until it finds somebody whom the store has: what takes Redis more than 100 ms is not waited for.
    async fn finds(&self, body: &str) {
        until("it to be found", async || self.cached(body).await).await;
    }

    fn log(&self, shop: &Shop) -> String {
        std::fs::read_to_string(shop.desk.0.path().join(format!("{}.stderr", self.name))).unwrap()
    }
}

fn by_phone(index: u64) -> String {
    format!(r#"{{"phoneList":["{}"]}}"#, customer(index).phones[0])
}

fn many(indices: std::ops::Range<u64>) -> String {
    let ids: Vec<String> = indices.map(|index| customer(index).id.to_string()).collect();
    format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_has_fetched_all_have_with_its_true_age_and_whatever_becomes_of_the_first() {
    let shop = Shop::new(&[]).await;
    let one = shop.gateway().await;
    let before = one.lookup(&many(2..20)).await;
    let phone = one.lookup(&by_phone(2)).await;
    let nobody = r#"{"audienceUserIdList":[1]}"#;
    assert!(one.lookup(nobody).await.records().is_empty());
    one.saved(3).await;
    let asked = shop.asked();
    drop(one.program);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let two = shop.gateway().await;
    let after = until("all of it to be read in time", async || two.cached(&many(2..20)).await).await;
    assert_eq!(after.body, before.body);
    assert!(after.header("age").parse::<u64>().unwrap() >= 1, "{}", after.header("age"));
    assert_eq!(until("it to be read", async || two.cached(&by_phone(2)).await).await.body, phone.body);
    two.finds(nobody).await; // That there is nobody is known, too.
    let third = (2..20).find_map(|index| customer(index).third_id).unwrap();
    two.finds(&format!(r#"{{"thirdIdList":["{third}"]}}"#)).await;
    // Now from memory.
    let reads = two.figure("gateway_store_reads_total{result=\"found\"}").await;
    assert!(two.cached(&many(2..20)).await.is_some());
    assert_eq!(two.figure("gateway_store_reads_total{result=\"found\"}").await, reads);
    assert_eq!(shop.asked(), asked);
    let metrics = get(two.operators, "/metrics").await;
    let series = metrics.text().lines().filter(|line| line.starts_with("gateway_")).count();
    assert!(series < 330, "{series} series");
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_events_and_writes_reach_every_gateway() {
    let shop = Shop::new(&[]).await;
    let (one, two) = (shop.gateway().await, shop.gateway().await);
    for index in 2..8 {
        one.lookup(&by_id(index)).await;
        two.lookup(&by_id(index)).await;
    }
    one.saved(6).await;
    // By a phone under which nobody has asked.
    let reply = one.purge(&by_phone(2)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["data"]["records"], 1);
    two.forgets(&by_id(2)).await;
    assert!(one.cached(&by_id(2)).await.is_none() && two.cached(&by_id(3)).await.is_some());
    let event = format!(r#"{{"audienceUserId":{}}}"#, customer(3).id);
    let asked = shop.asked();
    assert_eq!(send(two.operators, Method::POST, "/events", &event, &[]).await.status, 200);
    until("it to be fetched again", async || (shop.asked() > asked).then_some(())).await;
    let write = format!(r#"{{"publicParams":{{}},"data":[{{"audienceUserId":{},"nickname":"new"}}]}}"#, customer(4).id);
    let before = one.cached(&by_id(4)).await.expect("it is cached");
    let written = send(two.callers, Method::POST, "/api/integrate/audience/info/batchAdd", &write, &[]).await;
    assert_eq!(written.status, 200, "{}", written.text());
    one.forgets(&by_id(4)).await;
    let after = one.lookup(&by_id(4)).await;
    assert!(after.body != before.body && after.text().contains("new"), "{}", after.text());
    let newcomer = shop.gateway().await;
    assert!(newcomer.cached(&by_id(2)).await.is_none(), "nobody brings back who was purged");
    let reply = one.purge(r#"{"all":true}"#).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    for gateway in [&one, &two, &newcomer] {
        gateway.forgets(&by_id(5)).await;
    }
    until("the rows to be gone", async || (shop.names() == 0).then_some(())).await;
    // It goes on.
    two.lookup(&by_id(6)).await;
    until("another to have it", async || newcomer.cached(&by_id(6)).await).await;
    for gateway in [&one, &two, &newcomer] {
        assert!(!gateway.log(&shop).contains("panicked"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_hears_what_was_erased_and_keeps_the_rest() {
    let shop = Shop::new(&[]).await;
    let wire = Wire::new(shop.redis.address()).await;
    let (one, two) = (shop.gateway().await, shop.gateway_at(wire.address, "").await);
    two.connected(1).await;
    for index in 2..6 {
        two.lookup(&by_id(index)).await;
    }
    two.saved(4).await;
    wire.cut();
    two.connected(0).await;
    assert_eq!(one.purge(&by_id(2)).await.status, 200);
    assert!(two.cached(&by_id(2)).await.is_some(), "it cannot know");
    let began = Instant::now();
    two.lookup(&by_id(7)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    wire.mend();
    two.forgets(&by_id(2)).await;
    assert!(two.cached(&by_id(3)).await.is_some());
    let reads = two.figure("gateway_store_reads_total{result=\"found\"}").await;
    assert_eq!(reads, 0, "what it keeps was in its memory all the time");
    // More than anybody remembers.
    wire.cut();
    two.connected(0).await;
    let ids: Vec<u64> = (100..110).collect();
    for index in &ids {
        assert_eq!(one.purge(&by_id(*index)).await.status, 200);
    }
    let log = shop.redis.command(&["KEYS", "*:log"]);
    shop.redis.command(&["LTRIM", &log, "-3", "-1"]);
    wire.mend();
    two.connected(1).await;
    until("it to have joined", async || two.log(&shop).contains("nothing that was cached is given").then_some(()))
        .await;
    assert!(two.cached(&by_id(3)).await.is_some(), "from the store");
    assert!(two.figure("gateway_store_reads_total{result=\"found\"}").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_before_an_erasure_and_arrives_after_it_is_not_written() {
    let shop = Shop::new(&[]).await;
    let wire = Wire::new(shop.redis.address()).await;
    let (one, two) = (shop.gateway_at(wire.address, "").await, shop.gateway().await);
    one.connected(1).await;
    one.lookup(&by_id(9)).await;
    one.saved(1).await;
    wire.hold();
    one.lookup(&by_id(2)).await;
    one.lookup(&by_id(3)).await;
    assert_eq!(two.purge(&by_id(2)).await.status, 200);
    wire.let_go();
    one.forgets(&by_id(2)).await;
    one.lookup(&by_id(4)).await;
    let three = shop.gateway().await;
    until("it to write again", async || {
        one.purge(&by_id(10)).await;
        one.lookup(&by_id(10)).await;
        three.cached(&by_id(10)).await
    })
    .await;
    assert!(three.cached(&by_id(2)).await.is_none() && two.cached(&by_id(2)).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_fails_no_lookup_and_what_was_to_be_erased_is_erased_later() {
    let shop = Shop::new(&[]).await;
    let (one, two) = (shop.gateway().await, shop.gateway().await);
    for index in 2..6 {
        one.lookup(&by_id(index)).await;
    }
    one.saved(4).await;
    shop.redis.signal("STOP");
    for index in 3..6 {
        assert!(one.cached(&by_id(index)).await.is_some());
    }
    let began = Instant::now();
    two.lookup(&by_id(4)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let reply = one.purge(&by_id(2)).await;
    assert_eq!((reply.status.as_u16(), reply.error_code()), (503, "STORE_UNAVAILABLE".into()));
    assert_eq!(reply.header("retry-after"), "1");
    assert!(one.cached(&by_id(2)).await.is_none(), "forgotten here all the same");
    two.connected(0).await;
    let began = Instant::now();
    one.lookup(&by_id(50)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    shop.redis.signal("CONT");
    two.connected(1).await;
    // Until it is erased the first gateway reads nothing; then nobody finds it.
    until("it to be erased", async || two.cached(&by_id(2)).await.is_none().then_some(())).await;
    two.finds(&by_id(3)).await;
    until("it to read again", async || {
        one.lookup(&by_id(60)).await;
        one.purge(&by_id(60)).await.status.is_success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_or_goes_back_brings_nobody_back() {
    let shop = &mut Shop::new(&[]).await;
    let one = shop.gateway().await;
    for index in 2..6 {
        one.lookup(&by_id(index)).await;
    }
    one.saved(4).await;
    shop.redis.command(&["SAVE"]);
    assert_eq!(one.purge(&by_id(2)).await.status, 200);
    // It comes back as it was before the purge.
    shop.redis.restart().await;
    let rows = shop.names();
    assert!(rows > 0);
    one.connected(1).await;
    until("the old rows to be swept away", async || (shop.names() < rows).then_some(())).await;
    let two = shop.gateway().await;
    assert!(two.cached(&by_id(2)).await.is_none());
    assert!(one.cached(&by_id(3)).await.is_some(), "what is in memory has nothing to do with it");
    shop.redis.command(&["FLUSHALL"]);
    two.lookup(&by_id(8)).await;
    until("it to be stored again", async || {
        two.lookup(&by_id(9)).await;
        two.purge(&by_id(9)).await;
        one.cached(&by_id(8)).await.or({
            two.purge(&by_id(8)).await;
            two.lookup(&by_id(8)).await;
            None
        })
    })
    .await;
    one.finds(&by_id(3)).await;
    // Its clock was an hour ahead when it was written to last: nobody knows how old anything is.
    two.lookup(&by_id(30)).await;
    until("it to be stored", async || one.cached(&by_id(30)).await).await;
    let state = shop.redis.command(&["KEYS", "*:state"]);
    let ahead = shop.redis.command(&["TIME"]).lines().next().unwrap().parse::<u64>().unwrap() + 3600;
    shop.redis.command(&["HSET", &state, "seen", &format!("{ahead}000000")]);
    let three = shop.gateway().await;
    assert!(three.cached(&by_id(30)).await.is_none());
    one.connected(1).await;
    one.lookup(&by_id(31)).await;
    until("it to be stored", async || three.cached(&by_id(31)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_redis_has_lost_is_not_taken_for_another_one_of_the_same_number() {
    let shop = &mut Shop::new(&[]).await;
    let wire = Wire::new(shop.redis.address()).await;
    let one = shop.gateway_at(wire.address, "").await;
    one.connected(1).await;
    for index in 2..6 {
        one.lookup(&by_id(index)).await;
    }
    one.saved(4).await;
    shop.redis.command(&["SAVE"]);
    assert_eq!(one.purge(&by_id(2)).await.status, 200);
    wire.cut();
    one.connected(0).await;
    shop.redis.restart().await;
    // Who comes now cannot know, and counts on from where the server is.
    let two = shop.gateway().await;
    two.finds(&by_id(3)).await;
    assert_eq!(two.purge(&by_id(3)).await.status, 200);
    assert!(one.cached(&by_id(3)).await.is_some() && one.cached(&by_id(4)).await.is_some());
    wire.mend();
    one.forgets(&by_id(3)).await;
    assert!(one.cached(&by_id(4)).await.is_some());
    let three = shop.gateway().await;
    for gateway in [&one, &three] {
        assert!(gateway.cached(&by_id(2)).await.is_none() && gateway.cached(&by_id(3)).await.is_none());
    }
    two.lookup(&by_id(20)).await;
    until("it to go on", async || one.cached(&by_id(20)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_customers_in_redis_without_the_key_and_rubbish_there_is_a_miss() {
    let shop = Shop::new(&["--rdbcompression", "no"]).await;
    for (file, digit) in [("one.key", "ab"), ("two.key", "cd")] {
        std::fs::write(shop.desk.0.path().join(file), digit.repeat(32)).unwrap();
    }
    let with = |key: &str| format!("key_file = {:?}", shop.desk.0.path().join(key));
    let token = [("x-token", "very-secret-token")];
    let one = shop.gateway_at(shop.redis.address(), &with("one.key")).await;
    one.connected(1).await;
    send(one.callers, Method::POST, DETAIL, &by_phone(2), &token).await;
    one.saved(1).await;
    shop.redis.command(&["SAVE"]);
    let kept = std::fs::read(shop.redis.saved()).unwrap();
    let who = customer(2);
    for secret in [who.phones[0].as_bytes(), who.id.to_string().as_bytes(), b"very-secret-token", b"realName"] {
        assert!(!kept.windows(secret.len()).any(|window| window == secret));
    }
    let other = shop.gateway_at(shop.redis.address(), &with("two.key")).await;
    other.connected(1).await;
    let asked = [("x-token", "very-secret-token"), ("cache-control", "only-if-cached")];
    assert_eq!(send(other.callers, Method::POST, DETAIL, &by_phone(2), &asked).await.error_code(), "NOT_CACHED");
    let same = shop.gateway_at(shop.redis.address(), &with("one.key")).await;
    same.connected(1).await;
    let stranger = [("x-token", "another-token"), ("cache-control", "only-if-cached")];
    assert_eq!(send(same.callers, Method::POST, DETAIL, &by_phone(2), &stranger).await.error_code(), "NOT_CACHED");
    // Whoever can write to Redis can do no more than make a miss of it.
    let spoil = "for _, k in ipairs(redis.call('KEYS', '*:r:*')) do for _, f in ipairs(redis.call('HKEYS', k)) do \
                 local v = redis.call('HGET', k, f) redis.call('HSET', k, f, string.sub(v, 1, -2) .. 'x') end end";
    shop.redis.command(&["EVAL", spoil, "0"]);
    assert_eq!(send(same.callers, Method::POST, DETAIL, &by_phone(2), &asked).await.error_code(), "NOT_CACHED");
    assert_eq!(send(same.callers, Method::POST, DETAIL, &by_phone(2), &token).await.status, 200);
    shop.redis.command(&["EVAL", "for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('SET', k, 'x') end", "0"]);
    let reply = send(same.callers, Method::POST, DETAIL, &by_id(9), &token).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!same.log(&shop).contains("panicked") && !same.log(&shop).contains(&who.phones[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_gateways_that_share_a_slot_the_one_that_asked_hands_the_answers_over() {
    let shop = Shop::new(&[]).await;
    let redis = shop.redis.address();
    let replicas = format!("[replicas]\nkind = \"redis\"\nurl = \"redis://{redis}\"\nprefix = \"slots\"");
    let (one, two) = (shop.gateway_at(redis, &replicas).await, shop.gateway_at(redis, &replicas).await);
    one.connected(1).await;
    two.connected(1).await;
    let mut asking = JoinSet::new();
    for index in 0..40 {
        let callers = if index % 2 == 0 { one.callers } else { two.callers };
        asking.spawn(async move { lookup(callers, &many(index * 5..index * 5 + 10)).await });
    }
    while let Some(answered) = asking.join_next().await {
        let reply = answered.unwrap();
        assert!(reply.status == 200 && reply.records().len() == 10, "{}", reply.text());
    }
    let three = shop.gateway().await;
    until("all of it to be stored", async || three.cached(&many(0..200)).await).await;
    let name = "gateway_store_saves_total{result=\"saved\"}";
    let saved = one.figure(name).await + two.figure(name).await;
    assert_eq!(saved, shop.asked() as u64, "each answer once");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_user_who_may_do_nothing_else_is_enough_and_without_use_it_goes_on() {
    let authority = Authority::new("a");
    // What the README says that the user must be allowed.
    const ALLOWED: &str = "~audience-gateway:* &audience-gateway:* -@all +evalsha +script|load +subscribe +publish +info +time \
                           +hget +hmget +hgetall +hset +hdel +hincrby +pexpire +persist +lindex +llen +lrange +ltrim +rpush \
                           +del +unlink +scan";
    let shop = Shop::new(&[]).await;
    let redis = guarded::redis(&authority, ALLOWED).await;
    let section = guarded::section(&redis, &authority, guarded::PASSWORD);
    let (one, two) = (shop.gateway_with(&section).await, shop.gateway_with(&section).await);
    one.connected(1).await;
    two.connected(1).await;
    one.lookup(&by_id(2)).await;
    one.lookup(&by_id(3)).await;
    one.saved(2).await;
    two.finds(&by_id(2)).await;
    assert_eq!(two.purge(&by_id(2)).await.status, 200);
    one.forgets(&by_id(2)).await;
    assert_eq!(one.purge(r#"{"all":true}"#).await.status, 200);
    two.forgets(&by_id(3)).await;
    one.lookup(&by_id(4)).await;
    until("it to be stored", async || two.cached(&by_id(4)).await).await;
    for gateway in [&one, &two] {
        assert!(!gateway.log(&shop).contains("cannot be written"), "{}", gateway.log(&shop));
    }
    let nobody = guarded::section(&redis, &authority, "blue-canary");
    let poor = guarded::redis(&authority, &ALLOWED.replace("+hset", "-hset")).await;
    let poor = guarded::section(&poor, &authority, guarded::PASSWORD);
    for section in [nobody, poor] {
        let other = shop.gateway_with(&section).await;
        other.lookup(&by_id(2)).await;
        assert_eq!(other.purge(&by_id(2)).await.error_code(), "STORE_UNAVAILABLE");
        other.connected(0).await;
        let log = other.log(&shop);
        assert!(log.contains("the store") && !log.contains("canary"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_still_erases() {
    let shop = Shop::new(&[]).await;
    let (one, two) = (shop.gateway().await, shop.gateway().await);
    one.lookup(&by_id(2)).await;
    one.saved(1).await;
    two.finds(&by_id(2)).await;
    shop.redis.command(&["CONFIG", "SET", "maxmemory", "100kb"]);
    one.lookup(&by_id(3)).await;
    until("it to be refused", async || {
        (one.figure("gateway_store_saves_total{result=\"failed\"}").await > 0).then_some(())
    })
    .await;
    let reply = one.purge(&by_id(2)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    two.forgets(&by_id(2)).await;
    assert!(one.log(&shop).contains("the store cannot be written to"));
    let newcomer = shop.gateway().await;
    assert!(newcomer.cached(&by_id(2)).await.is_none());
    shop.redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    one.lookup(&by_id(4)).await;
    until("it to be stored", async || two.cached(&by_id(4)).await).await;
}

/// How long everything is disturbed at random.
fn disturbed_for() -> Duration {
    let seconds = std::env::var("STORE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_between_gateways_and_redis_nobody_who_was_purged_comes_back() {
    let shop = Shop::new(&[]).await;
    let (mut gateways, mut wires) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let wire = Wire::new(shop.redis.address()).await;
        let gateway = shop.gateway_at(wire.address, "").await;
        gateway.connected(1).await;
        gateways.push(gateway);
        wires.push(wire);
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let all: Vec<(SocketAddr, SocketAddr)> =
        gateways.iter().map(|gateway| (gateway.callers, gateway.operators)).collect();
    let mut tasks = JoinSet::new();
    let until_when = Instant::now() + disturbed_for();
    for caller in 0..6_u64 {
        let (all, mut rng) = (all.clone(), rng.fork());
        tasks.spawn(async move {
            let (mut purged, mut next) = (Vec::new(), 10_000 * (caller + 1));
            while Instant::now() < until_when || purged.len() < 2 {
                // One who is purged is asked for nowhere any more; the others are everybody's.
                next += 1;
                let mut text = String::new();
                for _ in 0..rng.u32(1..4) {
                    let (callers, _) = all[rng.usize(..all.len())];
                    let together = format!("{},{}", customer(next).id, customer(rng.u64(2..40)).id);
                    let reply = lookup(callers, &format!(r#"{{"audienceUserIdList":[{together}]}}"#)).await;
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    text = reply.text().to_owned();
                }
                let (_, operators) = all[rng.usize(..all.len())];
                let has_phone = customer(next).phones.first().is_some_and(|phone| text.contains(&**phone));
                let by = if has_phone && rng.bool() { by_phone(next) } else { by_id(next) };
                if send(operators, Method::POST, "/purge", &by, &[]).await.status == 200 {
                    purged.push(next);
                }
            }
            purged
        });
    }
    while Instant::now() < until_when {
        tokio::time::sleep(Duration::from_millis(rng.u64(20..200))).await;
        let wire = &wires[rng.usize(..wires.len())];
        match rng.u8(..6) {
            0 | 1 => wire.cut(),
            2 | 3 => wire.mend(),
            4 => drop(shop.redis.command(&["CLIENT", "PAUSE", "150"])),
            _ if rng.u8(..4) == 0 => drop(shop.redis.command(&["FLUSHALL"])),
            _ => {}
        }
    }
    wires.iter().for_each(Wire::mend);
    let mut purged = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        purged.extend(ended.unwrap());
    }
    let newcomer = shop.gateway().await;
    for gateway in &gateways {
        gateway.connected(1).await;
        // What it owes is erased, and what it missed is heard, when it reads again.
        until("it to read the store", async || {
            let before = gateway.figure("gateway_store_reads_total{result=\"found\"}").await
                + gateway.figure("gateway_store_reads_total{result=\"absent\"}").await;
            gateway.cached(&by_id(rng.u64(500..9000))).await;
            let after = gateway.figure("gateway_store_reads_total{result=\"found\"}").await
                + gateway.figure("gateway_store_reads_total{result=\"absent\"}").await;
            (after > before).then_some(())
        })
        .await;
    }
    for gateway in gateways.iter().chain([&newcomer]) {
        for index in &purged {
            assert!(gateway.cached(&by_id(*index)).await.is_none(), "{index} is back at {}", gateway.name);
        }
        assert!(!gateway.log(&shop).contains("panicked"));
    }
}
