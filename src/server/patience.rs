//! How long a connection may go on waiting for what it is waiting for: a pure function of what happened and when.
//!
//! **Fresh.** A new connection has `header_timeout`, counted from its acceptance, to send a whole head.
//!
//! **Head.** So has any further head, counted from its first byte. Bytes in between move nothing: a trickle is cut.
//!
//! **Busy.** A request under way has no limit here.
//!
//! **Idle.** With nothing under way, `idle_timeout` from the end of the last answer.
//!
//! **Stalled.** A peer that does not read its answer has `idle_timeout` from the last byte that it took.
//!
//! **Closing.** A peer that was sent everything has [`LINGER`] to close its side.

use std::time::Duration;

use tokio::time::Instant;

use super::activity::{Progress, Stage};

/// How long the close of a connection waits for its peer's. Closing a socket with unread bytes in it is a reset, which
/// can destroy an answer on its way: this is one slow round trip for the answer to arrive.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long one connection waits, and until when it does.
#[derive(Debug)]
pub(super) struct Patience {
    header_timeout: Duration,
    idle_timeout: Duration,
    progress: Progress,
    deadline: Option<Instant>,
}

impl Patience {
    /// The patience with a connection accepted `now`.
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration, now: Instant) -> Self {
        let progress = Progress { stage: Stage::Fresh, mark: 0 };
        Self { header_timeout, idle_timeout, progress, deadline: Some(now + header_timeout) }
    }

    /// Takes note of what the connection is waiting for; answers when that has taken too long, if it ever will.
    ///
    /// The clock is read only when a wait with a limit begins, which in an ordinary request happens once.
    pub(super) fn observe(&mut self, progress: Progress, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if progress != self.progress {
            let first_byte = self.progress.stage == Stage::Fresh && progress.stage == Stage::Head;
            // The first head has been waited for since the connection was accepted.
            if !first_byte {
                self.deadline = self.limit(progress.stage).map(|limit| now() + limit);
            }
            self.progress = progress;
        }
        self.deadline
    }

    /// What the connection was waiting for when it was last observed.
    pub(super) fn stage(&self) -> Stage {
        self.progress.stage
    }

    fn limit(&self, stage: Stage) -> Option<Duration> {
        match stage {
            Stage::Fresh | Stage::Head => Some(self.header_timeout),
            Stage::Busy => None,
            Stage::Idle | Stage::Stalled => Some(self.idle_timeout),
            Stage::Closing => Some(LINGER),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    /// A patience, seconds since its connection was accepted, and how often it asked for them.
    struct Fixture {
        accepted: Instant,
        patience: Patience,
        readings: Cell<u32>,
    }

    impl Fixture {
        fn new() -> Self {
            let accepted = crate::clock::now();
            Self { accepted, patience: Patience::new(HEADER, IDLE, accepted), readings: Cell::new(0) }
        }

        /// The deadline in seconds after this was observed at `second`.
        fn observe(&mut self, second: u64, stage: Stage, mark: u32) -> Option<u64> {
            let readings = &self.readings;
            let now = self.accepted + Duration::from_secs(second);
            let deadline = self.patience.observe(Progress { stage, mark }, || {
                readings.set(readings.get() + 1);
                now
            });
            deadline.map(|at| (at - self.accepted).as_secs())
        }
    }

    #[test]
    fn the_first_head_is_due_from_the_acceptance_whenever_its_first_byte_comes() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(0, Stage::Fresh, 0), Some(10));
        assert_eq!(fixture.observe(9, Stage::Head, 0), Some(10));
        assert_eq!(fixture.readings.get(), 0);
    }

    #[test]
    fn a_later_head_is_due_from_its_first_byte_and_a_trickle_does_not_move_it() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(1, Stage::Idle, 1), Some(76));
        assert_eq!(fixture.observe(50, Stage::Head, 1), Some(60));
        assert_eq!(fixture.observe(55, Stage::Head, 1), Some(60));
        // A head that follows another within one turn of the task is a new one.
        assert_eq!(fixture.observe(56, Stage::Head, 2), Some(66));
    }

    #[test]
    fn a_request_under_way_has_no_deadline() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(1, Stage::Busy, 0), None);
        assert_eq!(fixture.observe(1_000, Stage::Busy, 0), None);
        assert_eq!(fixture.observe(1_001, Stage::Idle, 1), Some(1_076));
    }

    #[test]
    fn every_byte_taken_renews_the_patience_with_a_slow_reader() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(1, Stage::Stalled, 0), Some(76));
        assert_eq!(fixture.observe(50, Stage::Stalled, 0), Some(76));
        assert_eq!(fixture.observe(60, Stage::Stalled, 1), Some(135));
        assert_eq!(fixture.observe(61, Stage::Closing, 2), Some(63));
    }

    #[test]
    fn an_ordinary_request_reads_the_clock_once() {
        let mut fixture = Fixture::new();
        for request in 1..=100 {
            // One whose answer is ready at once, and one that takes a turn of its own to be worked on.
            fixture.observe(u64::from(request), Stage::Busy, 2 * request - 1);
            fixture.observe(u64::from(request), Stage::Idle, 2 * request);
            fixture.observe(u64::from(request), Stage::Idle, 2 * request + 1);
            fixture.observe(u64::from(request), Stage::Idle, 2 * request + 1);
        }
        assert_eq!(fixture.readings.get(), 200);
    }
}
