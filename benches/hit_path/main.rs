//! What a hit costs: the gateway beside the least that its stack could cost, and beside caches that one might use instead.
//!
//! ```sh
//! make bench
//! cargo bench --bench hit_path -- --rounds 5 --keys 1,50 --connections 32 --only gateway,floor
//! ```
//! Every server ([`server`]) runs on core 0 and is asked over keep-alive connections from core 1 ([`load`]), in turns of a
//! second, round after round, so that what the machine does meanwhile falls on all of them alike. They answer the same
//! bodies, drawn at random from a prepared set that each has seen once ([`customers`]); the answers to each are the same
//! bytes, and are compared before anything is measured.
//!
//! - **CPU** per request is what the kernel says the server's processes ran for ([`usage`]), under a closed loop: every
//!   connection asks again as soon as it is answered.
//! - **Latency** is measured in an open loop at half of the rate at which the gateway is saturated, the same for all, and
//!   counted from when a request was due: a server that stalls is charged for what waited meanwhile.
//! - Ratios are taken within each round; every figure is the median of all rounds.
//!
//! Without `--bench`, which `cargo bench` says, the gateway and the floor answer a few lookups, and each answer is
//! compared: a smoke test.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

mod customers;
mod floor;
mod load;
mod options;
mod peers;
mod plot;
mod reply;
mod rounds;
mod server;
mod table;
mod upstream;
mod usage;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use clap::Parser;

use crate::{options::Options, rounds::Case};

/// Where the table and the plot of a whole run go.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results");
/// Where the caches of the peers lie: in memory, as the others' do.
const MEMORY: &str = "/dev/shm";

fn main() {
    let options = Options::parse();
    if let Some(part) = &options.serve {
        return serve(part);
    }
    if options.bench && !options.test { compare(&options) } else { smoke(options) }
}

/// This program once more, as one of the servers: its name, its port, and the bytes of its answers.
fn serve(part: &str) {
    let words: Vec<&str> = part.split(':').collect();
    let number = |index: usize| words[index].parse::<usize>().unwrap();
    let port = u16::try_from(number(1)).unwrap();
    match words[0] {
        "floor" => floor::serve(port, number(2)),
        _ => upstream::serve(port),
    }
}

fn compare(options: &Options) {
    pin(1);
    let mut out = io::stdout();
    let desk = tempfile::tempdir_in(MEMORY).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for keys in &options.keys {
        for case in rounds::compare(options, *keys, desk.path()) {
            write!(out, "{}", table::table(&case)).unwrap();
            cases.push(case);
        }
    }
    if options.is_whole() {
        let results = Path::new(RESULTS);
        fs::create_dir_all(results).unwrap();
        fs::write(results.join("hit_path.md"), table::page(options, &cases)).unwrap();
        fs::write(results.join("hit_path.svg"), plot::plot(&cases)).unwrap();
    } else {
        writeln!(out, "\nThis was a part: benches/results is left as it was.").unwrap();
    }
}

/// Keeps this thread, and what it starts, on a core, where there are several.
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // On a single core everything is there anyway.
    let _single = rustix::thread::sched_setaffinity(None, &set);
}

/// The gateway and the floor, with few customers and for a moment; every answer is compared.
fn smoke(options: Options) {
    let options = options.smoke();
    let desk = tempfile::tempdir().unwrap();
    for keys in &options.keys {
        for case in rounds::compare(&options, *keys, desk.path()) {
            assert_eq!(case.rows.len(), 2, "the gateway and the floor");
            assert!(case.rows.iter().all(|row| row.per_second > 0.0), "everything answers");
            let page = table::page(&options, &[case]);
            assert!(page.contains("gateway"), "{page}");
        }
    }
}
