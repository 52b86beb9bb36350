//! The counters of a server, and the place that a connection takes among them.
//!
//! A place is given back when it is dropped, whatever ended the connection: an aborted task and a panic included.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Why the server ended a connection, where it was not the peer's wish nor the server's own end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There were too many. Told so or not, it was not served.
    Overloaded,
    /// TLS was begun and came to nothing, or took too long.
    Handshake,
    /// What came is no request, or one that two servers could read in two ways.
    MalformedHead,
    /// A head that is too long, in bytes or in lines.
    HeadTooLarge,
    /// A body that is malformed, or ended too early.
    BrokenBody,
    /// A head was begun and not finished in time.
    SlowHead,
    /// A body was begun and did not come in time.
    SlowBody,
    /// The answer was not taken in time.
    SlowReader,
    /// Nothing was asked for too long.
    Idle,
    /// The service panicked.
    Panic,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Overloaded,
        Self::Handshake,
        Self::MalformedHead,
        Self::HeadTooLarge,
        Self::BrokenBody,
        Self::SlowHead,
        Self::SlowBody,
        Self::SlowReader,
        Self::Idle,
        Self::Panic,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Handshake => "handshake",
            Self::MalformedHead => "malformed_head",
            Self::HeadTooLarge => "head_too_large",
            Self::BrokenBody => "broken_body",
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Panic => "panic",
        }
    }
}

/// What a server counts; read it whenever metrics are asked for.
#[derive(Default, Debug)]
pub struct Stats {
    /// Connections being served.
    open: AtomicUsize,
    /// Connections that the server ended, by [`Reason`].
    ended: [AtomicU64; Reason::ALL.len()],
}

impl Stats {
    /// Connections being served now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections that the server ended for this reason since the start.
    #[must_use]
    pub fn ended(&self, reason: Reason) -> u64 {
        self.ended[reason as usize].load(Relaxed)
    }

    /// Counts one of them.
    pub(super) fn end(&self, reason: Reason) {
        self.ended[reason as usize].fetch_add(1, Relaxed);
    }

    /// A place among at most `max`; without one the connection counts as ended.
    pub(super) fn admit(self: &Arc<Self>, max: usize) -> Option<Open> {
        let admitted = self.open.fetch_update(Relaxed, Relaxed, |open| (open < max).then_some(open + 1));
        if admitted.is_err() {
            self.end(Reason::Overloaded);
        }
        admitted.is_ok().then(|| Open { stats: Arc::clone(self) })
    }
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Open {
    stats: Arc<Stats>,
}

impl Open {
    /// Counts why the server ended the connection.
    pub(super) fn end(&self, reason: Reason) {
        self.stats.end(reason);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let stats = Arc::new(Stats::default());
        let first = stats.admit(1).expect("a place is free");
        assert!(stats.admit(1).is_none());
        assert_eq!((stats.open(), stats.ended(Reason::Overloaded)), (1, 1));
        drop(first);
        assert_eq!((stats.open(), stats.ended(Reason::Overloaded)), (0, 1));
        assert!(stats.admit(1).is_some());
    }

    #[test]
    fn each_reason_has_a_counter_and_a_name_of_its_own() {
        let stats = Stats::default();
        Reason::ALL.into_iter().for_each(|reason| stats.end(reason));
        assert!(Reason::ALL.into_iter().all(|reason| stats.ended(reason) == 1));
        let names: std::collections::HashSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
