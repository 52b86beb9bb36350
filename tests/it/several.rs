//! Several dispatchers with one slot and one queue in hundreds of random schedules of virtual time: callers everywhere,
//! workers that die or stand still at any moment, answers of the meeting place that are late or lost, a meeting place that
//! forgets, is replaced, or whose clock jumps.
//!
//! A failing seed prints itself; `SIMULATION_SEED=n cargo test several` runs it alone.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use audience_gateway::{
    cache::{self, Cache, Policy},
    dispatch::{self, Client, Handle, LimitPer, MixedLists, Outcome, Share, Sharing, Waiting, Wanted, Worker},
    key::{Id, Key, Kind, Scope, Value},
    link,
    metrics::Metrics,
    replicas::{self, Replicas, WhenDown},
    shape::Shape,
    upstream::{
        Kind as UpstreamKind,
        verdict::{Ask, Verdict},
        wire::{self, Meaning},
    },
};
use fastrand::Rng;
use http::StatusCode;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep},
};

use crate::meeting::Meeting;

/// Schedules in one run of the tests.
const RUNS: u64 = 300;

const INTERVAL: Duration = Duration::from_secs(1);

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(600);

/// Keys of each scope that callers choose from.
const KEYS: i64 = 60;

/// The upstream, as only the test knows it.
struct World {
    rng: Rng,
    /// The slowest connection, in milliseconds.
    slowest: u64,
    throttled: f64,
    failing: f64,
    /// Whose each request was, from the moment at which it had no connection yet.
    begun: Vec<usize>,
    /// When each request was on the wire, and for which keys.
    starts: Vec<(Instant, Vec<Id>)>,
}

/// A worker that can be made to stand still.
struct Stoppable<F> {
    inner: Pin<Box<F>>,
    until: Arc<Mutex<Option<Instant>>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Stoppable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.until.lock().unwrap();
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            let mut waiting = Box::pin(tokio::time::sleep_until(until));
            if waiting.as_mut().poll(cx).is_pending() {
                self.waiting = Some(waiting);
                return Poll::Pending;
            }
        }
        self.inner.as_mut().poll(cx)
    }
}

/// One gateway.
struct Node {
    number: usize,
    handle: Handle,
    worker: AbortHandle,
    stopped: Arc<Mutex<Option<Instant>>>,
    dead: Arc<Mutex<bool>>,
}

/// All of them, and what is between them.
struct Crowd {
    world: Arc<Mutex<World>>,
    meeting: Meeting,
    scopes: Vec<Arc<Scope>>,
    nodes: Vec<Node>,
    /// How many there have been.
    made: usize,
    tasks: JoinSet<()>,
}

fn record(scope: &Scope, number: i64) -> String {
    format!(r#"{{"audienceUserId":{number},"of":{}}}"#, scope.fields)
}

/// A lookup that anybody might make.
fn wanted(client: Client, scope: &Arc<Scope>, numbers: impl Iterator<Item = i64>) -> Wanted {
    let key = |number| Key { scope: Arc::clone(scope), id: Id { kind: Kind(0), value: Value::Int(number) } };
    Wanted {
        max_age: None,
        client,
        keys: numbers.map(key).collect(),
        fresh: false,
        no_store: false,
        deadline: Instant::now() + LONG,
        partial: false,
        fallback: vec![],
        trace: None,
    }
}

fn asker(world: Arc<Mutex<World>>, shape: Arc<Shape>, number: usize) -> dispatch::Ask {
    Box::new(move |ask: Ask, on_wire| {
        let (world, shape) = (Arc::clone(&world), Arc::clone(&shape));
        Box::pin(async move {
            let connecting = {
                let mut world = world.lock().unwrap();
                world.begun.push(number);
                let slowest = if world.rng.f64() < 0.9 { 5 } else { world.slowest };
                Duration::from_millis(world.rng.u64(0..slowest))
            };
            sleep(connecting).await;
            let (took, chance) = {
                let mut world = world.lock().unwrap();
                let now = Instant::now();
                if let Some((last, _)) = world.starts.last() {
                    assert!(now - *last >= INTERVAL, "two starts {:?} apart", now - *last);
                }
                world.starts.push((now, ask.ids.clone()));
                (Duration::from_millis(world.rng.u64(1..1500)), world.rng.f64())
            };
            on_wire();
            sleep(took).await;
            let world = world.lock().unwrap();
            if chance < world.throttled {
                return Verdict::Throttled(None);
            }
            if chance < world.throttled + world.failing {
                return Verdict::Unavailable("the test says so".into(), None);
            }
            let there = |id: &Id| match id.value {
                Value::Int(number) if number % 4 != 0 => Some(record(&ask.scope, number)),
                Value::Int(_) | Value::Text(_) => None,
            };
            let records: Vec<_> = ask.ids.iter().filter_map(there).collect();
            let body = format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{}]}}"#, records.join(","));
            match wire::read(&shape, &ask, StatusCode::OK, body.as_bytes()) {
                Meaning::Success(success) => Verdict::Success(success),
                other => panic!("{other:?}"),
            }
        })
    })
}

