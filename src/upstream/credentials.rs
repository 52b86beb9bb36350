//! Who a caller is to the upstream, and which headers say so.
//!
//! - **Forwarded.** The configured headers are the identity, as they came, all of them together: who sends only a part of
//!   another's is somebody else. A token that was handed out through the gateway is known to belong to its application
//!   until it expires, so that an application that renews its token finds its cache again; requests on its behalf carry
//!   the newest of its tokens. Any other token is an identity of its own.
//! - **Managed.** Everybody is the gateway, which has a token of its own ([`token`](super::token) keeps it). A token
//!   that the upstream refuses after it was good is renewed once for everybody, and what was refused is asked again.
//!
//! Nothing here prints a secret or a token.

mod own;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::sync::{Notify, watch};

pub(super) use self::own::Due;
use self::own::Own;
use crate::{
    clock::Instant,
    key::{self, Credential, CredentialHeaders},
    secret::Secret,
};

/// The header of the platform's token.
pub const X_TOKEN: HeaderName = HeaderName::from_static("x-token");

/// Tokens that are remembered to have been handed out. An application has one, renewed every two hours; beyond this
/// many, further ones are identities of their own.
const MAX_ISSUED: usize = 10_000;

/// Whose credential goes upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The caller's own: these of its headers, in this order, at least one.
    Forward(Vec<HeaderName>),
    /// The gateway's.
    Managed(Application),
}

impl Mode {
    /// The headers that callers identify themselves with; none where the gateway does it for them.
    #[must_use]
    pub fn headers(&self) -> &[HeaderName] {
        match self {
            Self::Forward(names) => names,
            Self::Managed(_) => &[],
        }
    }
}

/// What the gateway gets its tokens with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Application {
    /// The `instanceAppid`.
    pub id: String,
    /// The `instanceSecrect`, as the platform spells it.
    pub secret: Secret,
}

/// There is no token to ask with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoToken;

/// A token and how long it holds.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: HeaderValue,
    pub(super) expires_at: Instant,
}

/// The identities of callers, and the gateway's own token.
pub struct Credentials {
    mode: Mode,
    issued: RwLock<Issued>,
    own: Mutex<Own>,
    /// Rung when the gateway's token should be renewed.
    pub(super) wanted: Notify,
    /// Changes with each attempt to renew it.
    attempts: watch::Sender<u64>,
}

/// Tokens that were handed out through the gateway.
#[derive(Default)]
struct Issued {
    tokens: HashMap<HeaderValue, (Arc<str>, Instant)>,
    newest: HashMap<Arc<str>, Token>,
}

