//! One lookup from a caller's request to its answer.
//!
//! decode to an ordered list of keys ([`request`](crate::request)) → one `now`, one cache read per key, and of the store for
//! those that the memory does not have, judged by what the caller asked for ([`directives`]) → the misses go to the
//! dispatcher as one ticket (`miss`) → answers and misses are put together in the order asked ([`encode`]) → a large answer
//! is compressed for a caller that accepts it ([`compression`]).
//!
//! Invariants: a lookup whose keys are all cached touches no channel, no queue and no other task; a lookup that is
//! dropped takes only its own place in the queue along; bad input is refused before anything of it goes upstream.

pub mod chunk;
pub mod compression;
pub mod directives;
pub mod encode;
mod inquiry;
mod miss;
mod recent;
mod tally;
mod traced;

use std::{
    mem,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{AGE, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Body;
use smallvec::SmallVec;
use tower::BoxError;

pub use self::tally::Account;
use self::{
    chunk::Chunk, compression::Compression, directives::Directives, encode::Pending, inquiry::Inquiry, miss::Missed,
    tally::Tally, traced::Traced,
};
use crate::{
    cache::Cache,
    clock::{self, Instant},
    dispatch::{self, Client, Refused},
    error::{JSON, Refusal},
    key::Id,
    key_log::KeyLog,
    live::{Count, Time},
    metrics::LookupMetrics,
    request::{
        Limits, body,
        budget::NoRoom,
        wire::{self, Question},
    },
    shape::Shape,
    trace::Recorder,
    upstream::{credentials::Credentials, verdict::PassedOn},
};

/// `Cache-Status` (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// `Preference-Applied` (RFC 7240, section 3).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The largest answer that counts as nothing in the budget of bodies: a socket takes that much at once, so that no reader,
/// however slow, keeps it here.
const UNCOUNTED: usize = 16 << 10;

/// What a lookup needs to know of its `[[lookup]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Keys in one caller's request; more is a 400.
    pub max_keys_per_request: usize,
    /// How long a caller waits at most.
    pub timeout: Duration,
}

/// The same, which may change while it runs.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Keys in one caller's request.
    pub max_keys: Count,
    /// How long a caller waits at most.
    pub timeout: Time,
}

impl Bounds {
    /// They begin as configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { max_keys: Count::new(config.max_keys_per_request), timeout: Time::new(config.timeout) }
    }

    /// They are as configured there from now on.
    pub fn set(&self, config: &Config) {
        self.max_keys.set(config.max_keys_per_request);
        self.timeout.set(config.timeout);
    }
}

/// The handler of one lookup path.
pub struct Lookup {
    /// Its position in the configuration, which is part of every scope.
    pub position: u8,
    /// Its lists.
    pub shape: Arc<Shape>,
    /// Its limits.
    pub bounds: Bounds,
    /// The limits of a request body, and what it shares with larger answers.
    pub limits: Limits,
    /// What becomes of larger answers.
    pub compression: Arc<Compression>,
    /// Who callers are.
    pub credentials: Arc<Credentials>,
    /// The answers of all lookup paths.
    pub cache: Arc<Cache>,
    /// Its queues.
    pub dispatch: Arc<dispatch::Fleet>,
    /// Its counters.
    pub metrics: LookupMetrics,
    /// Where it says what became of each key.
    pub key_log: KeyLog,
    /// Who takes its spans.
    pub recorder: Recorder,
}

/// Where a lookup is in its trace, and where its account is wanted.
type Noted<'a> = (Option<&'a Traced>, Option<&'a mut Option<Account>>);

/// How far a lookup came without a wait.
enum Step<'a> {
    Answered(Response<Chunk>),
    Missed(Box<Missed>, Noted<'a>),
}

/// Why a lookup is not answered with records.
enum Unanswered {
    Refusal(Refusal),
    PassedOn(Arc<PassedOn>),
}

