//! One lookup from a caller's request to its answer.
//!
//! decode to an ordered list of keys ([`request`](crate::request)) → one `now`, one cache read per key, and of the store for those that the memory does not have, judged by what
//! the caller asked for ([`directives`]) → the misses go to the dispatcher as one ticket → answers and misses are put
//! together in the order asked ([`encode`]) → a large answer is compressed for a caller that accepts it ([`compression`]).
//!
//! Invariants: a lookup whose keys are all cached touches no channel, no queue and no other task; a lookup that is
//! dropped takes only its own place in the queue along; bad input is refused before anything of it goes upstream.

pub mod chunk;
pub mod compression;
pub mod directives;
pub mod encode;
mod inquiry;
mod recent;
mod tally;
mod traced;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{AGE, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Body;
use smallvec::SmallVec;
use tower::BoxError;

pub use self::tally::Account;
use self::{
    chunk::Chunk,
    compression::Compression,
    directives::Directives,
    encode::Pending,
    inquiry::{Asked, Inquiry},
    tally::Tally,
    traced::Traced,
};
use crate::{
    cache::Cache,
    clock::{self, Instant},
    dispatch::{self, Client, Failure, Outcome, Refused, Wanted},
    error::{JSON, Refusal},
    key::{Id, Key},
    key_log::KeyLog,
    live::{Count, Time},
    metrics::LookupMetrics,
    request::{
        Limits, body,
        budget::NoRoom,
        wire::{self, Question},
    },
    shape::Shape,
    trace::{Recorder, Waiting},
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
    /// Answers one request on behalf of a client, which came at that moment; an account of it is given to who wants one.
    pub async fn handle<B>(
        &self,
        request: Request<B>,
        from: (Client, Instant),
        account: Option<&mut Option<Account>>,
    ) -> Response<Chunk>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let Some(traced) = Traced::open(&self.recorder, request.headers(), from.1) else {
            return self.answered(request, from, (None, account)).await;
        };
        let mut own = None;
        let response = Box::pin(self.answered(request, from, (Some(&traced), Some(&mut own)))).await;
        traced.close(self, own.unwrap_or_default(), &response);
        if let Some(account) = account {
            *account = own;
        }
        response
    }

    async fn answered<B>(&self, request: Request<B>, from: (Client, Instant), noted: Noted<'_>) -> Response<Chunk>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let accepted = self.compression.accepted(request.headers());
        match self.answer(request, from, noted).await {
            Ok(response) if accepted.is_none() => response,
            Ok(response) => {
                let compressed = Box::pin(self.compression.compress(accepted, response)).await;
                compressed.unwrap_or_else(|refusal| refusal.response().map(Chunk::from))
            }
            Err(Unanswered::Refusal(refusal)) => refusal.response().map(Chunk::from),
            Err(Unanswered::PassedOn(refusal)) => passed_on(&refusal).map(Chunk::from),
        }
    }

