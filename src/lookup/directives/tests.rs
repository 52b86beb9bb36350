//! The headers' grammar, and what each directive does to an answer of each age.

use std::sync::Arc;

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::{
    key::Scope,
    record::{Parts, Record},
};

fn read(lines: &[(&'static str, &str)]) -> Directives {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).expect("a header value"));
    }
    Directives::read(&headers)
}

fn cache_control(line: &str) -> CacheDirectives {
    read(&[("cache-control", line)]).cache
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn without_headers_nothing_is_said() {
    assert!(read(&[]).is_default());
    assert!(read(&[("cache-control", " , x=1, public"), ("prefer", "respond-async; wait=3")]).is_default());
    assert!(!read(&[("prefer", "wait=0")]).is_default());
    assert!(!cache_control("no-store").is_default());
}

#[test]
fn directives_are_read_whatever_their_case_from_all_lines() {
    let lines =
        [("cache-control", "No-Cache,, NO-STORE ,max-age=5"), ("cache-control", "Only-If-Cached, min-fresh = 7")];
    let expected = CacheDirectives {
        no_cache: true,
        no_store: true,
        only_if_cached: true,
        max_age: Some(secs(5)),
        min_fresh: Some(secs(7)),
        max_stale: None,
    };
    assert_eq!(read(&lines).cache, expected);
}

#[test]
fn a_value_is_a_token_or_a_quoted_string_and_commas_in_quotes_do_not_separate() {
    assert_eq!(cache_control(r#"x="a, no-cache, \", no-store", max-age="1\2""#).max_age, Some(secs(12)));
    assert!(!cache_control(r#"x="a, no-cache, \", no-store", max-age="12""#).no_cache);
    assert!(cache_control(r#"no-cache="a, b""#).no_cache);
    assert!(!cache_control(r#"x=", no-cache"#).no_cache);
}

#[test]
fn an_age_that_cannot_be_read_is_zero_and_a_huge_one_is_2_to_the_31() {
    for odd in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=+1", "max-age=\"\"", "max-age=1s"] {
        assert_eq!(cache_control(odd).max_age, Some(Duration::ZERO), "{odd}");
    }
    for huge in ["2147483648", "4294967296", "99999999999999999999999999"] {
        assert_eq!(cache_control(&format!("max-age={huge}")).max_age, Some(secs(1 << 31)));
    }
    assert_eq!(cache_control("max-age=7, max-age=9").max_age, Some(secs(7)));
}

#[test]
fn max_stale_has_a_limit_or_none() {
    assert_eq!(cache_control("max-stale").max_stale, Some(MaxStale::Any));
    assert_eq!(cache_control("max-stale=9").max_stale, Some(MaxStale::By(secs(9))));
    assert_eq!(cache_control("max-stale=soon").max_stale, Some(MaxStale::By(Duration::ZERO)));
}

#[test]
fn pragma_counts_only_without_cache_control() {
    assert!(read(&[("pragma", "x, No-Cache")]).cache.no_cache);
    assert!(!read(&[("pragma", "no-cache"), ("cache-control", "max-age=3")]).cache.no_cache);
    assert!(!read(&[("pragma", "other")]).cache.no_cache);
}

#[test]
fn preferences_are_read_from_all_lines_and_the_first_of_a_name_counts() {
    let both = read(&[("prefer", "Wait = 5 ; x=\"a,b\", other"), ("prefer", "PARTIAL-RESULTS, wait=9")]);
    assert_eq!((both.wait, both.partial), (Some(secs(5)), true));
    assert_eq!(read(&[("prefer", "wait=\"10\"")]).wait, Some(secs(10)));
    assert!(read(&[("prefer", "partial-results=\"\"; a; b=c")]).partial);
    assert!(!read(&[("prefer", "x; partial-results")]).partial, "a parameter of something else");
}

#[test]
fn a_wait_that_is_no_number_of_seconds_is_ignored() {
    for odd in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "wait=soon, wait=5"] {
        assert_eq!(read(&[("prefer", odd)]).wait, None, "{odd}");
    }
    assert_eq!(read(&[("prefer", "wait=0")]).wait, Some(Duration::ZERO));
    assert_eq!(read(&[("prefer", "wait=99999999999999999999")]).wait, Some(secs(1 << 31)));
}

/// Fresh for 100 s, revalidated until 200 s, good for errors until 1,000 s.
fn policy() -> Policy {
    Policy { ttl: secs(100), negative_ttl: secs(10), stale_while_revalidate: secs(100), stale_if_error: secs(900) }
}

/// How an answer that was fetched `age` seconds ago is judged; of no records if `found` is false.
fn judged(line: &str, found: bool, age: u64) -> Use {
    let fetched_at = crate::clock::now();
    let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
    let record = Record::new(Parts { json: b"{}", scope, ids: &[], carried: 0, identity: None, fetched_at });
    let records = if found { vec![record] } else { vec![] };
    let answer = Answer::new(records, fetched_at, 0);
    let directives = if line.is_empty() { CacheDirectives::default() } else { cache_control(line) };
    directives.judge(&answer, &policy(), fetched_at + secs(age))
}

const HIT: Use = Use::Hit;
const STALE: Use = Use::Stale { refresh: true };
const MISS: Use = Use::Miss { fallback: false };
const MISS_UNLESS_ERROR: Use = Use::Miss { fallback: true };

/// What is made of an answer fresh (50 s), stale by 50 s, stale by 200 s, and expired.
fn at_four_ages(line: &str) -> [Use; 4] {
    [50, 150, 300, 1000].map(|age| judged(line, true, age))
}

#[test]
fn without_directives_the_policy_decides() {
    assert_eq!(at_four_ages(""), [HIT, STALE, MISS_UNLESS_ERROR, MISS]);
    assert_eq!(at_four_ages("no-store, only-if-cached"), [HIT, STALE, MISS_UNLESS_ERROR, MISS]);
    assert_eq!([9, 10].map(|age| judged("", false, age)), [HIT, MISS_UNLESS_ERROR]);
}

#[test]
fn no_cache_takes_nothing_from_the_cache_even_while_the_upstream_fails() {
    assert_eq!(at_four_ages("no-cache"), [MISS; 4]);
    assert_eq!(at_four_ages("no-cache, max-stale"), [MISS; 4]);
    assert_eq!(judged("no-cache", true, 0), MISS);
}

#[test]
fn max_age_refuses_what_is_older_and_everything_stale() {
    assert_eq!(at_four_ages("max-age=50"), [HIT, MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS]);
    assert_eq!(at_four_ages("max-age=49"), [MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS]);
    assert_eq!(at_four_ages("max-age=9999"), [HIT, MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS]);
    assert_eq!(judged("max-age=5", false, 6), MISS_UNLESS_ERROR);
}

#[test]
fn max_age_zero_asks_for_a_new_answer_even_in_the_instant_of_the_fetch() {
    assert_eq!(judged("max-age=0", true, 0), MISS_UNLESS_ERROR);
    assert_eq!(judged("max-age=soon", true, 0), MISS_UNLESS_ERROR);
}

#[test]
fn max_stale_takes_what_is_stale_also_beyond_what_the_policy_would_give() {
    assert_eq!(at_four_ages("max-stale"), [HIT, STALE, STALE, STALE]);
    assert_eq!(at_four_ages("max-stale=200"), [HIT, STALE, STALE, MISS]);
    assert_eq!(at_four_ages("max-stale=199"), [HIT, STALE, MISS_UNLESS_ERROR, MISS]);
    assert_eq!(at_four_ages("max-stale=9999"), [HIT, STALE, STALE, STALE]);
    assert_eq!(judged("max-stale", false, 10), STALE);
}

#[test]
fn max_stale_with_a_number_refuses_what_is_staler_though_it_is_being_revalidated() {
    assert_eq!(at_four_ages("max-stale=49"), [HIT, MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS]);
}

#[test]
fn max_stale_lifts_max_ages_ban_on_stale_answers_but_not_its_age() {
    assert_eq!(at_four_ages("max-age=200, max-stale"), [HIT, STALE, MISS_UNLESS_ERROR, MISS]);
}

#[test]
fn min_fresh_wants_some_lifetime_left() {
    assert_eq!(at_four_ages("min-fresh=50"), [HIT, MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS]);
    assert_eq!(at_four_ages("min-fresh=51"), [MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS_UNLESS_ERROR, MISS]);
}

proptest! {
    #[test]
    fn any_header_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[a-z=,;\"\\\\ 0-9-]{0,40}") {
        let mut headers = HeaderMap::new();
        for name in ["cache-control", "prefer", "pragma"] {
            headers.append(name, HeaderValue::from_str(&text).expect("printable"));
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(name, value);
            }
        }
        let _whatever = Directives::read(&headers);
    }

    #[test]
    fn no_directive_but_max_stale_makes_a_cache_answer_more_often(
        max_age in 0..300u64, min_fresh in 0..200u64, age in 0..1200u64,
    ) {
        let line = format!("max-age={max_age}, min-fresh={min_fresh}");
        let answers = |line: &str| !matches!(judged(line, true, age), Use::Miss { .. });
        prop_assert!(!answers(&line) || answers(""));
        prop_assert!(!answers("") || answers("max-stale"));
    }
}
