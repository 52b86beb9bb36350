//! Who may call: clients that are known by a token, how often each of them may, and who is who for fairness and metrics.
//!
//! - **Constant time.** A token is compared as its hash, with every known one and each to its end, whichever matches.
//! - **It goes no further.** [`Clients::admit`] takes the token off the request before anything else sees it.
//! - **Bounded.** Names come from the operator's file alone: a number, a limiter and a counter for each.
//! - **Swapped whole.** [`Clients::replace`] takes effect between two requests; a name that stays keeps what it has.

pub mod tokens;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use self::tokens::{Digest, Tokens};
use crate::{
    clock::{self, Instant},
    dispatch::Client,
    error::Refusal,
    metrics::{ClientCounter, ClientMetrics},
};

/// Who may call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where the tokens stand.
    pub tokens_file: PathBuf,
    /// What stood there.
    pub tokens: Tokens,
    /// The header that carries a token: `authorization` as a bearer's, any other as it is.
    pub header: HeaderName,
    /// How many requests each client may make; without it as many as it likes.
    pub rate: Option<Rate>,
}

/// Requests per second, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(u64);

impl Rate {
    /// The least: one request in about a quarter of an hour.
    pub const LEAST: f64 = 0.001;
    /// The most: more than one machine answers.
    pub const MOST: f64 = 1e6;

    /// A rate from [`LEAST`](Self::LEAST) to [`MOST`](Self::MOST).
    #[must_use]
    pub fn new(per_second: f64) -> Option<Self> {
        // Within the range of the type, because it is between a thousand and a million millions.
        (Self::LEAST..=Self::MOST).contains(&per_second).then(|| Self((per_second * 1e6).round() as u64))
    }

    /// The number of requests per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Evenly spaced, with what a second allows at once.
    fn quota(self) -> Quota {
        let burst = u32::try_from(self.0.div_ceil(1_000_000)).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Quota::with_period(Duration::from_nanos(1_000_000_000_000_000 / self.0))
            .expect("this holds because no rate is so high that its period is nothing")
            .allow_burst(burst)
    }
}

/// The gateway's clock, as governor reads it: it stands still in paused tests.
#[derive(Clone)]
struct Elapsed(Instant);