impl Credentials {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let (attempts, _) = watch::channel(0);
        Self { mode, issued: RwLock::default(), own: Mutex::default(), wanted: Notify::new(), attempts }
    }

    /// Whose credential goes upstream.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Who sent these headers.
    #[must_use]
    pub fn identify(&self, headers: &HeaderMap, now: Instant) -> Credential {
        let Mode::Forward(names) = &self.mode else { return Credential::Gateway };
        let mut sent = key::credential(names, headers);
        let mut tokens = sent.iter().enumerate().filter(|(_, (name, _))| *name == X_TOKEN);
        // Two tokens are nobody that is known.
        let (Some((position, (_, token))), None) = (tokens.next(), tokens.next()) else { return sent.into() };
        let application = self.known().application_of(token, now);
        match application {
            Some(application) => {
                sent.remove(position);
                Credential::Application((&*application).into(), sent)
            }
            None => sent.into(),
        }
    }

    /// Whether that is who sent these headers: what [`identify`](Self::identify) says, without making it.
    #[must_use]
    pub fn is(&self, who: &Credential, headers: &HeaderMap, now: Instant) -> bool {
        let Mode::Forward(names) = &self.mode else { return *who == Credential::Gateway };
        let mut all = SmallVec::<[_; 4]>::new();
        names.iter().for_each(|name| all.extend(headers.get_all(name).iter().map(|value| (name, value))));
        let sent = || all.iter().copied();
        let mut tokens = sent().filter(|(name, _)| **name == X_TOKEN);
        let application = match (tokens.next(), tokens.next()) {
            (Some((_, token)), None) => self.known().application_of(token, now),
            _ => None,
        };
        match (who, application) {
            (Credential::Headers(own), None) => sent().eq(own.iter().map(|(name, value)| (name, value))),
            (Credential::Application(own, others), Some(application)) => {
                let beside = sent().filter(|(name, _)| **name != X_TOKEN);
                **own == *application && beside.eq(others.iter().map(|(name, value)| (name, value)))
            }
            _ => false,
        }
    }

    /// A token was handed out to an application, to hold for so long.
    pub fn issued_to(&self, application: &str, token: HeaderValue, (now, lifetime): (Instant, Duration)) {
        let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
        if issued.tokens.len() >= MAX_ISSUED {
            issued.forget_expired(now);
        }
        if issued.tokens.len() < MAX_ISSUED {
            let (application, expires_at): (Arc<str>, _) = (application.into(), now + lifetime);
            issued.tokens.insert(token.clone(), (Arc::clone(&application), expires_at));
            issued.newest.insert(application, Token { value: token, expires_at });
        }
    }

    /// The headers that say who asks; waits for a token of the gateway's own where there is none.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn headers(&self, who: &Credential) -> Result<CredentialHeaders, NoToken> {
        match who {
            Credential::Headers(headers) => Ok(headers.clone()),
            Credential::Application(application, others) => {
                let token = self.known().newest.get(&**application).map(|token| token.value.clone());
                let mut headers = others.clone();
                headers.push((X_TOKEN, token.ok_or(NoToken)?));
                Ok(headers)
            }
            Credential::Gateway => Ok(vec![(X_TOKEN, self.own_token().await?)]),
        }
    }

    /// The upstream refused these headers. Whether there are others now for the same caller, so that it is worth asking
    /// again.
    pub(super) async fn refused(&self, who: &Credential, headers: &CredentialHeaders) -> bool {
        match (who, headers.last()) {
            (Credential::Gateway, Some((_, token))) => self.renew(token).await,
            (Credential::Application(application, _), Some((_, token))) => {
                let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
                issued.forget(application, token, crate::clock::now())
            }
            _ => false,
        }
    }

    /// Read for every lookup: readers are not in each other's way.
    fn known(&self) -> RwLockReadGuard<'_, Issued> {
        self.issued.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issued {
    fn application_of(&self, token: &HeaderValue, now: Instant) -> Option<Arc<str>> {
        let (application, expires_at) = self.tokens.get(token)?;
        (now < *expires_at).then(|| Arc::clone(application))
    }

    /// Forgets a token that was refused; whether the application has another one.
    fn forget(&mut self, application: &str, token: &HeaderValue, now: Instant) -> bool {
        self.tokens.remove(token);
        let own = self.tokens.iter().filter(|(_, (own, expires_at))| **own == *application && now < *expires_at);
        let latest = own.max_by_key(|(_, (_, expires_at))| *expires_at);
        match latest.map(|(value, (name, expires_at))| (Arc::clone(name), value.clone(), *expires_at)) {
            Some((name, value, expires_at)) => {
                self.newest.insert(name, Token { value, expires_at });
                true
            }
            None => {
                self.newest.remove(application);
                false
            }
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        self.tokens.retain(|_, (_, expires_at)| now < *expires_at);
        self.newest.retain(|_, token| now < token.expires_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn forward(names: &[&'static str]) -> Credentials {
        Credentials::new(Mode::Forward(names.iter().map(|name| HeaderName::from_static(name)).collect()))
    }

    #[tokio::test(start_paused = true)]
    async fn all_tokens_of_an_application_are_one_identity_until_they_expire() {
        let (credentials, now) = (forward(&["x-token"]), crate::clock::now());
        let who = |token: &'static str, at| credentials.identify(&headers(&[("x-token", token)]), at);
        credentials.issued_to("a", HeaderValue::from_static("one"), (now, HOUR));
        credentials.issued_to("a", HeaderValue::from_static("two"), (now + HOUR / 2, HOUR));
        credentials.issued_to("b", HeaderValue::from_static("three"), (now, HOUR));
        assert_eq!(who("one", now), who("two", now));
        assert_ne!(who("one", now), who("three", now));
        assert_ne!(who("one", now), who("a", now), "the name of an application is not its token");
        assert_ne!(who("one", now + HOUR), who("two", now + HOUR), "what has expired proves nothing");
        let sent = credentials.headers(&who("one", now)).await.expect("known");
        assert_eq!(sent, [(X_TOKEN, HeaderValue::from_static("two"))], "the newest");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_a_credential_is_somebody_else() {
        let (credentials, now) = (forward(&["x-token", "x-tenant"]), crate::clock::now());
        credentials.issued_to("a", HeaderValue::from_static("one"), (now, HOUR));
        let who = |pairs: &[(&'static str, &'static str)]| credentials.identify(&headers(pairs), now);
        let whole = who(&[("x-token", "one"), ("x-tenant", "7")]);
        for other in [&[("x-token", "one")][..], &[("x-tenant", "7")], &[("x-token", "one"), ("x-tenant", "8")], &[]] {
            assert_ne!(who(other), whole);
        }
        let mut twice = headers(&[("x-token", "one"), ("x-tenant", "7")]);
        twice.append(X_TOKEN, HeaderValue::from_static("other"));
        assert_ne!(credentials.identify(&twice, now), whole);
        let sent = credentials.headers(&whole).await.expect("known");
        assert_eq!(sent.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_refused_gives_way_to_another_one_of_its_application() {
        let (credentials, now) = (forward(&["x-token"]), crate::clock::now());
        for (token, lifetime) in [("one", HOUR), ("two", HOUR * 2)] {
            credentials.issued_to("a", HeaderValue::from_static(token), (now, lifetime));
        }
        let who = credentials.identify(&headers(&[("x-token", "one")]), now);
        let newest = credentials.headers(&who).await.expect("known");
        assert!(credentials.refused(&who, &newest).await);
        let other = credentials.headers(&who).await.expect("known");
        assert_eq!(other, [(X_TOKEN, HeaderValue::from_static("one"))]);
        assert!(!credentials.refused(&who, &other).await);
        assert_eq!(credentials.headers(&who).await, Err(NoToken));
        let stranger = credentials.identify(&headers(&[("x-token", "one")]), now);
        assert_ne!(stranger, who, "what was refused proves nothing");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let application = Application { id: "app".to_owned(), secret: Secret::new("hunter2") };
        assert!(!format!("{:?}", Mode::Managed(application)).contains("hunter2"));
    }
}
