//! What the queue knows of one key that is queued or under way.

use std::collections::BTreeMap;

use super::ticket::TicketId;
use crate::{
    clock::Instant,
    key::{Key, Kind},
};

/// In what company a key may be asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    /// Any.
    Company,
    /// Only keys of its own list.
    OneList,
    /// Only keys of its own list, because a request with several lists did not find it.
    Missed,
    /// None: it is suspected of spoiling a request, or a record came that may be its own.
    Alone,
}

/// Keys that may share a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Lane {
    /// Keys of all lists.
    Mixed,
    /// Keys of one list.
    List(Kind),
    /// One key.
    Alone,
}

impl Lane {
    pub(super) fn of(need: Need, kind: Kind) -> Self {
        match need {
            Need::Company => Self::Mixed,
            Need::OneList | Need::Missed => Self::List(kind),
            Need::Alone => Self::Alone,
        }
    }

    /// Whether a key may ride in a batch of this lane.
    pub(super) fn takes(self, need: Need, kind: Kind) -> bool {
        match self {
            Self::Mixed => need == Need::Company,
            Self::List(own) => need != Need::Alone && kind == own,
            Self::Alone => need == Need::Alone,
        }
    }
}

/// Why a key is asked for although nobody waits for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Background {
    /// A stale answer was just given.
    Refresh,
    /// Its callers gave up; a retry will want it.
    Abandoned,
}

/// A key's way through the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Waiting to be chosen.
    Queued,
    /// In a batch that waits at the head of the queue.
    Held,
    /// In an upstream request.
    InFlight,
}

/// One key's state.
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) need: Need,
    /// Whether its answer may be kept: somebody who asked did not say `no-store`.
    pub(super) keep: bool,
    /// Whether it was only asked for because there was room.
    pub(super) rides: bool,
    /// Whether somebody was given a stale answer while it was under way, or its customer changed: if what comes is
    /// outdated, it is asked again.
    pub(super) again: bool,
    /// Failed attempts so far.
    pub(super) attempts: u8,
    /// When it was first asked for.
    pub(super) since: Instant,
    /// Since when nobody has waited for it.
    pub(super) unwanted_since: Option<Instant>,
    /// Who waits, and at which position of their ticket.
    pub(super) waiters: BTreeMap<TicketId, usize>,
    /// Who waits for a request that starts later than the one under way.
    pub(super) later: BTreeMap<TicketId, usize>,
    /// Its class and number there while nobody waits.
    pub(super) background: Option<(Background, u64)>,
}

impl Entry {
    pub(super) fn new(need: Need, since: Instant) -> Self {
        Self {
            place: Place::Queued,
            need,
            keep: false,
            rides: false,
            again: false,
            attempts: 0,
            since,
            unwanted_since: None,
            waiters: BTreeMap::new(),
            later: BTreeMap::new(),
            background: None,
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiters.is_empty() || !self.later.is_empty()
    }
}

/// A batch that goes again before anything else.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: Vec<Key>,
    pub(super) lane: Lane,
    pub(super) how: Again,
}

impl Held {
    pub(super) fn is_half(&self) -> bool {
        matches!(self.how, Again::Exactly(_))
    }
}

/// A batch that was rejected and divided.
#[derive(Debug)]
pub(super) struct Halved {
    /// How many keys it had.
    pub(super) size: usize,
    /// How many of its halves have passed.
    pub(super) passed: u8,
}

/// How a held batch goes again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// It was asked too early: as it was, with its free places filled.
    Filled,
    /// It is half of the rejected batch with this number: exactly as it is, or in parts if that is known to be too many.
    Exactly(u64),
}
