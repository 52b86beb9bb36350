//! A lookup's answer: bytes, order, duplicates, scope, headers.

use std::time::Duration;

use http::Method;

use crate::harness::{Setup, all};

#[tokio::test(start_paused = true)]
async fn a_second_lookup_is_a_hit_with_the_same_bytes() {
    let app = Setup::new().start();
    let id = app.simulator.customer(5).id;
    let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
    let first = app.lookup(&body).await;
    assert_eq!(first.records(), app.simulator.expected("", "", "audienceUserIdList", &id.to_string()));
    assert!(first.header("cache-status").starts_with("audience-gateway; fwd=miss"), "{:?}", first.headers);
    let second = app.lookup(&body).await;
    assert_eq!(second.body, first.body);
    assert!(second.header("cache-status").starts_with("audience-gateway; hit"), "{:?}", second.headers);
    assert_eq!(app.upstream_lookups().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn age_is_the_time_since_the_oldest_record_was_fetched() {
    let app = Setup::new().start();
    let (old, new) = (app.simulator.customer(1).id, app.simulator.customer(2).id);
    assert_eq!(app.lookup(&format!(r#"{{"audienceUserIdList":[{old}]}}"#)).await.header("age"), "0");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{new},{old}]}}"#)).await;
    assert_eq!(reply.header("age"), "30");
    assert!(reply.header("cache-status").starts_with("audience-gateway; fwd=partial; "), "{:?}", reply.headers);
    assert!(reply.header("cache-status").ends_with(r#"detail="keys=2 hit=1 stale=0 negative=0 miss=1""#));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn records_come_in_the_order_of_the_lists_and_each_once() {
    let app = Setup::new().start();
    let (one, two, three) = (app.simulator.customer(2), app.simulator.customer(5), app.simulator.customer(13));
    let body = format!(
        r#"{{"phoneList":["{}","{}"],"thirdIdList":["{}"],"audienceUserIdList":["{}",{}]}}"#,
        three.phones[0],
        one.phones[0],
        two.third_id.as_deref().unwrap(),
        one.id,
        one.id,
    );
    let expected = |list: &str, value: &str| app.simulator.expected("", "", list, value);
    let wanted = [
        expected("audienceUserIdList", &one.id.to_string()),
        expected("thirdIdList", two.third_id.as_deref().unwrap()),
        expected("phoneList", &three.phones[0]),
    ]
    .concat();
    for _ in 0..2 {
        let reply = app.lookup(&body).await;
        assert_eq!(reply.records(), wanted);
    }
    assert_eq!(app.upstream_lookups()[0].key_count, 4, "duplicates count once");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_customers_behind_one_phone_are_both_its_answer() {
    let app = Setup::new().start();
    let phones = [app.simulator.customer(0).phones, app.simulator.customer(1).phones];
    let shared = phones[0].iter().find(|phone| phones[1].contains(phone)).expect("customers 0 and 1 share one");
    for _ in 0..2 {
        let reply = app.lookup(&format!(r#"{{"phoneList":["{shared}"]}}"#)).await;
        assert_eq!(reply.records().len(), 2);
        assert_eq!(reply.records(), app.simulator.expected("", "", "phoneList", shared));
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_behind_a_key_is_an_answer_too_and_is_asked_again_after_negative_ttl() {
    let app = Setup::new().config("cache.negative_ttl = \"60s\"").start();
    let body = r#"{"thirdIdList":["nobody"]}"#;
    assert!(app.lookup(body).await.records().is_empty());
    let again = app.lookup(body).await;
    assert!(again.header("cache-status").contains("hit; detail=\"keys=1 hit=0 stale=0 negative=1 miss=0\""));
    assert_eq!(app.upstream_lookups().len(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(app.lookup(body).await.records().is_empty());
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_envelope_is_spelled_as_the_upstream_last_spelled_it() {
    let app = Setup::new()
        .upstream(|upstream| upstream.envelope = audience_gateway::simulator::EnvelopeSpelling::Sibling)
        .start();
    let id = app.simulator.customer(2).id;
    let reply = app.lookup(&format!(r#"{{"audienceUserIdList":[{id}]}}"#)).await;
    assert!(
        reply.text().starts_with(r#"{"code":"200","errorCode":"0","msg":"操作成功","data":[{"#),
        "{}",
        reply.text()
    );
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_spelling_of_the_path_is_the_lookup() {
    let app = Setup::new().start();
    let id = app.simulator.customer(2).id;
    let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
    let paths = [
        "/api/audience/detail",
        "/api/open/api/audience/detail",
        "/api/audience/detail/",
        "/api/audience/detail?x=1",
        "/API/Audience/DETAIL",
        "/api/audience/d%65tail",
        "//api//audience/./detail",
        "/api/open/x/../api/audience/detail;v=1",
    ];
    for path in paths {
        assert_eq!(app.send(Method::POST, path, &body, &[]).await.records().len(), 1, "{path}");
    }
    assert_eq!(app.upstream_lookups().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn each_scope_gets_its_own_records_and_no_batch_mixes_two() {
    let app = Setup::new().start();
    let mut calls = Vec::new();
    let ids = [2, 5, 13].map(|index| app.simulator.customer(index).id.to_string());
    for token in ["", "one", "two"] {
        for company in ["", "31", "32"] {
            for instance in ["", "a"] {
                calls.push((token, company, instance));
            }
        }
    }
    let call = |(token, company, instance): (&'static str, &'static str, &'static str)| {
        let caller = app.caller();
        let mut body = format!(r#"{{"audienceUserIdList":[{}]"#, ids.join(","));
        for (name, value) in [("companyId", company), ("instanceAppid", instance)] {
            if !value.is_empty() {
                body.push_str(&format!(r#","{name}":"{value}""#));
            }
        }
        body.push('}');
        async move {
            let headers: &[_] = if token.is_empty() { &[] } else { &[("x-token", token)] };
            caller.lookup_with(body, headers).await
        }
    };
    for _round in ["fetched", "cached"] {
        let replies = all(calls.iter().copied().map(call)).await;
        for (scope, reply) in calls.iter().zip(replies) {
            let expected = ids.iter().flat_map(|id| app.simulator.expected_for(*scope, "audienceUserIdList", id));
            assert_eq!(reply.records(), expected.collect::<Vec<_>>(), "{scope:?}");
        }
    }
    assert_eq!(app.upstream_lookups().len(), 18, "one request for each scope");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn scopes_are_compared_as_canonical_json_and_sent_as_given() {
    let app = Setup::new().start();
    let id = app.simulator.customer(2).id;
    let bodies = [
        format!(r#"{{"audienceUserIdList":[{id}],"filter":{{"b":1,"a":[2, 3]}},"companyId":null}}"#),
        format!(r#"{{"filter":{{ "a":[2,3],"b" : 1}},"audienceUserIdList":["{id}"]}}"#),
    ];
    for body in &bodies {
        assert_eq!(app.lookup(body).await.records().len(), 1);
    }
    assert_eq!(app.upstream_lookups().len(), 1);
    let other = format!(r#"{{"audienceUserIdList":[{id}],"filter":{{"b":1,"a":[3,2]}}}}"#);
    app.lookup(&other).await;
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_fetched_under_a_phone_answers_its_id_and_third_id() {
    let app = Setup::new().start();
    let customer = app.simulator.customer(2);
    let record = app.lookup(&format!(r#"{{"phoneList":["{}"]}}"#, customer.phones[0])).await.records();
    for body in [
        format!(r#"{{"audienceUserIdList":[{}]}}"#, customer.id),
        format!(r#"{{"thirdIdList":["{}"]}}"#, customer.third_id.as_deref().unwrap()),
    ] {
        let reply = app.lookup(&body).await;
        assert_eq!(reply.records(), record);
        assert!(reply.header("cache-status").contains("; hit"));
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_with_no_store_is_not_kept_unless_somebody_else_asked_too() {
    let app = Setup::new().start();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    let no_store = [("cache-control", "no-store")];
    assert_eq!(app.lookup_with(&body, &no_store).await.records().len(), 1);
    assert_eq!(app.metric("gateway_cache_entries").await, 0.0);
    let (mine, other) = tokio::join!(app.lookup_with(&body, &no_store), app.lookup(&body));
    assert_eq!(mine.body, other.body);
    assert!(app.lookup_with(&body, &no_store).await.header("cache-status").contains("; hit"));
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_leaves_at_once_and_is_refreshed_behind() {
    let app = Setup::new().config("cache.ttl = \"10s\"").start();
    let id = app.simulator.customer(2).id;
    let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
    let old = app.lookup(&body).await.records();
    app.simulator.touch(2);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let stale = app.lookup(&body).await;
    assert_eq!(stale.records(), old);
    assert_eq!(stale.header("age"), "11");
    assert!(stale.header("cache-status").contains("; hit; detail=\"keys=1 hit=0 stale=1"), "{:?}", stale.headers);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fresh = app.lookup(&body).await;
    assert_ne!(fresh.records(), old);
    assert_eq!(app.upstream_lookups().len(), 2);
    app.finish().await;
}
