//! What arrived: the log that tests read to see what a gateway asked, and when.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use http::Method;

use super::{call::Call, faults::Fault};
use crate::clock::Instant;

/// Requests remembered: a day at one per second.
const MAX_ARRIVALS: usize = 100_000;
/// Keys remembered with them, about 100 MB; the oldest requests go first.
const MAX_KEYS: usize = 1_000_000;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Answered as asked.
    Accepted,
    /// Refused by the limiter.
    Throttled,
    /// Refused for its token.
    Unauthorized,
    /// Refused for what it says: method, body, too many keys, a bad key.
    Rejected,
    /// Let through by the limiter, and then something went wrong.
    Faulted(Fault),
    /// No such path.
    NotFound,
    /// Its body never arrived whole, so the limiter did not see it.
    Incomplete,
}

impl Outcome {
    /// The name to print.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::Rejected => "rejected",
            Self::Faulted(fault) => fault.as_str(),
            Self::NotFound => "not found",
            Self::Incomplete => "incomplete",
        }
    }

    /// Whether the limiter let it through.
    #[must_use]
    pub fn passed_the_limiter(self) -> bool {
        !matches!(self, Self::Throttled | Self::Incomplete)
    }
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When its head had arrived.
    pub moment: Instant,
    /// When the limiter judged it: the same moment, unless there is an arrival jitter or a slow body.
    pub judged: Instant,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// Its method.
    pub method: Method,
    /// Its path as sent, without the query.
    pub path: String,
    /// Its query as sent.
    pub query: Option<String>,
    /// Which call the path means, however it is spelled.
    pub call: Call,
    /// Whether the limiter counts that call.
    pub limited: bool,
    /// Its `X-Token` header.
    pub token: Option<String>,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
    /// Its `traceparent` header.
    pub traceparent: Option<String>,
    /// Its `companyId` field.
    pub company: Option<String>,
    /// Its `instanceAppid` field.
    pub instance: Option<String>,
    /// All other body fields that are no key list, as JSON with sorted names; `{}` when there are none.
    pub rest: String,
    /// The keys asked, for each list that has some, as strings, in order.
    pub keys: Vec<(String, Vec<String>)>,
    /// How many keys that is.
    pub key_count: usize,
    /// Lookups under way when this one was judged, itself included; 0 for other calls.
    pub in_flight: usize,
    /// What became of it.
    pub outcome: Outcome,
}

impl Arrival {
    /// The keys asked in one list.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        self.keys.iter().find(|(list, _)| list == name).map_or(&[], |(_, values)| values)
    }

    /// All keys asked, as pairs of list and value.
    #[must_use]
    pub fn key_set(&self) -> BTreeSet<(&str, &str)> {
        self.keys.iter().flat_map(|(list, values)| values.iter().map(move |value| (&**list, &**value))).collect()
    }
}

/// The last arrivals.
#[derive(Default, Debug)]
pub(super) struct Log {
    arrivals: VecDeque<Arc<Arrival>>,
    keys: usize,
}

impl Log {
    /// Remembers one, and forgets the oldest beyond the limits.
    pub(super) fn push(&mut self, arrival: Arrival) {
        self.keys += arrival.key_count;
        self.arrivals.push_back(Arc::new(arrival));
        while self.arrivals.len() > MAX_ARRIVALS || (self.keys > MAX_KEYS && self.arrivals.len() > 1) {
            self.keys -= self.arrivals.pop_front().map_or(0, |oldest| oldest.key_count);
        }
    }

    /// All that are remembered, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Arrival>> {
        self.arrivals.iter().cloned().collect()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
