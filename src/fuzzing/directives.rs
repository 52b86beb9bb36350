//! What must hold of the headers of a lookup.
//!
//! Each line is a header. What they say is what a second reading finds where no quotes are used; it is the same in capitals,
//! on one line instead of several, and beside words that nobody knows. No time is longer than 2^31 seconds. Then answers of
//! several ages are judged by it: an old answer is never better than a young one, and but for `max-stale` nobody gets more
//! out of the cache than without the headers.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, PRAGMA},
};

use crate::{
    cache::{Answer, Freshness, Policy},
    clock,
    lookup::directives::{CacheDirectives, Directives, MaxStale, PREFER, Use},
};

const LONGEST: Duration = Duration::from_secs(1 << 31);

/// Ages of an answer, in seconds: around each limit of the policy below, and far beyond.
const AGES: [u64; 12] = [0, 1, 99, 100, 101, 150, 199, 200, 201, 999, 1001, 1 << 32];

const POLICY: Policy = Policy {
    ttl: Duration::from_secs(100),
    negative_ttl: Duration::from_secs(10),
    stale_while_revalidate: Duration::from_secs(100),
    stale_if_error: Duration::from_secs(900),
};

/// Reads bytes as headers.
pub fn directives(data: &[u8]) {
    let headers = headers(data);
    let said = Directives::read(&headers);
    assert_eq!(said.is_default(), said == Directives::default());
    let times = [said.wait, said.cache.max_age, said.cache.min_fresh];
    assert!(times.into_iter().flatten().all(|time| time <= LONGEST));
    assert!(!matches!(said.cache.max_stale, Some(MaxStale::By(time)) if time > LONGEST));

    assert_eq!(Directives::read(&changed(&headers, |line| line.to_ascii_uppercase())), said, "in capitals");
    assert_eq!(Directives::read(&changed(&headers, |line| line.to_ascii_lowercase())), said, "in small letters");
    if headers.values().all(|line| is_closed(line.as_bytes())) {
        let beside = |line: &[u8]| [b"unknown=\"a, no-cache;\\\"\" ,", line, b", wait-not, x=1"].concat();
        assert_eq!(Directives::read(&changed(&headers, beside)), said, "beside what nobody knows");
        assert_eq!(Directives::read(&joined(&headers)), said, "on one line");
    }
    if headers.values().all(|line| !line.as_bytes().contains(&b'"')) {
        assert_eq!(said, plainly(&headers), "read a second time");
    }
    judged(&said.cache);
}

/// The headers that count, a line each: a word with its first letter, or what it stands for.
fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(20) {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = match line[..end].first() {
            Some(b'c' | b'C') => CACHE_CONTROL,
            Some(b'p' | b'P') if end == "prefer".len() && line[2] == b'e' => PREFER,
            Some(b'p' | b'P') => PRAGMA,
            _ => continue,
        };
        if let Ok(value) = HeaderValue::from_bytes(line.get(end + 1..).unwrap_or_default()) {
            headers.append(name, value);
        }
    }
    headers
}

/// The same headers with something done to each line.
fn changed(headers: &HeaderMap, change: impl Fn(&[u8]) -> Vec<u8>) -> HeaderMap {
    let change = |(name, line): (&HeaderName, &HeaderValue)| {
        (name.clone(), HeaderValue::from_bytes(&change(line.as_bytes())).expect("nothing was added that is no text"))
    };
    headers.iter().map(change).collect()
}

/// The same headers with all lines of a name in one (RFC 9110, section 5.3).
fn joined(headers: &HeaderMap) -> HeaderMap {
    let line = |name: &HeaderName| {
        let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        (name.clone(), HeaderValue::from_bytes(&lines.join(&b", "[..])).expect("they are text each"))
    };
    headers.keys().map(line).collect()
}

/// Whether every quoted string has its end.
fn is_closed(line: &[u8]) -> bool {
    let (mut quoted, mut bytes) = (false, line.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(bytes.next()),
            _ => {}
        }
    }
    !quoted
}

/// What headers without quotes say.
fn plainly(headers: &HeaderMap) -> Directives {
    let mut said = Directives::default();
    let cache = &mut said.cache;
    for (name, value) in words(headers, &CACHE_CONTROL) {
        let time = seconds(value.as_deref().unwrap_or_default()).unwrap_or_default();
        match &*name {
            "no-cache" => cache.no_cache = true,
            "no-store" => cache.no_store = true,
            "only-if-cached" => cache.only_if_cached = true,
            "max-age" => cache.max_age = cache.max_age.or(Some(time)),
            "min-fresh" => cache.min_fresh = cache.min_fresh.or(Some(time)),
            "max-stale" => {
                let stale = value.map_or(MaxStale::Any, |_| MaxStale::By(time));
                cache.max_stale = cache.max_stale.or(Some(stale));
            }
            _ => {}
        }
    }
    if !headers.contains_key(CACHE_CONTROL) {
        cache.no_cache = words(headers, &PRAGMA).iter().any(|(name, _)| name == "no-cache");
    }
    let preferences = words(headers, &PREFER);
    let first = |wanted: &str| preferences.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    said.wait = first("wait").and_then(|value| seconds(value.as_deref()?));
    said.partial = first("partial-results").is_some_and(|value| value.as_deref().is_none_or(str::is_empty));
    said
}

/// The elements of a header, in small letters, each without its parameters.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<(String, Option<String>)> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase());
    let lines: Vec<_> = lines.collect();
    let elements = lines.iter().flat_map(|line| line.split(','));
    let parameters = if *name == PREFER { ';' } else { ',' };
    let element = |element: &str| {
        let first = element.split(parameters).map(str::trim).find(|part| !part.is_empty()).unwrap_or_default();
        let (name, value) = first.split_once('=').map_or((first, None), |(name, value)| (name, Some(value)));
        (name.trim().to_owned(), value.map(|value| value.trim().to_owned()))
    };
    elements.map(element).collect()
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        || text.bytes().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    is_number.then(|| Duration::from_secs(number()).min(LONGEST))
}

/// Judges answers of all ages, with and without what was said.
fn judged(said: &CacheDirectives) {
    let fetched_at = clock::now();
    let answer = Answer::new([], fetched_at, 0);
    let default = CacheDirectives::default();
    let mut was_given = true;
    for age in AGES.map(Duration::from_secs) {
        let now = fetched_at + age;
        let freshness = answer.freshness(&POLICY, now);
        let verdict = said.judge(&answer, &POLICY, now);
        let is_given = verdict != Use::Miss { fallback: true } && verdict != Use::Miss { fallback: false };
        assert!(was_given || !is_given, "an older answer is never better");
        was_given = is_given;
        assert!(verdict != Use::Hit || freshness == Freshness::Fresh);
        let by_default = default.judge(&answer, &POLICY, now);
        let more = is_given && matches!(by_default, Use::Miss { .. });
        assert!(!more || said.max_stale.is_some(), "more than without");
        if said.no_cache {
            assert_eq!(verdict, Use::Miss { fallback: false });
        }
        if is_given {
            assert!(said.max_age.is_none_or(|most| age <= most && !most.is_zero()));
            assert!(said.min_fresh.is_none_or(|least| age + least <= POLICY.negative_ttl));
            assert!(!matches!(said.max_stale, Some(MaxStale::By(most)) if age > POLICY.negative_ttl + most));
        }
    }
}
