//! What it costs to share: one load, and more and more gateways.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

use audience_gateway::clock;
use tokio::time::sleep_until;

use crate::{
    ask::{Callers, Said},
    load::{self, Told},
    options::{Options, Size},
    town::{Town, judge},
};

const HEAD: &str = "\
| gateways | lookups | hits | upstream requests | refused | least gap | keys each | asked again | a miss waits p50 | p99 | max | a hit p50 | p99 | Redis operations / lookup | / upstream request |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// All numbers of gateways in turn.
pub(crate) async fn measure(options: &Options) -> String {
    let Options { rate, keys, customers, zipf, .. } = options;
    let (interval, lasts, lead) =
        [options.interval, options.lasts, options.lead].map(humantime::format_duration).into();
    let mut text = format!(
        "{rate} lookups a second of {keys} keys, {customers} customers by Zipf with exponent {zipf}, one upstream request \
         in {interval}; {lasts} after {lead} from empty caches. Times in milliseconds; `hits` are keys, and so is `asked \
         again`: keys that an earlier upstream request had already brought.\n\n{HEAD}"
    );
    let mut seen = io::stderr();
    for &size in &options.gateways {
        let row = row(options, size).await;
        // What has been measured is not lost with what comes after.
        write!(seen, "{row}").unwrap();
        text += &row;
    }
    text
}

async fn row(options: &Options, size: Size) -> String {
    let town = Town::start(options, size, options.interval, options.customers);
    let callers = Callers::new(&town.simulator);
    let addresses: Vec<_> = town.gateways.iter().map(|gateway| gateway.address).collect();
    let plan = load::plan(options, options.lead + options.lasts);
    let begun = clock::now();
    let loading = load::open(&callers, &addresses, plan);
    let counting = async {
        sleep_until(begun + options.lead).await;
        let before = town.redis.scripts();
        sleep_until(begun + options.lead + options.lasts).await;
        town.redis.scripts() - before
    };
    let (told, operations) = tokio::join!(loading, counting);
    let told: Vec<Told> = told.into_iter().filter(|told| told.at >= options.lead).collect();
    check(&told);
    let arrivals = town.arrivals();
    let (refused, least) = judge(&arrivals);
    let mut seen = std::collections::HashSet::new();
    let window = begun + options.lead..begun + options.lead + options.lasts;
    let (mut requests, mut asked, mut again) = (0, 0, 0);
    for arrival in &arrivals {
        let keys = arrival.key_set().len();
        let known = arrival.list("audienceUserIdList").iter().filter(|key| !seen.insert((*key).clone())).count();
        if window.contains(&arrival.judged) {
            (requests, asked, again) = (requests + 1, asked + keys, again + known);
        }
    }
    let (keys, hits) = told.iter().fold((0, 0), |(all, cached), told| match told.said {
        Said::Right { keys, hits } => (all + keys, cached + hits),
        _ => (all, cached),
    });
    let misses = load::percentiles(told.iter().filter(|told| told.is_fetched()).map(|told| told.took));
    let quick = load::percentiles(told.iter().filter(|told| told.is_hit()).map(|told| told.took));
    let mut row = String::new();
    writeln!(
        row,
        "| {} | {} | {:.1} % | {requests} | {refused} | {least:.0} | {:.1} | {again} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} |",
        size.name(),
        told.len(),
        hits as f64 * 100.0 / keys.max(1) as f64,
        asked as f64 / f64::from(requests.max(1)),
        misses[0],
        misses[1],
        misses[2],
        quick[0],
        quick[1],
        operations as f64 / told.len().max(1) as f64,
        operations as f64 / f64::from(requests.max(1)),
    )
    .unwrap();
    row
}

/// Under this load everybody is served.
fn check(told: &[Told]) {
    let bad: Vec<&Told> = told.iter().filter(|told| !matches!(told.said, Said::Right { .. })).take(5).collect();
    assert!(bad.is_empty() && !told.is_empty(), "{bad:?}");
    assert!(told.iter().all(|told| told.took < Duration::from_secs(30)));
}
