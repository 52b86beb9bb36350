//! Tokens, ids, writes, and what is passed through.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::advance;

use super::{Bench, DETAIL, post};
use crate::{clock, simulator::Outcome};

const TOKEN: &str = "/app/getOrgAccessToken?instanceAppid=app&instanceSecrect=demo-secret";
const IMPORT: &str = "/api/open/audience/info/batchAdd";

#[tokio::test(start_paused = true)]
async fn an_issued_token_lives_its_time_and_its_successor_sees_the_same_records() {
    let mut bench = Bench::unlimited(|config| config.accept_any_token = false);
    let body = bench.by_id(&[1]);
    let answer = bench.get(TOKEN).await.json();
    assert_eq!(answer["data"]["expire"], 7200);
    let first = answer["data"]["orgAccessToken"].as_str().expect("a token").to_owned();
    let before = bench.send(post(DETAIL, &first, &body)).await.expect("an answer");
    let id = bench.sim.customer(1).id.to_string();
    assert_eq!(before.records(), bench.sim.expected(&first, "", "audienceUserIdList", &id));
    advance(Duration::from_secs(7200)).await;
    assert_eq!(bench.send(post(DETAIL, &first, &body)).await.expect("an answer").code(), "100200");
    bench.sim.reconfigure(|config| config.token_expire_zero = true);
    let answer = bench.get(TOKEN).await.json();
    assert_eq!(answer["data"]["expire"], 0);
    let second = answer["data"]["orgAccessToken"].as_str().expect("a token").to_owned();
    let after = bench.send(post(DETAIL, &second, &body)).await.expect("an answer");
    assert_eq!(after.body, before.body);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_gets_no_token() {
    let mut bench = Bench::unlimited(|config| config.instance_secret = Some("demo-secret".to_owned()));
    for query in ["", "?instanceAppid=app&instanceSecrect=wrong", "?instanceSecrect=demo-secret"] {
        assert_eq!(bench.get(&format!("/api/open/app/getOrgAccessToken{query}")).await.code(), "100100", "{query}");
    }
    assert_eq!(bench.sim.arrivals()[0].outcome, Outcome::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn ids_are_paged_in_ascending_order_to_the_end() {
    let mut bench = Bench::unlimited(|_| {});
    let created = json!({"data": [{"thirdId": "new"}]});
    bench.post(IMPORT, &created).await;
    let (mut last, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let path = format!("/api/audience/user/id/list?audienceUserId={last}&size=300");
        let page = bench.get(&path).await.json();
        let ids = page["data"]["audienceUserIdList"].as_array().expect("a list").clone();
        let Some(end) = ids.last() else { break };
        last = end.as_str().expect("a string").to_owned();
        seen.extend(ids.iter().map(|id| id.as_str().and_then(|id| id.parse::<i64>().ok()).expect("an id")));
    }
    assert_eq!(seen.len(), 1001);
    assert!(seen.is_sorted_by(|one, next| one < next));
    assert_eq!(seen[1], bench.sim.customer(1).id);
}

#[tokio::test(start_paused = true)]
async fn a_million_customers_cost_nothing_until_they_are_asked_for() {
    let mut bench = Bench::unlimited(|config| config.customers = 1_000_000);
    let last = bench.sim.customer(999_998);
    let body = json!({"phoneList": last.phones, "thirdIdList": [last.third_id]});
    assert_eq!(bench.post(DETAIL, &body).await.records(), [bench.record(999_998)]);
}

#[tokio::test(start_paused = true)]
async fn a_write_changes_the_customer_for_its_whole_company() {
    let mut bench = Bench::unlimited(|_| {});
    let customer = bench.sim.customer(1);
    let old = bench.record(1);
    let item = json!({"audienceUserId": customer.id.to_string(), "thirdId": "new/id", "phone": "17700000000",
        "realName": "新名", "extra": {"a": 1.50}});
    let body = json!({"publicParams": {"companyId": "9"}, "data": [item]});
    assert_eq!(bench.send(post(IMPORT, "writer", &body)).await.expect("an answer").code(), "200");
    assert_eq!(bench.record(1), old, "another company's customer");

    let mut look = async |token: &str, list: &str, value: &str| {
        let body = json!({"companyId": "9", list: [value]});
        bench.send(post(DETAIL, token, &body)).await.expect("an answer").json()["data"].clone()
    };
    for token in ["writer", "reader"] {
        let record = &look(token, "thirdIdList", "new/id").await[0];
        assert_eq!(record["audienceUserId"], customer.id);
        assert_eq!((&record["realName"], &record["extra"]), (&json!("新名"), &json!({"a": 1.5})));
        assert_eq!(record["phoneList"][0]["phone"], "17700000000");
        assert_eq!(look(token, "phoneList", "17700000000").await[0], *record);
        let old_third_id = customer.third_id.as_deref().expect("a third id");
        assert_eq!(look(token, "thirdIdList", old_third_id).await, json!([]));
        assert_eq!(look(token, "phoneList", &customer.phones[0]).await.as_array().map(Vec::len), Some(1));
        assert_eq!(look(token, "phoneList", &customer.phones[1]).await[0], *record);
    }
}

#[tokio::test(start_paused = true)]
async fn an_import_creates_whom_it_does_not_find_and_every_write_is_a_new_version() {
    let mut bench = Bench::unlimited(|_| {});
    let body = json!({"data": [{"thirdId": "fresh", "phone": "17711112222"}, {"phone": "17711112222", "sex": 2}]});
    let seen = bench.post("/api/integrate/audience/info/batchAdd", &body).await.json();
    let ids = &seen["data"]["audienceUserIdList"];
    assert_eq!(ids[0], ids[1]);
    let first = bench.post(DETAIL, &json!({"thirdIdList": ["fresh"]})).await.records();
    let parsed: Value = serde_json::from_str(&first[0]).expect("JSON");
    assert_eq!((&parsed["thirdId"], &parsed["sex"]), (&json!("fresh"), &json!(2)));
    bench.post(IMPORT, &json!({"data": [{"thirdId": "fresh"}]})).await;
    assert_ne!(bench.post(DETAIL, &json!({"thirdIdList": ["fresh"]})).await.records(), first);
    let many = vec![json!({"thirdId": "x"}); 501];
    assert_eq!(bench.post(IMPORT, &json!({"data": many})).await.code(), "400003");

    let before = bench.record(2);
    bench.sim.touch(2);
    assert_ne!(bench.record(2), before);
    let phone = bench.sim.customer(2).phones[0].clone();
    let found = bench.post("/api/audience/getInfoByPhoneAndOpenid", &json!({"phone": phone})).await;
    assert_eq!(found.records(), [bench.record(2)]);
}

#[tokio::test(start_paused = true)]
async fn an_echo_shows_what_arrived_and_raw_bytes_come_back() {
    let mut bench = Bench::unlimited(|_| {});
    let request = Request::put("/echo/a%2Fb?x=1&y").header("x-mine", "1").body(Full::from("body")).expect("a request");
    let seen = bench.send(request).await.expect("an answer");
    let said = seen.json();
    assert_eq!(
        (&said["method"], &said["path"], &said["query"]),
        (&json!("PUT"), &json!("/echo/a%2Fb"), &json!("x=1&y"))
    );
    assert_eq!((&said["body"], &said["bodyBytes"]), (&json!("body"), &json!(4)));
    assert!(said["headers"].as_array().expect("a list").contains(&json!(["x-mine", "1"])));
    assert_eq!(seen.headers.get_all("set-cookie").iter().count(), 2);

    let bytes: Bytes = (0..=255).cycle().take(300_000).collect();
    let request = Request::post("/echo/raw").body(Full::from(bytes.clone())).expect("a request");
    assert_eq!(bench.send(request).await.expect("an answer").body, bytes);
    assert_eq!(bench.get("/bytes?n=100001").await.body.len(), 100_001);
    let start = clock::now();
    assert_eq!(bench.get("/slow?ms=1000").await.body.len(), 50);
    assert!(clock::now() - start >= Duration::from_secs(1));
    assert_eq!(bench.get("/api/audience/getTagList").await.records().len(), 95);
}

#[tokio::test(start_paused = true)]
async fn a_company_with_quotes_is_answered_in_json() {
    let mut bench = Bench::unlimited(|_| {});
    for company in [json!(r#"a"b\c"#), json!({"a": 1})] {
        for path in [DETAIL, "/api/audience/user/tag/batchlist"] {
            let mut body = bench.by_id(&[1]);
            body["companyId"] = company.clone();
            let org = bench.post(path, &body).await.json()["data"][0]["orgId"].clone();
            assert_eq!(org, company.as_str().map_or_else(|| company.to_string(), str::to_owned));
        }
    }
}