impl Crowd {
    fn new(seed: u64) -> (Self, Rng) {
        let mut rng = Rng::with_seed(seed);
        // A slow connection while the meeting place forgets is a request that nobody can know of.
        let calm = rng.bool();
        let lost = if calm && rng.bool() { 0.03 } else { 0.0 };
        let world = World {
            slowest: if calm { 1200 } else { 15 },
            throttled: [0.0, 0.1][rng.usize(..2)],
            failing: [0.0, 0.0, 0.2][rng.usize(..3)],
            begun: Vec::new(),
            starts: Vec::new(),
            rng: rng.fork(),
        };
        let nodes = rng.usize(2..5);
        (Self::of(world, lost, nodes, &mut rng), rng)
    }

    /// Four gateways, and nothing goes wrong.
    fn of_four(seed: u64, slowest: u64) -> (Self, Rng) {
        fastrand::seed(seed);
        let mut rng = Rng::with_seed(seed);
        let world =
            World { slowest, throttled: 0.0, failing: 0.0, begun: Vec::new(), starts: Vec::new(), rng: rng.fork() };
        (Self::of(world, 0.0, 4, &mut rng), rng)
    }

    fn of(world: World, lost: f64, nodes: usize, rng: &mut Rng) -> Self {
        let meeting = Meeting::new(rng.u64(..), lost);
        let mut tasks = JoinSet::new();
        tasks.spawn(meeting.clone().tick());
        let scopes = (0..2).map(|number| Arc::new(Scope::new(0, vec![], number.to_string(), ""))).collect();
        let mut crowd = Self { world: Arc::new(Mutex::new(world)), meeting, scopes, nodes: Vec::new(), made: 0, tasks };
        for _ in 0..nodes {
            crowd.add();
        }
        crowd
    }

    /// Whether the meeting place stays as it is.
    fn is_calm(&self) -> bool {
        self.world.lock().unwrap().slowest > 100
    }

    fn add(&mut self) {
        let shape = Arc::new(Shape::audience_detail());
        let metrics = Metrics::new();
        let day = Duration::from_secs(86_400);
        let policy = Policy { ttl: day, negative_ttl: day, stale_while_revalidate: day, stale_if_error: day };
        let config = cache::Config { capacity: 1 << 24, policy, compression: cache::Compression::Off };
        let cache = Arc::new(Cache::new(&config, metrics.cache()));
        let config = dispatch::Config {
            kind: UpstreamKind::Platform,
            interval: INTERVAL,
            max_batch_keys: 20,
            max_pending_keys: 1000,
            max_in_flight: 4,
            linger: Duration::from_millis(5),
            mixed_lists: MixedLists::Auto,
            limit_per: LimitPer::Gateway,
            lookup: 0,
            idle_refresh: Share::NONE,
            warmup: Share::NONE,
            warmup_bytes: 0,
        };
        let link = link::Config {
            host: "nowhere".into(),
            port: 1,
            tls: false,
            database: 0,
            username: None,
            password: None,
            ca_file: None,
        };
        let config_of_replicas =
            replicas::Config { link, prefix: "test".into(), max_replicas: 4, when_redis_is_down: WhenDown::Stale };
        let replicas = Arc::new(Replicas::new(Arc::new(self.meeting.clone()), &config_of_replicas, metrics.replicas()));
        self.meeting.meet(&replicas);
        let sharing = Sharing {
            replicas,
            upstream: "test".into(),
            hold: Duration::from_millis(1500),
            lease: Duration::from_secs(12),
        };
        let ask = asker(Arc::clone(&self.world), Arc::clone(&shape), self.made);
        let (worker, handle) = Worker::new(config, shape, cache, metrics.dispatch("test"), ask);
        let stopped = Arc::new(Mutex::new(None));
        let run = worker.shared_with(Some(sharing)).run();
        let run = Stoppable { inner: Box::pin(run), until: Arc::clone(&stopped), waiting: None };
        let worker = self.tasks.spawn(run);
        self.nodes.push(Node { number: self.made, handle, worker, stopped, dead: Arc::default() });
        self.made += 1;
    }

    /// Kills one of them at once. Who waits there is told nothing.
    fn kill(&mut self, at: usize) {
        let node = self.nodes.swap_remove(at);
        *node.dead.lock().unwrap() = true;
        node.worker.abort();
    }

