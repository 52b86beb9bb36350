//! The cache's invariants, one test each.

mod coherence;
mod packing;
mod pages;

use std::time::Duration;

use super::*;
use crate::{
    key::{Id, IdRef, Kind, Value},
    record::{Parts, Record},
    shape::Shape,
};

const ID: u8 = 0;
const THIRD: u8 = 1;
const PHONE: u8 = 2;

struct Bench {
    cache: Arc<Cache>,
    scope: Arc<Scope>,
    start: Instant,
}

fn id(kind: u8, value: &str) -> Id {
    let value = value.parse().map_or_else(|_| Value::Text(value.into()), Value::Int);
    let value = match value {
        Value::Int(number) if kind != ID => Value::Text(number.to_string().into()),
        value => value,
    };
    Id { kind: Kind(kind), value }
}

impl Bench {
    fn new(capacity: u64) -> Self {
        Self::with_pages(capacity, resident::PAGES)
    }

    fn with_pages(capacity: u64, pages: u64) -> Self {
        let policy = Policy {
            ttl: Duration::from_secs(600),
            negative_ttl: Duration::from_secs(60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        };
        let metrics = crate::metrics::Metrics::new().cache();
        let cache = Cache::with_pages(&Config { capacity, policy, compression: Compression::Off }, metrics, pages);
        Self { cache: Arc::new(cache), scope: Arc::new(Scope::new(0, vec![], "{}", "")), start: crate::clock::now() }
    }

    /// A customer with an id, and the other ids that its fields carry.
    fn record(&self, second: u64, customer: &str, others: &[(u8, &str)], json: &str) -> Record {
        let mut ids = vec![id(ID, customer)];
        ids.extend(others.iter().map(|(kind, value)| id(*kind, value)));
        Record::new(Parts {
            json: json.as_bytes(),
            scope: Arc::clone(&self.scope),
            carried: ids.len(),
            ids: &ids,
            identity: Some(0),
            fetched_at: self.start + Duration::from_secs(second),
        })
    }

    fn store(&self, second: u64, records: &[Record], answers: Vec<(Id, Vec<usize>)>) {
        let fetch = self.cache.open(&self.scope, self.start + Duration::from_secs(second));
        self.bring(&fetch, records, answers);
    }

    /// What a request that was opened brings.
    fn bring(&self, fetch: &Fetch, records: &[Record], answers: Vec<(Id, Vec<usize>)>) -> Vec<(Id, Taken)> {
        let answers = answers.into_iter().map(|(id, records)| Of { id, records, keep: true }).collect();
        fetch.store(&Shape::audience_detail(), Said { envelope: Bytes::new(), records, answers })
    }

    /// What a key gives: the records' texts, or nothing when it is not cached.
    fn get(&self, kind: u8, value: &str) -> Option<Vec<String>> {
        let answer = self.cache.get(&self.scope, &id(kind, value))?;
        Some(answer.records().iter().map(|record| String::from_utf8_lossy(&record.json()).into_owned()).collect())
    }
}

fn given(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|&text| text.to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn a_record_fetched_under_a_phone_also_answers_its_unique_kinds_but_not_its_other_phones() {
    let bench = Bench::new(1 << 20);
    let record = bench.record(0, "1", &[(THIRD, "t"), (PHONE, "p"), (PHONE, "q")], "one");
    bench.store(0, &[record], vec![(id(PHONE, "p"), vec![0])]);
    assert_eq!(bench.get(PHONE, "p"), given(&["one"]));
    assert_eq!(bench.get(ID, "1"), given(&["one"]));
    assert_eq!(bench.get(THIRD, "t"), given(&["one"]));
    assert_eq!(bench.get(PHONE, "q"), None, "another customer may share it");
}

#[tokio::test(start_paused = true)]
async fn a_newer_record_under_one_key_is_what_every_other_key_gives() {
    let bench = Bench::new(1 << 20);
    let old = bench.record(0, "1", &[(THIRD, "t"), (PHONE, "p")], "old");
    let other = bench.record(0, "2", &[(PHONE, "p")], "other");
    bench.store(0, &[old, other], vec![(id(PHONE, "p"), vec![0, 1])]);
    let new = bench.record(5, "1", &[(THIRD, "t"), (PHONE, "p")], "new");
    bench.store(5, &[new], vec![(id(ID, "1"), vec![0])]);
    assert_eq!(bench.get(PHONE, "p"), given(&["new", "other"]));
    assert_eq!(bench.get(THIRD, "t"), given(&["new"]));
}

#[tokio::test(start_paused = true)]
async fn an_older_record_that_arrives_late_changes_nothing() {
    let bench = Bench::new(1 << 20);
    bench.store(5, &[bench.record(5, "1", &[(PHONE, "p")], "new")], vec![(id(ID, "1"), vec![0])]);
    bench.store(3, &[bench.record(3, "1", &[(PHONE, "p")], "old")], vec![(id(PHONE, "p"), vec![0])]);
    assert_eq!(bench.get(ID, "1"), given(&["new"]));
    assert_eq!(bench.get(PHONE, "p"), given(&["new"]));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_customer_no_longer_carries_stops_reaching_it() {
    let bench = Bench::new(1 << 20);
    bench.store(0, &[bench.record(0, "1", &[(THIRD, "t"), (PHONE, "p")], "old")], vec![(id(PHONE, "p"), vec![0])]);
    bench.store(5, &[bench.record(5, "1", &[(THIRD, "u")], "new")], vec![(id(ID, "1"), vec![0])]);
    assert_eq!(bench.get(PHONE, "p"), None);
    assert_eq!(bench.get(THIRD, "t"), None);
    assert_eq!(bench.get(THIRD, "u"), given(&["new"]));
}

#[tokio::test(start_paused = true)]
async fn a_new_customer_behind_a_key_replaces_the_word_that_there_is_none() {
    let bench = Bench::new(1 << 20);
    bench.store(0, &[], vec![(id(THIRD, "t"), vec![]), (id(PHONE, "p"), vec![])]);
    assert_eq!(bench.get(THIRD, "t"), given(&[]));
    bench.store(5, &[bench.record(5, "1", &[(THIRD, "t"), (PHONE, "p")], "new")], vec![(id(ID, "1"), vec![0])]);
    assert_eq!(bench.get(THIRD, "t"), given(&["new"]));
    assert_eq!(bench.get(PHONE, "p"), None, "asked again: others may share it");
}

#[tokio::test(start_paused = true)]
async fn a_customer_that_is_gone_is_gone_under_every_key() {
    let bench = Bench::new(1 << 20);
    bench.store(0, &[bench.record(0, "1", &[(THIRD, "t"), (PHONE, "p")], "old")], vec![(id(PHONE, "p"), vec![0])]);
    bench.store(5, &[], vec![(id(ID, "1"), vec![])]);
    assert_eq!(bench.get(ID, "1"), given(&[]));
    assert_eq!(bench.get(THIRD, "t"), None);
    assert_eq!(bench.get(PHONE, "p"), None);
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_goes_first_and_takes_all_its_keys_along() {
    let bench = Bench::new(40_000);
    let json = "x".repeat(1000);
    for customer in 0..200u32 {
        let name = customer.to_string();
        let record = bench.record(1, &name, &[(PHONE, &format!("p{customer}"))], &json);
        bench.store(1, &[record], vec![(id(PHONE, &format!("p{customer}")), vec![0])]);
        assert!(bench.get(ID, "0").is_some(), "customer 0 is read all the time and stays, at {customer}");
    }
    assert!(bench.cache.bytes() <= 40_000);
    assert!(bench.get(ID, "199").is_some() && bench.get(PHONE, "p199").is_some());
    assert!(bench.get(ID, "1").is_none() && bench.get(PHONE, "p1").is_none());
    let customers = (0..200u32).filter(|customer| bench.get(ID, &customer.to_string()).is_some()).count();
    assert_eq!(bench.cache.keys(), customers * 2, "no key is left behind by what has gone");
    assert_eq!(bench.cache.carriers.len(), customers, "and no phone");
}

#[tokio::test(start_paused = true)]
async fn a_capacity_of_zero_keeps_nothing() {
    let bench = Bench::new(0);
    bench.store(0, &[bench.record(0, "1", &[], "one")], vec![(id(ID, "1"), vec![0])]);
    assert_eq!(bench.get(ID, "1"), None);
    assert_eq!(bench.cache.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_into_a_capacity_of_zero_leaves_nothing_behind() {
    let bench = Bench::new(0);
    let records: Vec<_> = (0..300).map(|n| bench.record(0, &n.to_string(), &[], "one")).collect();
    let answers = (0..300).map(|n| (id(ID, &n.to_string()), vec![n])).collect();
    bench.store(0, &records, answers);
    assert_eq!(bench.cache.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_without_an_identity_is_kept_for_the_key_that_was_asked() {
    let bench = Bench::new(1 << 20);
    let record = Record::new(Parts {
        json: b"anonymous",
        scope: Arc::clone(&bench.scope),
        ids: &[id(PHONE, "p")],
        carried: 0,
        identity: None,
        fetched_at: bench.start,
    });
    bench.store(0, &[record], vec![(id(PHONE, "p"), vec![0])]);
    assert_eq!(bench.get(PHONE, "p"), given(&["anonymous"]));
}

/// The same id twice with different bytes: the second copy identifies no customer.
fn twice(bench: &Bench, second: u64) -> [Record; 2] {
    let first = bench.record(second, "1", &[(THIRD, "t"), (PHONE, "p"), (PHONE, "q")], "one");
    let ids: Vec<Id> = first.ids().map(IdRef::to_owned).collect();
    let (scope, fetched_at) = (Arc::clone(first.scope()), first.fetched_at());
    let copy = Parts { json: b"two", scope, ids: &ids, carried: ids.len(), identity: None, fetched_at };
    [first, Record::new(copy)]
}

#[tokio::test(start_paused = true)]
async fn two_records_of_one_id_are_kept_and_purged_together() {
    let bench = Bench::new(1 << 20);
    for asked in [id(ID, "1"), id(PHONE, "q"), id(THIRD, "t")] {
        let answers = || vec![(id(ID, "1"), vec![0, 1]), (id(PHONE, "p"), vec![0, 1])];
        bench.store(1, &twice(&bench, 1), answers());
        assert_eq!(bench.get(ID, "1"), given(&["one", "two"]));
        assert_eq!(bench.get(PHONE, "p"), given(&["one", "two"]));
        let shape = Shape::audience_detail();
        let forgotten = bench.cache.forget((0, &shape), Whose::Everybodys, std::slice::from_ref(&asked), bench.start);
        assert!(forgotten.keys >= 2, "{forgotten:?}");
        assert_eq!((bench.get(ID, "1"), bench.get(PHONE, "p"), bench.get(THIRD, "t")), (None, None, None), "{asked:?}");
        assert_eq!((bench.cache.keys(), bench.cache.carriers.len(), bench.cache.bytes()), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_record_takes_the_place_of_two_of_one_id() {
    let bench = Bench::new(1 << 20);
    bench.store(1, &twice(&bench, 1), vec![(id(ID, "1"), vec![0, 1]), (id(PHONE, "p"), vec![0, 1])]);
    bench.store(2, &[bench.record(2, "1", &[(THIRD, "t"), (PHONE, "p")], "new")], vec![(id(ID, "1"), vec![0])]);
    assert_eq!(bench.get(ID, "1"), given(&["new"]));
    assert_eq!(bench.get(THIRD, "t"), given(&["new"]));
    assert_eq!(bench.get(PHONE, "p"), None, "asked anew");
    assert_eq!(bench.cache.carriers.len(), 1, "nothing of the copies is left");
}

#[tokio::test(start_paused = true)]
async fn scopes_that_went_quiet_do_not_keep_others_from_riding() {
    let bench = Bench::new(1 << 28);
    let policy_ttl = Duration::from_secs(600);
    let shape = Shape::audience_detail();
    let read_all = |token: &str, customers: std::ops::Range<u32>, at: Instant| {
        let token = http::HeaderValue::from_str(token).expect("text");
        let scope = Arc::new(Scope::new(0, vec![(http::HeaderName::from_static("x-token"), token)], "{}", ""));
        let fetch = bench.cache.open(&scope, at);
        let record = |customer: u32| {
            let ids = [id(ID, &customer.to_string())];
            let scope = Arc::clone(fetch.scope());
            Record::new(Parts { json: b"x", scope, ids: &ids, carried: 1, identity: Some(0), fetched_at: at })
        };
        let records: Vec<_> = customers.clone().map(record).collect();
        let answers = customers.clone().enumerate().map(|(n, customer)| (id(ID, &customer.to_string()), vec![n]));
        let _held = bench.bring(&fetch, &records, answers.collect());
        for customer in customers {
            let key = Key { scope: Arc::clone(fetch.scope()), id: id(ID, &customer.to_string()) };
            let answer = bench.cache.get(&key.scope, &key.id).expect("there is room");
            bench.cache.was_read(&key.scope, &key.id, &answer, at);
        }
        Arc::clone(fetch.scope())
    };
    let mut at = bench.start;
    for token in 0..14 {
        read_all(&token.to_string(), 0..5_000, at);
        at += policy_ttl * 2;
    }
    let scope = read_all("last", 0..100, at);
    let due = at + policy_ttl * 9 / 10;
    assert_eq!(bench.cache.expiring((&scope, &shape), due, 200, |_| true).len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_found_as_soon_as_it_is_due_whenever_it_was_last_looked_for() {
    let bench = Bench::new(1 << 20);
    bench.store(0, &[bench.record(0, "1", &[], "one")], vec![(id(ID, "1"), vec![0])]);
    let key = Key { scope: Arc::clone(&bench.scope), id: id(ID, "1") };
    let answer = bench.cache.get(&key.scope, &key.id).expect("it is stored");
    bench.cache.was_read(&key.scope, &key.id, &answer, bench.start);
    let due = answer.due_at(&bench.cache.policy());
    assert!(bench.cache.next_expiring(due - Duration::from_millis(1), |_| true).is_none());
    assert_eq!(bench.cache.next_expiring(due, |_| true).as_ref(), Some(&bench.scope));
}

#[tokio::test(start_paused = true)]
async fn a_note_that_is_forgotten_leaves_the_others() {
    let bench = Bench::new(1 << 20);
    let records: Vec<_> = (0..3).map(|n| bench.record(0, &n.to_string(), &[], "x")).collect();
    bench.store(0, &records, (0..3).map(|n| (id(ID, &n.to_string()), vec![n])).collect());
    let keys: Vec<_> =
        (0..3).map(|n: u8| Key { scope: Arc::clone(&bench.scope), id: id(ID, &n.to_string()) }).collect();
    for key in &keys {
        let answer = bench.cache.get(&key.scope, &key.id).expect("it is stored");
        bench.cache.was_read(&key.scope, &key.id, &answer, bench.start);
    }
    let due = bench.start + Duration::from_secs(590);
    bench.cache.forget_noted(&keys[..1]);
    assert!(bench.cache.next_expiring(due, |_| true).is_some(), "two of them are ready now");
    bench.cache.forget_noted(&keys[1..2]);
    let shape = Shape::audience_detail();
    assert_eq!(bench.cache.expiring((&bench.scope, &shape), due, 9, |_| true), &keys[2..]);
}
