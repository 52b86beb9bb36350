//! The counters of a server, and the place that a connection takes among them.
//!
//! A place is given back when it is dropped, whatever ended the connection: an aborted task and a panic included.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// What a server counts; read it whenever metrics are asked for.
#[derive(Default, Debug)]
pub struct Stats {
    /// Connections being served.
    open: AtomicUsize,
    /// Connections that found no place.
    refused: AtomicU64,
}

impl Stats {
    /// Connections being served now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections refused because there were too many, told so or not, since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// A place among at most `max`; without one the connection counts as refused.
    pub(super) fn admit(self: &Arc<Self>, max: usize) -> Option<Open> {
        let admitted = self.open.fetch_update(Relaxed, Relaxed, |open| (open < max).then_some(open + 1));
        if admitted.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        admitted.is_ok().then(|| Open { stats: Arc::clone(self) })
    }
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Open {
    stats: Arc<Stats>,
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
        assert_eq!((stats.open(), stats.refused()), (1, 1));
        drop(first);
        assert_eq!((stats.open(), stats.refused()), (0, 1));
        assert!(stats.admit(1).is_some());
    }
}