impl Unanswered {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refusal(refusal) => refusal.status(),
            Self::PassedOn(refusal) => refusal.status,
        }
    }
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Lookup {
    /// Answers one request's body on behalf of a client, which came at that moment; an account of it is given to who wants
    /// one.
    pub async fn handle<B>(
        &self,
        (headers, body): (&mut HeaderMap, &mut B),
        from: (Client, Instant),
        account: Option<&mut Option<Account>>,
    ) -> Response<Chunk>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let Some(traced) = Traced::open(&self.recorder, headers, from.1) else {
            return self.answered((headers, body), from, (None, account)).await;
        };
        let mut own = None;
        let response = Box::pin(self.answered((headers, body), from, (Some(&traced), Some(&mut own)))).await;
        traced.close(self, own.unwrap_or_default(), &response);
        if let Some(account) = account {
            *account = own;
        }
        response
    }

    async fn answered<B>(
        &self,
        (headers, body): (&mut HeaderMap, &mut B),
        from: (Client, Instant),
        noted: Noted<'_>,
    ) -> Response<Chunk>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let accepted = self.compression.accepted(headers);
        let answer = match self.read((headers, body), from, noted).await {
            Ok(Step::Answered(response)) => Ok(response),
            // By itself: what is nearly always a hit needs no room for it.
            Ok(Step::Missed(missed, noted)) => Box::pin(self.fill(*missed, noted)).await,
            Err(refusal) => Err(refusal.into()),
        };
        match answer {
            Ok(response) if accepted.is_none() => response,
            Ok(response) => {
                let compressed = Box::pin(self.compression.compress(accepted, response)).await;
                compressed.unwrap_or_else(|refusal| refusal.response().map(Chunk::from))
            }
            Err(Unanswered::Refusal(refusal)) => refusal.response().map(Chunk::from),
            Err(Unanswered::PassedOn(refusal)) => passed_on(&refusal).map(Chunk::from),
        }
    }

    async fn read<'a, B>(
        &self,
        (headers, body): (&mut HeaderMap, &mut B),
        from: (Client, Instant),
        noted: Noted<'a>,
    ) -> Result<Step<'a>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        body::check_headers(headers)?;
        let body = body::read(body, &self.limits).await?;
        self.at_once(mem::take(headers), body, from, noted)
    }

    /// Answers what the memory holds all of, without a wait; what it does not is on its way to [`fill`](Self::fill).
    fn at_once<'a>(
        &self,
        headers: HeaderMap,
        (body, waited): (Bytes, bool),
        (client, came): (Client, Instant),
        (traced, account): Noted<'a>,
    ) -> Result<Step<'a>, Refusal> {
        let now = if waited { clock::now() } else { came };
        let Question { ids, fields, sent } = wire::read(&self.shape, self.bounds.max_keys.now(), &body)?;
        let scope = recent::scope((self.position, &self.credentials), (&headers, now), (fields, sent));
        // However long the answer takes, this is not needed any more.
        drop(body);
        let mut inquiry = Inquiry {
            asked: SmallVec::with_capacity(ids.len()),
            tally: Tally::new(self.shape.lists.len()),
            directives: Directives::read(&headers),
            now,
            scope,
            ids,
            client,
        };
        let found = self.cache.get_all(&inquiry.scope, &inquiry.ids);
        if self.cache.store().is_some() && !inquiry.directives.cache.no_cache && found.iter().any(Option::is_none) {
            // What is on the disk needs no slot.
            return Ok(Step::Missed(Box::new(Missed { headers, inquiry, found: Some(found) }), (traced, account)));
        }
        inquiry.look(self, found);
        if inquiry.tally.to_fetch() > 0 {
            return Ok(Step::Missed(Box::new(Missed { headers, inquiry, found: None }), (traced, account)));
        }
        if let Some(account) = account {
            *account = Some(inquiry.tally.account());
        }
        inquiry.tally.count(&self.metrics);
        Ok(Step::Answered(self.respond(&inquiry, headers)?))
    }

    /// The answer. `headers` are the request's: their table becomes that of the answer's, which needs one as large.
    fn respond(&self, inquiry: &Inquiry, mut headers: HeaderMap) -> Result<Response<Chunk>, Refusal> {
        let Inquiry { ids, asked, tally, .. } = inquiry;
        let open = ids.iter().zip(asked).filter(|(_, asked)| asked.answer.is_none());
        let open: Vec<Id> = open.map(|(id, _)| id.clone()).collect();
        let is_partial = !open.is_empty();
        let pending = is_partial.then_some(Pending { shape: &self.shape, ids: &open });
        let answers = asked.iter().filter_map(|asked| asked.answer.as_ref());
        let encoded = encode::encode(self.cache.envelope(self.position), answers, pending);
        let mut body = encoded.body;
        if body.remaining() > UNCOUNTED {
            let mut share = self.limits.budget.share();
            share.grow(body.remaining()).map_err(|NoRoom| Refusal::Overloaded)?;
            body = body.counted(share);
        }
        headers.clear();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CACHE_STATUS, tally.cache_status());
        if let Some(oldest) = encoded.oldest {
            headers.insert(AGE, age(inquiry.answered_at().saturating_duration_since(oldest)));
        }
        if is_partial {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("partial-results"));
        }
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// What `Age` says; the ages that are usual at the default `ttl` are written once.
fn age(age: Duration) -> HeaderValue {
    static USUAL: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| (0..=600_u64).map(HeaderValue::from).collect());
    let known = usize::try_from(age.as_secs()).ok().and_then(|seconds| USUAL.get(seconds));
    known.cloned().unwrap_or_else(|| HeaderValue::from(age.as_secs()))
}

/// What a caller is told whom the queue does not take.
fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::TooLong(wait) | Refused::Full(wait) => Refusal::TooFrequent(wait),
        Refused::Down(wait) => Refusal::UpstreamUnavailable(wait),
        Refused::Unshared(wait) => Refusal::ReplicasUnavailable(wait),
        Refused::ShuttingDown => Refusal::ShuttingDown,
    }
}

fn passed_on(refusal: &PassedOn) -> Response<Bytes> {
    let mut response = Response::new(refusal.body.clone());
    *response.status_mut() = refusal.status;
    if let Some(content_type) = &refusal.content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    if let Some(retry_after) = &refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
    }
    response
}
