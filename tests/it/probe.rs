//! The questions that `probe` asks, and what it makes of each kind of upstream: few requests, never too close together,
//! and nothing told that must not be.

use std::{sync::Arc, time::Duration};

use audience_gateway::{
    config::Config,
    probe::{
        self, Findings, Probe, REQUESTS, Report, Target, Written,
        findings::{End, KeyAnswer, Nobody, StepAnswer},
    },
    simulator::{
        self, Arrival, EmptyData, EnvelopeSpelling, Fault, LimitCounts, MixedLists, Outcome, PhoneSpelling, Simulator,
    },
    upstream::{
        DataForm,
        client::Client,
        connect::{Dial, Dialing},
    },
};
use http::Uri;
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::harness::Pipes;

const SECOND: Duration = Duration::from_secs(1);

/// A run of the probe, and what it asks.
struct Run {
    simulator: Simulator,
    config: String,
    written: Written,
    /// How close two requests may be.
    allowed: Duration,
}

/// What came of it.
struct Outcomes {
    findings: Findings,
    toml: String,
    json: Value,
    arrivals: Vec<Arrival>,
}

impl Outcomes {
    /// Whether it is told, wherever the lines are broken.
    fn tells(&self, sentence: &str) -> bool {
        let words: Vec<_> = self.toml.split_whitespace().filter(|word| *word != "#").collect();
        words.join(" ").contains(sentence)
    }

    fn setting(&self, name: &str) -> &str {
        self.json["settings"][name].as_str().unwrap()
    }

    fn lists(&self) -> (&str, &str) {
        (self.json["several_lists"].as_str().unwrap(), self.setting("mixed_lists"))
    }
}

impl Run {
    fn new(change: impl FnOnce(&mut simulator::Config)) -> Self {
        let mut config = simulator::Config { jitter: Duration::ZERO, customers: 1000, ..simulator::Config::default() };
        change(&mut config);
        let written = Written { token_from_environment: Some("token-of-alice".to_owned()), ..Written::default() };
        Self { simulator: Simulator::new(config), config: String::new(), written, allowed: SECOND }
    }

