//! Every fault as a client meets it.

use std::time::Duration;

use super::{Bench, DETAIL, Seen, post};
use crate::simulator::{Fault, Outcome};

/// One lookup under a fault that strikes once.
async fn struck(bench: &mut Bench, fault: Fault) -> Result<Seen, hyper::Error> {
    bench.sim.reconfigure(|config| {
        config.fault = fault;
        config.fault_count = 1;
    });
    let body = bench.by_id(&[1]);
    let seen = bench.send(post(DETAIL, "", &body)).await;
    assert_eq!(bench.sim.lookups().last().map(|arrival| arrival.outcome), Some(Outcome::Faulted(fault)));
    seen
}

#[tokio::test(start_paused = true)]
async fn answers_go_wrong_in_the_way_that_was_asked_and_only_so_often() {
    let mut bench = Bench::unlimited(|config| config.huge_bytes = 5 << 20);
    let honest = bench.lookup(&[1]).await;

    let seen = struck(&mut bench, Fault::Status500).await.expect("an answer");
    assert_eq!((seen.status.as_u16(), seen.code().as_str()), (500, "500"));
    let seen = struck(&mut bench, Fault::Html502).await.expect("an answer");
    assert_eq!((seen.status.as_u16(), &seen.headers["content-type"]), (502, &"text/html".parse().expect("a value")));
    assert!(seen.body.starts_with(b"<html>"));
    let seen = struck(&mut bench, Fault::Status429).await.expect("an answer");
    assert_eq!((seen.status.as_u16(), seen.body.len()), (429, 0));
    let seen = struck(&mut bench, Fault::Truncated).await.expect("an answer");
    assert_eq!(seen.body, honest.body[..honest.body.len() / 2]);
    let seen = struck(&mut bench, Fault::WrongShape).await.expect("an answer");
    assert!(seen.json()["data"].is_object());
    let seen = struck(&mut bench, Fault::Huge).await.expect("an answer");
    assert!(seen.body.len() > 5 << 20);
    assert_eq!(seen.json()["code"], "200");

    assert_eq!(bench.lookup(&[1]).await.body, honest.body);
}

#[tokio::test(start_paused = true)]
async fn connections_break_before_or_inside_an_answer() {
    let mut bench = Bench::unlimited(|_| {});
    let early = struck(&mut bench, Fault::CloseEarly).await.expect_err("no answer");
    assert!(early.is_incomplete_message(), "{early:?}");

    bench.sim.reconfigure(|config| {
        config.fault = Fault::CloseMidBody;
        config.fault_count = 1;
    });
    let body = bench.by_id(&[1]);
    let response = bench.connect().await.send_request(post(DETAIL, "", &body)).await.expect("a head");
    assert_eq!(response.status(), 200);
    http_body_util::BodyExt::collect(response).await.expect_err("half a body");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_answer_ends_when_its_client_leaves() {
    let mut bench = Bench::unlimited(|config| {
        config.fault = Fault::Hang;
        config.fault_rate = 1.0;
    });
    let body = bench.by_id(&[1]);
    let mut sender = bench.connect().await;
    let answer = sender.send_request(post(DETAIL, "", &body));
    tokio::time::timeout(Duration::from_secs(600), answer).await.expect_err("no answer");
    drop(sender);
    // Both the client's and the server's task come to their end.
    while bench.tasks.join_next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_rate_strikes_its_share_and_equal_seeds_strike_alike() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut bench = Bench::unlimited(|config| {
            config.fault = Fault::Status500;
            config.fault_rate = 0.3;
        });
        for _ in 0..100 {
            bench.lookup(&[1]).await;
        }
        runs.push(bench.sim.lookups().iter().map(|arrival| arrival.outcome).collect::<Vec<_>>());
    }
    let struck = runs[0].iter().filter(|outcome| **outcome != Outcome::Accepted).count();
    assert!((15..45).contains(&struck), "{struck}");
    assert_eq!(runs[0], runs[1]);
}
