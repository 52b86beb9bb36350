//! What became of one upstream request: the only thing the dispatcher learns of HTTP and JSON.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::{
    clock::Instant,
    key::{Id, Scope},
    metrics::Outcome,
    trace::Context,
};

/// The keys of one scope that ride in one slot.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose keys they are.
    pub scope: Arc<Scope>,
    /// The keys, without duplicates.
    pub ids: Vec<Id>,
    /// The trace that the request belongs to.
    pub trace: Option<Context>,
    /// What those who wait want besides the keys.
    pub demand: Demand,
}

/// What the callers of a request want of it besides its keys, where the upstream understands it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Demand {
    /// Until when the most patient of them waits.
    pub until: Option<Instant>,
    /// How old the strictest of them takes it (RFC 9111, `max-age`).
    pub max_age: Option<Duration>,
    /// Whether one of them wants it fetched anew (`no-cache`).
    pub no_cache: bool,
}

impl Demand {
    /// What satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            until: self.until.max(other.until),
            max_age: [self.max_age, other.max_age].into_iter().flatten().min(),
            no_cache: self.no_cache || other.no_cache,
        }
    }
}

impl Ask {
    /// A question that belongs to no trace.
    #[must_use]
    pub fn new(scope: Arc<Scope>, ids: Vec<Id>) -> Self {
        Self { scope, ids, trace: None, demand: Demand::default() }
    }
}

/// One record as it came, with what its own fields say of it.
pub struct Found {
    /// The JSON text of the object, untouched.
    pub json: Box<[u8]>,
    /// Every id that reaches it.
    pub ids: Vec<Id>,
    /// How many of `ids` its own fields carry.
    pub carried: usize,
    /// Position in `ids` of the one that names this customer and no other.
    pub identity: Option<usize>,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Found({} bytes, {} ids)", self.json.len(), self.ids.len())
    }
}

/// A success, with its records attributed to the keys that were asked.
pub struct Success {
    /// The envelope up to and with `"data":[`, its members spelled as the upstream did.
    pub envelope: Bytes,
    /// The records that belong to a key that was asked.
    pub records: Vec<Found>,
    /// For each asked key, in the order asked, the positions of its records.
    pub of: Vec<Vec<usize>>,
    /// Whether a record came that matches no asked key: then a key without a record may be the one that it belongs to.
    pub unmatched: bool,
    /// How old the oldest record was already when it came.
    pub age: Duration,
    /// For each kind of the shape, whether a record came that only a key of this kind can explain.
    pub exclusive: Vec<bool>,
}

impl fmt::Debug for Success {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The envelope has a sentence of the upstream's, which may repeat what was asked.
        write!(f, "Success({} records for {} keys)", self.records.len(), self.of.len())
    }
}

/// An upstream refusal, kept to be passed on as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct PassedOn {
    /// The upstream's status.
    pub status: StatusCode,
    /// The upstream's `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// The upstream's `Retry-After`.
    pub retry_after: Option<HeaderValue>,
    /// The upstream's body.
    pub body: Bytes,
}

impl fmt::Debug for PassedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassedOn({}, {} bytes)", self.status, self.body.len())
    }
}

/// What became of one upstream request.
#[derive(Debug)]
pub enum Verdict {
    /// Answered.
    Success(Success),
    /// Asked too often; how long the upstream wants to be left alone, if it says so.
    Throttled(Option<Duration>),
    /// The upstream does not take the credential.
    Unauthorized(Arc<PassedOn>),
    /// The upstream did not take the gateway's token, and there is a newer one: to be asked again.
    Renewed,
    /// The upstream refuses the request for what it asks.
    Rejected(Arc<PassedOn>),
    /// The upstream, itself a gateway, has no time, no room or no upstream for these keys.
    Declined(Arc<PassedOn>),
    /// The answer is over the size limit.
    TooLarge,
    /// No answer, and why, never a word of the request or the answer; how long the upstream wants to be left alone, if it
    /// says so.
    Unavailable(Cow<'static, str>, Option<Duration>),
    /// An answer that cannot be understood, and why.
    Invalid(&'static str),
}

impl Verdict {
    /// The outcome for metrics and logs.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Success(_) => Outcome::Success,
            Self::Throttled(_) => Outcome::Throttled,
            Self::Unauthorized(_) | Self::Renewed => Outcome::Unauthorized,
            Self::Rejected(_) => Outcome::Rejected,
            Self::Declined(refusal) if refusal.status == StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled,
            Self::Declined(_) => Outcome::Unavailable,
            Self::Unavailable(..) => Outcome::Unavailable,
            Self::TooLarge | Self::Invalid(_) => Outcome::Invalid,
        }
    }

    /// What the log says of it besides the outcome.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Unavailable(reason, _) => reason,
            Self::Invalid(reason) => reason,
            Self::Renewed => "the token was renewed",
            Self::TooLarge => "the answer is over upstream.max_response",
            Self::Declined(_) => "the gateway upstream declined these keys",
            Self::Success(_) | Self::Throttled(_) | Self::Unauthorized(_) | Self::Rejected(_) => "",
        }
    }
}
