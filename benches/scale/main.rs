//! Millions of customers in the cache, and ten thousand callers who wait for one batch.
//!
//! ```sh
//! make scale
//! cargo bench --bench scale -- --customers 1000000 --bytes 1541 --waiters 0
//! ```
//! **Customers** ([`load`]): so many records, each found under its id, its third id and its phone, go through the same
//! attribution and into the same cache as answers that came over a wire; then again with a capacity that holds half of
//! them. Every case is a process of its own, so that its memory is its own.
//!
//! | column | means |
//! |---|---|
//! | accounted | what the cache says that it holds, and what is measured against its capacity |
//! | RSS / accounted | the growth of the process's resident memory by that |
//! | overhead | what a customer that is held takes of the growth beyond its record |
//! | read | a key that is held, drawn at random: found, judged and counted |
//! | lookup | the same from a request's body to the answer's: decode, read, encode |
//! | Zipf | of lookups drawn by Zipf, where each miss is fetched at once: the part that hits, and customers let go |
//!
//! **Waiters** ([`wake`]): one lookup asks for a hundred keys, and while the upstream keeps its answer back thousands of
//! others ask for one of them each: first without sockets ([`woken`]), from the upstream's answer until each caller's task goes
//! on; then all over connections of their own.
//!
//! Without `--bench`, which `cargo bench` says, a few customers and waiters: a smoke test.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

mod held;
mod load;
mod wake;
mod woken;
mod zipf;

use std::io::{self, Write as _};

use clap::Parser;

/// Loads many customers, and wakes many waiters.
#[derive(Clone, Parser, Debug)]
#[command(name = "scale")]
struct Options {
    /// Customers; none are loaded where there are 0.
    #[arg(long, default_value = "1000000,2000000,4000000", value_delimiter = ',', value_name = "N")]
    customers: Vec<usize>,
    /// Bytes of a record.
    #[arg(long, default_value_t = 1541)]
    bytes: usize,
    /// Zipf's exponent: how much more often the first customer is asked for than the tenth.
    #[arg(long, default_value_t = 0.99, value_name = "S")]
    zipf: f64,
    /// Lookups of each kind that are measured.
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    lookups: usize,
    /// Callers that wait for one batch; 0: that is left out.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    waiters: usize,
    /// How often they wait.
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// One case, in this process: customers and capacity.
    #[arg(long, hide = true, value_delimiter = ',', num_args = 1)]
    case: Vec<u64>,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut options = Options::parse();
    if let [customers, capacity] = options.case[..] {
        return load::case(&options, usize::try_from(customers).unwrap(), capacity);
    }
    if !options.bench {
        options = Options { customers: vec![2000], lookups: 2000, waiters: 100, rounds: 1, ..options };
    }
    let mut out = io::stdout();
    let customers = options.customers.iter().copied().filter(|&customers| customers > 0);
    for (number, customers) in customers.enumerate() {
        if number == 0 {
            writeln!(out, "{}", load::HEAD).unwrap();
        }
        let accounted = load::apart(&options, customers, u64::MAX >> 1, &mut out);
        load::apart(&options, customers, accounted / 2, &mut out);
    }
    if options.waiters > 0 {
        writeln!(out, "\n{}", woken::HEAD).unwrap();
        for cores in [1, 2] {
            woken::measure(&options, cores, &mut out);
        }
        writeln!(out, "\n{}", wake::HEAD).unwrap();
        for cores in if options.bench { &["0", "0,1"][..] } else { &["0"] } {
            wake::measure(&options, cores, &mut out);
        }
    }
}
