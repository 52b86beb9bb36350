//! The lookups of a replay: which keys, when, and by whom.
//!
//! Accesses come from a trace or from Zipf, and are dealt out to lookups in their order; a key that a lookup would ask
//! for twice counts once. Lookups come as a Poisson process, or when the last of their accesses has its time in the
//! trace. Times are whole milliseconds, which is what tokio's timers know. Every policy is given the same lookups.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fastrand::Rng;

use crate::{options::Options, trace::Access};

/// A customer: a small number, counted from zero.
pub(crate) type Customer = u32;

/// One lookup.
pub(crate) struct Lookup {
    /// When it comes, from the beginning of the replay.
    pub(crate) at: Duration,
    /// Who asks; the bulk caller has the greatest number.
    pub(crate) client: usize,
    /// None of them twice.
    pub(crate) keys: Vec<Customer>,
    /// For each, whether it is among the hottest hundredth of all that are asked for in the whole replay.
    pub(crate) hot: Vec<bool>,
}

/// Makes the lookups that the options ask for, out of a trace if there is one.
pub(crate) fn lookups(options: &Options, trace: Option<&[Access]>) -> Vec<Lookup> {
    let mut rng = Rng::with_seed(options.seed);
    let mut lookups = match trace {
        Some(trace) => deal(options, &mut rng, trace.iter().cloned()),
        None => {
            let zipf = Zipf::new(options.zipf, options.customers);
            let mut draws = Rng::with_seed(rng.u64(..));
            deal(options, &mut rng, std::iter::repeat_with(|| Access { at: None, key: zipf.draw(&mut draws) }))
        }
    };
    mark_hot(&mut lookups);
    lookups
}

fn mark_hot(lookups: &mut [Lookup]) {
    let mut reads: HashMap<Customer, usize> = HashMap::new();
    for key in lookups.iter().flat_map(|lookup| &lookup.keys) {
        *reads.entry(*key).or_default() += 1;
    }
    let mut by_reads: Vec<(usize, Customer)> = reads.into_iter().map(|(key, reads)| (reads, key)).collect();
    by_reads.sort_unstable_by(|one, other| other.cmp(one));
    let hot: HashSet<Customer> = by_reads.iter().take(by_reads.len().div_ceil(100)).map(|(_, key)| *key).collect();
    for lookup in lookups {
        lookup.hot = lookup.keys.iter().map(|key| hot.contains(key)).collect();
    }
}

fn deal(options: &Options, rng: &mut Rng, mut accesses: impl Iterator<Item = Access>) -> Vec<Lookup> {
    let (usual, bulk) = (options.keys_per_lookup.max(1), options.bulk);
    // As many lookups are the bulk caller's as give it its part of the accesses.
    let (few, many) = (options.bulk_share * usual as f64, (1.0 - options.bulk_share) * bulk as f64);
    let bulk_chance = if bulk == 0 { 0.0 } else { few / (few + many) };
    let accesses_per_lookup = bulk_chance * bulk as f64 + (1.0 - bulk_chance) * usual as f64;
    let lookups_per_second = options.rate / accesses_per_lookup;
    let mut clock = 0.0;
    let mut lookups = Vec::new();
    while lookups.len() < options.requests {
        // One minus it, because it may be zero and never is one.
        clock += -(1.0 - rng.f64()).ln() / lookups_per_second;
        let is_bulk = rng.f64() < bulk_chance;
        let client = if is_bulk { options.clients } else { rng.usize(..options.clients.max(1)) };
        let mut seen = HashSet::new();
        let mut keys = Vec::new();
        let mut at = None;
        for access in accesses.by_ref().take(if is_bulk { bulk } else { usual }) {
            at = access.at.or(at);
            if seen.insert(access.key) {
                keys.push(access.key);
            }
        }
        if keys.is_empty() {
            break; // The trace is over.
        }
        let millis = (at.unwrap_or(clock) * 1000.0).round() as u64;
        lookups.push(Lookup { at: Duration::from_millis(millis), client, keys, hot: Vec::new() });
    }
    lookups
}

/// Draws customers so that the n-th is asked for n^-s times as often as the first.
pub(crate) struct Zipf {
    /// The chance of each customer or one before it, times their sum.
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(exponent: f64, customers: usize) -> Self {
        let weights = (1..=customers.max(1)).map(|rank| (rank as f64).powf(-exponent));
        let cumulative = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { cumulative: cumulative.collect() }
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> Customer {
        let point = rng.f64() * self.cumulative.last().copied().unwrap_or(0.0);
        let rank = self.cumulative.partition_point(|sum| *sum <= point).min(self.cumulative.len() - 1);
        Customer::try_from(rank).expect("this holds because nobody waits for a table of four billion weights")
    }
}
