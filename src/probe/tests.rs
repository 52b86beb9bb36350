//! The plan and what follows from it, with answers by hand: what the simulated upstream cannot be made to say.

use http::StatusCode;

use super::{
    findings::{End, KeyAnswer, Nobody, StepAnswer},
    journal::{Asked, Journal, Part, Said},
    mixed::Mixed,
    settings::Settings,
    *,
};
use crate::{
    dispatch::MixedLists,
    key::Value,
    upstream::{DataForm, Spelling, credentials::Mode, wire::Carried},
};

const SECOND: Duration = Duration::from_secs(1);

fn probe(keys: &[&str], fastest: Option<&str>) -> Probe {
    let target = Target { lookup: 0, shape: Shape::audience_detail(), interval: SECOND };
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let written = Written { keys, fastest: fastest.map(str::to_owned), ..Written::default() };
    Probe::new(target, &Mode::Forward(vec![]), &written).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A customer that is known by this number alone.
fn customer(number: i64) -> Carried {
    Carried { ids: vec![Id { kind: Kind(0), value: Value::Int(number) }], identity: Some(0) }
}

/// Puts the plan's questions to somebody, as the shell does, and says how it ended.
fn drive(probe: &Probe, mut answer: impl FnMut(&Question) -> Said) -> Findings {
    let mut journal = Journal::default();
    let end = loop {
        let Some(question) = plan::next(probe, &journal) else { break End::Complete };
        if let Some(end) = journal.end() {
            break end;
        }
        if journal.0.len() >= REQUESTS {
            break End::Budget;
        }
        let gap = match question {
            Question::Closer { gap, .. } => gap,
            _ => SECOND,
        };
        let said = answer(&question);
        let spelling = Spelling {
            code: "200".to_owned(),
            error_code: "0".to_owned(),
            msg: "ok".to_owned(),
            data: DataForm::EmptyArray,
        };
        journal.0.push(Asked {
            question,
            gap: Some(gap),
            took: SECOND / 10,
            status: Some(StatusCode::OK),
            spelling: Some(spelling),
            said,
        });
    };
    Findings::new(probe, &journal, (end, SECOND))
}

/// Each given key reaches the customer of its position, and nobody has the others; lists are answered by `mixed`.
fn upstream(mut mixed: impl FnMut(Vec<i64>) -> Said) -> impl FnMut(&Question) -> Said {
    let number = |key: &usize| i64::try_from(*key).expect("small");
    move |question| match question {
        Question::Alone(key) | Question::Closer { key, .. } => Said::Found(vec![customer(number(key))]),
        Question::Nobody(_) => Said::Found(Vec::new()),
        Question::Mixed(parts) => {
            let given = |part: &Part| match part {
                Part::Given(key) => Some(number(key)),
                Part::MadeUp(_) => None,
            };
            mixed(parts.iter().filter_map(given).collect())
        }
    }
}

fn found(numbers: &[i64]) -> Said {
    Said::Found(numbers.iter().map(|number| customer(*number)).collect())
}

fn advised(probe: &Probe, findings: &Findings) -> (Duration, MixedLists) {
    let settings = Settings::new(&probe.target, findings);
    (settings.interval.value, settings.mixed_lists.value)
}

const ALL: &[&str] = &["audienceUserId=1", "thirdId=b", "phone=13"];

#[test]
fn different_customers_tell_what_several_lists_mean_in_one_request() {
    for (answered, mixed, setting) in [
        (&[0, 1, 2][..], Mixed::Union, MixedLists::Union),
        (&[0], Mixed::First, MixedLists::Never),
        (&[0, 1], Mixed::First, MixedLists::Never),
        (&[2], Mixed::NoUnion, MixedLists::Never),
        (&[], Mixed::Intersection, MixedLists::Never),
    ] {
        let probe = probe(ALL, None);
        let findings = drive(&probe, upstream(|_| found(answered)));
        assert_eq!((findings.requests, &findings.mixed), (5, &mixed), "{answered:?}");
        assert_eq!(advised(&probe, &findings), (SECOND, setting));
        assert_eq!(findings.end, End::Complete);
    }
}

#[test]
fn a_request_of_several_lists_that_is_rejected_is_not_sent_again() {
    let probe = probe(ALL, None);
    let findings = drive(&probe, upstream(|_| Said::Rejected));
    assert_eq!(findings.mixed, Mixed::Rejected);
    assert_eq!(advised(&probe, &findings).1, MixedLists::Never);
}

#[test]
fn lists_that_are_tried_until_one_finds_somebody_are_not_taken_for_a_union() {
    let probe = probe(ALL, None);
    // All keys reach one customer, so that only keys which nobody has can keep them company.
    let same = drive(&probe, |question| match question {
        Question::Nobody(_) => found(&[]),
        _ => found(&[7]),
    });
    let kinds = ["audienceUserId", "thirdId", "phone"].map(str::to_owned);
    assert_eq!(same.mixed, Mixed::Partly(kinds.to_vec()));
    assert_eq!(advised(&probe, &same).1, MixedLists::Auto);
    let different = drive(&probe, upstream(|given| found(&given[..1])));
    assert_eq!(different.mixed, Mixed::First);
}

#[test]
fn one_kind_alone_shows_no_union_but_may_refute_it() {
    let probe = probe(&["phone=13"], None);
    let kept = drive(&probe, upstream(|given| found(&given)));
    assert_eq!(kept.mixed, Mixed::Partly(vec!["phone".to_owned()]));
    assert_eq!(advised(&probe, &kept).1, MixedLists::Auto);
    let missed = drive(&probe, upstream(|_| found(&[])));
    assert_eq!(missed.mixed, Mixed::NoUnion);
    assert_eq!(advised(&probe, &missed).1, MixedLists::Never);
}

#[test]
fn where_a_key_that_nobody_has_is_an_error_it_is_not_put_beside_others() {
    let probe = probe(&["audienceUserId=1"], None);
    let findings = drive(&probe, |question| match question {
        Question::Nobody(_) => Said::Rejected,
        Question::Mixed(_) => panic!("a made-up key beside others"),
        _ => found(&[0]),
    });
    assert!(matches!(findings.nobody, Nobody::Rejected(_)));
    assert_eq!(advised(&probe, &findings).1, MixedLists::Auto);
}

#[test]
fn a_given_key_that_reaches_nobody_answers_for_the_made_up_one() {
    let probe = probe(&["audienceUserId=1", "phone=13"], None);
    let findings = drive(&probe, |question| match question {
        Question::Nobody(_) => panic!("asked in vain"),
        Question::Alone(1) => found(&[]),
        _ => found(&[0]),
    });
    assert!(matches!(findings.nobody, Nobody::Empty(DataForm::EmptyArray)));
    assert!(findings.keys[1].1 == KeyAnswer::Nobody);
}

#[test]
fn steps_go_down_to_the_fastest_and_stop_at_the_first_refusal() {
    let probe = probe(ALL, Some("600ms"));
    let all = drive(&probe, upstream(|given| found(&given)));
    let gaps: Vec<_> = all.steps.iter().flatten().map(|step| step.wanted.as_millis()).collect();
    assert_eq!(gaps, [900, 800, 700, 600]);
    assert_eq!(advised(&probe, &all).0.as_millis(), 600);
    let some = drive(&probe, |question| match question {
        Question::Closer { gap, .. } if gap.as_millis() < 800 => Said::Throttled(None),
        other => upstream(|given| found(&given))(other),
    });
    assert_eq!(some.steps.iter().flatten().count(), 3);
    assert_eq!(advised(&probe, &some).0.as_millis(), 800);
    assert_eq!(some.refusal.map(|refusal| refusal.at_interval), Some(0));
}

#[test]
fn a_refusal_that_is_not_recognised_as_one_is_told() {
    let probe = probe(&["audienceUserId=1"], Some("900ms"));
    let findings = drive(&probe, |question| match question {
        Question::Closer { .. } => Said::Rejected,
        other => upstream(|given| found(&given))(other),
    });
    let steps = findings.steps.as_deref().unwrap_or_default();
    assert!(matches!(steps, [step] if matches!(step.answer, StepAnswer::Unrecognised(_))));
    assert_eq!(advised(&probe, &findings).0, SECOND);
    let told = Report::new(&probe.target, &findings).to_toml().replace("\n#    ", " ");
    assert!(told.contains("the gateway takes that for a rejection"), "{told}");
}

#[test]
fn two_refusals_in_a_row_three_failures_or_a_bad_token_end_it() {
    let probe = probe(ALL, None);
    let refused = drive(&probe, |_| Said::Throttled(None));
    assert_eq!((refused.requests, &refused.end), (2, &End::Refused));
    let failed = drive(&probe, |_| Said::Failed("HTTP 502: a gateway error".to_owned()));
    assert_eq!((failed.requests, &failed.end), (3, &End::Failed));
    assert!(failed.failure().is_some_and(|reason| reason.contains("502")));
    let unauthorized = drive(&probe, |_| Said::Unauthorized);
    assert_eq!((unauthorized.requests, &unauthorized.end), (1, &End::Unauthorized));
    let patience = drive(&probe, |_| Said::Throttled(Some(SECOND * 3600)));
    assert_eq!((patience.requests, &patience.end), (1, &End::Patience(SECOND * 3600)));
}

#[test]
fn whatever_is_answered_it_ends_within_a_dozen_requests_and_can_be_told() {
    for seed in 0..3000 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let probe = probe(&["audienceUserId=1", "thirdId=b", "phone=13", "phone=14"], Some("500ms"));
        let findings = drive(&probe, |_| match chance.u32(0..10) {
            0 => Said::Rejected,
            1 => Said::Throttled(None),
            2 => Said::Failed("no answer".to_owned()),
            3 => Said::Found(Vec::new()),
            _ => found(&[chance.i64(0..3), chance.i64(0..3)]),
        });
        assert!(findings.requests <= REQUESTS, "seed {seed}");
        let report = Report::new(&probe.target, &findings);
        let toml: toml::Table = report.to_toml().parse().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(toml["lookup"][0]["interval"].as_str().is_some());
        serde_json::from_str::<serde_json::Value>(&report.to_json()).unwrap_or_else(|error| panic!("{seed}: {error}"));
    }
}

