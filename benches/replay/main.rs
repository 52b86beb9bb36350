//! What each idea buys: the same lookups through the gateway and through policies that lack one idea each.
//!
//! ```sh
//! cargo bench --bench replay -- --trace benches/data/trace-web07.txt --rate 220
//! ```
//! Everything happens in virtual time, from a seed: an hour takes seconds, and the same command prints the same table.
//! `gateway` ([`gateway`]) is the crate's own queue, pacer, worker and cache in tokio's paused time. The others
//! ([`baseline`]) are small simulators over the same lookups ([`load`]), measured by the same code ([`measure`]);
//! what they simplify is said there.
//!
//! | column | means |
//! |---|---|
//! | hits | keys that were answered from the cache, of all keys asked for |
//! | hot fresh | of the reads of the hottest hundredth of all keys, those that were answered from the cache with what had not expired |
//! | requests, keys each | upstream requests, and keys in one of them |
//! | slots used while waiting | of the time in which somebody waited for a key that was not under way and the pace allowed a request, counted in slots, and of the slots used: the part that was used |
//! | of all | slots used, of all that there were until the last |
//! | wait p50 … max | how long lookups waited that were let in and missed; who was told nothing counts with the whole timeout |
//! | refused | lookups turned away at once because they could not make their deadline |
//! | timed out | lookups that waited in vain |
//! | fairness | Jain's index (Σx)² / nΣx² over the clients, x being the keys fetched for a client by the seconds that its lookups waited for them, a lookup refused or timed out being one that waited the whole timeout for nothing. 1: all are served at one rate; 1/n: one is, and nobody else. It is below 1 even where nobody is in another's way, because a bulk caller is given the room that nobody else wants |
//! | promise off p50, p95 | how far the wait that was promised was from what it was, in intervals, of lookups that were served |
//!
//! With `--fleet N` it is another question: what N gateways should have in common ([`fleet`]).
//!
//! Without `--bench`, which `cargo bench` says, a small replay is run twice and checked: a smoke test.

mod baseline;
mod fleet;
mod gateway;
mod load;
mod measure;
mod options;
mod recent;
mod table;
mod trace;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    load::Lookup,
    measure::Row,
    options::{Options, Policy},
};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if options.bench && !options.test { compare(&options) } else { smoke(options) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> io::Result<()> {
    if options.fleet > 0 {
        return fleet::compare(options, &mut io::stdout().lock());
    }
    let trace = options.trace.as_deref().map(trace::read).transpose()?;
    let lookups = load::lookups(options, trace.as_deref());
    let keys: usize = lookups.iter().map(|lookup| lookup.keys.len()).sum();
    let seconds = lookups.last().map_or(0.0, |lookup| lookup.at.as_secs_f64());
    let mut out = io::stdout().lock();
    writeln!(out, "{} lookups of {keys} keys in {seconds:.0} s\n", lookups.len())?;
    table::print(&rows(options, &lookups), &mut out)
}

fn rows(options: &Options, lookups: &[Lookup]) -> Vec<(&'static str, Row)> {
    let run = |policy: Policy| match policy {
        Policy::Gateway => gateway::run(options, lookups, true),
        Policy::NoRides => gateway::run(options, lookups, false),
        _ => baseline::run(policy, options, lookups),
    };
    options.policies().into_iter().map(|policy| (policy.as_str(), run(policy))).collect()
}

/// The same seed gives the same table, and its figures are possible.
fn smoke(options: Options) -> io::Result<()> {
    trace::check();
    fleet::smoke(&options);
    let options = options.smoke();
    let lookups = load::lookups(&options, None);
    let table = rows(&options, &lookups);
    assert_eq!(table, rows(&options, &lookups), "the same seed gives the same table");
    for (policy, row) in &table {
        assert!(row.requests > 0 && row.keys_per_request <= options.batch as f64, "{policy}: {row:?}");
        assert!(row.used_while_waiting > 0.98 && row.used <= 1.0, "{policy} leaves slots unused: {row:?}");
        assert!((0.0..1.0).contains(&row.hits) && row.timed_out < 0.05, "{policy}: {row:?}");
    }
    table::print(&table, &mut io::stdout().lock())
}
