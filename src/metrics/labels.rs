//! What labels say: each enum is the whole set of values of one label, so that none ever comes from a caller.

/// How one key of a lookup was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyResult {
    /// From a fresh answer with records.
    Hit,
    /// From a stale answer.
    Stale,
    /// From a fresh answer that there is no such customer.
    Negative,
    /// It had to be fetched.
    Miss,
    /// It was fetched because the caller asked for that.
    Bypass,
}

/// How many ways there are to answer a key.
pub const KEY_RESULTS: usize = KeyResult::ALL.len();

impl KeyResult {
    /// Every way, in the order of the contract.
    pub const ALL: [Self; 5] = [Self::Hit, Self::Stale, Self::Negative, Self::Miss, Self::Bypass];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// What became of one upstream request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was answered with records, or with the word that there are none.
    Success,
    /// The upstream said that it is asked too often.
    Throttled,
    /// The upstream refused the request for what it asks.
    Rejected,
    /// The upstream did not accept the credential.
    Unauthorized,
    /// No answer: no connection, time out, or a server error.
    Unavailable,
    /// An answer that cannot be understood.
    Invalid,
}

impl Outcome {
    /// Every outcome, in the order of the contract.
    pub const ALL: [Self; 6] =
        [Self::Success, Self::Throttled, Self::Rejected, Self::Unauthorized, Self::Unavailable, Self::Invalid];

    /// The label's value, and the word in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Throttled => "throttled",
            Self::Rejected => "rejected",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

/// Why a key was asked again without a caller waiting for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresh {
    /// A stale answer of it was given (RFC 5861, `stale-while-revalidate`).
    Revalidate,
    /// It was about to expire, and a request that went anyway had room.
    Ride,
    /// It was about to expire, and a slot was idle.
    Idle,
    /// The upstream said that it has changed.
    Event,
}

impl Refresh {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Revalidate, Self::Ride, Self::Idle, Self::Event];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revalidate => "revalidate",
            Self::Ride => "ride",
            Self::Idle => "idle",
            Self::Event => "event",
        }
    }
}

/// What became of what one passed-through write names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteOutcome {
    /// It was made old: the write succeeded, or may have.
    Applied,
    /// Nothing was: the write did not happen.
    NotApplied,
    /// Nothing was, because the body is larger than what is read.
    TooLarge,
    /// Nothing was, because too much was in memory already.
    NoRoom,
    /// Nothing was, because the body cannot be read.
    Unreadable,
}

impl WriteOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Applied, Self::NotApplied, Self::TooLarge, Self::NoRoom, Self::Unreadable];

    /// The label's value, and the word in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::NotApplied => "not_applied",
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What became of one event that the upstream pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventOutcome {
    /// The customer was cached, or is being fetched: it is fetched again.
    Refreshed,
    /// Nothing is known of the customer.
    NotCached,
    /// It names no customer.
    Unknown,
    /// It cannot be read.
    Invalid,
}

impl EventOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Refreshed, Self::NotCached, Self::Unknown, Self::Invalid];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::NotCached => "not_cached",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
}

/// What came of a key that was read from the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreRead {
    /// Its answer.
    Found,
    /// Nothing that may be believed.
    Absent,
    /// It took too long.
    Late,
    /// The store cannot be read, or not now.
    Failed,
}

impl StoreRead {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Found, Self::Absent, Self::Late, Self::Failed];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }
}

/// What became of an upstream answer that was to be stored. That it was let go before is counted beside these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreSave {
    /// It is in the store.
    Saved,
    /// It could not be written.
    Failed,
}

impl StoreSave {
    /// Every outcome.
    pub const ALL: [Self; 2] = [Self::Saved, Self::Failed];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::Failed => "failed",
        }
    }
}