    /// Lines of configuration besides `upstream.base_url`.
    fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self
    }

    /// The id of one customer, the third id of another, the phone of a third: one customer three times if they are one.
    fn keys(mut self, id: u64, third_id: u64, phone: u64) -> Self {
        let third_id = self.simulator.customer(third_id).third_id.unwrap();
        let phone = self.simulator.customer(phone).phones[0].clone();
        let id = self.simulator.customer(id).id;
        self.written.keys =
            vec![format!("audienceUserId={id}"), format!("thirdId={third_id}"), format!("phone={phone}")];
        self
    }

    fn fastest(mut self, fastest: Duration) -> Self {
        self.written.fastest = Some(humantime::format_duration(fastest).to_string());
        self.allowed = fastest;
        self
    }

    /// Runs it to its end and checks what must hold of every run.
    async fn go(self) -> Outcomes {
        self.go_until(std::future::pending()).await
    }

    async fn go_until(self, stop: impl Future<Output = ()>) -> Outcomes {
        let mut tasks = JoinSet::new();
        let pipes = Pipes::new(self.simulator.clone(), &mut tasks);
        let outcomes = self.go_over(Arc::new(pipes), stop).await;
        tasks.shutdown().await;
        outcomes
    }

    async fn go_over(self, dial: Arc<dyn Dial>, stop: impl Future<Output = ()>) -> Outcomes {
        let text = format!("upstream.base_url = \"http://upstream/api/open\"\n{}", self.config);
        let config = Config::parse(&text, std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
        let lookup = &config.lookups[0];
        let target = Target { lookup: 0, shape: lookup.shape.clone(), interval: lookup.dispatch.interval };
        let probe = Probe::new(target.clone(), &config.upstream.credentials, &self.written)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let client = Client::new(config.upstream.clone(), dial);
        let findings = probe::run(&probe, &client, stop).await;
        let report = Report::new(&target, &findings);
        let (toml, json) = (report.to_toml(), report.to_json());
        self.check(&format!("{toml}{}", findings.failure().unwrap_or_default()), &json);
        // What is printed is a configuration, but for the upstream's address.
        let pasted = Config::parse(&format!("{text}\n{toml}"), std::iter::empty());
        assert!(self.config.contains("[[lookup]]") || pasted.is_ok(), "{toml}");
        let json = serde_json::from_str(&json).unwrap();
        Outcomes { findings, toml, json, arrivals: self.simulator.arrivals() }
    }

    /// Few requests, far enough apart, and nothing told that must not be.
    fn check(&self, toml: &str, json: &str) {
        let arrivals = self.simulator.arrivals();
        assert!(arrivals.len() <= REQUESTS, "{} requests", arrivals.len());
        for (one, next) in arrivals.iter().zip(arrivals.iter().skip(1)) {
            let gap = next.moment - one.moment;
            let allowed = if one.outcome == Outcome::Throttled { SECOND } else { self.allowed };
            assert!(gap >= allowed, "{gap:?} apart");
        }
        let keys = self.written.keys.iter().filter_map(|key| key.split_once('=')).map(|(_, value)| value.to_owned());
        let made_up = arrivals.iter().flat_map(|arrival| &arrival.keys).flat_map(|(_, values)| values.clone());
        let mut secrets: Vec<String> = keys.chain(made_up).collect();
        for key in &self.written.keys {
            let (kind, value) = key.split_once('=').unwrap();
            for record in self.simulator.expected("token-of-alice", "", &format!("{kind}List"), value) {
                let record: Value = serde_json::from_str(&record).unwrap();
                secrets.extend(
                    ["realName", "phone", "thirdId"]
                        .map(|name| record[name].as_str().unwrap_or("token-of-").to_owned()),
                );
            }
        }
        secrets.push("token-of-".to_owned());
        for secret in secrets.iter().filter(|secret| secret.len() > 3) {
            assert!(!toml.contains(secret) && !json.contains(secret), "{secret} is in\n{toml}\n{json}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_upstream_is_found_to_be_what_its_document_says() {
    let run = Run::new(|_| {}).keys(2, 5, 13).go().await;
    let Findings { requests, end, keys, nobody, refusal, .. } = &run.findings;
    assert_eq!((*requests, end), (5, &End::Complete));
    assert!(keys.iter().all(|(_, answer)| *answer == KeyAnswer::Records { records: 1, carrying: 1 }), "{}", run.toml);
    assert!(*nobody == Nobody::Empty(DataForm::EmptyArray) && refusal.is_none());
    assert_eq!(run.lists(), ("union", "union"));
    assert_eq!(run.setting("interval"), "1s");
    assert!(
        run.tells(r#"Yes: HTTP 200, code "200", errorCode "SUCCESS", msg "ok", after 80 to 80 ms"#),
        "{}",
        run.toml
    );
    assert!(run.tells("Not tried: --fastest"), "{}", run.toml);
    assert!(run.arrivals.iter().all(|arrival| arrival.token.as_deref() == Some("token-of-alice")));
}

#[tokio::test(start_paused = true)]
async fn what_several_lists_mean_is_found_with_keys_of_one_customer_or_of_several() {
    for (lists, different, same) in [
        (MixedLists::Union, ("union", "union"), ("partly", "auto")),
        (MixedLists::First, ("first", "never"), ("first", "never")),
        (MixedLists::Intersection, ("intersection", "never"), ("intersection", "never")),
    ] {
        for (id, third_id, phone) in [(2, 5, 13), (2, 2, 2), (2, 2, 13), (2, 13, 2), (13, 2, 2)] {
            let expected = if id == 2 && third_id == 5 { different } else { same };
            let run = Run::new(|upstream| upstream.mixed_lists = lists).keys(id, third_id, phone).go().await;
            assert_eq!(run.lists(), expected, "{id} {third_id} {phone}\n{}", run.toml);
            assert_eq!(run.findings.end, End::Complete);
            assert!(run.arrivals.len() <= 8);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_keys_of_one_kind_a_union_is_not_claimed() {
    for (lists, expected) in [
        (MixedLists::Union, ("partly", "auto")),
        (MixedLists::First, ("partly", "auto")),
        (MixedLists::Intersection, ("intersection", "never")),
    ] {
        let mut run = Run::new(|upstream| upstream.mixed_lists = lists).keys(2, 5, 13);
        run.written.keys.truncate(1);
        let run = run.go().await;
        assert_eq!(run.lists(), expected, "{}", run.toml);
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_with_one_list_is_asked_no_mixed_question() {
    let mut run = Run::new(|_| {}).config("[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"").keys(2, 5, 13);
    run.written.keys.truncate(1);
    run.allowed = SECOND / 2;
    let run = run.go().await;
    assert_eq!((run.lists(), run.setting("interval")), (("one list", "auto"), "500ms"));
    assert_eq!(run.arrivals.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_comes_back_in_another_spelling_is_noticed() {
    for spelling in [PhoneSpelling::Prefixed, PhoneSpelling::Spaced, PhoneSpelling::Masked] {
        let run = Run::new(|upstream| upstream.phone_spelling = spelling).keys(2, 5, 13).go().await;
        let [(_, id), _, (kind, phone)] = &run.findings.keys[..] else { panic!("three keys") };
        assert!(*id == KeyAnswer::Records { records: 1, carrying: 1 });
        assert!(kind == "phone" && *phone == KeyAnswer::Records { records: 1, carrying: 0 }, "{}", run.toml);
        assert!(run.tells("asks such a key again by itself"), "{}", run.toml);
        assert_eq!(run.lists(), ("union", "union"), "customers are still told apart");
    }
}

#[tokio::test(start_paused = true)]
async fn each_way_of_finding_nobody_is_told() {
    for (data, form) in [
        (EmptyData::Array, DataForm::EmptyArray),
        (EmptyData::Null, DataForm::Null),
        (EmptyData::Absent, DataForm::LeftOut),
    ] {
        let run = Run::new(|upstream| upstream.empty_data = data).keys(2, 5, 13).go().await;
        assert!(run.findings.nobody == Nobody::Empty(form), "{}", run.toml);
    }
    let run = Run::new(|upstream| upstream.envelope = EnvelopeSpelling::Example).keys(2, 5, 13).go().await;
    assert!(matches!(run.findings.nobody, Nobody::Rejected(_)), "{}", run.toml);
    assert!(run.tells(r#"code "28930""#), "{}", run.toml);
    assert_eq!(run.lists(), ("union", "union"), "the keys of three customers need no made-up one");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_rejected_is_told_and_the_rest_goes_on() {
    let run = Run::new(|_| {}).keys(2, 5, 13);
    let bad = run.simulator.customer(2).id.to_string();
    run.simulator.reconfigure(|upstream| upstream.bad_keys = vec![bad]);
    let run = run.go().await;
    assert!(matches!(&run.findings.keys[0].1, KeyAnswer::Rejected(form) if form.status == 200), "{}", run.toml);
    assert_eq!(run.findings.end, End::Complete);
    assert_eq!(run.lists(), ("partly", "auto"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_the_interval_is_found_between_two_steps_whatever_a_refusal_looks_like() {
    for counts in [LimitCounts::Arrivals, LimitCounts::Accepted] {
        for status in [200, 429, 500] {
            let run = Run::new(|upstream| {
                upstream.interval = Duration::from_millis(850);
                upstream.limit_counts = counts;
                upstream.refusal_status = status;
            });
            let run = run.keys(2, 5, 13).fastest(Duration::from_millis(600)).go().await;
            let steps: Vec<_> = run.findings.steps.iter().flatten().collect();
            let wanted: Vec<_> = steps.iter().map(|step| step.wanted.as_millis()).collect();
            assert_eq!(wanted, [900, 800], "{}", run.toml);
            assert!(steps[0].answer == StepAnswer::Accepted && steps[1].answer == StepAnswer::Refused);
            let refusal = run.findings.refusal.as_ref().unwrap();
            assert_eq!((refusal.form.status, refusal.retry_after, refusal.at_interval), (status, None, 0));
            assert_eq!(run.setting("interval"), "900ms");
            assert!(run.tells(&format!(r#"HTTP {status}, code "100500""#)), "{}", run.toml);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_whose_limit_is_the_interval_keeps_it() {
    let run = Run::new(|_| {}).keys(2, 5, 13).fastest(Duration::from_millis(900)).go().await;
    assert_eq!(run.setting("interval"), "1s");
    assert_eq!(run.findings.steps.as_ref().map(Vec::len), Some(1), "the first refusal ends it");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_every_step_is_tried_and_no_more() {
    let run = Run::new(|upstream| upstream.interval = Duration::ZERO).keys(2, 2, 2);
    let run = run.fastest(Duration::from_millis(100)).go().await;
    assert_eq!(run.findings.steps.as_ref().map(Vec::len), Some(4), "{}", run.toml);
    assert_eq!(run.setting("interval"), "100ms");
    assert_eq!(run.arrivals.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn where_answers_take_longer_than_the_gap_it_cannot_be_tried() {
    let run = Run::new(|upstream| {
        upstream.interval = Duration::ZERO;
        upstream.latency = Duration::from_millis(950);
    });
    let run = run.keys(2, 5, 13).fastest(Duration::from_millis(200)).go().await;
    let steps: Vec<_> = run.findings.steps.iter().flatten().collect();
    assert!(matches!(steps[..], [step] if matches!(step.answer, StepAnswer::NotTold(_))), "{}", run.toml);
    assert_eq!(run.setting("interval"), "1s");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_and_two_refusals_in_a_row_end_it() {
    let run = Run::new(|upstream| {
        upstream.interval = SECOND * 3600;
        upstream.retry_after = Some(SECOND * 7);
        upstream.refusal_status = 429;
    });
    let run = run.keys(2, 5, 13).go().await;
    assert_eq!((run.findings.requests, &run.findings.end), (3, &End::Refused));
    assert!(run.arrivals[2].moment - run.arrivals[1].moment >= SECOND * 7);
    assert!(run.tells("Retry-After 7s") && run.tells("refused twice in a row"), "{}", run.toml);
    assert!(run.tells("try a longer one"), "{}", run.toml);
    assert!(run.findings.failure().is_none(), "one key was answered");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_between_costs_one_request_and_no_answer() {
    let run = Run::new(|upstream| {
        upstream.fault = Fault::Status429;
        upstream.fault_count = 1;
    });
    let run = run.keys(2, 5, 13).fastest(SECOND / 2).go().await;
    assert_eq!((run.findings.requests, &run.findings.end), (6, &End::Complete));
    assert_eq!(
        run.findings.steps.as_ref().map(Vec::len),
        Some(0),
        "where the interval is refused, nothing closer is tried"
    );
    assert_eq!(run.findings.refusal.as_ref().map(|refusal| refusal.at_interval), Some(1));
    assert_eq!(run.lists(), ("union", "union"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_taken_ends_it_at_once() {
    let run = Run::new(|upstream| upstream.accept_any_token = false).keys(2, 5, 13).go().await;
    assert_eq!((run.findings.requests, &run.findings.end), (1, &End::Unauthorized));
    let failure = run.findings.failure().unwrap();
    assert!(failure.contains("credential") && failure.contains("100200"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn three_failures_end_it_with_the_reason() {
    for (fault, word) in [
        (Fault::Html502, "502"),
        (Fault::Status500, "500"),
        (Fault::Truncated, "HTTP 200"),
        (Fault::CloseEarly, "connection"),
        (Fault::CloseMidBody, "broke off"),
        (Fault::Hang, "request_timeout"),
    ] {
        let run = Run::new(|upstream| {
            upstream.fault = fault;
            upstream.fault_rate = 1.0;
        });
        let run = run.keys(2, 5, 13).go().await;
        assert_eq!((run.findings.requests, &run.findings.end), (3, &End::Failed), "{fault:?}");
        let failure = run.findings.failure().unwrap();
        assert!(failure.contains(word), "{fault:?}: {failure}");
    }
}

/// Nobody is there.
struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _to: Uri) -> Dialing {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()) })
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_not_there_is_an_error_with_its_reason() {
    let run = Run::new(|_| {}).keys(2, 5, 13).go_over(Arc::new(Nowhere), std::future::pending()).await;
    assert!(!run.findings.is_reached());
    let failure = run.findings.failure().unwrap();
    assert!(failure.contains("cannot be reached") && failure.contains("refused"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn when_it_is_stopped_nothing_more_is_sent_and_what_was_found_is_told() {
    let began = Instant::now();
    let run = Run::new(|_| {}).keys(2, 5, 13).go_until(tokio::time::sleep(SECOND * 3 / 2)).await;
    assert_eq!(Instant::now() - began, SECOND * 3 / 2, "at once");
    assert_eq!((run.findings.requests, &run.findings.end), (2, &End::Interrupted));
    assert!(run.findings.failure().is_none() && run.tells("it was stopped"), "{}", run.toml);
}

#[tokio::test(start_paused = true)]
async fn the_scope_goes_with_every_request() {
    let mut run = Run::new(|_| {}).keys(2, 5, 13);
    run.written.body_fields = vec!["companyId=\"company-31\"".to_owned(), "deep={\"a\": [1]}".to_owned()];
    let run = run.go().await;
    assert!(run.arrivals.iter().all(|arrival| arrival.company.as_deref() == Some("company-31")));
    assert!(run.arrivals.iter().all(|arrival| arrival.rest == r#"{"deep":{"a":[1]}}"#));
    assert!(!run.toml.contains("company-31"));
}
