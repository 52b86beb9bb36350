//! What became of one upstream request: the only thing the dispatcher learns of HTTP and JSON.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::{
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
}

impl Ask {
    /// A question that belongs to no trace.
    #[must_use]
    pub fn new(scope: Arc<Scope>, ids: Vec<Id>) -> Self {
        Self { scope, ids, trace: None }
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
            Self::Success(_) | Self::Throttled(_) | Self::Unauthorized(_) | Self::Rejected(_) => "",
        }
    }
}
