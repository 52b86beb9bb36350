//! What one lookup waits for: its keys, and what has become of each.

use std::{net::IpAddr, sync::Arc, time::Duration};

use smallvec::SmallVec;

use crate::{
    cache::Answer,
    clock::Instant,
    key::Key,
    upstream::verdict::{Demand, PassedOn},
};

/// On whose behalf keys are asked for: the unit of fairness.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Client {
    /// A caller known by its token, wherever it calls from: the number of its name.
    Named(u32),
    /// A caller known by its address only.
    Peer(IpAddr),
    /// A caller without an address, as in a test.
    Unknown,
}

/// What became of one key.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The upstream answered.
    Answer(Answer),
    /// It did not.
    Failed(Failure),
}

/// Why a key has no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The upstream refused this very key: passed on as it came.
    Refused(Arc<PassedOn>),
    /// The upstream refused the credential: passed on as it came.
    Unauthorized(Arc<PassedOn>),
    /// The upstream, itself a gateway, has no time or room for this key now: passed on as it came.
    Declined(Arc<PassedOn>),
    /// The upstream kept failing; when to ask again.
    Unavailable(Duration),
    /// The slot is shared, and those who share it cannot be asked; when to ask again.
    Unshared(Duration),
    /// The gateway is draining and cannot wait any longer.
    ShuttingDown,
}

impl Failure {
    /// Whether it decides the whole lookup, so that there is no point in waiting for the other keys.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unauthorized(_) | Self::ShuttingDown => true,
            Self::Declined(_) | Self::Unavailable(_) | Self::Unshared(_) => false,
        }
    }
}

/// Names a ticket; later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TicketId(pub(super) u64);

/// What became of each key of a lookup, in the order asked; none where nothing has yet. Most lookups have one key.
pub type Outcomes = SmallVec<[Option<Outcome>; 1]>;

/// One lookup's keys in the queue. `W` is how the caller is woken.
pub(super) struct Ticket<W> {
    pub(super) client: Client,
    pub(super) arrived: Instant,
    /// The keys, none of them twice, all of one scope.
    pub(super) keys: SmallVec<[Key; 1]>,
    /// What became of each, in the order of `keys`.
    pub(super) outcomes: Outcomes,
    /// For which of them the caller has something older to fall back on; empty: for none.
    pub(super) fallback: Box<[bool]>,
    /// What the caller wants besides the keys.
    pub(super) demand: Demand,
    /// Whether only a request counts that started after it arrived.
    pub(super) fresh: bool,
    pub(super) waker: W,
}

impl<W> Ticket<W> {
    /// Whether the caller has an answer for one of its keys if the upstream does not.
    pub(super) fn can_fall_back(&self, position: usize) -> bool {
        self.fallback.get(position).is_some_and(|fallback| *fallback)
    }

    /// The keys that nothing has become of yet.
    pub(super) fn open(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().zip(&self.outcomes).filter(|(_, outcome)| outcome.is_none()).map(|(key, _)| key)
    }

    /// Whether something has become of each of its keys.
    pub(super) fn is_answered(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    /// Whether the caller has nothing more to wait for.
    pub(super) fn is_done(&self) -> bool {
        let decided =
            |outcome: &Option<Outcome>| matches!(outcome, Some(Outcome::Failed(failure)) if failure.is_final());
        self.is_answered() || self.outcomes.iter().any(decided)
    }

    /// It is over.
    pub(super) fn finished(self) -> Finished<W> {
        Finished { waker: self.waker, outcomes: self.outcomes }
    }
}

/// A ticket that is over: how its caller is woken, and with what.
#[derive(Debug)]
pub struct Finished<W> {
    /// How the caller is woken.
    pub waker: W,
    /// What became of each key.
    pub outcomes: Outcomes,
}
