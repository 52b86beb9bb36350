//! The real thing in paused time: the crate's own queue, pacer, worker and cache, around a pretend upstream that has
//! every customer, refuses nothing and always takes [`LATENCY`].
//!
//! A lookup does here what `lookup::Lookup` does after its body has been read: one read of the cache for each key, then
//! one ticket for the keys that are not there.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use audience_gateway::{
    cache::{self, Cache},
    clock::{Instant, now},
    dispatch::{self, Client, Handle, MixedLists, Waiting, Wanted, Worker},
    key::{Id, Key, Kind, Scope, Value},
    lookup::directives::{CacheDirectives, Use},
    metrics::Metrics,
    shape::Shape,
    upstream::{
        Kind as UpstreamKind,
        verdict::{Ask, Verdict},
        wire::{self, Meaning},
    },
};
use http::StatusCode;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    load::{Customer, Lookup},
    measure::{Fate, LATENCY, LINGER, Measure, Row, Slots, Told},
    options::Options,
};

/// The first customer's id: ids have the same number of digits, so that every record weighs the same.
const FIRST_ID: i64 = 1_000_000_000;

/// What one customer weighs in the cache: see `cache::Config::capacity`. The smoke test compares it with the cache.
const CUSTOMER_BYTES: u64 = 640 + 260 + 29;

/// Keys that wait to be asked, and keys that are under way, seen from outside.
struct Seen {
    begin: Instant,
    slots: Slots,
    /// Keys that are not under way, with the number of lookups that wait for each.
    wanted: HashMap<Customer, usize>,
    under_way: HashSet<Customer>,
}

impl Seen {
    fn since_begin(&self) -> Duration {
        now().saturating_duration_since(self.begin)
    }

    fn look(&mut self) {
        let (at, anybody) = (self.since_begin(), !self.wanted.is_empty());
        self.slots.waiting(at, anybody);
    }

    fn comes(&mut self, keys: &[Customer]) {
        for key in keys.iter().filter(|key| !self.under_way.contains(key)) {
            *self.wanted.entry(*key).or_default() += 1;
        }
        self.look();
    }

    fn goes(&mut self, keys: &[Customer]) {
        for key in keys {
            if let Some(lookups) = self.wanted.get_mut(key) {
                *lookups -= 1;
                if *lookups == 0 {
                    self.wanted.remove(key);
                }
            }
        }
        self.look();
    }

    fn sent(&mut self, keys: &[Customer]) {
        let at = self.since_begin();
        self.slots.sent(at, keys.len());
        for key in keys {
            self.wanted.remove(key);
            self.under_way.insert(*key);
        }
        self.look();
    }
}

/// The gateway's parts, and what is seen of them.
struct Gateway {
    cache: Arc<Cache>,
    handle: Handle,
    scope: Arc<Scope>,
    seen: Arc<Mutex<Seen>>,
    timeout: Duration,
    /// Whether what is read may ride along before it expires.
    rides: bool,
    /// The worker.
    _tasks: JoinSet<()>,
}

