//! An upstream that is itself a gateway: what is said to it, and how its answer is understood.
//!
//! - **It keeps the pace**, the promise and the attempts. What it refuses for want of time, room or an upstream is no word
//!   about the line to it: those who asked for these keys are told so in its own words, `Retry-After` included, and everybody
//!   else's keys go on.
//! - **It is told** how long the callers wait (`Prefer: wait`, RFC 7240) and how new they want it (`Cache-Control`, RFC 9111).
//! - **Its `Age` is what an answer's age begins with** (RFC 9111, section 4.2.3), so that ages add up.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AGE, CACHE_CONTROL},
};

use super::{
    client::Answer,
    envelope::Spelling,
    verdict::{Ask, Demand, Success, Verdict},
};
use crate::{
    clock::{Instant, whole_seconds_up},
    shape::Shape,
};

/// What the upstream is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// The platform, or something like it.
    #[default]
    Platform,
    /// Another gateway.
    Gateway,
}

impl Kind {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Gateway => "gateway",
        }
    }
}

/// `Prefer` (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Errors of a gateway that say nothing against asking it for other keys. `SHUTTING_DOWN` is not among them: another takes its
/// place, and is asked the same again.
const DECLINES: [&str; 5] = ["TOO_FREQUENT", "UPSTREAM_UNAVAILABLE", "OVERLOADED", "LOOKUP_TIMEOUT", "NOT_CACHED"];

/// Says what the callers want besides the keys.
pub(super) fn demand(headers: &mut HeaderMap, demand: &Demand, now: Instant) {
    if let Some(until) = demand.until {
        let wait = whole_seconds_up(until.saturating_duration_since(now));
        headers.insert(PREFER, value(format!("wait={wait}")));
    }
    if demand.no_cache {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    } else if let Some(max_age) = demand.max_age {
        headers.insert(CACHE_CONTROL, value(format!("max-age={}", max_age.as_secs())));
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("this holds because it is a word and a number")
}

/// What an answer means for the keys that were asked.
pub(super) fn verdict(answer: &Answer, shape: &Shape, ask: &Ask) -> Verdict {
    if is_declined(answer) {
        return Verdict::Declined(answer.passed_on());
    }
    match answer.verdict(shape, ask) {
        Verdict::Success(success) => Verdict::Success(Success { age: age(&answer.headers), ..success }),
        other => other,
    }
}

fn is_declined(answer: &Answer) -> bool {
    let is_error = matches!(
        answer.status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    is_error && Spelling::of(&answer.body).is_some_and(|spelling| DECLINES.contains(&&*spelling.error_code))
}

/// How old the oldest record of an answer was when it was given; 0 where it does not say.
fn age(headers: &HeaderMap) -> Duration {
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    age.map_or(Duration::ZERO, |age: u32| Duration::from_secs(age.into()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{clock, error::Refusal};

    fn answer(status: u16, headers: HeaderMap, body: Bytes) -> Answer {
        Answer { status: StatusCode::from_u16(status).expect("a status"), headers, body }
    }

    fn judged(answer: &Answer) -> Verdict {
        let shape = Shape::audience_detail();
        let scope = crate::key::Scope::new(0, vec![], "{}", "").into();
        verdict(answer, &shape, &Ask::new(scope, vec![]))
    }

    #[test]
    fn what_a_gateway_refuses_for_want_of_time_or_room_is_passed_on_as_it_came() {
        let wait = Duration::from_secs(7);
        let declined = [
            Refusal::TooFrequent(wait),
            Refusal::UpstreamUnavailable(wait),
            Refusal::Overloaded,
            Refusal::LookupTimeout(wait),
        ];
        for refusal in declined {
            let (parts, body) = refusal.response().into_parts();
            let retry_after = parts.headers.get("retry-after").cloned();
            let given = answer(parts.status.as_u16(), parts.headers, body.clone());
            let Verdict::Declined(passed_on) = judged(&given) else { panic!("{refusal:?}") };
            assert_eq!((passed_on.status, &passed_on.body), (parts.status, &body));
            assert!(retry_after.is_some() && passed_on.retry_after == retry_after);
        }
    }

    #[test]
    fn one_that_goes_or_a_proxy_that_fails_on_the_way_is_asked_again() {
        let (parts, body) = Refusal::ShuttingDown.response().into_parts();
        assert!(matches!(judged(&answer(503, parts.headers, body)), Verdict::Unavailable(..)));
        let html = Bytes::from_static(b"<html>502 Bad Gateway</html>");
        assert!(matches!(judged(&answer(502, HeaderMap::new(), html)), Verdict::Unavailable(..)));
    }

    #[test]
    fn an_answer_begins_with_the_age_that_it_came_with() {
        for (said, expected) in [(Some("41"), 41), (None, 0), (Some("soon"), 0), (Some("-3"), 0)] {
            let mut headers = HeaderMap::new();
            said.map(|said| headers.insert(AGE, HeaderValue::from_static(said)));
            let body = Bytes::from_static(br#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[]}"#);
            let Verdict::Success(success) = judged(&answer(200, headers, body)) else { panic!("no success") };
            assert_eq!(success.age.as_secs(), expected, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_patience_and_wishes_are_said() {
        let now = clock::now();
        let until = Some(now + Duration::from_millis(2100));
        let max_age = Some(Duration::from_secs(5));
        for (wanted, expected) in [
            (Demand::default(), [None, None]),
            (Demand { until, max_age, no_cache: false }, [Some("wait=3"), Some("max-age=5")]),
            (Demand { until: None, max_age, no_cache: true }, [None, Some("no-cache")]),
        ] {
            let mut headers = HeaderMap::new();
            demand(&mut headers, &wanted, now);
            let said = ["prefer", "cache-control"].map(|name| headers.get(name).and_then(|value| value.to_str().ok()));
            assert_eq!(said, expected);
        }
    }
}
