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
//! **Stalled.** A peer that does not read its answer has `idle_timeout`, of which it uses up only what it is waited for and
//! buys back a part with every byte that it takes ([`Allowance`]). A service that is slow to answer costs it nothing.
//!
//! **Closing.** A peer that was sent everything has [`LINGER`] to close its side.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    activity::{Progress, Stage},
    allowance::{Allowance, Demand},
};

/// How long the close of a connection waits for its peer's. Closing a socket with unread bytes in it is a reset, which
/// can destroy an answer on its way: this is one slow round trip for the answer to arrive.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long one connection waits, and until when it does.
#[derive(Debug)]
pub(super) struct Patience {
    header_timeout: Duration,
    idle_timeout: Duration,
    reading: Demand,
    /// What the peer has left for reading its answer.
    reader: Allowance,
    progress: Progress,
    deadline: Option<Instant>,
}

impl Patience {
    /// The patience with a connection accepted `now`, whose peer is asked to read so many bytes per second.
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration, min_rate: u64, now: Instant) -> Self {
        let reading = Demand { grace: idle_timeout, min_rate };
        Self {
            header_timeout,
            idle_timeout,
            reading,
            reader: Allowance::new(reading),
            progress: Progress { stage: Stage::Fresh, mark: 0, taken: 0 },
            deadline: Some(now + header_timeout),
        }
    }

    /// Takes note of what the connection is waiting for; answers when that has taken too long, if it ever will.
    ///
    /// The clock is read only when a wait with a limit begins, which in an ordinary request happens once, and when a
    /// stalled peer has taken something.
    pub(super) fn observe(&mut self, progress: Progress, now: impl Fn() -> Instant) -> Option<Instant> {
        let (stage, before) = (progress.stage, self.progress.stage);
        if (stage, progress.mark) != (before, self.progress.mark) {
            self.reader.moved(progress.taken.wrapping_sub(self.progress.taken), &now);
            self.deadline = match (before, stage) {
                // The first head has been waited for since the connection was accepted.
                (Stage::Fresh, Stage::Head) => self.deadline,
                (_, Stage::Stalled) => Some(self.reader.wait(&now)),
                (_, stage) => self.limit(stage).map(|limit| now() + limit),
            };
            if stage == Stage::Idle {
                // The next answer is another one.
                self.reader = Allowance::new(self.reading);
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
    const RATE: u64 = 100;

    /// A patience, seconds since its connection was accepted, and how often it asked for them.
    struct Fixture {
        accepted: Instant,
        patience: Patience,
        readings: Cell<u32>,
    }

    impl Fixture {
        fn new() -> Self {
            let accepted = crate::clock::now();
            Self { accepted, patience: Patience::new(HEADER, IDLE, RATE, accepted), readings: Cell::new(0) }
        }

        /// The deadline in seconds after this was observed at `second`.
        fn observe(&mut self, second: u64, stage: Stage, mark: u32) -> Option<u64> {
            self.observe_taken(second, stage, mark, 0)
        }

        /// The same for a peer that has taken so many bytes by now.
        fn observe_taken(&mut self, second: u64, stage: Stage, mark: u32, taken: u64) -> Option<u64> {
            let readings = &self.readings;
            let now = self.accepted + Duration::from_secs(second);
            let deadline = self.patience.observe(Progress { stage, mark, taken }, || {
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
    fn every_byte_taken_buys_patience_with_a_slow_reader() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe(1, Stage::Stalled, 0), Some(76));
        assert_eq!(fixture.observe(50, Stage::Stalled, 0), Some(76));
        assert_eq!(fixture.observe_taken(60, Stage::Stalled, 1, 500), Some(81));
        assert_eq!(fixture.observe_taken(70, Stage::Stalled, 2, 1_000_000), Some(145));
        assert_eq!(fixture.observe_taken(71, Stage::Closing, 3, 1_000_000), Some(73));
    }

    #[test]
    fn a_service_that_is_slow_to_answer_costs_the_reader_nothing() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.observe_taken(10, Stage::Stalled, 0, 100), Some(85));
        assert_eq!(fixture.observe_taken(20, Stage::Busy, 1, 100), None);
        assert_eq!(fixture.observe_taken(1000, Stage::Busy, 1, 200), None);
        // Sixty-five seconds are left, and two were bought.
        assert_eq!(fixture.observe_taken(1000, Stage::Stalled, 2, 300), Some(1067));
        // Another answer is another matter.
        assert_eq!(fixture.observe_taken(1050, Stage::Idle, 3, 300), Some(1125));
        assert_eq!(fixture.observe_taken(1060, Stage::Stalled, 4, 300), Some(1135));
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
