//! The platform's token call: what it answers, and the keeper of the gateway's own token.
//!
//! The keeper is one task. It fetches a token when one is needed, and anew when three quarters of its lifetime are over
//! if it was used since: so nobody waits for a token while there is load, and an idle gateway leaves the platform alone.
//! After a failure it waits before the next attempt, longer each time up to [`LONGEST_PAUSE`]; meanwhile the token that
//! there is goes on being used while it lasts.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    client::Client,
    credentials::{Application, Credentials, Due, Mode, Token},
    envelope,
};
use crate::{
    clock::{self, Instant},
    key::CredentialHeaders,
};

/// The path of the token call below the base URL.
pub const PATH: &str = "/app/getOrgAccessToken";

/// How long a token lives whose answer does not say so, or says 0: what the platform documents.
const LIFETIME: Duration = Duration::from_secs(7200);

/// A lifetime that is longer is a slip: a token is renewed once a day at least.
const LONGEST_LIFETIME: Duration = Duration::from_secs(86_400);

/// The part of its lifetime after which a token in use is renewed.
const RENEW_AT: f64 = 0.75;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A token that was handed out.
pub struct Issued {
    /// The token.
    pub token: HeaderValue,
    /// How long it holds.
    pub lifetime: Duration,
}

/// The token in an answer to the token call, if there is one.
#[must_use]
pub fn read(status: StatusCode, body: &[u8]) -> Option<Issued> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        org_access_token: String,
        #[serde(default)]
        expire: Option<serde_json::Value>,
    }
    // Whatever stands beside an error was handed out to nobody.
    if !status.is_success() || envelope::is_refusal(status, body) {
        return None;
    }
    let Answer { data: Data { org_access_token: token, expire } } = serde_json::from_slice(body).ok()?;
    let mut token = HeaderValue::try_from(token).ok().filter(|token| !token.is_empty())?;
    token.set_sensitive(true);
    let seconds = expire.and_then(|expire| expire.as_u64().or_else(|| expire.as_str()?.parse().ok()));
    let lifetime = seconds.filter(|seconds| *seconds > 0).map_or(LIFETIME, Duration::from_secs);
    Some(Issued { token, lifetime: lifetime.min(LONGEST_LIFETIME) })
}

/// The path and query of the token call for an application.
fn path_and_query(application: &Application) -> String {
    let escaped = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let Application { id, secret } = application;
    // The platform's own spelling of `secret`.
    format!("{PATH}?instanceAppid={}&instanceSecrect={}", escaped(id), escaped(secret.reveal()))
}

/// Keeps the gateway's own token, for as long as it is polled. Where callers bring their own there is nothing to do.
pub async fn keep(client: Client) {
    let credentials: Arc<Credentials> = Arc::clone(client.credentials());
    let Mode::Managed(application) = credentials.mode() else { return };
    let target = path_and_query(application);
    let (mut pause, mut asked) = (FIRST_PAUSE, false);
    // What has failed before is said once.
    let mut failing = false;
    loop {
        match credentials.due(clock::now(), asked) {
            Due::Now => {
                asked = false;
                let started = clock::now();
                let outcome = fetch(&client, &target).await;
                report(outcome.as_ref(), &mut failing);
                pause = if outcome.is_some() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                credentials.attempted(outcome.map(|issued| timed(issued, started)).ok_or(clock::now() + pause / 2));
            }
            Due::At(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    // Somebody needs one now; a failed attempt is not repeated for that.
                    () = credentials.wanted.notified() => asked = true,
                }
            }
            Due::WhenAsked => {
                credentials.wanted.notified().await;
                asked = true;
            }
        }
    }
}

/// A token's moments: when it ends, and when it is renewed. Counted from when it was asked for: it is not younger.
fn timed(Issued { token, lifetime }: Issued, started: Instant) -> (Token, Instant) {
    (Token { value: token, expires_at: started + lifetime }, started + lifetime.mul_f64(RENEW_AT))
}

async fn fetch(client: &Client, target: &str) -> Option<Issued> {
    let answer = client.get(target, &CredentialHeaders::new()).await;
    answer.ok().and_then(|answer| read(answer.status, &answer.body))
}

fn report(issued: Option<&Issued>, failing: &mut bool) {
    match issued.map(|issued| issued.lifetime.as_secs()) {
        Some(lifetime_seconds) if *failing => tracing::warn!(lifetime_seconds, "the token was renewed at last"),
        Some(lifetime_seconds) => tracing::info!(lifetime_seconds, "the token was renewed"),
        None if *failing => tracing::debug!("the token could not be renewed again"),
        None => tracing::warn!("the token could not be renewed"),
    }
    *failing = issued.is_none();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_token_is_read_with_its_lifetime_and_two_hours_where_that_is_not_said() {
        let answer = |expire: &str| {
            format!(
                r#"{{"code":"200","data":{{"orgAccessToken":"t","orgRefreshToken":"r"{expire}}},"errorCode":"0","msg":"ok"}}"#
            )
        };
        for (expire, seconds) in [
            (r#","expire":3"#, 3),
            (r#","expire":"60""#, 60),
            (r#","expire":0"#, 7200),
            ("", 7200),
            (r#","expire":null"#, 7200),
            (r#","expire":99999999999"#, 86_400),
        ] {
            let issued = read(StatusCode::OK, answer(expire).as_bytes()).expect("a token");
            assert_eq!((issued.token.as_bytes(), issued.lifetime.as_secs()), (&b"t"[..], seconds), "{expire}");
        }
    }

    #[test]
    fn an_answer_without_a_token_is_none() {
        let refused = r#"{"code":"100100","data":null,"errorCode":"100100","msg":"appid或secret错误"}"#;
        let empty = r#"{"code":"200","data":{"orgAccessToken":"","expire":7200}}"#;
        let beside_an_error = r#"{"code":"100100","data":{"orgAccessToken":"t","expire":7200},"errorCode":"100100"}"#;
        for body in [refused, empty, beside_an_error, "", "<html>", r#"{"data":{"orgAccessToken":"a\nb"}}"#] {
            assert!(read(StatusCode::OK, body.as_bytes()).is_none(), "{body}");
        }
        assert!(read(StatusCode::BAD_GATEWAY, br#"{"data":{"orgAccessToken":"t"}}"#).is_none());
    }

    #[test]
    fn what_stands_in_the_query_is_escaped() {
        let application = Application { id: "a&b".to_owned(), secret: Secret::new("s=1 é") };
        let expected = "/app/getOrgAccessToken?instanceAppid=a%26b&instanceSecrect=s%3D1%20%C3%A9";
        assert_eq!(path_and_query(&application), expected);
    }
}
