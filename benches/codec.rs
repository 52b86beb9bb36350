//! Packing and unpacking of records, by a dictionary that was trained on others of their kind.
//!
//! It prints what is left of the simulated upstream's records, of all and of those of about 1.5 KB, and then measures: one
//! record at a time, each time another, so that the processor's caches hold little of what is read.

use std::{hint::black_box, time::Duration};

use audience_gateway::{
    codec::{Codec, Packed},
    simulator::{self, Simulator},
};
use criterion::{Criterion, Throughput};

/// Records, half of them to learn from.
const RECORDS: u64 = 10_000;

fn records() -> Vec<Vec<u8>> {
    let upstream = Simulator::new(simulator::Config { customers: RECORDS, ..simulator::Config::default() });
    let ids = (0..RECORDS).map(|index| upstream.customer(index).id.to_string());
    ids.flat_map(|id| upstream.expected("bench", "", "audienceUserIdList", &id)).map(String::into_bytes).collect()
}

fn bytes<'a>(all: impl Iterator<Item = &'a Vec<u8>>) -> usize {
    all.map(Vec::len).sum()
}

#[expect(clippy::print_stdout, reason = "what is left of records is no time, and criterion prints times only")]
fn pack(name: &str, records: &[Vec<u8>]) -> (Codec, Vec<Packed>) {
    let codec = Codec::new();
    let (lesson, others) = records.split_at(records.len() / 2);
    lesson
        .iter()
        .cycle()
        .find(|record| {
            codec.see(record);
            codec.learn()
        })
        .expect("it never ends");
    let packed: Vec<Packed> = others.iter().filter_map(|record| codec.pack(record)).collect();
    assert_eq!(packed.len(), others.len(), "each gets smaller");
    let (plain, small) = (bytes(others.iter()), bytes(packed.iter().map(|packed| &packed.bytes)));
    let each = |bytes: usize| bytes / others.len();
    println!("{name}: {} bytes become {}, {:.3} of them", each(plain), each(small), small as f64 / plain as f64);
    (codec, packed)
}

fn main() {
    let all = records();
    let usual: Vec<_> = all.iter().filter(|record| (1200..1900).contains(&record.len())).cloned().collect();
    let quick = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500));
    let mut criterion = quick.measurement_time(Duration::from_secs(2)).configure_from_args();
    for (name, records) in [("all", &all), ("1.5KB", &usual)] {
        let (codec, packed) = pack(name, records);
        let mut group = criterion.benchmark_group("codec");
        group.throughput(Throughput::Elements(1));
        let mut next = records.iter().cycle();
        group.bench_function(format!("pack/{name}"), |bencher| {
            bencher.iter(|| next.next().map(|record| codec.pack(black_box(record))));
        });
        let (mut next, mut into) = (packed.iter().cycle(), Vec::with_capacity(1 << 16));
        group.bench_function(format!("unpack/{name}"), |bencher| {
            bencher.iter(|| {
                into.clear();
                next.next().map(|one| one.dictionary.unpack(black_box(&one.bytes), 1 << 20, &mut into))
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
