//! The way of a lookup that is a hit on every key: decode → cache → encode, each part by itself and all together.
//!
//! - **What is cached:** 10,000 customers of the simulated upstream, about 2.4 KB each, taken in through the same
//!   attribution as an answer that came over a wire.
//! - **hot** asks for the same keys again and again; **random** goes through all customers, in no order, so that the
//!   processor's caches hold little of what is read.
//! - **Throughput** is in keys.
//!
//! `cargo bench` measures; `cargo test --benches` runs each once.

use std::{hint::black_box, sync::Arc, time::Duration};

use audience_gateway::{
    cache::{self, Answer, Cache, Of, Policy, Said, Taken},
    clock,
    key::{Id, Key, Kind, Scope, Value},
    lookup::{
        directives::{CacheDirectives, Use},
        encode::encode,
    },
    metrics::Metrics,
    record::{Parts, Record},
    request::wire::{Decoded, decode},
    shape::Shape,
    simulator::{self, Simulator},
    upstream::{
        verdict::{Ask, Found, Success},
        wire::{self, Meaning},
    },
};
use bytes::{Buf, Bytes};
use criterion::{BenchmarkId, Criterion, Throughput};
use http::{HeaderName, HeaderValue, StatusCode};

/// Customers in the cache: their JSON is some 24 MB, more than most processors' caches hold.
const CUSTOMERS: usize = 10_000;
/// Keys in one upstream answer while the cache is filled.
const BATCH: usize = 100;
/// Keys in one lookup.
const SIZES: [usize; 4] = [1, 10, 50, 100];
/// The envelope of the last success, as the dispatcher hands it out.
const HEAD: Bytes = Bytes::from_static(br#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":["#);

/// A part of the way: from a lookup to something to be measured, such as a length.
type Part = fn(&Full, &Lookup) -> usize;

/// The parts, in their order, and then all of them.
const PARTS: [(&str, Part); 4] = [
    ("decode", |full, lookup| full.decode(&lookup.body).len()),
    ("cache", |full, lookup| full.read(lookup.keys.iter()).len()),
    ("encode", |_, lookup| encode(HEAD, lookup.answers.iter(), None).body.remaining()),
    ("lookup", |full, lookup| {
        let answers = full.read(full.decode(&lookup.body).iter());
        encode(HEAD, answers.iter(), None).body.remaining()
    }),
];

/// A full cache and how it is asked.
struct Full {
    shape: Shape,
    cache: Arc<Cache>,
}

/// One lookup at every stage of its way.
struct Lookup {
    body: String,
    keys: Vec<Key>,
    answers: Vec<Answer>,
}

impl Full {
    fn new() -> Self {
        let policy = Policy {
            ttl: Duration::from_secs(3600),
            negative_ttl: Duration::from_secs(60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        };
        let cache = Cache::new(
            &cache::Config { capacity: 512 << 20, policy, compression: cache::Compression::Off },
            Metrics::new().cache(),
        );
        let cache = Arc::new(cache);
        Self { shape: Shape::audience_detail(), cache }
    }

    /// Takes in what the upstream says of these ids.
    fn fill(&self, upstream: &Simulator, ids: &[i64]) {
        let scope = Arc::new(Scope::new(0, credential(), "{}", ""));
        let ask = Ask::new(Arc::clone(&scope), ids.iter().map(|&id| key(id)).collect());
        let list = &self.shape.list(Kind(0)).name;
        let records = ids.iter().flat_map(|id| upstream.expected("bench", "", list, &id.to_string()));
        let body = format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{}]}}"#, join(records));
        let Meaning::Success(Success { records, of, .. }) =
            wire::read(&self.shape, &ask, StatusCode::OK, body.as_bytes())
        else {
            panic!("the body is a success");
        };
        let fetch = self.cache.open(&scope, clock::now());
        let record = |Found { json, ids, carried, identity }| {
            let (scope, fetched_at) = (Arc::clone(fetch.scope()), fetch.started());
            Record::new(Parts { json: &json, scope, ids: &ids, carried, identity, fetched_at })
        };
        let records: Vec<Record> = records.into_iter().map(record).collect();
        let said = Said {
            envelope: Bytes::new(),
            records: &records,
            answers: ask.ids.into_iter().zip(of).map(|(id, records)| Of { id, records, keep: true }).collect(),
        };
        let stored = fetch.store(&self.shape, said);
        let one = |taken: &Taken| matches!(taken, Taken::Held(answer) if answer.records().len() == 1);
        assert!(stored.iter().all(|(_, taken)| one(taken)), "an id names one customer");
    }

    /// A lookup for these customers.
    fn lookup(&self, ids: &[i64]) -> Lookup {
        let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, join(ids.iter().map(i64::to_string)));
        let keys = self.decode(&body);
        let answers = self.read(keys.iter());
        Lookup { body, keys, answers }
    }

    fn decode(&self, body: &str) -> Vec<Key> {
        let decoded = decode(&self.shape, 0, credential(), 1000, body.as_bytes());
        let Decoded { scope, ids } = decoded.expect("this holds because the body is written above");
        ids.into_iter().map(|id| Key { scope: Arc::clone(&scope), id }).collect()
    }

    /// The answers of keys that are all cached and fresh.
    fn read<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Answer> {
        let (now, directives) = (clock::now(), CacheDirectives::default());
        keys.map(|key| {
            let answer = self.cache.get(&key.scope, &key.id).expect("this holds because every customer is cached");
            assert_eq!(directives.judge(&answer, &self.cache.policy(), now), Use::Hit);
            self.cache.was_read(&key.scope, &key.id, &answer, now);
            answer
        })
        .collect()
    }
}

fn key(id: i64) -> Id {
    Id { kind: Kind(0), value: Value::Int(id) }
}

fn credential() -> Vec<(HeaderName, HeaderValue)> {
    vec![(HeaderName::from_static("x-token"), HeaderValue::from_static("bench"))]
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn main() {
    let upstream = Simulator::new(simulator::Config { customers: CUSTOMERS as u64, ..simulator::Config::default() });
    let mut ids: Vec<i64> = (0..CUSTOMERS as u64).map(|index| upstream.customer(index).id).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut ids);
    let full = Full::new();
    ids.chunks(BATCH).for_each(|ids| full.fill(&upstream, ids));

    let quick = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500));
    let mut criterion = quick.measurement_time(Duration::from_secs(2)).configure_from_args();
    let lookups = SIZES.map(|keys| ids.chunks(keys).map(|ids| full.lookup(ids)).collect::<Vec<_>>());
    for (name, part) in PARTS {
        let mut group = criterion.benchmark_group(name);
        for (keys, random) in SIZES.into_iter().zip(&lookups) {
            group.throughput(Throughput::Elements(keys as u64));
            for (order, lookups) in [("hot", &random[..1]), ("random", &random[..])] {
                let mut next = lookups.iter().cycle();
                group.bench_function(BenchmarkId::new(order, keys), |bencher| {
                    bencher.iter(|| next.next().map(|lookup| part(&full, black_box(lookup))));
                });
            }
        }
        group.finish();
    }
    criterion.final_summary();
}
