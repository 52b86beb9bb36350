//! The load: lookups at moments that are known beforehand, whatever becomes of them.
//!
//! A thread of its own says when each is due, for a runtime's timers are a millisecond late; and latency counts from then.

use std::{net::SocketAddr, thread, time::Duration};

use audience_gateway::clock;
use hdrhistogram::Histogram;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    ask::{Callers, Said},
    options::Options,
    zipf::Zipf,
};

/// Lookups that are due and have not been sent: as many as a second brings.
const BEHIND: usize = 1000;

/// A lookup that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// When, counted from the beginning.
    at: Duration,
    /// Which gateway, whatever their number.
    gateway: usize,
    customers: Vec<u64>,
}

/// What became of one.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// When it was due, counted from the beginning.
    pub(crate) at: Duration,
    /// How long it took from then on.
    pub(crate) took: Duration,
    /// What it was told.
    pub(crate) said: Said,
}

/// The same lookups every time, for so long.
pub(crate) fn plan(options: &Options, lasts: Duration) -> Vec<Ask> {
    let (mut chance, zipf) = (fastrand::Rng::with_seed(8), Zipf::new(options.customers, options.zipf));
    let count = (options.rate * lasts.as_secs_f64()) as usize;
    let ask = |number| {
        let mut customers = Vec::with_capacity(options.keys);
        while customers.len() < options.keys.min(options.customers) {
            let customer = u64::try_from(zipf.draw(&mut chance)).unwrap();
            if !customers.contains(&customer) {
                customers.push(customer);
            }
        }
        Ask { at: Duration::from_secs_f64(number as f64 / options.rate), gateway: chance.usize(..), customers }
    };
    (0..count).map(ask).collect()
}

/// Makes them all, and waits for every answer.
pub(crate) async fn open(callers: &Callers, gateways: &[SocketAddr], plan: Vec<Ask>) -> Vec<Told> {
    let (due, mut dues) = mpsc::channel(BEHIND);
    let begun = clock::now();
    thread::spawn(move || {
        for ask in plan {
            thread::sleep((begun + ask.at).saturating_duration_since(clock::now()));
            due.blocking_send(ask).unwrap();
        }
    });
    let mut asking = JoinSet::new();
    while let Some(ask) = dues.recv().await {
        let (callers, gateway) = (callers.clone(), gateways[ask.gateway % gateways.len()]);
        asking.spawn(async move {
            let said_late = clock::now().saturating_duration_since(begun + ask.at);
            let (said, took) = callers.ask(gateway, &ask.customers).await;
            Told { at: ask.at, took: took + said_late, said }
        });
    }
    asking.join_all().await
}

/// Percentiles of some durations in milliseconds: 50, 99, and the longest.
pub(crate) fn percentiles(all: impl Iterator<Item = Duration>) -> [f64; 3] {
    let mut took = Histogram::<u64>::new(3).unwrap();
    all.for_each(|one| took.record(u64::try_from(one.as_micros()).unwrap()).unwrap());
    [0.5, 0.99, 1.0].map(|part| took.value_at_quantile(part) as f64 / 1e3)
}

impl Told {
    /// Whether every key was cached.
    pub(crate) fn is_hit(&self) -> bool {
        matches!(self.said, Said::Right { keys, hits } if keys == hits)
    }

    /// Whether it had to wait, and was answered.
    pub(crate) fn is_fetched(&self) -> bool {
        matches!(self.said, Said::Right { .. }) && !self.is_hit()
    }
}
