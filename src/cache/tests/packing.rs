//! Records that are packed are given as they came.

use std::sync::LazyLock;

use super::*;
use crate::{
    cache::packing::Packing,
    codec::{Codec, Dictionary},
};

/// What records like those below have in common.
static DICTIONARY: LazyLock<Arc<Dictionary>> = LazyLock::new(|| {
    let codec = Codec::new();
    (0..).find(|number| {
        codec.see(json(*number).as_bytes());
        codec.learn()
    });
    codec.pack(json(1).as_bytes()).expect("it fits").dictionary
});

/// A record of some 500 bytes, most of which all have in common.
pub(super) fn json(number: u64) -> String {
    let mut own = fastrand::Rng::with_seed(number);
    let field = |name: usize| format!(r#""field{:x}":"{:05x}""#, name * 7_777_777_777, own.u32(..) >> 12);
    format!("{{{}}}", (0..16).map(field).collect::<Vec<_>>().join(","))
}

impl Bench {
    /// A cache that packs, and has learned how to.
    pub(super) fn packing(capacity: u64, pages: u64, compression: Compression) -> Self {
        let mut bench = Self::with_pages(capacity, pages);
        let cache = Arc::get_mut(&mut bench.cache).expect("nobody else has it yet");
        cache.packing = Packing::knowing(compression, Arc::clone(&DICTIONARY));
        bench
    }

    /// Stores customers one by one; each has a phone, which is asked for, too.
    fn fill(&self, customers: std::ops::Range<u64>) {
        for customer in customers {
            let (name, phone) = (customer.to_string(), format!("p{customer}"));
            let record = self.record(1, &name, &[(PHONE, &phone)], &json(customer));
            self.store(1, &[record], vec![(id(ID, &name), vec![0]), (id(PHONE, &phone), vec![0])]);
            self.cache.residents.check();
        }
    }

    /// Those that are held, each by both of its keys with what it is, and whether they are packed.
    fn held(&self, customers: std::ops::Range<u64>) -> Vec<(u64, bool)> {
        let held = customers.filter_map(|customer| {
            let answer = |id: Id| self.cache.index.find(&self.scope, &id);
            let by_id = answer(id(ID, &customer.to_string()));
            let by_phone = answer(id(PHONE, &format!("p{customer}")));
            assert_eq!(by_id.is_some(), by_phone.is_some());
            let (by_id, by_phone) = (by_id?, by_phone?);
            assert!(by_id.is(&by_phone), "both keys lead to one record");
            assert_eq!(*by_id.records()[0].json(), *json(customer).as_bytes());
            Some((customer, by_id.records()[0].is_packed()))
        });
        held.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn every_record_is_packed_when_it_comes_and_given_as_it_came() {
    let (plain, packed) = (Bench::new(1 << 20), Bench::packing(1 << 20, resident::PAGES, Compression::Zstd));
    plain.fill(0..100);
    packed.fill(0..100);
    assert!(packed.held(0..100).iter().all(|(_, is_packed)| *is_packed));
    assert_eq!(packed.get(ID, "7"), given(&[&json(7)]));
    assert_eq!(packed.get(PHONE, "p7"), given(&[&json(7)]));
    let saved = plain.cache.bytes() - packed.cache.bytes();
    let json: usize = (0..100).map(|customer| json(customer).len()).sum();
    assert!(saved > json as u64 / 2, "{saved} of {json} bytes are saved, and are accounted");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_gets_no_smaller_stays_as_it_is() {
    let bench = Bench::packing(1 << 20, resident::PAGES, Compression::Zstd);
    bench.store(0, &[bench.record(0, "1", &[], "one")], vec![(id(ID, "1"), vec![0])]);
    assert_eq!(bench.get(ID, "1"), given(&["one"]));
}

#[tokio::test(start_paused = true)]
async fn what_goes_unread_stays_packed_for_another_round_and_then_leaves() {
    let bench = Bench::packing(1 << 20, 40, Compression::ZstdCold);
    bench.fill(0..900);
    assert!(bench.held(0..900).iter().all(|(_, is_packed)| !is_packed), "there is room for all of them");
    bench.fill(900..2000);
    let held = bench.held(0..2000);
    let packed = held.iter().filter(|(_, is_packed)| *is_packed).count();
    assert!(packed > 400, "{packed} are packed");
    assert!(held.iter().is_sorted_by_key(|(_, is_packed)| !is_packed), "the older ones");
    assert_eq!(bench.cache.carriers.len(), held.len(), "no phone is left behind");
    assert_eq!(bench.cache.keys(), 2 * held.len(), "and no key");
    bench.fill(2000..20_000);
    assert_eq!(bench.held(0..10_000), []);
    assert!(bench.cache.bytes() <= 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn what_was_packed_and_is_read_again_is_unpacked_in_its_next_round() {
    let bench = Bench::packing(1 << 20, 40, Compression::ZstdCold);
    bench.fill(0..2000);
    assert_eq!(bench.held(0..1), [(0, true)]);
    for customers in [2000..2100, 2100..3000, 3000..4000] {
        bench.fill(customers);
        assert_eq!(bench.get(ID, "0"), given(&[&json(0)]));
        let age = bench.cache.index.find(&bench.scope, &id(ID, "0")).expect("it is held").fetched_at() - bench.start;
        assert_eq!(age, Duration::from_secs(1), "it is as old as it was");
    }
    assert_eq!(bench.held(0..1), [(0, false)]);
    assert_eq!(bench.held(1..2), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_from_customers_is_forgotten_with_all_of_them() {
    let bench = Bench::packing(1 << 20, resident::PAGES, Compression::Zstd);
    bench.fill(0..10);
    let all = bench.cache.forget_all(bench.start + Duration::from_secs(1));
    assert_eq!(all.keys, 20);
    let name = id(ID, "99");
    bench.store(2, &[bench.record(2, "99", &[], &json(99))], vec![(name.clone(), vec![0])]);
    let answer = bench.cache.get(&bench.scope, &name).expect("it is held");
    assert!(!answer.records()[0].is_packed());
}
