//! Attribution, one rule at a time.

use std::sync::Arc;

use super::*;
use crate::key::Scope;

fn id(kind: u8, value: &str) -> Id {
    let value = match kind {
        0 => Value::Int(value.parse().expect("a number")),
        _ => Value::Text(value.into()),
    };
    Id { kind: Kind(kind), value }
}

fn ask(ids: &[(u8, &str)], sent: &str) -> Ask {
    let scope = Arc::new(Scope::new(0, vec![], "{}", sent));
    Ask::new(scope, ids.iter().map(|(kind, value)| id(*kind, value)).collect())
}

fn answered(ids: &[(u8, &str)], records: &[&str]) -> Success {
    let body = format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{}]}}"#, records.join(","));
    match read(&Shape::audience_detail(), &ask(ids, ""), StatusCode::OK, body.as_bytes()) {
        Meaning::Success(success) => success,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_carries_the_scope_as_given_and_a_list_per_kind() {
    let ask = ask(&[(0, "9007199254740993"), (2, "1\"3"), (0, "-5"), (2, "电话")], r#""companyId":"31""#);
    let body = String::from_utf8(request_body(&Shape::audience_detail(), &ask)).expect("text");
    assert_eq!(body, r#"{"companyId":"31","audienceUserIdList":[9007199254740993,-5],"phoneList":["1\"3","电话"]}"#);
}

#[test]
fn an_id_is_known_as_a_number_and_as_a_string() {
    let records = [r#"{"audienceUserId":"9007199254740993"}"#, r#"{"audienceUserId":2}"#];
    let success = answered(&[(0, "9007199254740993"), (0, "2")], &records);
    assert_eq!(success.of, [[0], [1]]);
    assert!(!success.unmatched);
    // Nobody may ask like that, either.
    assert!(answered(&[(0, "5"), (0, "6")], &[r#"{"audienceUserId":"+5"}"#]).records.is_empty());
}

#[test]
fn a_customer_is_reached_by_every_phone_of_its_list() {
    let record = r#"{"audienceUserId":1,"phone":"13","phoneList":[{"phone":"14"},{"isVerify":"1"},{"phone":15}]}"#;
    let success = answered(&[(2, "14"), (2, "15"), (2, "13"), (2, "16")], &[record]);
    assert_eq!(success.of, [vec![0], vec![0], vec![0], vec![]]);
    assert_eq!(success.records[0].ids.len(), 4);
    assert_eq!(success.records[0].identity, Some(0));
}

#[test]
fn two_customers_behind_one_phone_are_both_its_answer_in_the_upstreams_order() {
    let records = [r#"{"audienceUserId":2,"phone":"13"}"#, r#"{"audienceUserId":1,"phone":"13"}"#];
    assert_eq!(answered(&[(2, "13")], &records).of, [[0, 1]]);
}

#[test]
fn a_record_that_two_keys_reach_is_kept_once_even_if_it_came_twice() {
    let record = r#"{"audienceUserId":1,"thirdId":"t"}"#;
    let success = answered(&[(0, "1"), (1, "t")], &[record, record]);
    assert_eq!(success.records.len(), 1);
    assert_eq!(success.of, [[0], [0]]);
    assert_eq!(success.exclusive, [false, false, false]);
}

#[test]
fn something_else_under_the_same_id_is_not_lost() {
    let success = answered(&[(0, "1")], &[r#"{"audienceUserId":1,"a":1}"#, r#"{"audienceUserId":1,"a":2}"#]);
    assert_eq!(success.of, [[0, 1]]);
    assert_eq!(success.records[1].identity, None);
}

#[test]
fn a_record_that_comes_again_after_something_else_under_its_id_is_kept_once() {
    let (one, other) = (r#"{"audienceUserId":1,"a":1}"#, r#"{"audienceUserId":1,"a":2}"#);
    assert_eq!(answered(&[(0, "1")], &[one, other, one, other]).of, [[0, 1]]);
}

// Who compares each with each needs most of a minute for it.
#[test]
fn a_customer_may_carry_more_phones_than_anybody_has() {
    let phones: Vec<_> = (0..40_000).map(|phone| format!(r#"{{"phone":"{phone}"}}"#)).collect();
    let record = format!(r#"{{"audienceUserId":1,"phoneList":[{}]}}"#, phones.join(","));
    assert_eq!(answered(&[(2, "39999")], &[&record]).records[0].ids.len(), 40_001);
}

#[test]
fn a_record_that_no_key_explains_is_given_to_nobody() {
    let records = [r#"{"audienceUserId":1,"phone":"+8613"}"#, r#"{"audienceUserId":2,"phone":"14"}"#];
    let success = answered(&[(2, "13"), (2, "14")], &records);
    assert_eq!(success.of, [vec![], vec![0]]);
    assert!(success.unmatched);
}

#[test]
fn a_key_asked_alone_has_for_its_answer_what_came() {
    let success = answered(&[(2, "13")], &[r#"{"audienceUserId":1,"phone":"+8613"}"#]);
    assert_eq!(success.of, [[0]]);
    assert!(!success.unmatched);
    assert!(success.records[0].ids.contains(&id(2, "13")), "it is reached by what it was asked under");
}

#[test]
fn a_key_asked_alone_takes_only_its_own_record_where_there_is_one() {
    let success = answered(&[(0, "1")], &[r#"{"audienceUserId":7}"#, r#"{"audienceUserId":1}"#]);
    assert_eq!(success.records.len(), 1);
    assert_eq!(&*success.records[0].json, br#"{"audienceUserId":1}"#);
}

#[test]
fn a_record_that_only_one_list_explains_is_evidence_for_that_list() {
    let records = [r#"{"audienceUserId":1,"phone":"13"}"#, r#"{"audienceUserId":2,"phone":"14"}"#];
    assert_eq!(answered(&[(0, "1"), (2, "13"), (2, "14")], &records).exclusive, [false, false, true]);
}

#[test]
fn a_record_that_may_carry_an_open_key_in_another_spelling_is_no_evidence() {
    let record = r#"{"audienceUserId":1,"phone":"+8613"}"#;
    assert_eq!(answered(&[(0, "1"), (2, "13")], &[record]).exclusive, [false, false, false]);
    let without_phone = r#"{"audienceUserId":1}"#;
    assert_eq!(answered(&[(0, "1"), (2, "13")], &[without_phone]).exclusive, [true, false, false]);
}

#[test]
fn the_bytes_of_a_record_are_kept() {
    let record = "{ \"audienceUserId\" : 1 ,\"n\":1.0e+3,\"s\":\"\\u4e2d\\/\" ,\"z\":[ ],\"a\":{}}";
    let success = answered(&[(0, "1")], &[record]);
    assert_eq!(&*success.records[0].json, record.as_bytes());
}

#[test]
fn an_object_of_no_answer_is_read_for_what_it_carries() {
    let carried = |text: &str| carried_by(&Shape::audience_detail(), serde_json::from_str(text).expect("JSON"));
    let item = r#"{"audienceUserId":"7","phone":"13","phoneList":[{"phone":"14"}],"thirdId":"","openid":"o"}"#;
    assert!(carried(item) == Some(vec![id(0, "7"), id(2, "13"), id(2, "14")]));
    assert!(carried("{}") == Some(vec![]));
    assert!(carried("[7]").is_none() && carried("null").is_none());
}