impl Clock for Elapsed {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let elapsed = clock::now().saturating_duration_since(self.0);
        Nanos::new(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Nanos>>;

/// The callers that are let in.
pub struct Clients {
    header: HeaderName,
    clock: Elapsed,
    metrics: ClientMetrics,
    /// Replaced whole, and locked only to take or to put the pointer.
    known: RwLock<Arc<Known>>,
}

/// Every client at one time.
#[derive(Default)]
struct Known {
    digests: Vec<Digest>,
    /// Whose each of `digests` is.
    owners: Vec<Arc<Named>>,
    /// The number of the next name that is new.
    next: u32,
    /// How often each of them may ask.
    rate: Option<Rate>,
}

/// One client.
struct Named {
    name: Arc<str>,
    number: u32,
    limiter: Option<Limiter>,
    requests: ClientCounter,
}

impl Clients {
    /// Those of a configuration.
    #[must_use]
    pub fn new(config: &Config, metrics: ClientMetrics, now: Instant) -> Self {
        let clients = Self { header: config.header.clone(), clock: Elapsed(now), metrics, known: RwLock::default() };
        clients.replace(&config.tokens, config.rate);
        clients
    }

    /// Lets these in from now on, each so often, and nobody else.
    pub fn replace(&self, tokens: &Tokens, rate: Option<Rate>) {
        let before = self.known();
        let mut named: HashMap<_, _> =
            before.owners.iter().map(|owner| (Arc::clone(&owner.name), Arc::clone(owner))).collect();
        if rate != before.rate {
            // Who stays keeps its number; how often it has asked is forgotten.
            for owner in named.values_mut() {
                *owner = Arc::new(self.name(&owner.name, owner.number, rate));
            }
        }
        let mut known = Known { next: before.next, rate, ..Known::default() };
        for token in tokens {
            let owner = named.entry(Arc::clone(&token.name)).or_insert_with(|| {
                let number = known.next;
                known.next += 1;
                Arc::new(self.name(&token.name, number, rate))
            });
            known.digests.push(token.digest);
            known.owners.push(Arc::clone(owner));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// Takes the token off a request, and says whose it is.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it is nobody's, `TOO_FREQUENT` when its owner has asked too often.
    pub fn admit(&self, headers: &mut HeaderMap) -> Result<Client, Refusal> {
        let digest = self.take(headers).ok_or(Refusal::Unauthenticated)?;
        let known = self.known();
        let client = known.owner(&digest).ok_or(Refusal::Unauthenticated)?;
        client.requests.inc();
        if let Some(Err(too_early)) = client.limiter.as_ref().map(Limiter::check) {
            return Err(Refusal::TooFrequent(too_early.wait_time_from(self.clock.now())));
        }
        Ok(Client::Named(client.number))
    }

    /// The hash of the one token that was sent. No line of its header is left.
    fn take(&self, headers: &mut HeaderMap) -> Option<Digest> {
        let mut lines = headers.get_all(&self.header).iter();
        let digest = match (lines.next(), lines.next()) {
            // Of two, others might believe the other one.
            (Some(line), None) => token(&self.header, line.as_bytes()).map(Digest::of),
            _ => None,
        };
        headers.remove(&self.header);
        digest
    }

    fn name(&self, name: &Arc<str>, number: u32, rate: Option<Rate>) -> Named {
        let limiter = |quota| RateLimiter::direct_with_clock(quota, self.clock.clone());
        let (name, requests) = (Arc::clone(name), self.metrics.client(name));
        Named { name, number, limiter: rate.map(Rate::quota).map(limiter), requests }
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    /// Whose token has this hash. How long it takes says nothing of which one matched.
    fn owner(&self, digest: &Digest) -> Option<&Named> {
        // Counted from 1: 0 is nobody.
        let mut found = 0_u32;
        for (position, known) in (1_u32..).zip(&self.digests) {
            found.conditional_assign(&position, known.ct_eq(digest));
        }
        let position = usize::try_from(found).ok()?.checked_sub(1)?;
        self.owners.get(position).map(|owner| &**owner)
    }
}

/// The token in a header's line. None is empty.
fn token<'a>(header: &HeaderName, line: &'a [u8]) -> Option<&'a [u8]> {
    let token = if *header == AUTHORIZATION {
        // RFC 9110, section 11.4: the scheme in any case, then spaces.
        let (scheme, rest) = line.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)?
    } else {
        line
    };
    Some(token.trim_ascii()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::metrics::Metrics;

    const OWN: HeaderName = HeaderName::from_static("x-client");

    /// A token is whatever stands behind the colon.
    fn tokens(lines: &[&str]) -> Tokens {
        let line = |line: &&str| {
            let (name, token) = line.split_once(':').expect("a name and a token");
            let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name}:{hash}\n")
        };
        Tokens::parse(lines.iter().map(line).collect::<String>().as_bytes()).expect("good lines")
    }

    fn clients(header: HeaderName, rate: Option<f64>, lines: &[&str]) -> Clients {
        let rate = rate.and_then(Rate::new);
        let config = Config { tokens_file: PathBuf::new(), tokens: tokens(lines), header, rate };
        Clients::new(&config, Metrics::new().clients(), clock::now())
    }

    fn admit(clients: &Clients, lines: &[&'static str]) -> Result<Client, Refusal> {
        let mut headers: HeaderMap =
            lines.iter().map(|line| (clients.header.clone(), HeaderValue::from_static(line))).collect();
        let admitted = clients.admit(&mut headers);
        assert!(headers.is_empty(), "the token goes no further");
        admitted
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_its_owners_and_nothing_like_it_is() {
        let clients = clients(AUTHORIZATION, None, &["a:one", "b:two", "a:three"]);
        let (a, b) = (Ok(Client::Named(0)), Ok(Client::Named(1)));
        for (line, expected) in [("Bearer one", &a), ("bearer   two ", &b), ("BEARER three", &a)] {
            assert_eq!(admit(&clients, &[line]), *expected, "{line}");
        }
        for line in
            ["one", "Bearer", "Bearer ", "Bearer on", "Bearer one two", "Bearerone", "Basic one", "Bearer ONE", ""]
        {
            assert_eq!(admit(&clients, &[line]), Err(Refusal::Unauthenticated), "{line}");
        }
        assert_eq!(admit(&clients, &[]), Err(Refusal::Unauthenticated));
        assert_eq!(admit(&clients, &["Bearer one", "Bearer one"]), Err(Refusal::Unauthenticated));
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_header_carries_the_token_as_it_is() {
        let clients = clients(OWN, None, &["a:one"]);
        assert_eq!(admit(&clients, &["one"]), Ok(Client::Named(0)));
        assert_eq!(admit(&clients, &["Bearer one"]), Err(Refusal::Unauthenticated));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_ask_so_often_and_no_other_pays_for_it() {
        let clients = clients(OWN, Some(2.5), &["a:one", "a:three", "b:two"]);
        // What a second allows, at once, whichever token it comes with.
        for token in ["one", "three", "one"] {
            assert_eq!(admit(&clients, &[token]), Ok(Client::Named(0)));
        }
        assert_eq!(admit(&clients, &["one"]), Err(Refusal::TooFrequent(Duration::from_millis(400))));
        assert_eq!(admit(&clients, &["two"]), Ok(Client::Named(1)));
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(admit(&clients, &["three"]), Ok(Client::Named(0)));
        assert!(admit(&clients, &["one"]).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        let admitted = (0..10).filter(|_| admit(&clients, &["one"]).is_ok()).count();
        assert_eq!(admitted, 3, "a pause earns no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_rate_still_lets_one_request_through() {
        let clients = clients(OWN, Some(0.001), &["a:one"]);
        assert!(admit(&clients, &["one"]).is_ok());
        assert_eq!(admit(&clients, &["one"]), Err(Refusal::TooFrequent(Duration::from_secs(1000))));
        assert_eq!(Rate::new(1e6).map(Rate::per_second), Some(1e6));
        for outside in [0.0, -1.0, 1e-9, 1e7, f64::NAN, f64::INFINITY] {
            assert_eq!(Rate::new(outside), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_stays_keeps_its_place_and_its_limit() {
        let clients = clients(OWN, Some(1.0), &["a:one", "b:two"]);
        assert_eq!(admit(&clients, &["two"]), Ok(Client::Named(1)));
        clients.replace(&tokens(&["c:three", "b:four"]), Rate::new(1.0));
        assert!(matches!(admit(&clients, &["four"]), Err(Refusal::TooFrequent(_))), "it has asked already");
        assert_eq!(admit(&clients, &["three"]), Ok(Client::Named(2)), "nobody gets another's number");
        for gone in ["one", "two"] {
            assert_eq!(admit(&clients, &[gone]), Err(Refusal::Unauthenticated));
        }
    }
}
