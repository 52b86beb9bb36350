//! Whatever the upstream turns out to be, answers are right: one test for each row of what nobody knows about it.

use std::time::Duration;

use audience_gateway::simulator::{DataOrder, EmptyData, IdSpelling, LimitCounts, MixedLists, Outcome, PhoneSpelling};

use crate::harness::{App, Setup};

/// A lookup of one customer by id, another by third id and a third by phone, and of keys that nobody has.
async fn mixed(app: &App) -> (String, Vec<String>) {
    let (one, two, three) = (app.simulator.customer(2), app.simulator.customer(5), app.simulator.customer(13));
    let (third, phone) = (two.third_id.unwrap(), &three.phones[0]);
    let body = format!(
        r#"{{"audienceUserIdList":[{},17],"thirdIdList":["{third}","nobody"],"phoneList":["{phone}","10000"]}}"#,
        one.id
    );
    let expected = [
        app.simulator.expected("", "", "audienceUserIdList", &one.id.to_string()),
        app.simulator.expected("", "", "thirdIdList", &third),
        app.simulator.expected("", "", "phoneList", phone),
    ];
    (body, expected.concat())
}

#[tokio::test(start_paused = true)]
async fn several_lists_may_mean_anything_and_each_key_still_gets_its_answer() {
    for lists in [MixedLists::Union, MixedLists::First, MixedLists::Intersection] {
        let app = Setup::new().upstream(|upstream| upstream.mixed_lists = lists).start();
        let (body, expected) = mixed(&app).await;
        for _ in 0..2 {
            assert_eq!(app.lookup(&body).await.records(), expected, "{lists:?}");
        }
        let asked = app.upstream_lookups().len();
        assert!(asked <= 4, "{asked} requests for {lists:?}");
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn once_a_union_is_proved_absence_is_believed_in_one_request() {
    let app = Setup::new().start();
    let (one, two, three) = (app.simulator.customer(2), app.simulator.customer(5), app.simulator.customer(13));
    let (third, phone) = (two.third_id.unwrap(), &three.phones[0]);
    let proof = format!(r#"{{"audienceUserIdList":[{}],"thirdIdList":["{third}"],"phoneList":["{phone}"]}}"#, one.id);
    assert_eq!(app.lookup(&proof).await.records().len(), 3);
    assert_eq!(app.upstream_lookups().len(), 1, "records are believed at once");
    let nobody = r#"{"audienceUserIdList":[1],"thirdIdList":["nobody"],"phoneList":["10000"]}"#;
    assert!(app.lookup(nobody).await.records().is_empty());
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn with_mixed_lists_never_each_request_carries_one_list() {
    let app = Setup::new().config("[[lookup]]\nmixed_lists = \"never\"").start();
    let (body, expected) = mixed(&app).await;
    assert_eq!(app.lookup(&body).await.records(), expected);
    for lookup in app.upstream_lookups() {
        assert_eq!(lookup.keys.iter().filter(|(_, keys)| !keys.is_empty()).count(), 1);
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn records_are_attributed_in_any_order_with_repeats_and_strangers_among_them() {
    for order in [DataOrder::Asked, DataOrder::Reversed, DataOrder::Shuffled] {
        for ids in [IdSpelling::Number, IdSpelling::String] {
            let app = Setup::new()
                .upstream(|upstream| {
                    upstream.data_order = order;
                    upstream.id_spelling = ids;
                    upstream.repeat_matches = true;
                    upstream.unasked = true;
                })
                .start();
            let customers: Vec<_> = [2, 5, 13].map(|index| app.simulator.customer(index)).into();
            let list: Vec<String> = customers.iter().map(|customer| customer.id.to_string()).collect();
            let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, list.join(","))).await;
            let expected = list.iter().flat_map(|id| app.simulator.expected("", "", "audienceUserIdList", id));
            assert_eq!(reply.records(), expected.collect::<Vec<_>>(), "{order:?} {ids:?}");
            app.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_comes_back_in_another_spelling_is_asked_alone_and_answered() {
    for spelling in [PhoneSpelling::Prefixed, PhoneSpelling::Spaced, PhoneSpelling::Masked] {
        let app = Setup::new().upstream(|upstream| upstream.phone_spelling = spelling).start();
        let phones: Vec<String> =
            [2, 13].iter().map(|index| app.simulator.customer(*index).phones[0].clone()).collect();
        let body = format!(r#"{{"phoneList":["{}","{}","10000"]}}"#, phones[0], phones[1]);
        let expected: Vec<String> =
            phones.iter().flat_map(|phone| app.simulator.expected("", "", "phoneList", phone)).collect();
        assert_eq!(app.lookup(&body).await.records(), expected, "{spelling:?}");
        let lookups = app.upstream_lookups();
        assert_eq!(lookups.iter().map(|lookup| lookup.key_count).collect::<Vec<_>>(), [3, 1, 1, 1]);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_may_be_an_array_null_or_nothing() {
    for empty in [EmptyData::Array, EmptyData::Null, EmptyData::Absent] {
        let app = Setup::new().upstream(|upstream| upstream.empty_data = empty).start();
        assert!(app.lookup(r#"{"thirdIdList":["nobody"]}"#).await.records().is_empty());
        assert_eq!(app.upstream_lookups().len(), 1);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_limiter_is_kept_content_whatever_it_counts() {
    for counts in [LimitCounts::Arrivals, LimitCounts::Accepted, LimitCounts::Window] {
        let app = Setup::new()
            .config("[[lookup]]\nmax_batch_keys = 5\ntimeout = \"5m\"")
            .upstream(|upstream| {
                upstream.limit_counts = counts;
                upstream.jitter = Duration::from_millis(20);
            })
            .start();
        let list: Vec<String> = (0..150).map(|index| app.simulator.customer(index).id.to_string()).collect();
        let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, list.join(","))).await;
        assert_eq!(reply.records().len(), 150);
        let lookups = app.upstream_lookups();
        let refused = lookups.iter().filter(|lookup| lookup.outcome == Outcome::Throttled).count();
        assert!(refused <= 1, "{refused} of {} refused, {counts:?}", lookups.len());
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_jitter_on_the_way_nineteen_slots_of_twenty_are_accepted_after_a_minute() {
    for counts in [LimitCounts::Arrivals, LimitCounts::Accepted, LimitCounts::Window] {
        let app = Setup::new()
            .config("[[lookup]]\nmax_batch_keys = 1\ntimeout = \"1h\"")
            .upstream(|upstream| {
                upstream.limit_counts = counts;
                upstream.arrival_jitter = Duration::from_millis(200);
            })
            .start();
        let list: Vec<String> = (0..400).map(|index| app.simulator.customer(index).id.to_string()).collect();
        let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, list.join(","))).await;
        assert_eq!(reply.records().len(), 400);
        let lookups = app.upstream_lookups();
        let minute = lookups[0].moment + Duration::from_secs(60);
        let later: Vec<_> = lookups.iter().filter(|lookup| lookup.moment > minute).collect();
        let accepted = later.iter().filter(|lookup| lookup.outcome == Outcome::Accepted).count();
        assert!(accepted * 100 >= later.len() * 95, "{accepted} of {} accepted, {counts:?}", later.len());
        let took = lookups.last().map(|last| last.moment - lookups[0].moment).unwrap();
        assert!(took < Duration::from_secs(500), "{took:?} for 400 slots, {counts:?}");
        app.stop_without_pace_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_halved_and_everybody_is_answered() {
    let app = Setup::new().upstream(|upstream| upstream.max_keys = 40).start();
    let list: Vec<String> = (0..100).map(|index| app.simulator.customer(index).id.to_string()).collect();
    let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{}]}}"#, list.join(","))).await;
    assert_eq!(reply.records().len(), 100);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_scope_of_which_nothing_passes_starves_no_other() {
    let bad: Vec<String> = (0..64).map(|number| format!("bad-{number}")).collect();
    let app = Setup::new().upstream(|upstream| upstream.bad_keys.clone_from(&bad)).start();
    let rejected = bad.iter().map(|key| app.caller().lookup(format!(r#"{{"companyId":"7","thirdIdList":["{key}"]}}"#)));
    let mut rejected: tokio::task::JoinSet<_> = rejected.collect();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let began = tokio::time::Instant::now();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    assert_eq!(app.lookup(&body).await.records().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    rejected.shutdown().await;
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_isolated_and_only_its_own_caller_is_refused() {
    let app = Setup::new().upstream(|upstream| upstream.bad_keys = vec!["bad".to_owned()]).start();
    let list: Vec<String> = (0..63).map(|index| app.simulator.customer(index).id.to_string()).collect();
    let mut calls: Vec<String> = list.iter().map(|id| format!(r#"{{"audienceUserIdList":[{id}]}}"#)).collect();
    calls.push(r#"{"thirdIdList":["bad"]}"#.to_owned());
    let mut replies = crate::harness::all(calls.into_iter().map(|body| app.caller().lookup(body))).await;
    let refused = replies.pop().unwrap();
    assert_eq!(refused.json()["code"], "400001", "the upstream's own words: {}", refused.text());
    assert!(replies.iter().all(|reply| reply.records().len() == 1));
    let spent = app.upstream_lookups().len();
    assert!(spent <= 14, "{spent} requests");
    // Within the minute it rides alone.
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(100).id);
    let both = [r#"{"thirdIdList":["bad"]}"#.to_owned(), body];
    let replies = crate::harness::all(both.map(|body| app.caller().lookup(body))).await;
    assert_eq!(replies[0].json()["code"], "400001");
    assert_eq!(replies[1].records().len(), 1);
    assert_eq!(app.upstream_lookups().len(), spent + 2);
    app.finish().await;
}