    /// Some caller of some gateway.
    fn anybody(&self, rng: &mut Rng) -> impl Future<Output = ()> + Send + 'static {
        let node = &self.nodes[rng.usize(..self.nodes.len())];
        let scope = &self.scopes[rng.usize(..self.scopes.len())];
        let count = if rng.f64() < 0.3 { rng.usize(10..40) } else { rng.usize(1..4) };
        let mut numbers: Vec<i64> = (0..KEYS).collect();
        rng.shuffle(&mut numbers);
        numbers.truncate(count);
        let how = (rng.f64() < 0.1, rng.f64() < 0.1);
        self.caller(node, (scope, numbers), how, rng)
    }

    /// One caller of one gateway: it is told the truth, unless its gateway dies.
    fn caller(
        &self,
        node: &Node,
        (scope, numbers): (&Arc<Scope>, Vec<i64>),
        (fresh, no_store): (bool, bool),
        rng: &mut Rng,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (handle, dead, scope) = (node.handle.clone(), Arc::clone(&node.dead), Arc::clone(scope));
        let client = Client::Peer([10, 0, 0, rng.u8(..4)].into());
        let failing = self.world.lock().unwrap().failing > 0.0;
        async move {
            let now = Instant::now();
            let wanted = Wanted { fresh, no_store, ..wanted(client, &scope, numbers.iter().copied()) };
            let deadline = wanted.deadline;
            let Ok(waiting) = handle.submit(now, wanted) else { return assert!(failing, "it is refused") };
            let outcomes = waiting.outcomes(deadline).await;
            if *dead.lock().unwrap() {
                return;
            }
            assert_eq!(outcomes.len(), numbers.len());
            for (number, outcome) in numbers.iter().zip(&outcomes) {
                match outcome {
                    Some(Outcome::Answer(answer)) => {
                        let told: Vec<_> = answer.records().iter().map(|record| record.json().into_owned()).collect();
                        let truth = if number % 4 == 0 { vec![] } else { vec![record(&scope, *number).into_bytes()] };
                        assert!(told == truth, "a wrong answer");
                        assert!(!fresh || answer.fetched_at() >= now, "it was under way before");
                    }
                    Some(Outcome::Failed(_)) => assert!(failing, "told of a failure that was none"),
                    None => panic!("a key is lost"),
                }
            }
        }
    }

    /// Something goes wrong.
    fn disturb(&mut self, rng: &mut Rng, step: usize) {
        let at = rng.usize(..self.nodes.len());
        match rng.u8(0..if self.is_calm() { 3 } else { 6 }) {
            0 => {
                self.kill(at);
                self.add();
            }
            1 => {
                let until = Instant::now() + Duration::from_millis(rng.u64(1..3000));
                *self.nodes[at].stopped.lock().unwrap() = Some(until);
            }
            2 => self.add(),
            3 => self.meeting.forget(),
            4 => self.meeting.replace(&format!("run {step}"), rng.bool()),
            _ => self.meeting.jump([-100_000, -10, 10, 100_000][rng.usize(..4)]),
        }
    }
}

async fn schedule(seed: u64) -> usize {
    // What the gateways draw for themselves.
    fastrand::seed(seed);
    let (mut crowd, mut rng) = Crowd::new(seed);
    let mut callers = JoinSet::new();
    for step in 0..40 {
        sleep(Duration::from_millis(rng.u64(0..700))).await;
        if rng.f64() < 0.25 {
            crowd.disturb(&mut rng, step);
        } else {
            callers.spawn(crowd.anybody(&mut rng));
        }
        assert!(crowd.tasks.try_join_next().is_none_or(|ended| ended.is_err_and(|error| error.is_cancelled())));
    }
    while let Some(told) = callers.join_next().await {
        told.expect("a caller is told the truth");
    }
    crowd.world.lock().unwrap().starts.len()
}

