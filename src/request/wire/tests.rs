//! The contract's sentences about bodies, one test each.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::key::{Kind, Value};

fn decoded(body: impl AsRef<[u8]>) -> Result<Decoded, Refusal> {
    decode(&Shape::audience_detail(), 0, vec![], 1000, body.as_ref())
}

/// Kinds and values, a letter for the type in front.
fn keys(body: impl AsRef<[u8]>) -> Vec<(u8, String)> {
    let ids = decoded(body).expect("a lookup").ids;
    ids.into_iter().map(|Id { kind: Kind(kind), value }| (kind, written(&value))).collect()
}

fn written(value: &Value) -> String {
    match value {
        Value::Int(number) => format!("i{number}"),
        Value::Text(text) => format!("t{text}"),
    }
}

fn values(body: &str) -> Vec<String> {
    keys(body).into_iter().map(|(_, value)| value).collect()
}

fn sentence(body: impl AsRef<[u8]>) -> String {
    match decoded(body) {
        Err(Refusal::InvalidRequest(sentence)) => sentence.into_owned(),
        other => panic!("{other:?}"),
    }
}

fn scope(body: &str) -> Arc<Scope> {
    decoded(body).expect("a lookup").scope
}

#[test]
fn keys_come_in_the_shapes_order_of_lists_and_in_the_given_order_within_one() {
    let body = r#"{"phoneList":["2","1"],"companyId":"31","audienceUserIdList":[9,3],"thirdIdList":["x"]}"#;
    let expected = [(0, "i9"), (0, "i3"), (1, "tx"), (2, "t2"), (2, "t1")];
    assert_eq!(keys(body), expected.map(|(kind, value)| (kind, value.to_owned())));
}

