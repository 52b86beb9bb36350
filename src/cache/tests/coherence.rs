//! Coherence as a property: requests that overlap and arrive in any order, evictions and erasures, against a model of the
//! upstream's customers.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::key::ValueRef;

/// Customers, third ids and phones: few, so that they meet.
const FEW: i64 = 4;

/// The upstream's customers: each with the third id and the phones that it has now.
type World = HashMap<i64, (Option<i64>, Vec<i64>)>;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A customer is created or changed.
    Change { customer: i64, third: Option<i64>, phones: Vec<i64> },
    /// A customer is deleted.
    Delete { customer: i64 },
    /// A request for some keys is started: it is answered with what is so now.
    Start { keys: Vec<(u8, i64)> },
    /// One of the requests under way is answered.
    Arrive { which: usize },
    /// A key is read, so that others are used less recently.
    Read { key: (u8, i64) },
    /// A key is purged.
    Forget { key: (u8, i64) },
    /// Everything is.
    ForgetAll,
}

fn key() -> impl Strategy<Value = (u8, i64)> {
    (0..3u8, 0..FEW)
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..FEW, proptest::option::of(0..FEW), proptest::collection::vec(0..FEW, 0..3));
    prop_oneof![
        3 => change.prop_map(|(customer, third, phones)| Step::Change { customer, third, phones }),
        1 => (0..FEW).prop_map(|customer| Step::Delete { customer }),
        4 => proptest::collection::vec(key(), 1..5).prop_map(|keys| Step::Start { keys }),
        4 => (0..8usize).prop_map(|which| Step::Arrive { which }),
        1 => key().prop_map(|key| Step::Read { key }),
        1 => key().prop_map(|key| Step::Forget { key }),
        1 => Just(Step::ForgetAll),
    ]
}

/// One request under way, with what it will be answered.
struct UnderWay {
    fetch: Fetch,
    records: Vec<Record>,
    answers: Vec<(Id, Vec<usize>)>,
}

/// The cache beside what is known of each customer and each key.
struct Model {
    bench: Bench,
    /// What every record is.
    json: String,
    second: u64,
    world: World,
    under_way: Vec<UnderWay>,
    /// The start of the latest request that has said anything of a customer, and of a key.
    customers: HashMap<i64, Instant>,
    keys: HashMap<Id, Instant>,
    /// The latest purge of a key that was asked for, or that reached the same customer then.
    purged: HashMap<Id, Instant>,
    /// The latest purge of an id such that no customer who carries it may be back: it was asked for, or is a customer's own.
    erased: HashMap<Id, Instant>,
}

fn name((kind, number): (u8, i64)) -> Id {
    let prefix = ["", "t", "p"][usize::from(kind)];
    id(kind, &format!("{prefix}{number}"))
}

impl Model {
    fn new(capacity: u64, pages: u64, compression: Compression) -> Self {
        Self {
            bench: Bench::packing(capacity, pages, compression),
            json: if compression == Compression::Off { "x".to_owned() } else { packing::json(0) },
            second: 0,
            world: World::new(),
            under_way: Vec::new(),
            customers: HashMap::new(),
            keys: HashMap::new(),
            purged: HashMap::new(),
            erased: HashMap::new(),
        }
    }

    fn now(&self) -> Instant {
        self.bench.start + Duration::from_secs(self.second)
    }

    fn key(&self, id: &Id) -> Key {
        Key { scope: Arc::clone(&self.bench.scope), id: id.clone() }
    }

    fn take(&mut self, step: Step) {
        self.second += 1;
        match step {
            Step::Change { customer, third, phones } => {
                // A third id has one customer.
                for (old, _) in self.world.values_mut().filter(|(old, _)| old.is_some() && *old == third) {
                    *old = None;
                }
                self.world.insert(customer, (third, phones));
            }
            Step::Delete { customer } => {
                self.world.remove(&customer);
            }
            Step::Start { keys } => self.start(&keys),
            Step::Arrive { which } if which < self.under_way.len() => self.arrive(which),
            Step::Arrive { .. } => {}
            Step::Read { key } => drop(self.bench.cache.get(&self.bench.scope, &name(key))),
            Step::Forget { key } => self.forget(&name(key)),
            Step::ForgetAll => {
                let _counts = self.bench.cache.forget_all(self.now());
                let now = self.now();
                for id in (0..3).flat_map(|kind| (0..FEW).map(move |number| name((kind, number)))) {
                    self.purged.insert(id.clone(), now);
                    self.erased.insert(id, now);
                }
                assert_eq!((self.bench.cache.keys(), self.bench.cache.bytes()), (0, 0));
            }
        }
        self.check();
    }