/// Everybody asks for the same keys, and the winner dies before, while or after it asks for them.
/// Returns how often they were asked for, and whether that had begun.
async fn death(seed: u64) -> (usize, bool) {
    let (mut crowd, mut rng) = Crowd::of_four(seed, 1200);
    let mut callers = JoinSet::new();
    for node in &crowd.nodes {
        callers.spawn(crowd.caller(node, (&crowd.scopes[0], vec![1, 2, 3]), (false, false), &mut rng));
    }
    let begun = async || {
        loop {
            if let Some(winner) = crowd.world.lock().unwrap().begun.first() {
                break *winner;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let winner = begun().await;
    let longest = if rng.bool() { 3 } else { 3000 };
    sleep(Duration::from_millis(rng.u64(0..longest))).await;
    let at = crowd.nodes.iter().position(|node| node.number == winner).unwrap();
    crowd.kill(at);
    sleep(Duration::from_millis(1)).await; // Until it is dead.
    let is_asked = !crowd.world.lock().unwrap().starts.is_empty();
    while let Some(told) = callers.join_next().await {
        told.expect("a caller is told the truth");
    }
    let world = crowd.world.lock().unwrap();
    let asked = world.starts.iter().filter(|(_, ids)| ids.iter().any(|id| id.value == Value::Int(1))).count();
    (asked, is_asked)
}

#[test]
fn a_winner_that_dies_before_it_asks_costs_no_request() {
    let mut deaths = [0, 0];
    each(200, |seed| {
        let (asked, is_asked) = block_on(death(seed));
        deaths[usize::from(is_asked)] += 1;
        // Nobody has heard of a request that was never on the wire, and everybody of the one that followed.
        assert!(if is_asked { (1..=4).contains(&asked) } else { asked == 1 }, "{asked} requests, {is_asked}");
    });
    let is_one = deaths.iter().sum::<usize>() == 1;
    assert!(is_one || deaths.iter().all(|deaths| *deaths > 20), "{deaths:?}");
}

impl Crowd {
    /// A lookup of a gateway's own client.
    fn lookup(&self, node: usize, numbers: std::ops::Range<i64>) -> Waiting {
        let now = Instant::now();
        let client = Client::Peer([10, 0, 0, u8::try_from(node).unwrap()].into());
        let wanted = wanted(client, &self.scopes[0], numbers);
        self.nodes[node].handle.submit(now, wanted).unwrap_or_else(|_| panic!("it is refused"))
    }

    /// A backlog at each gateway: ten lookups of thirty keys that nobody else wants.
    fn backlogs(&self) -> JoinSet<usize> {
        let mut callers = JoinSet::new();
        for node in 0..self.nodes.len() {
            for at in 0..10 {
                let first = 10_000 * (1 + i64::try_from(node).unwrap()) + 30 * at;
                let waiting = self.lookup(node, first..first + 30);
                callers.spawn(async move {
                    let outcomes = waiting.outcomes(Instant::now() + LONG).await;
                    assert!(outcomes.iter().all(Option::is_some));
                    node
                });
            }
        }
        callers
    }
}

#[test]
fn what_is_promised_counts_what_other_gateways_wait_for() {
    each(5, |seed| {
        let (promised, took) = block_on(async {
            let (crowd, _) = Crowd::of_four(seed, 5);
            let _callers = crowd.backlogs();
            sleep(Duration::from_secs(10)).await;
            let (began, waiting) = (Instant::now(), crowd.lookup(0, 1..31));
            let promised = waiting.promise();
            assert!(waiting.outcomes(began + LONG).await.iter().all(Option::is_some));
            (promised, began.elapsed())
        });
        let ratio = took.as_secs_f64() / promised.as_secs_f64();
        assert!((0.6..1.5).contains(&ratio), "{promised:?} promised, {took:?} taken");
    });
}

#[test]
fn who_wants_more_than_a_batch_holds_up_nobody_elsewhere_who_does_too() {
    each(5, |seed| {
        let ended = block_on(async {
            let ((crowd, _), began) = (Crowd::of_four(seed, 5), Instant::now());
            let mut callers = crowd.backlogs();
            let mut ended = [0.0; 4];
            while let Some(node) = callers.join_next().await {
                ended[node.expect("it is answered")] = began.elapsed().as_secs_f64();
            }
            let world = crowd.world.lock().unwrap();
            let asked = world.starts.iter().flat_map(|(_, ids)| ids);
            let different: HashSet<&Id> = asked.clone().collect();
            assert_eq!((asked.count(), different.len()), (1200, 1200), "each key is asked for once");
            ended
        });
        let (first, last) = (ended.iter().copied().fold(f64::MAX, f64::min), ended.iter().copied().fold(0.0, f64::max));
        assert!(first > 0.7 * last, "{ended:?}");
    });
}

#[test]
fn several_dispatchers_keep_one_pace_and_lose_nobody() {
    let mut made = 0;
    each(RUNS, |seed| made += block_on(schedule(seed)));
    assert!(made > 0);
}

fn block_on<T>(schedule: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(schedule)
}

/// Runs so many, or the one that is asked for.
fn each(runs: u64, mut run: impl FnMut(u64)) {
    let seeds: Vec<u64> = match std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..runs).collect(),
    };
    for seed in seeds {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        assert!(ran.is_ok(), "SIMULATION_SEED={seed} fails, as is said above");
    }
}