#[test]
fn a_path_that_is_not_built_in_is_told_where_the_settings_belong() {
    let mut probe = probe(&["phone=13"], None);
    let beside = "beside its [[lookup.key]]s";
    let findings = drive(&probe, upstream(|given| found(&given)));
    assert!(!Report::new(&probe.target, &findings).to_toml().contains(beside));
    probe.target.shape.path = "/api/other".to_owned();
    assert!(Report::new(&probe.target, &findings).to_toml().contains(beside));
}

#[test]
fn what_is_wrong_is_named_and_never_quoted() {
    let target = Target { lookup: 0, shape: Shape::audience_detail(), interval: SECOND };
    let headers = Mode::Forward(vec![http::HeaderName::from_static("x-token")]);
    let written = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let all_wrong = Written {
        keys: written(&["13800138000", "13800138000=x", "fax=13800138000", "audienceUserId=13800138000x", "phone= "]),
        tokens: written(&["13800138000", "13800138000=", "x-token=1380\n0138000", "cookie=13800138000"]),
        token_from_environment: Some("13800138000\u{7f}".to_owned()),
        body_fields: written(&["13800138000", "a={13800138000", "phoneList=[\"13800138000\"]", "b=1", "b=1", "=1"]),
        fastest: Some("13800138000".to_owned()),
    };
    let problems = Probe::new(target.clone(), &headers, &all_wrong).err().unwrap_or_default();
    assert_eq!(problems.len(), 5 + 4 + 1 + 5 + 1, "{problems:#?}");
    assert!(problems.iter().all(|line| !line.contains("138") && !line.contains('\n')), "{problems:#?}");
    assert!(problems.iter().any(|line| line.contains("`fax`") && line.contains("thirdId")), "{problems:#?}");
    for (fastest, word) in [("1s", "shorter"), ("0s", "1ms"), ("2m", "shorter")] {
        let keys = written(&["phone=13"]);
        let written = Written { keys, fastest: Some(fastest.to_owned()), ..Written::default() };
        let problems = Probe::new(target.clone(), &headers, &written).err().unwrap_or_default();
        assert!(problems.len() == 1 && problems[0].contains(word), "{problems:?}");
    }
    let none = Probe::new(target.clone(), &headers, &Written::default()).err().unwrap_or_default();
    assert!(none.len() == 1 && none[0].contains("--key"), "{none:?}");
    let many =
        Written { keys: written(&["phone=1", "phone=2", "phone=3", "phone=4", "phone=5"]), ..Written::default() };
    let many = Probe::new(target, &headers, &many).err().unwrap_or_default();
    assert!(many.len() == 1 && many[0].contains("at most 4"), "{many:?}");
}
