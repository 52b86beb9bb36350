//! Whose turn it is on an HTTP/2 connection, and how long it may be the peer's.
//!
//! **Ours** is a request that the service works on, or an answer whose next bytes are not there yet. While there is one the
//! connection has no limit: that is the service's affair.
//!
//! **The peer's** is everything else: no request at all, or answers whose bytes it does not take. That may last for the
//! idle timeout, and as long again whenever the peer has taken at least the least rate in that time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

/// The turns of one connection, as its streams tell them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many are ours now.
    ours: AtomicUsize,
    /// How many have begun to be.
    begun: AtomicU64,
    /// The connection's task. What a stream does with its own turn would not wake it.
    waker: Mutex<Option<Waker>>,
}

/// What one stream waits for; ours when it begins.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    is_ours: bool,
}

/// What was seen of the turns of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Count {
    ours: usize,
    begun: u64,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A stream that begins.
    pub(super) fn begin(self: &Arc<Self>) -> Turn {
        let mut turn = Turn { turns: Arc::clone(self), is_ours: false };
        turn.is_ours();
        turn
    }

    /// Whether there has been a stream.
    pub(super) fn have_begun(&self) -> bool {
        self.begun.load(Relaxed) > 0
    }

    /// Has this task woken when the last turn that is ours ends. To be called before [`count`](Self::count).
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    pub(super) fn count(&self) -> Count {
        Count { ours: self.ours.load(Relaxed), begun: self.begun.load(Relaxed) }
    }
}

impl Turn {
    /// The stream waits for the service.
    pub(super) fn is_ours(&mut self) {
        if !self.is_ours {
            // the peer's => ours
            self.is_ours = true;
            self.turns.begun.fetch_add(1, Relaxed);
            self.turns.ours.fetch_add(1, Relaxed);
        }
    }

    /// The stream waits for the peer.
    pub(super) fn is_the_peers(&mut self) {
        if self.is_ours {
            // ours => the peer's
            self.is_ours = false;
            if self.turns.ours.fetch_sub(1, Relaxed) == 1 {
                self.turns.wake();
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.is_the_peers();
    }
}

/// How long it has been the peer's turn on a connection.
#[derive(Debug)]
pub(super) struct Quiet {
    limit: Duration,
    /// Bytes a second below which a peer counts as one that does not read.
    min_rate: u64,
    /// Since when, and how many bytes had been written by then; none while it is ours.
    since: Option<(Instant, u64)>,
    begun: u64,
}

impl Quiet {
    pub(super) fn new(limit: Duration, min_rate: u64) -> Self {
        Self { limit, min_rate, since: None, begun: 0 }
    }

    /// Takes note of whose turn it is; answers when that has taken too long, if it ever will.
    pub(super) fn observe(&mut self, count: Count, written: u64, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if count.ours > 0 {
            self.since = None;
            return None;
        }
        let limit = self.limit;
        let since = match self.since {
            Some(since) if count.begun == self.begun => since,
            _ => (now(), written),
        };
        self.since = Some(since);
        self.begun = count.begun;
        Some(since.0 + limit)
    }

    /// At the deadline: whether the peer has taken enough to be given as long again.
    pub(super) fn renew(&mut self, written: u64, now: Instant) -> bool {
        let Some((_, before)) = self.since else { return true };
        // At least one byte, whatever the limit.
        let least = self.limit.as_secs().saturating_mul(self.min_rate).max(1);
        self.since = Some((now, written));
        written - before >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn while_a_turn_is_ours_there_is_no_limit_and_after_it_a_whole_one() {
        let (turns, begin) = (Turns::new(), crate::clock::now());
        let mut quiet = Quiet::new(LIMIT, 240);
        assert_eq!(quiet.observe(turns.count(), 0, || begin), Some(begin + LIMIT));
        assert!(!turns.have_begun());
        let mut turn = turns.begin();
        assert_eq!(quiet.observe(turns.count(), 0, || begin + SECOND), None);
        turn.is_the_peers();
        assert_eq!(quiet.observe(turns.count(), 0, || begin + 2 * SECOND), Some(begin + 2 * SECOND + LIMIT));
        assert_eq!(quiet.observe(turns.count(), 5, || begin + 3 * SECOND), Some(begin + 2 * SECOND + LIMIT));
        // One that began and ended between two looks.
        drop(turns.begin());
        assert_eq!(quiet.observe(turns.count(), 5, || begin + 4 * SECOND), Some(begin + 4 * SECOND + LIMIT));
        drop(turn);
        assert_eq!(turns.count(), Count { ours: 0, begun: 2 });
    }

    #[test]
    fn a_peer_that_takes_enough_gets_as_long_again_and_one_that_trickles_does_not() {
        let (turns, begin) = (Turns::new(), crate::clock::now());
        let mut quiet = Quiet::new(LIMIT, 240);
        quiet.observe(turns.count(), 100, || begin);
        assert!(quiet.renew(100 + 2400, begin + LIMIT));
        assert_eq!(quiet.observe(turns.count(), 2500, || begin), Some(begin + 2 * LIMIT));
        assert!(!quiet.renew(2500 + 2399, begin + 2 * LIMIT));
    }
}
