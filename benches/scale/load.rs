//! So many customers in a cache of such a capacity: memory, hits, and what is let go.

use std::{fs, hint::black_box, io::Write, process::Command};

use audience_gateway::clock;
use hdrhistogram::Histogram;

use crate::{Options, held::Held, zipf::Zipf};

/// Customers in one upstream answer while the cache is filled.
const BATCH: usize = 50;
const MIB: f64 = 1_048_576.0;

/// The table's head.
pub(crate) const HEAD: &str = "\
| customers | held | capacity | accounted | RSS grew by | RSS / accounted | overhead | read p50, p99 | lookup p50, p99 | Zipf hits | let go |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

/// Has a process of its own measure a case, and prints its row; the bytes that were accounted for.
pub(crate) fn apart(options: &Options, customers: usize, capacity: u64, out: &mut impl Write) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--case", &format!("{customers},{capacity}"), "--bytes", &options.bytes.to_string()]);
    command.args(["--zipf", &options.zipf.to_string(), "--lookups", &options.lookups.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (accounted, row) = text.split_once('\n').unwrap();
    write!(out, "{row}").unwrap();
    accounted.parse().unwrap()
}

/// Measures a case in this process: prints the bytes that are accounted for, and the row.
pub(crate) fn case(options: &Options, customers: usize, capacity: u64) {
    let before = resident();
    let held = Held::new(capacity, options.bytes);
    let all: Vec<usize> = (0..BATCH).collect();
    for first in (0..customers).step_by(BATCH) {
        let batch: Vec<usize> = all.iter().map(|at| first + at).filter(|&customer| customer < customers).collect();
        held.fill(&batch);
    }
    let grew = resident().saturating_sub(before) as f64;
    let (accounted, count) = (held.accounted(), held.customers());
    assert!(count > customers / 3, "the cache holds what it has room for");
    // The last ones that came are there, whatever the capacity.
    let newest = customers - count * 9 / 10..customers;
    let mut chance = fastrand::Rng::with_seed(1);
    let read = measure(options.lookups, || {
        let key = held.key(chance.usize(newest.clone()));
        let begun = clock::now();
        assert!(held.read(black_box(&key)), "it is there");
        begun.elapsed()
    });
    let lookup = measure(options.lookups, || {
        let body = Held::body(chance.usize(newest.clone()));
        let begun = clock::now();
        assert!(held.lookup(black_box(&body)).is_some(), "it is there");
        begun.elapsed()
    });
    let (hits, gone) = zipf(options, &held, customers);
    let overhead = grew / count as f64 - options.bytes as f64;
    let room = if capacity > accounted * 2 { "ample".to_owned() } else { format!("{:.0} MiB", capacity as f64 / MIB) };
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{accounted}\n| {customers} | {count} | {room} | {:.0} MiB | {:.0} MiB | {:.3} | {overhead:.0} B | {read} | {lookup} | {:.1} % | {gone} |",
        accounted as f64 / MIB,
        grew / MIB,
        grew / accounted as f64,
        hits * 100.0,
    )
    .unwrap();
}

/// The part of lookups that hit, drawn by Zipf, once as many have gone before; and how many customers were let go.
fn zipf(options: &Options, held: &Held, customers: usize) -> (f64, usize) {
    let zipf = Zipf::new(customers, options.zipf);
    let mut chance = fastrand::Rng::with_seed(2);
    let (mut hits, mut fetched, before) = (0, 0, held.customers());
    for number in 0..2 * options.lookups {
        let customer = zipf.draw(&mut chance);
        let hit = held.read(&held.key(customer));
        if !hit {
            held.fill(&[customer]);
            fetched += 1;
        }
        hits += usize::from(hit && number >= options.lookups);
    }
    (hits as f64 / options.lookups as f64, (before + fetched).saturating_sub(held.customers()))
}

/// The 50th and the 99th percentile of what takes so long.
fn measure(times: usize, mut once: impl FnMut() -> std::time::Duration) -> String {
    let mut took = Histogram::<u64>::new(3).unwrap();
    for _ in 0..times {
        took.record(u64::try_from(once().as_nanos()).unwrap()).unwrap();
    }
    format!("{}, {} ns", took.value_at_quantile(0.5), took.value_at_quantile(0.99))
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