    fn start(&mut self, keys: &[(u8, i64)]) {
        let customers: Vec<i64> = self.world.keys().copied().collect();
        let record = |customer: &i64| {
            let (third, phones) = &self.world[customer];
            let third = third.map(|third| format!("t{third}"));
            let phones: Vec<String> = phones.iter().map(|phone| format!("p{phone}")).collect();
            let others = third.iter().map(|third| (THIRD, &**third));
            let others: Vec<_> = others.chain(phones.iter().map(|phone| (PHONE, &**phone))).collect();
            let others = others.iter().enumerate().filter(|(at, other)| !others[..*at].contains(other));
            let others: Vec<_> = others.map(|(_, other)| *other).collect();
            self.bench.record(self.second, &customer.to_string(), &others, &self.json)
        };
        let records: Vec<Record> = customers.iter().map(record).collect();
        let mut answers: Vec<(Id, Vec<usize>)> = Vec::new();
        for id in keys.iter().map(|key| name(*key)) {
            let of = (0..records.len()).filter(|position| records[*position].has(&id)).collect();
            if !answers.iter().any(|(known, _)| *known == id) {
                answers.push((id, of));
            }
        }
        // Only what was asked for comes.
        let asked: Vec<usize> = answers.iter().flat_map(|(_, of)| of.iter().copied()).collect();
        let kept: Vec<usize> = (0..records.len()).filter(|position| asked.contains(position)).collect();
        let place = |old: &usize| kept.iter().position(|position| position == old).expect("it was asked for");
        let answers = answers.iter().map(|(id, of)| (id.clone(), of.iter().map(place).collect())).collect();
        let records = kept.iter().map(|position| records[*position].clone()).collect();
        let fetch = self.bench.cache.open(&self.bench.scope, self.now());
        self.under_way.push(UnderWay { fetch, records, answers });
    }

    fn arrive(&mut self, which: usize) {
        let UnderWay { fetch, records, answers } = self.under_way.remove(which);
        let started = fetch.started();
        let of = |records: &[usize]| records.len();
        let said: HashMap<Id, usize> = answers.iter().map(|(id, records)| (id.clone(), of(records))).collect();
        for record in &records {
            let Some(ValueRef::Int(customer)) = record.identity().map(|id| id.value) else {
                unreachable!("all have one")
            };
            let known = self.customers.entry(customer).or_insert(started);
            *known = (*known).max(started);
        }
        for (id, count) in &said {
            let known = self.keys.entry(id.clone()).or_insert(started);
            *known = (*known).max(started);
            if let (Value::Int(customer), 0) = (&id.value, count) {
                let known = self.customers.entry(*customer).or_insert(started);
                *known = (*known).max(started);
            }
        }
        for (id, taken) in self.bench.bring(&fetch, &records, answers) {
            match taken {
                Taken::Held(answer) => {
                    assert!(answer.fetched_at() >= started || !answer.records().is_empty());
                    for record in answer.records() {
                        assert!(record.has(&id), "a key gives a customer that does not carry it");
                    }
                }
                Taken::Outdated(answer) => {
                    assert_eq!(answer.records().len(), said[&id], "it is still what was said");
                }
            }
        }
    }

    fn forget(&mut self, asked: &Id) {
        let reached = self.bench.cache.get(&self.bench.scope, asked);
        let records: Vec<&Record> = reached.iter().flat_map(|answer| answer.records()).collect();
        let reaches = |id: &Id| {
            let answer = self.bench.cache.get(&self.bench.scope, id);
            answer.is_some_and(|answer| records.iter().any(|own| answer.gives(own)))
        };
        let ids = records.iter().flat_map(|record| record.ids()).map(IdRef::to_owned);
        let mut ids: Vec<Id> = ids.filter(reaches).collect();
        ids.push(asked.clone());
        let shape = Shape::audience_detail();
        let before = self.bench.cache.keys();
        let forgotten =
            self.bench.cache.forget((0, &shape), Whose::Everybodys, std::slice::from_ref(asked), self.now());
        assert_eq!(forgotten.keys, before - self.bench.cache.keys(), "as many as it says");
        let now = self.now();
        self.erased.insert(asked.clone(), now);
        for id in ids {
            if id.kind == Kind(ID) {
                self.erased.insert(id.clone(), now);
            }
            assert!(!self.bench.cache.holds(&self.key(&id)), "every key of the customer is forgotten");
            self.purged.insert(id, now);
        }
    }

    /// What must hold after each step.
    fn check(&self) {
        self.bench.cache.residents.check();
        for id in (0..3).flat_map(|kind| (0..FEW).map(move |number| name((kind, number)))) {
            let Some(answer) = self.bench.cache.get(&self.bench.scope, &id) else { continue };
            assert!(self.keys.get(&id).is_none_or(|known| answer.fetched_at() >= *known), "an older answer is back");
            for record in answer.records() {
                let Some(ValueRef::Int(customer)) = record.identity().map(|id| id.value) else { unreachable!() };
                assert!(record.fetched_at() >= self.customers[&customer], "an older record is back");
                assert!(record.has(&id), "a key gives a customer that does not carry it");
                assert_eq!(*record.json(), *self.json.as_bytes());
                for own in record.ids() {
                    let erased = self.erased.get(&own.to_owned());
                    let erased = erased.is_some_and(|erased| record.fetched_at() <= *erased);
                    assert!(!erased, "a purged customer is back");
                }
            }
            assert!(self.purged.get(&id).is_none_or(|purged| answer.fetched_at() > *purged), "a purged key is back");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_requests_evictions_and_purges_brings_an_older_record_back(
        room in 1u64..6,
        pages in prop_oneof![Just(resident::PAGES), Just(4), Just(2)],
        compression in proptest::sample::select(&Compression::ALL[..]),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let _paused = runtime.as_ref().expect("it opens nothing").enter();
        // As many customers fit.
        let mut model = Model::new(room * 1200, pages, compression);
        for step in steps {
            model.take(step);
        }
        model.under_way.clear();
        prop_assert!(model.bench.cache.bytes() <= room * 1200);
    }
}