    async fn answer<B>(
        &self,
        request: Request<B>,
        (client, came): (Client, Instant),
        (traced, account): Noted<'_>,
    ) -> Result<Response<Chunk>, Unanswered>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (parts, body) = request.into_parts();
        body::check_headers(&parts.headers)?;
        let (body, waited) = body::read(body, &parts.headers, &self.limits).await?;
        let now = if waited { clock::now() } else { came };
        let Question { ids, fields, sent } = wire::read(&self.shape, self.bounds.max_keys.now(), &body)?;
        let scope = recent::scope((self.position, &self.credentials), (&parts.headers, now), (fields, sent));
        // However long the answer takes, this is not needed any more.
        drop(body);
        let mut inquiry = Inquiry {
            asked: SmallVec::with_capacity(ids.len()),
            tally: Tally::new(self.shape.lists.len()),
            directives: Directives::read(&parts.headers),
            now,
            scope,
            ids,
            client,
        };
        let mut found = self.cache.get_all(&inquiry.scope, &inquiry.ids);
        if self.cache.store().is_some() && !inquiry.directives.cache.no_cache && found.iter().any(Option::is_none) {
            // What is on the disk needs no slot.
            Box::pin(inquiry.recall(self, &mut found)).await;
        }
        inquiry.look(self, found);
        if let Some(account) = account {
            *account = Some(inquiry.tally.account());
        }
        let answered = if inquiry.tally.to_fetch() > 0 {
            let missed = inquiry.missed(self);
            let waiting = traced::waiting(traced, &parts.headers);
            // By itself: what is nearly always a hit needs no room for it.
            let answered = Box::pin(self.fetch(&mut inquiry, waiting)).await;
            inquiry.tell(self, &missed, &answered);
            answered
        } else {
            Ok(())
        };
        inquiry.tally.count(&self.metrics);
        answered?;
        Ok(self.respond(&inquiry, parts.headers)?)
    }

    /// Has the keys without an answer fetched, and waits for them.
    async fn fetch(&self, inquiry: &mut Inquiry, trace: Option<Arc<Waiting>>) -> Result<(), Unanswered> {
        if inquiry.directives.cache.only_if_cached {
            return Err(Refusal::NotCached.into());
        }
        self.fall_back_at_once(inquiry);
        let Inquiry { scope, ids, asked, tally, directives, client, now } = inquiry;
        let missing: Vec<usize> = (0..asked.len()).filter(|&position| asked[position].answer.is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let keys = missing.iter().map(|&position| Key { scope: Arc::clone(scope), id: ids[position].clone() });
        let timeout = self.bounds.timeout.now();
        let wait = directives.wait.map_or(timeout, |wait| wait.min(timeout));
        let deadline = *now + wait;
        let wanted = Wanted {
            client: *client,
            keys: keys.collect(),
            fallback: missing.iter().map(|&position| asked[position].fallback.is_some()).collect(),
            fresh: directives.cache.no_cache,
            max_age: directives.cache.max_age,
            no_store: directives.cache.no_store,
            deadline,
            partial: directives.partial,
            trace: trace.clone(),
        };
        let waiting = match self.dispatch.submit(*now, scope, wanted) {
            Ok(waiting) => waiting,
            Err(refused) => {
                for position in missing {
                    asked[position].fall_back(tally, ids[position].kind);
                }
                let answered = asked.iter().all(|asked| asked.answer.is_some());
                return if answered { Ok(()) } else { Err(refusal(refused).into()) };
            }
        };
        tally.collapsed = waiting.is_collapsed();
        let retry_after = waiting.promise();
        let outcomes = waiting.outcomes(deadline).await;
        trace.iter().for_each(|trace| traced::waited(self, trace, *now, missing.len()));
        let mut outcomes = outcomes.into_vec().into_iter();
        let mut served = false;
        for position in missing {
            let asked = &mut asked[position];
            match outcomes.next().flatten() {
                Some(Outcome::Answer(answer)) => {
                    asked.answer = Some(answer);
                    served = true;
                }
                Some(Outcome::Failed(Failure::Refused(refusal) | Failure::Unauthorized(refusal))) => {
                    return Err(Unanswered::PassedOn(refusal));
                }
                Some(Outcome::Failed(Failure::Declined(refusal))) => {
                    asked.fall_back(tally, ids[position].kind);
                    // Who takes what is ready is told that this is not.
                    if asked.answer.is_none() && !directives.partial {
                        return Err(Unanswered::PassedOn(refusal));
                    }
                }
                Some(Outcome::Failed(Failure::ShuttingDown)) => return Err(Refusal::ShuttingDown.into()),
                Some(Outcome::Failed(Failure::Unavailable(wait))) => {
                    asked.fall_back(tally, ids[position].kind);
                    if asked.answer.is_none() {
                        return Err(Refusal::UpstreamUnavailable(wait).into());
                    }
                }
                Some(Outcome::Failed(Failure::Unshared(wait))) => {
                    asked.fall_back(tally, ids[position].kind);
                    if asked.answer.is_none() {
                        return Err(Refusal::ReplicasUnavailable(wait).into());
                    }
                }
                None => asked.fall_back(tally, ids[position].kind),
            }
        }
        if served && !directives.cache.no_store {
            self.dispatch.serve(scope);
        }
        let pending = asked.iter().any(|asked| asked.answer.is_none());
        if pending && !directives.partial { Err(Refusal::LookupTimeout(retry_after).into()) } else { Ok(()) }
    }

    /// While the upstream fails or refuses, what may stand in for its answer is given without waiting for the next failure,
    /// and queued to be refreshed.
    fn fall_back_at_once(&self, inquiry: &mut Inquiry) {
        let Inquiry { scope, ids, asked, tally, now, directives, .. } = inquiry;
        let has_fallback = |asked: &Asked| asked.answer.is_none() && asked.fallback.is_some();
        // Who wants nothing kept asks for itself: otherwise nobody might ever ask again.
        let alone = directives.cache.no_store;
        if alone || !asked.iter().any(has_fallback) || !self.dispatch.is_troubled(*now, scope) {
            return;
        }
        let mut stale = Vec::new();
        for (id, asked) in ids.iter().zip(asked).filter(|(_, asked)| has_fallback(asked)) {
            asked.fall_back(tally, id.kind);
            stale.push(Key { scope: Arc::clone(scope), id: id.clone() });
        }
        self.dispatch.refresh(*now, scope, stale);
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
