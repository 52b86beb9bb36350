//! A cache that holds customers: everything of the library that the measurement uses.

use std::{sync::Arc, time::Duration};

use audience_gateway::{
    cache::{self, Cache, Of, Policy, Said},
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
    upstream::{
        verdict::{Ask, Found, Success},
        wire::{self, Meaning},
    },
};
use bytes::{Buf, Bytes};
use http::{HeaderName, HeaderValue, StatusCode};

/// The first customer's id; all have the same number of digits.
pub(crate) const FIRST: usize = 10_000_000;
/// The envelope of the last success, as the dispatcher hands it out.
const HEAD: Bytes = Bytes::from_static(br#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":["#);

/// The cache, and how it is asked.
pub(crate) struct Held {
    shape: Arc<Shape>,
    scope: Arc<Scope>,
    cache: Arc<Cache>,
    bytes: usize,
}

impl Held {
    /// Nothing yet, with records of so many bytes.
    pub(crate) fn new(capacity: u64, bytes: usize) -> Self {
        let policy = Policy {
            ttl: Duration::from_secs(86_400),
            negative_ttl: Duration::from_secs(60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(
            &cache::Config { capacity, policy, compression: cache::Compression::Off },
            Metrics::new().cache(),
        ));
        let scope = Arc::new(Scope::new(0, credential(), "{}", ""));
        Self { shape: Arc::new(Shape::audience_detail()), scope, cache, bytes }
    }

    /// Takes in an upstream answer for these customers, asked for by id and by phone.
    pub(crate) fn fill(&self, customers: &[usize]) {
        let scope = Arc::clone(&self.scope);
        let ids = customers.iter().flat_map(|&customer| [id(customer), phone(customer)]).collect();
        let ask = Ask::new(Arc::clone(&scope), ids);
        let Success { records, of, .. } = success(&self.shape, &ask, &bodies(customers, self.bytes));
        let fetch = self.cache.open(&scope, clock::now());
        let record = |Found { json, ids, carried, identity }| {
            let (scope, fetched_at) = (Arc::clone(fetch.scope()), fetch.started());
            Record::new(Parts { json: &json, scope, ids: &ids, carried, identity, fetched_at })
        };
        let records: Vec<Record> = records.into_iter().map(record).collect();
        let answers = ask.ids.into_iter().zip(of).map(|(id, records)| Of { id, records, keep: true }).collect();
        let said = Said { envelope: Bytes::new(), records: &records, answers };
        assert_eq!(fetch.store(&self.shape, said).len(), 2 * customers.len(), "every key is answered");
    }

    /// What lookups are made of here.
    pub(crate) fn parts(&self) -> (Arc<Shape>, Arc<Cache>) {
        (Arc::clone(&self.shape), Arc::clone(&self.cache))
    }

    /// The key under which a lookup finds a customer.
    pub(crate) fn key(&self, customer: usize) -> Key {
        Key { scope: Arc::clone(&self.scope), id: id(customer) }
    }

    /// Reads a key as a lookup does; whether it was there.
    pub(crate) fn read(&self, key: &Key) -> bool {
        let now = clock::now();
        let Some(answer) = self.cache.get(&key.scope, &key.id) else { return false };
        assert_eq!(CacheDirectives::default().judge(&answer, &self.cache.policy(), now), Use::Hit);
        self.cache.was_read(&key.scope, &key.id, &answer, now);
        true
    }

    /// A lookup's body.
    pub(crate) fn body(customer: usize) -> String {
        format!(r#"{{"audienceUserIdList":[{}]}}"#, FIRST + customer)
    }

    /// The whole way of a lookup; the length of its answer, where everything was there.
    pub(crate) fn lookup(&self, body: &str) -> Option<usize> {
        let decoded = decode(&self.shape, 0, credential(), 1000, body.as_bytes());
        let Decoded { scope, ids } = decoded.expect("this holds because the body is written above");
        let now = clock::now();
        let answers: Option<Vec<_>> = ids
            .into_iter()
            .map(|id| {
                let answer = self.cache.get(&scope, &id)?;
                assert_eq!(CacheDirectives::default().judge(&answer, &self.cache.policy(), now), Use::Hit);
                self.cache.was_read(&scope, &id, &answer, now);
                Some(answer)
            })
            .collect();
        Some(encode(HEAD, answers?.iter(), None).body.remaining())
    }

    /// Bytes that the cache says it holds.
    pub(crate) fn accounted(&self) -> u64 {
        self.cache.bytes()
    }

    /// Customers that are there, each under three keys.
    pub(crate) fn customers(&self) -> usize {
        self.cache.keys() / 3
    }
}

fn id(customer: usize) -> Id {
    Id { kind: Kind(0), value: Value::Int(i64::try_from(FIRST + customer).unwrap()) }
}

fn phone(customer: usize) -> Id {
    Id { kind: Kind(2), value: Value::Text(format!("138{}", FIRST + customer).into()) }
}

fn credential() -> Vec<(HeaderName, HeaderValue)> {
    vec![(HeaderName::from_static("x-token"), HeaderValue::from_static("bench"))]
}

/// What the upstream says of these customers.
pub(crate) fn bodies(customers: &[usize], bytes: usize) -> String {
    let records: Vec<String> = customers.iter().map(|&customer| record(customer, bytes)).collect();
    format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{}]}}"#, records.join(","))
}

/// What that means to whoever asked so.
pub(crate) fn success(shape: &Shape, ask: &Ask, body: &str) -> Success {
    let Meaning::Success(success) = wire::read(shape, ask, StatusCode::OK, body.as_bytes()) else {
        panic!("the body is a success");
    };
    success
}

/// A record as the upstream gives it.
pub(crate) fn record(customer: usize, bytes: usize) -> String {
    let id = FIRST + customer;
    let mut record = format!(
        r#"{{"audienceUserId":{id},"thirdId":"crm-{id}","phone":"138{id}","phoneList":[{{"phone":"138{id}"}}],"remark":""#
    );
    let rest = bytes.saturating_sub(record.len() + r#""}"#.len());
    record.extend(std::iter::repeat_n('x', rest));
    record.push_str(r#""}"#);
    record
}
