//! Redis is away for a while, under load: what hits and misses see of it, and the upstream.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range, time::Duration};

use audience_gateway::clock;
use tokio::time::sleep_until;

use crate::{
    ask::{Callers, Said},
    load::{self, Told},
    options::{Options, Size},
    redis::Redis,
    town::{Town, judge},
};

/// Gateways that share.
const GATEWAYS: usize = 3;
/// What gateways say while they may not ask the upstream.
const AWAY: &str = "REPLICAS_UNAVAILABLE";
/// The caches fill, before anything is measured.
const LEAD: Duration = Duration::from_secs(10);
/// Before, and after.
const CALM: Duration = Duration::from_secs(15);

const HEAD: &str = "\
| Redis | lookups | hit on every key | p50 | p99 | max | fetched | told that Redis is away | anything else | upstream requests |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// How it is away.
#[derive(Clone, Copy)]
enum Way {
    /// It stands still: SIGSTOP, and SIGCONT.
    Still,
    /// It is killed, and started anew.
    Gone,
}

impl Way {
    fn begin(self, redis: &mut Redis) {
        match self {
            Self::Still => redis.stand_still(),
            Self::Gone => redis.kill(),
        }
    }

    fn end(self, redis: &mut Redis) {
        match self {
            Self::Still => redis.go_on(),
            Self::Gone => redis.replace(),
        }
    }
}

/// Both ways.
pub(crate) async fn measure(options: &Options) -> String {
    let away = humantime::format_duration(options.outage);
    let mut text = format!(
        "{GATEWAYS} gateways, {} lookups a second of {} keys, `when_redis_is_down = \"stale\"`. Latency of lookups that hit on \
         every key, in milliseconds.\n",
        options.rate, options.keys
    );
    for (way, title) in [
        (Way::Still, format!("It stands still for {away} (SIGSTOP)")),
        (Way::Gone, format!("It is killed, and another started after {away}")),
    ] {
        if options.test && matches!(way, Way::Still) {
            continue; // tests/it has it.
        }
        write!(text, "\n{title}:\n\n{HEAD}{}", run(options, way).await).unwrap();
    }
    text
}

async fn run(options: &Options, way: Way) -> String {
    let (lead, calm) = if options.test { (options.lead, options.lasts) } else { (LEAD, CALM) };
    let mut town = Town::start(options, Size::Shared(GATEWAYS), options.interval, options.customers);
    let callers = Callers::new(&town.simulator);
    let addresses: Vec<_> = town.gateways.iter().map(|gateway| gateway.address).collect();
    let (away, back) = (lead + calm, lead + calm + options.outage);
    let plan = load::plan(options, back + calm.max(options.outage / 2));
    let begun = clock::now();
    let redis = &mut town.redis;
    let breaking = async move {
        sleep_until(begun + away).await;
        way.begin(redis);
        sleep_until(begun + back).await;
        way.end(redis);
    };
    let (told, ()) = tokio::join!(load::open(&callers, &addresses, plan), breaking);
    let arrivals = town.arrivals();
    let (refused, least) = judge(&arrivals);
    let mut text = String::new();
    let mut p99s = Vec::new();
    for (name, span) in [("there", lead..away), ("away", away..back), ("back", back..Duration::MAX)] {
        let requests =
            arrivals.iter().filter(|arrival| span.contains(&arrival.judged.saturating_duration_since(begun))).count();
        let some: Vec<&Told> = told.iter().filter(|told| span.contains(&told.at)).collect();
        let [p50, p99, max] = load::percentiles(some.iter().filter(|told| told.is_hit()).map(|told| told.took));
        p99s.push(p99);
        let count = |is: &dyn Fn(&Told) -> bool| some.iter().filter(|told| is(told)).count();
        let (hits, fetched) = (count(&Told::is_hit), count(&Told::is_fetched));
        let told_so = count(&|told| told.said == Said::Refused(AWAY.to_owned()));
        writeln!(
            text,
            "| {name} | {} | {hits} | {p50:.2} | {p99:.2} | {max:.1} | {fetched} | {told_so} | {} | {requests} |",
            some.len(),
            others(&some)
        )
        .unwrap();
    }
    let wrong = told.iter().filter(|told| told.said == Said::Wrong).count();
    let back_after = recovered(&told, back..Duration::MAX);
    writeln!(
        text,
        "\nThe p99 of hits while Redis was away is {:+.2} ms off the one before. Answers wrong: {wrong}; refused upstream: \
         {refused}; the least gap between two arrivals there: {least:.0} ms. The first miss that was fetched after Redis was back \
         had its answer {:.2} s after that.",
        p99s[1] - p99s[0],
        back_after.map_or(f64::NAN, |after| after.as_secs_f64()),
    )
    .unwrap();
    assert!(wrong == 0 && (refused == 0 || !options.test), "{text}");
    assert!(back_after.is_some(), "{text}");
    text
}

/// How long after its beginning the first lookup of a span that was due in it was fetched.
fn recovered(told: &[Told], span: Range<Duration>) -> Option<Duration> {
    let fetched = told.iter().filter(|told| span.contains(&told.at) && told.is_fetched());
    fetched.map(|told| told.at + told.took - span.start).min()
}

/// What was neither answered nor told that Redis is away, by its name.
fn others(told: &[&Told]) -> String {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for told in told {
        match &told.said {
            Said::Refused(name) if name != AWAY => *names.entry(name.clone()).or_default() += 1,
            Said::Nothing => *names.entry("no answer".to_owned()).or_default() += 1,
            Said::Right { .. } | Said::Wrong | Said::Refused(_) => {}
        }
    }
    let names: Vec<String> = names.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if names.is_empty() { "0".to_owned() } else { names.join(", ") }
}
