//! One test for each thing that nobody knows about the real upstream.

use serde_json::{Value, json};

use super::{Bench, DETAIL, post};
use crate::simulator::{DataOrder, EmptyData, EnvelopeSpelling, IdSpelling, MixedLists, PhoneSpelling};

#[tokio::test(start_paused = true)]
async fn records_are_what_the_model_expects_byte_for_byte() {
    let indices: Vec<u64> = (0..300).collect();
    let mut bench = Bench::unlimited(|_| {});
    let seen = bench.lookup(&indices).await;
    let expected: Vec<String> = indices.iter().map(|index| bench.record(*index)).collect();
    assert_eq!(seen.records(), expected);
    assert!(seen.body.starts_with(br#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":["#));

    let mut same = Bench::unlimited(|_| {});
    assert_eq!(same.lookup(&indices).await.body, seen.body);
    let mut other = Bench::unlimited(|config| config.seed = 2);
    assert_ne!(other.lookup(&indices).await.body, seen.body);

    let sizes = || expected.iter().map(String::len);
    assert!(sizes().all(|size| (400..4096).contains(&size)), "{:?} {:?}", sizes().min(), sizes().max());
    let all = expected.concat();
    for sample in [r"\/", r"\u5ba2", r"\ud83d\ude00", "🐟", "1.0", "1e3", "  两个空格  ", r#""sex" : "#] {
        assert!(all.contains(sample), "{sample}");
    }
    let parsed: Vec<Value> = expected.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    for (record, index) in parsed.iter().zip(0..) {
        let customer = bench.sim.customer(index);
        assert_eq!(record["audienceUserId"], customer.id);
        assert_eq!(record.get("thirdId").and_then(Value::as_str), customer.third_id.as_deref());
        assert_eq!(record.get("phone").is_some() || record.get("phoneList").is_some(), !customer.phones.is_empty());
    }
}

#[test]
fn the_customers_of_special_use_are_what_their_doc_says() {
    let bench = Bench::new(|_| {});
    let record = |index| serde_json::from_str::<Value>(&bench.record(index)).expect("JSON");
    let customer = |index| bench.sim.customer(index);
    assert_eq!(customer(3).third_id, None);
    assert!(bench.record(5).contains(r#""thirdId":"C\/5\/"#) || bench.record(5).contains(r#""thirdId" : "C\/5\/"#));
    assert!(bench.record(6).contains(r"\u5ba2-6-"));
    for (index, phones) in [(9, 0), (2, 1), (13, 2), (5, 3)] {
        assert_eq!(customer(index).phones.len(), phones, "{index}");
    }
    assert_eq!(customer(0).phones[1], customer(1).phones[0]);
    assert!(record(4).get("phone").is_none() && record(4).get("phoneList").is_some());
    assert!(record(8).get("phone").is_some() && record(8).get("phoneList").is_none());
}

#[test]
fn a_record_tells_token_company_and_instance_apart() {
    let bench = Bench::new(|_| {});
    let id = bench.sim.customer(7).id.to_string();
    let scopes = [("", "", ""), ("a", "", ""), ("", "a", ""), ("", "", "a"), ("a", "a", ""), ("a", "", "a")];
    let records: std::collections::HashSet<_> =
        scopes.iter().map(|scope| bench.sim.expected_for(*scope, "audienceUserIdList", &id)).collect();
    assert_eq!(records.len(), scopes.len());
    assert_eq!(bench.sim.expected("t", "c", "phoneList", "nobody"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_shared_phone_brings_both_customers() {
    let mut bench = Bench::unlimited(|_| {});
    let phone = bench.sim.customer(51).phones[0].clone();
    assert_eq!(bench.sim.customer(50).phones.last(), Some(&phone));
    let seen = bench.post(DETAIL, &json!({"phoneList": [phone]})).await;
    assert_eq!(seen.records(), [bench.record(50), bench.record(51)]);
}

#[tokio::test(start_paused = true)]
async fn mixed_lists_mean_what_they_are_told_to() {
    let mut bench = Bench::unlimited(|_| {});
    let [one, two] = [1, 2].map(|index| bench.sim.customer(index));
    let body = json!({"audienceUserIdList": [one.id, two.id], "thirdIdList": [two.third_id],
        "phoneList": [two.phones[0], bench.sim.customer(4).phones[0]]});
    for (mixed, expected) in
        [(MixedLists::Union, vec![1, 2, 4]), (MixedLists::First, vec![1, 2]), (MixedLists::Intersection, vec![2])]
    {
        bench.sim.reconfigure(|config| config.mixed_lists = mixed);
        let expected: Vec<String> = expected.into_iter().map(|index| bench.record(index)).collect();
        assert_eq!(bench.post(DETAIL, &body).await.records(), expected, "{mixed:?}");
    }
    bench.sim.reconfigure(|config| {
        config.mixed_lists = MixedLists::Union;
        config.repeat_matches = true;
    });
    assert_eq!(bench.post(DETAIL, &body).await.records().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn data_comes_in_the_order_it_is_told_to() {
    let mut bench = Bench::unlimited(|_| {});
    let indices: Vec<u64> = (0..40).collect();
    let asked: Vec<String> = indices.iter().map(|index| bench.record(*index)).collect();
    bench.sim.reconfigure(|config| config.data_order = DataOrder::Reversed);
    let mut reversed = bench.lookup(&indices).await.records();
    reversed.reverse();
    assert_eq!(reversed, asked);
    bench.sim.reconfigure(|config| config.data_order = DataOrder::Shuffled);
    let mut shuffled = bench.lookup(&indices).await.records();
    assert_ne!(shuffled, asked);
    shuffled.sort();
    let mut sorted = asked;
    sorted.sort();
    assert_eq!(shuffled, sorted);
}

#[tokio::test(start_paused = true)]
async fn too_many_keys_and_a_bad_key_fail_the_whole_request() {
    let mut bench = Bench::unlimited(|config| {
        config.max_keys = 2;
        config.rejection_status = 400;
        config.bad_keys = vec!["poison".to_owned()];
    });
    let seen = bench.lookup(&[1, 2, 3]).await;
    assert_eq!((seen.status.as_u16(), seen.code().as_str()), (400, "400003"));
    let seen = bench.post(DETAIL, &json!({"thirdIdList": ["fine", "poison"]})).await;
    assert_eq!((seen.status.as_u16(), seen.code().as_str()), (400, "400001"));
    for body in [
        json!({}),
        json!([]),
        json!({"phoneList": []}),
        json!({"phoneList": [1]}),
        json!({"audienceUserIdList": [1.5]}),
    ] {
        assert_eq!(bench.post(DETAIL, &body).await.code(), "400000", "{body}");
    }
    assert_eq!(bench.lookup(&[1, 2]).await.code(), "200");
}

#[tokio::test(start_paused = true)]
async fn ids_and_phones_are_spelled_as_they_are_told_to() {
    let mut bench = Bench::unlimited(|config| config.id_spelling = IdSpelling::String);
    let customer = bench.sim.customer(2);
    let phone = customer.phones[0].clone();
    let spaced = format!("{} {} {}", &phone[..3], &phone[3..7], &phone[7..]);
    let masked = format!("{}****{}", &phone[..3], &phone[7..]);
    for (spelling, expected) in [
        (PhoneSpelling::Stored, phone.clone()),
        (PhoneSpelling::Prefixed, format!("+86{phone}")),
        (PhoneSpelling::Spaced, spaced.clone()),
        (PhoneSpelling::Masked, masked),
    ] {
        bench.sim.reconfigure(|config| config.phone_spelling = spelling);
        let record = &bench.post(DETAIL, &json!({"phoneList": [phone]})).await.json()["data"][0];
        assert_eq!(record["phoneList"][0]["phone"], expected);
        assert_eq!(record["audienceUserId"], customer.id.to_string());
    }
    assert!(bench.post(DETAIL, &json!({"phoneList": [spaced]})).await.records().is_empty());
    bench.sim.reconfigure(|config| config.lenient_phones = true);
    for asked in [spaced, format!("+86{phone}")] {
        assert_eq!(bench.post(DETAIL, &json!({"phoneList": [asked]})).await.records().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unasked_record_may_slip_in_and_nothing_may_be_null_or_absent() {
    let mut bench = Bench::unlimited(|config| config.unasked = true);
    let records = bench.lookup(&[1]).await.records();
    assert_eq!(records.len(), 2);
    assert!(records.contains(&bench.record(1)));
    for (empty, expected) in
        [(EmptyData::Array, Some(json!([]))), (EmptyData::Null, Some(Value::Null)), (EmptyData::Absent, None)]
    {
        bench.sim.reconfigure(|config| {
            config.unasked = false;
            config.empty_data = empty;
        });
        let seen = bench.post(DETAIL, &json!({"thirdIdList": ["nobody"]})).await.json();
        assert_eq!(seen.get("data"), expected.as_ref());
        assert_eq!(seen["code"], "200");
    }
}

#[tokio::test(start_paused = true)]
async fn each_envelope_is_spelled_as_its_page_shows_it() {
    let mut bench = Bench::unlimited(|_| {});
    for (spelling, start, end) in [
        (EnvelopeSpelling::Success, r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":["#, "]}"),
        (EnvelopeSpelling::Sibling, r#"{"code":"200","data":["#, r#"],"errorCode":"0","msg":"操作成功"}"#),
        (EnvelopeSpelling::Example, r#"{"code":"28930","errorCode":"28930","msg":"l1j777","data":["#, "]}"),
    ] {
        bench.sim.reconfigure(|config| config.envelope = spelling);
        let seen = bench.lookup(&[1]).await;
        assert!(seen.body.starts_with(start.as_bytes()) && seen.body.ends_with(end.as_bytes()), "{spelling:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_and_judged_as_configured() {
    let mut bench = Bench::unlimited(|config| config.require_token = true);
    let body = bench.by_id(&[1]);
    let mut code = async |token: &str| bench.send(post(DETAIL, token, &body)).await.expect("an answer").code();
    assert_eq!(code("").await, "100200");
    assert_eq!(code("any").await, "200");
    bench.sim.expire_token("any");
    let mut code = async |token: &str| bench.send(post(DETAIL, token, &body)).await.expect("an answer").code();
    assert_eq!(code("any").await, "100200");
    assert_eq!(code("other").await, "200");
}