/// Replays the lookups.
pub(crate) fn run(options: &Options, lookups: &[Lookup], rides: bool) -> Row {
    // What the cache and the pacer draw: the spread of lifetimes.
    fastrand::seed(options.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("this holds because it opens nothing").block_on(replay(options, lookups, rides))
}

async fn replay(options: &Options, lookups: &[Lookup], rides: bool) -> Row {
    let gateway = Gateway::new(options, rides);
    let begin = lock(&gateway.seen).begin;
    let mut measure = Measure::new(options);
    let mut waiting = JoinSet::new();
    for lookup in lookups {
        sleep_until(begin + lookup.at).await;
        while let Some(told) = waiting.try_join_next() {
            measure.tell(told.expect("this holds because waiting does not panic"));
        }
        match gateway.ask(lookup) {
            Err(told) => measure.tell(told),
            Ok(waits) => {
                waiting.spawn(waits.told());
            }
        }
    }
    while let Some(told) = waiting.join_next().await {
        measure.tell(told.expect("this holds because waiting does not panic"));
    }
    let status = gateway.handle.status(now());
    assert_eq!(status.queue.waiting, 0, "nobody is left");
    assert!(gateway.cache.bytes() <= CUSTOMER_BYTES * options.capacity as u64, "the cache keeps within its capacity");
    let seen = lock(&gateway.seen);
    measure.row(&seen.slots)
}

impl Gateway {
    fn new(options: &Options, rides: bool) -> Self {
        let config = dispatch::Config {
            kind: UpstreamKind::Platform,
            interval: options.interval,
            max_batch_keys: options.batch,
            max_pending_keys: 10_000,
            max_in_flight: 4,
            linger: LINGER,
            mixed_lists: MixedLists::Auto,
            limit_per: dispatch::LimitPer::Gateway,
            lookup: 0,
            idle_refresh: dispatch::Share::NONE,
            warmup_bytes: 0,
            warmup: dispatch::Share::NONE,
        };
        let policy = cache::Policy {
            ttl: options.ttl,
            negative_ttl: options.ttl,
            stale_while_revalidate: options.stale,
            stale_if_error: Duration::ZERO,
        };
        let metrics = Metrics::new();
        let capacity = CUSTOMER_BYTES * options.capacity as u64;
        let cache = Arc::new(Cache::new(
            &cache::Config { capacity, policy, compression: cache::Compression::Off },
            metrics.cache(),
        ));
        let shape = Arc::new(Shape::tag_batchlist());
        let seen = Arc::new(Mutex::new(Seen {
            begin: now(),
            slots: Slots::new(Duration::ZERO),
            wanted: HashMap::new(),
            under_way: HashSet::new(),
        }));
        let (worker, handle) = Worker::new(
            config,
            Arc::clone(&shape),
            Arc::clone(&cache),
            metrics.dispatch("replay"),
            upstream(Arc::clone(&seen), shape),
        );
        lock(&seen).slots = Slots::new(handle.status(now()).queue.gap);
        let mut tasks = JoinSet::new();
        tasks.spawn(worker.run());
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        Self { cache, handle, scope, seen, timeout: options.timeout, rides, _tasks: tasks }
    }

    /// Reads the cache, and asks for what is not there. What is over at once is told.
    fn ask(&self, lookup: &Lookup) -> Result<Waits, Told> {
        let (now, directives) = (now(), CacheDirectives::default());
        let (mut missing, mut stale, mut hot_fresh) = (Vec::new(), Vec::new(), 0);
        for (key, hot) in lookup.keys.iter().map(|customer| self.key(*customer)).zip(&lookup.hot) {
            let answer = self.cache.get(&key.scope, &key.id);
            let given = answer.as_ref().map(|answer| directives.judge(answer, &self.cache.policy(), now));
            if let (Some(answer), Some(Use::Hit | Use::Stale { .. }), true) = (&answer, given, self.rides) {
                self.cache.was_read(&key.scope, &key.id, answer, now);
            }
            match given {
                Some(Use::Hit) => hot_fresh += usize::from(*hot),
                Some(Use::Stale { .. }) => stale.push(key),
                Some(Use::Miss { .. }) | None => missing.push(key),
            }
        }
        if !stale.is_empty() {
            self.handle.refresh(now, stale);
        }
        let keys: Vec<Customer> = missing.iter().map(|key| customer(&key.id)).collect();
        let told = Told {
            client: lookup.client,
            asked: lookup.keys.len(),
            missed: keys.len(),
            hot: lookup.hot.iter().filter(|hot| **hot).count(),
            hot_fresh,
            fate: Fate::Hit,
            waited: Duration::ZERO,
            promised: Duration::ZERO,
        };
        if keys.is_empty() {
            return Err(told);
        }
        let deadline = now + self.timeout;
        let client = client(lookup.client);
        let wanted = Wanted {
            max_age: None,
            client,
            keys: missing,
            fresh: false,
            no_store: false,
            deadline,
            partial: false,
            fallback: vec![],
            trace: None,
        };
        let Ok(waiting) = self.handle.submit(now, wanted) else { return Err(Told { fate: Fate::Refused, ..told }) };
        lock(&self.seen).comes(&keys);
        let told = Told { promised: waiting.promise(), ..told };
        Ok(Waits { waiting, told, keys, since: now, deadline, seen: Arc::clone(&self.seen) })
    }

    fn key(&self, customer: Customer) -> Key {
        let value = Value::Int(FIRST_ID + i64::from(customer));
        Key { scope: Arc::clone(&self.scope), id: Id { kind: Kind(0), value } }
    }
}

/// A lookup that waits.
struct Waits {
    waiting: Waiting,
    told: Told,
    keys: Vec<Customer>,
    since: Instant,
    deadline: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl Waits {
    async fn told(self) -> Told {
        let outcomes = self.waiting.outcomes(self.deadline).await;
        let in_time = outcomes.iter().all(|outcome| matches!(outcome, Some(dispatch::Outcome::Answer(_))));
        if !in_time {
            lock(&self.seen).goes(&self.keys);
        }
        let waited = now().saturating_duration_since(self.since);
        Told { fate: if in_time { Fate::Served } else { Fate::TimedOut }, waited, ..self.told }
    }
}

/// An upstream that has every customer.
fn upstream(seen: Arc<Mutex<Seen>>, shape: Arc<Shape>) -> dispatch::Ask {
    Box::new(move |ask, on_wire| {
        let (seen, shape) = (Arc::clone(&seen), Arc::clone(&shape));
        Box::pin(async move {
            let keys: Vec<Customer> = ask.ids.iter().map(customer).collect();
            lock(&seen).sent(&keys);
            on_wire();
            tokio::time::sleep(LATENCY).await;
            lock(&seen).under_way.retain(|key| !keys.contains(key));
            match wire::read(&shape, &ask, StatusCode::OK, answer(&ask).as_bytes()) {
                Meaning::Success(success) => Verdict::Success(success),
                other => panic!("an answer is understood: {other:?}"),
            }
        })
    })
}

fn answer(ask: &Ask) -> String {
    let records = ask.ids.iter().map(|id| format!(r#"{{"audienceUserId":{}}}"#, FIRST_ID + i64::from(customer(id))));
    let records = records.collect::<Vec<_>>().join(",");
    format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{records}]}}"#)
}

fn customer(id: &Id) -> Customer {
    match id.value {
        Value::Int(id) => Customer::try_from(id - FIRST_ID).expect("this holds because it was made of one"),
        Value::Text(_) => unreachable!("every key here is a number"),
    }
}

fn client(number: usize) -> Client {
    let number = u32::try_from(number).expect("this holds because callers are counted in thousands at most");
    Client::Peer(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number)))
}

/// One thread runs everything: a lock is never waited for.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
