//! Random lookups through the gateway give exactly what asking the upstream key by key gives.

use std::{collections::HashSet, time::Duration};

use audience_gateway::simulator::MixedLists;
use fastrand::Rng;

use crate::harness::{App, Setup, all};

/// Customers that the lookups are about: few, so that keys meet in batches and in the cache.
const CUSTOMERS: u64 = 60;

struct Question {
    scope: (&'static str, &'static str, &'static str),
    body: String,
    expected: Vec<String>,
}

fn question(app: &App, rng: &mut Rng) -> Question {
    let scope = (["", "t1"][rng.usize(..2)], ["", "31"][rng.usize(..2)], ["", "a"][rng.usize(..2)]);
    let mut lists: [Vec<String>; 3] = Default::default();
    for _ in 0..rng.usize(1..8) {
        let customer = app.simulator.customer(rng.u64(..CUSTOMERS));
        let kind = rng.usize(..3);
        match kind {
            0 => lists[0].push(customer.id.to_string()),
            1 => lists[1].extend(customer.third_id),
            _ => lists[2].extend((!customer.phones.is_empty()).then(|| customer.phones[0].clone())),
        }
        if rng.f64() < 0.2 {
            lists[rng.usize(..3)].push(rng.u32(1..9).to_string());
        }
    }
    if lists.iter().all(Vec::is_empty) {
        lists[0].push("1".to_owned());
    }
    let names = ["audienceUserIdList", "thirdIdList", "phoneList"];
    let mut seen = HashSet::new();
    let mut expected = Vec::new();
    for (name, list) in names.iter().zip(&lists) {
        for value in list {
            let records = app.simulator.expected_for(scope, name, value).into_iter();
            expected.extend(records.filter(|record| seen.insert(record.clone())));
        }
    }
    let mut fields: Vec<String> = names.iter().zip(&lists).map(|(name, list)| format!("{name:?}:{list:?}")).collect();
    for (name, value) in [("companyId", scope.1), ("instanceAppid", scope.2)] {
        if !value.is_empty() {
            fields.push(format!("{name:?}:{value:?}"));
        }
    }
    rng.shuffle(&mut fields);
    Question { scope, body: format!("{{{}}}", fields.join(",")), expected }
}

#[tokio::test(start_paused = true)]
async fn random_lookups_give_what_asking_key_by_key_gives() {
    for (seed, lists) in [(1, MixedLists::Union), (2, MixedLists::First), (3, MixedLists::Intersection)] {
        let app = Setup::new()
            .config(
                "cache.ttl = \"20s\"\ncache.capacity = \"200KiB\"\n[[lookup]]\nmax_batch_keys = 20\ntimeout = \"10m\"",
            )
            .upstream(|upstream| {
                upstream.mixed_lists = lists;
                upstream.jitter = Duration::from_millis(50);
            })
            .start();
        let mut rng = Rng::with_seed(seed);
        for _round in 0..25 {
            let questions: Vec<Question> = (0..8).map(|_| question(&app, &mut rng)).collect();
            let calls = questions.iter().map(|question| {
                let (caller, body, token) = (app.caller(), question.body.clone(), question.scope.0);
                async move {
                    let headers: &[_] = if token.is_empty() { &[] } else { &[("x-token", token)] };
                    caller.lookup_with(body, headers).await
                }
            });
            for (question, reply) in questions.iter().zip(all(calls.collect::<Vec<_>>()).await) {
                assert_eq!(reply.records(), question.expected, "seed {seed}: {}", question.body);
            }
        }
        app.finish().await;
    }
}
