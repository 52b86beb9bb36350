//! The limit as a client meets it, and the log of arrivals.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::time::{advance, sleep};

use super::{Bench, DETAIL, post};
use crate::{
    clock,
    simulator::{Call, LimitCounts, LimitPer, Outcome},
};

/// What became of lookups that start at these milliseconds.
async fn outcomes(bench: &mut Bench, starts: &[u64]) -> Vec<Outcome> {
    let start = clock::now();
    for at in starts {
        tokio::time::sleep_until(start + Duration::from_millis(*at)).await;
        bench.lookup(&[0]).await;
    }
    bench.sim.lookups().iter().map(|arrival| arrival.outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn each_way_to_count_refuses_its_own() {
    use Outcome::{Accepted as Yes, Throttled as No};
    for (counts, expected) in [
        (LimitCounts::Accepted, [Yes, No, Yes, No]),
        (LimitCounts::Arrivals, [Yes, No, No, No]),
        (LimitCounts::Window, [Yes, No, Yes, Yes]),
    ] {
        let mut bench = Bench::new(|config| config.limit_counts = counts);
        sleep(Duration::from_millis(500)).await;
        // Half a second into the first window, so the window's edges are at 500, 1500, …
        assert_eq!(outcomes(&mut bench, &[0, 200, 1100, 1600]).await, expected, "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_the_status_and_retry_after_that_it_is_given() {
    for status in [200, 429, 500] {
        let mut bench = Bench::new(|config| {
            config.refusal_status = status;
            config.retry_after = Some(Duration::from_secs(2));
        });
        bench.lookup(&[0]).await;
        let refusal = bench.lookup(&[0]).await;
        assert_eq!(refusal.status, status);
        assert_eq!(refusal.json()["msg"], "操作频繁,请稍后重试");
        assert_eq!(refusal.headers["retry-after"], "2");
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_kept_for_all_or_for_each_token_company_or_connection() {
    for (per, same, other) in [
        (LimitPer::All, ("a", "1"), ("b", "2")),
        (LimitPer::Token, ("a", "1"), ("b", "1")),
        (LimitPer::Company, ("a", "1"), ("a", "2")),
        (LimitPer::Address, ("a", "1"), ("a", "1")),
    ] {
        let mut bench = Bench::new(|config| config.limit_per = per);
        for (token, company) in [same, other] {
            let body = json!({"companyId": company, "thirdIdList": ["x"]});
            bench.send(post(DETAIL, token, &body)).await.expect("an answer");
        }
        let second = bench.sim.lookups()[1].outcome;
        let expected = if per == LimitPer::All { Outcome::Throttled } else { Outcome::Accepted };
        assert_eq!(second, expected, "{per:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tags_may_be_asked_ten_times_in_five_seconds() {
    let mut bench = Bench::unlimited(|config| config.latency = Duration::ZERO);
    let body = bench.by_id(&[1, 2]);
    for _ in 0..11 {
        bench.post("/api/open/api/audience/user/tag/batchlist", &body).await;
    }
    let arrivals = bench.sim.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.call == Call::Tags && arrival.limited));
    assert_eq!(arrivals.iter().filter(|arrival| arrival.outcome == Outcome::Accepted).count(), 10);
    advance(Duration::from_secs(5)).await;
    let seen = bench.post("/api/audience/user/tag/batchlist", &body).await;
    let id = bench.sim.customer(1).id.to_string();
    assert_eq!(seen.records()[0], bench.sim.expected_tags("", "", &id)[0]);
}

#[tokio::test(start_paused = true)]
async fn odd_spellings_and_other_methods_meet_the_same_limit() {
    let mut bench = Bench::new(|_| {});
    bench.lookup(&[0]).await;
    for path in ["/api/audience/detail/", "/API/open//api/audience/%64etail?x=1"] {
        let seen = bench.get(path).await;
        assert_eq!(seen.json()["msg"], "操作频繁,请稍后重试");
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.get(DETAIL).await.status, 405);
    assert_eq!(bench.sim.lookups().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_log_says_who_asked_for_what_and_when() {
    let mut bench = Bench::new(|_| {});
    let start = clock::now();
    let body = json!({"companyId": "31", "instanceAppid": "app", "b": 1, "a": [null], "phoneList": ["1", "2"],
        "audienceUserIdList": ["747", 9_007_199_254_740_993_i64]});
    let mut request = post("/api/open/api/audience/detail?q=1", "secret", &body);
    request.headers_mut().insert("traceparent", "00-x".parse().expect("a header"));
    bench.send(request).await.expect("an answer");
    assert_eq!(clock::now() - start, bench_latency(clock::now() - start));
    let arrival = &bench.sim.arrivals()[0];
    assert_eq!((arrival.moment, arrival.judged), (start, start));
    assert_eq!((arrival.path.as_str(), arrival.query.as_deref()), ("/api/open/api/audience/detail", Some("q=1")));
    assert_eq!((arrival.token.as_deref(), arrival.company.as_deref()), (Some("secret"), Some("31")));
    assert_eq!((arrival.instance.as_deref(), arrival.traceparent.as_deref()), (Some("app"), Some("00-x")));
    assert_eq!(arrival.rest, r#"{"a":[null],"b":1}"#);
    assert_eq!(arrival.list("audienceUserIdList"), ["747", "9007199254740993"]);
    assert_eq!(arrival.key_set().len(), 4);
    assert_eq!((arrival.key_count, arrival.in_flight, arrival.connection), (4, 1, 1));
    bench.sim.forget_arrivals();
    assert!(bench.sim.arrivals().is_empty());
}

/// The wait itself where it lies within latency and jitter.
fn bench_latency(waited: Duration) -> Duration {
    waited.clamp(Duration::from_millis(60), Duration::from_millis(102))
}

#[tokio::test(start_paused = true)]
async fn an_arrival_jitter_moves_the_judgement_and_not_the_arrival() {
    let mut bench = Bench::new(|config| config.arrival_jitter = Duration::from_millis(200));
    let start = clock::now();
    bench.lookup(&[0]).await;
    let arrival = &bench.sim.arrivals()[0];
    assert_eq!(arrival.moment, start);
    assert!(arrival.judged > start && arrival.judged <= start + Duration::from_millis(202));
}

#[tokio::test(start_paused = true)]
async fn lookups_under_way_at_once_are_counted_until_their_client_leaves() {
    let mut bench = Bench::unlimited(|config| config.latency = Duration::from_secs(5));
    let body = bench.by_id(&[0]);
    let [mut one, mut two] = [bench.connect().await, bench.connect().await];
    let both =
        async { tokio::join!(one.send_request(post(DETAIL, "", &body)), two.send_request(post(DETAIL, "", &body))) };
    tokio::time::timeout(Duration::from_millis(100), both).await.expect_err("still under way");
    assert_eq!(bench.sim.lookups().last().map(|arrival| arrival.in_flight), Some(2));
    drop((one, two));
    while bench.tasks.join_next().await.is_some() {}
    bench.lookup(&[0]).await;
    assert_eq!(bench.sim.lookups().last().map(|arrival| arrival.in_flight), Some(1));
    let unknown = Request::get("/nothing").body(Full::default()).expect("a request");
    assert_eq!(bench.send(unknown).await.expect("an answer").status, 404);
}
