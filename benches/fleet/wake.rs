//! Somebody waits at every gateway for the same customer: how much later than the first the others are told.
//!
//! The first is told by the gateway that asked, which publishes the answer when it has written its own cache; what comes after
//! that is the way through Redis. The measuring side is in it: it shares the cores, and reads one answer after another.

use std::time::Duration;

use audience_gateway::clock;
use tokio::task::JoinSet;

use crate::{
    ask::{Callers, Said},
    load,
    options::{Options, Size},
    town::Town,
};

/// Gateways that share.
const GATEWAYS: usize = 5;

/// Everybody waits for one customer after another.
pub(crate) async fn measure(options: &Options) -> String {
    let gateways = if options.test { 2 } else { GATEWAYS };
    let town = Town::start(options, Size::Shared(gateways), options.interval, options.customers);
    let callers = Callers::new(&town.simulator);
    let mut later = Vec::new();
    for customer in 0..options.wakes {
        let mut asking = JoinSet::new();
        for gateway in &town.gateways {
            let (callers, address) = (callers.clone(), gateway.address);
            asking.spawn(async move { (callers.ask(address, &[customer]).await.0, clock::now()) });
        }
        let mut told = Vec::new();
        while let Some(answered) = asking.join_next().await {
            let (said, at) = answered.unwrap();
            match said {
                Said::Right { hits: 0, .. } => told.push(at),
                Said::Right { .. } => {} // It asked too late to wait.
                Said::Wrong | Said::Refused(_) | Said::Nothing => panic!("{said:?}"),
            }
        }
        told.sort();
        later.extend(told.iter().skip(1).map(|at| *at - told[0]));
    }
    let requests = town.arrivals().len();
    let [p50, p99, max] = load::percentiles(later.iter().copied());
    let under =
        later.iter().filter(|later| **later < Duration::from_millis(1)).count() as f64 / later.len().max(1) as f64;
    format!(
        "{gateways} gateways, {} customers in turn, each of whom somebody waits for at every gateway; {requests} upstream \
         requests. After the first answer the others came p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms later; {:.1} % \
         within 1 ms.\n",
        options.wakes,
        under * 100.0
    )
}