#[test]
fn an_id_is_the_same_as_a_number_and_as_a_string_of_digits() {
    assert_eq!(values(r#"{"audienceUserIdList":[747,"747","0747"," 747\n",-5,"-5","-0",-0]}"#), ["i747", "i-5", "i0"]);
    let extremes = r#"{"audienceUserIdList":[9223372036854775807,"-9223372036854775808",9007199254740993]}"#;
    assert_eq!(values(extremes), ["i9223372036854775807", "i-9223372036854775808", "i9007199254740993"]);
}

#[test]
fn what_is_no_id_is_refused_by_the_lists_name_and_without_the_value() {
    let odd =
        ["747.0", "1e3", "\"abc\"", "\"+7\"", "true", "9223372036854775808", "\"7 4\"", "\"-\"", "[]", "{}", "\"٧\""];
    for odd in odd {
        let sentence = sentence(format!(r#"{{"audienceUserIdList":[1,{odd}]}}"#));
        assert_eq!(
            sentence, "audienceUserIdList must be an array of ids: 64-bit integers, or strings of digits",
            "{odd}"
        );
    }
}

#[test]
fn a_string_key_is_kept_exactly_and_is_a_string() {
    assert_eq!(values(r#"{"phoneList":[" 13","13","+8613","\u7535","电"]}"#), ["t 13", "t13", "t+8613", "t电"]);
    for odd in ["13", "[\"13\"]", "true", "{}", "-1"] {
        assert_eq!(sentence(format!(r#"{{"phoneList":[{odd}]}}"#)), "phoneList must be an array of strings");
    }
}

#[test]
fn a_list_is_an_array_or_null() {
    for odd in ["\"13\"", "13", "{}", "false"] {
        assert_eq!(sentence(format!(r#"{{"phoneList":{odd}}}"#)), "phoneList must be an array of strings");
    }
    assert_eq!(values(r#"{"phoneList":null,"thirdIdList":["t"]}"#), ["tt"]);
}

#[test]
fn nulls_blanks_and_duplicates_in_a_list_are_ignored() {
    assert_eq!(values(r#"{"phoneList":["",null," ","\t\u00a0","1","1"],"audienceUserIdList":["",null]}"#), ["t1"]);
}

#[test]
fn a_long_list_is_deduplicated_like_a_short_one() {
    let members: Vec<_> = (0..500).map(|number| format!("{}", number % 90)).collect();
    let distinct: Vec<_> = (0..90).map(|number| format!("i{number}")).collect();
    assert_eq!(values(&format!(r#"{{"audienceUserIdList":[{}]}}"#, members.join(","))), distinct);
}

#[test]
fn half_a_surrogate_pair_is_refused_wherever_they_stand() {
    for odd in [r#""\ud83d""#, r#""\ude00 ""#] {
        let named = sentence(format!(r#"{{"thirdIdList":[{odd}]}}"#));
        assert_eq!(named, "thirdIdList holds a string with half of a surrogate pair");
        assert!(decoded(format!(r#"{{"phoneList":["1"],"a":{odd}}}"#)).is_err());
        assert!(decoded(format!(r#"{{"phoneList":["1"],{odd}:1}}"#)).is_err());
    }
}

#[test]
fn what_is_not_json_is_refused_by_its_place_and_never_quoted() {
    for (body, place) in [
        ("", "line 1 column 0"),
        ("\n \n", "line 3 column 0"),
        ("{\"phoneList\":\n[secret]}", "line 2 column 2"),
        ("{\"phoneList\":[\"1\"]} secret", "line 1 column 21"),
        ("{\"phoneList\":[\"1\"],}", "line 1 column 20"),
        ("\u{feff}{}", "line 1 column 1"),
    ] {
        assert_eq!(sentence(body), format!("the body is not JSON: {place}"), "{body:?}");
    }
    assert_eq!(sentence(b"{\n\"a\":\"\xff\"}"), "the body is not JSON: line 2 column 6");
    for body in ["[]", "\"secret\"", "1", "null"] {
        assert_eq!(sentence(body), "the body must be one JSON object");
    }
}

#[test]
fn a_field_is_given_once() {
    assert_eq!(sentence(r#"{"phoneList":["1"],"phoneList":["2"]}"#), "phoneList is given twice");
    assert_eq!(sentence(r#"{"phoneList":null,"phone\u004cist":["2"]}"#), "phoneList is given twice");
    for twice in [r#""a":1,"a":1"#, r#""a":null,"\u0061":1"#, r#""a":{"secret":1,"secret":2}"#, r#""a":null,"a":null"#]
    {
        assert_eq!(sentence(format!(r#"{{"phoneList":["1"],{twice}}}"#)), "a field is given twice");
    }
}

#[test]
fn a_body_without_a_key_is_told_where_keys_go() {
    for body in ["{}", r#"{"companyId":"31"}"#, r#"{"phoneList":[null," "],"thirdIdList":[]}"#] {
        assert_eq!(sentence(body), "give at least one key in audienceUserIdList, thirdIdList or phoneList");
    }
    let tags = decode(&Shape::tag_batchlist(), 1, vec![], 10, b"{}").expect_err("no key");
    assert_eq!(tags.message(), "give at least one key in audienceUserIdList");
}

#[test]
fn too_many_distinct_keys_are_refused() {
    let body = br#"{"audienceUserIdList":[1,2,"2"],"phoneList":["1","1"]}"#;
    assert!(decode(&Shape::audience_detail(), 0, vec![], 3, body).is_ok());
    let refused = decode(&Shape::audience_detail(), 0, vec![], 2, body).expect_err("three keys");
    assert_eq!(refused.message(), "too many keys: at most 2 in one request");
}

#[test]
fn every_other_field_is_scope_compared_by_meaning_and_sent_as_given() {
    let one = scope(r#"{"phoneList":["1"], "b" : [ 1.50 ] ,"companyId":"\u0033\u0031","n":null}"#);
    assert_eq!(&*one.sent, r#""b":[ 1.50 ],"companyId":"\u0033\u0031""#);
    assert_eq!(&*one.fields, r#"{"b":[1.50],"companyId":"31"}"#);
    assert_eq!(one, scope(r#"{"companyId":"31","b":[1.50],"thirdIdList":["t"]}"#));
    for other in [r#""companyId":31,"b":[1.50]"#, r#""companyId":"31","b":[1.5]"#, r#""companyId":"31""#] {
        assert_ne!(one, scope(&format!(r#"{{"phoneList":["1"],{other}}}"#)));
    }
    let bare = scope(r#"{"phoneList":["1"]}"#);
    assert_eq!((&*bare.fields, &*bare.sent), ("{}", ""));
}

#[test]
fn names_with_escapes_are_sent_as_names() {
    let scope = scope(r#"{"a\"b\\":1,"phone\u004cist":["1"],"\n":2}"#);
    assert_eq!(&*scope.sent, r#""a\"b\\":1,"\n":2"#);
    assert_eq!(&*scope.fields, r#"{"\n":2,"a\"b\\":1}"#);
}

#[test]
fn path_and_credential_are_part_of_the_scope() {
    let with = |lookup, token| {
        let credential = vec![(HeaderName::from_static("x-token"), HeaderValue::from_static(token))];
        decode(&Shape::tag_batchlist(), lookup, credential, 9, br#"{"audienceUserIdList":[1]}"#)
            .expect("a lookup")
            .scope
    };
    assert_eq!(with(0, "a"), with(0, "a"));
    assert_ne!(with(0, "a"), with(0, "b"));
    assert_ne!(with(0, "a"), with(1, "a"));
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-3..3i64).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop_oneof!["[ 0-3-]{0,2}".boxed(), ".{0,4}".boxed()].prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = String> {
    const NAMES: [&str; 5] = ["audienceUserIdList", "thirdIdList", "phoneList", "companyId", "a"];
    let values = prop_oneof![
        any_json(),
        proptest::collection::vec((0..4i64).prop_map(serde_json::Value::from), 0..4).prop_map(Into::into),
        proptest::collection::vec("[ 0-3]{0,2}".prop_map(serde_json::Value::from), 0..4).prop_map(Into::into),
    ];
    proptest::collection::vec((proptest::sample::select(&NAMES[..]), values), 0..5).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// What two bodies ask for, worked out the slow way.
fn meaning(body: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let members = value.as_object_mut().expect("an object");
    members.retain(|name, value| !name.ends_with("List") && !value.is_null());
    // As text, because -0.0 equals 0.0 as a number.
    value.to_string()
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _either = decoded(&body);
    }

    #[test]
    fn any_bytes_within_json_are_decoded_or_refused(text in "[\\[\\]{}:,\"\\\\u0-9a-f \\-.ntr]{0,40}") {
        let _either = decoded(format!(r#"{{"phoneList":["1"],"a":{text}}}"#));
        let _either = decoded(format!(r#"{{"phoneList":[{text}]}}"#));
    }

    #[test]
    fn keys_are_distinct_and_in_the_shapes_order(body in any_body()) {
        if let Ok(Decoded { ids, .. }) = decoded(&body) {
            prop_assert!(!ids.is_empty());
            prop_assert!(ids.is_sorted_by_key(|id| id.kind));
            prop_assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        }
    }

    #[test]
    fn two_bodies_share_a_scope_exactly_when_their_fields_mean_the_same(one in any_body(), other in any_body()) {
        if let (Ok(first), Ok(second)) = (decoded(&one), decoded(&other)) {
            prop_assert_eq!(first.scope == second.scope, meaning(&one) == meaning(&other), "{} {}", one, other);
            let sent = format!("{{{}}}", first.scope.sent);
            prop_assert_eq!(meaning(&sent), meaning(&one));
        }
    }
}
