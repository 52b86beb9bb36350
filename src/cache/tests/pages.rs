//! What goes, where several share a page.

use super::*;

/// Stores customers one by one, with a word of so many bytes each.
fn store(bench: &Bench, customers: std::ops::Range<u32>, bytes: usize) {
    for customer in customers {
        let name = customer.to_string();
        let record = bench.record(1, &name, &[(PHONE, &format!("p{customer}"))], &"x".repeat(bytes));
        bench.store(1, &[record], vec![(id(ID, &name), vec![0])]);
        bench.cache.residents.check();
    }
}

fn held(bench: &Bench, customers: std::ops::Range<u32>) -> Vec<u32> {
    customers.filter(|customer| bench.cache.holds(&bench.key(&customer.to_string()))).collect()
}

impl Bench {
    fn key(&self, customer: &str) -> Key {
        Key { scope: Arc::clone(&self.scope), id: id(ID, customer) }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_since_it_came_outlives_its_page_and_the_rest_of_the_page_does_not() {
    let bench = Bench::with_pages(1 << 20, 40);
    store(&bench, 0..600, 1000);
    assert_eq!(held(&bench, 0..600).len(), 600, "there is room for all of them");
    let used = [3, 40, 41, 299];
    for customer in used {
        assert!(bench.get(ID, &customer.to_string()).is_some());
    }
    store(&bench, 600..1200, 1000);
    assert_eq!(held(&bench, 0..300), used, "half of what came first, and then as much again came");
    let all = held(&bench, 0..1200).len();
    assert_eq!(bench.cache.keys(), all, "no key is left behind");
    assert_eq!(bench.cache.carriers.len(), all, "and no phone");
    assert!(bench.cache.bytes() > (1 << 20) * 9 / 10, "the room is used");
}

#[tokio::test(start_paused = true)]
async fn where_everything_is_in_use_something_goes_all_the_same() {
    let bench = Bench::with_pages(1 << 20, 40);
    for customer in 0..2000 {
        store(&bench, customer..customer + 1, 1000);
        for other in held(&bench, 0..customer + 1) {
            assert!(bench.get(ID, &other.to_string()).is_some());
        }
    }
    assert!(held(&bench, 1999..2000).len() == 1 && bench.cache.bytes() <= 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_customer_that_is_refreshed_stays_where_it_is_and_counts_as_used() {
    let bench = Bench::with_pages(1 << 20, 40);
    store(&bench, 0..600, 1000);
    let bytes = bench.cache.bytes();
    for second in 2..100 {
        bench.store(
            second,
            &[bench.record(second, "7", &[(PHONE, "p7")], &"y".repeat(1000))],
            vec![(id(ID, "7"), vec![0])],
        );
        bench.cache.residents.check();
        assert_eq!(bench.cache.bytes(), bytes);
    }
    store(&bench, 600..1200, 1000);
    assert_eq!(held(&bench, 0..100), [7]);
}

#[tokio::test(start_paused = true)]
async fn records_that_grow_and_shrink_are_weighed_as_they_are() {
    let bench = Bench::with_pages(1 << 20, 40);
    store(&bench, 0..300, 1000);
    for (second, length) in [(2, 10), (3, 4000), (4, 1), (5, 1000)] {
        for customer in 0..300 {
            let name = customer.to_string();
            let record = bench.record(second, &name, &[(PHONE, &format!("p{customer}"))], &"z".repeat(length));
            bench.store(second, &[record], vec![(id(ID, &name), vec![0])]);
            bench.cache.residents.check();
        }
    }
    assert!(held(&bench, 0..300).len() > 200);
}

#[tokio::test(start_paused = true)]
async fn in_a_small_cache_what_is_read_after_every_request_stays_however_much_each_brings() {
    let bench = Bench::new(256 << 10);
    let batch = |second: u64, customers: std::ops::Range<u32>| {
        let record = |customer: u32| bench.record(second, &customer.to_string(), &[], &"x".repeat(4000));
        let records: Vec<_> = customers.clone().map(record).collect();
        let answers = customers.zip(0..).map(|(customer, at)| (id(ID, &customer.to_string()), vec![at]));
        bench.store(second, &records, answers.collect());
    };
    batch(1, 0..10);
    for (second, first) in (2..).zip((10..400).step_by(15)) {
        batch(second, first..first + 15);
        if second % 2 == 0 {
            continue;
        }
        for customer in (first..first + 15).chain(0..10) {
            assert!(bench.get(ID, &customer.to_string()).is_some(), "{customer} after {first} others");
        }
    }
}
