//! What the user may say about a replay, and what it is by default.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

/// Replays accesses in virtual time through the gateway's queue, pacer, worker and cache, and through simpler policies.
#[derive(Clone, Parser, Debug)]
#[command(name = "replay")]
pub(crate) struct Options {
    /// Accesses to replay: one key a line, or a key and its time in seconds, in either order; without it, Zipf.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Lookups at most; a trace ends earlier where it has no more.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) requests: usize,
    /// Keys asked for in a second, on average: lookups come at random (Poisson). A trace with times keeps them instead.
    #[arg(long, default_value_t = 150.0, value_name = "R")]
    pub(crate) rate: f64,
    /// Accesses in one lookup.
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub(crate) keys_per_lookup: usize,
    /// Callers; who asks next is drawn among them.
    #[arg(long, default_value_t = 20, value_name = "C")]
    pub(crate) clients: usize,
    /// Accesses in one lookup of the bulk caller, who is one more; 0: there is none.
    #[arg(long, default_value_t = 500, value_name = "KEYS")]
    pub(crate) bulk: usize,
    /// The bulk caller's part of all accesses.
    #[arg(long, default_value_t = 0.25, value_name = "PART")]
    pub(crate) bulk_share: f64,
    /// At most one upstream request in this time.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,
    /// Keys in one upstream request.
    #[arg(long, default_value_t = 100, value_name = "KEYS")]
    pub(crate) batch: usize,
    /// How long an answer is good.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,
    /// For how long after that the gateway, and no other policy, gives it at once and refreshes it behind.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) stale: Duration,
    /// How long a caller waits at most.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Customers that fit into the cache.
    #[arg(long, default_value_t = 10_000, value_name = "CUSTOMERS")]
    pub(crate) capacity: usize,
    /// Zipf's exponent: how much more often the first customer is asked for than the tenth.
    #[arg(long, default_value_t = 0.9, value_name = "S")]
    pub(crate) zipf: f64,
    /// Customers that Zipf draws from.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) customers: usize,
    /// So many gateways in front of one upstream instead: what do they gain by what they share? Lookups have one key each.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) fleet: usize,
    /// What to compare; without it, everything.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub(crate) policy: Vec<Policy>,
    /// The same seed gives the same table.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// Runs a small replay twice and checks it, whatever else is said.
    #[arg(long)]
    pub(crate) test: bool,
}

/// Who decides what is asked when.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Policy {
    /// The real thing.
    Gateway,
    /// The same without keys that ride along before they expire.
    NoRides,
    /// Batches filled in the order in which keys came, whoever asked.
    Fifo,
    /// Each request carries the keys of one lookup.
    NoMerge,
    /// A key is asked again for each lookup that misses it, queued or under way as it may be.
    NoCoalescing,
    /// A plain HTTP cache: an answer is kept under all keys of its request, and each body that misses is a request.
    WholeBody,
}

impl Policy {
    /// The name in the table.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::NoRides => "no-rides",
            Self::Fifo => "fifo",
            Self::NoMerge => "no-merge",
            Self::NoCoalescing => "no-coalescing",
            Self::WholeBody => "whole-body",
        }
    }
}

impl Options {
    /// The policies to compare, in the order of the table.
    pub(crate) fn policies(&self) -> Vec<Policy> {
        let said = |policy: &&Policy| self.policy.is_empty() || self.policy.contains(policy);
        Policy::value_variants().iter().filter(said).copied().collect()
    }

    /// As small as it may be and still have every part in it: more is asked for than slots can carry.
    pub(crate) fn smoke(self) -> Self {
        Self { trace: None, requests: 600, rate: 250.0, customers: 2_000, capacity: 500, bulk: 300, ..self }
    }
}
