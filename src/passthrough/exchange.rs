//! Whose turn it is in one passed-through request, and how long it may take.
//!
//! - **The caller's turn** is while the upstream is ready for the next piece of the request body and it has not come.
//! - **The upstream's turn** is all other time: it makes a connection, takes a piece, works on its answer, sends it.
//! - The upstream's time begins anew with every piece, so that a large body may take as long as it needs; the caller's is
//!   counted in all its turns together ([`Demand`](crate::server::Demand)).
//! - **Over** is a request whose body broke or stalled: whatever the upstream made of it is the caller's fault.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Timeouts;
use crate::{
    clock::{self, Instant},
    error::Refusal,
    server::Allowance,
};

/// What a caller did to its own request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Its body is not what HTTP says a body is, or ended too early.
    Broken,
    /// Its body did not come in time.
    Stalled,
}

/// Who is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Caller,
    Upstream(Instant),
    Over(Fault, Instant),
}

/// One passed-through request, as both of its bodies see it.
pub(super) struct Exchange {
    timeouts: Timeouts,
    turn: Mutex<Turn>,
}

impl Fault {
    /// The answer that the caller gets.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Broken => Refusal::InvalidRequest("the request body broke off or is malformed".into()),
            Self::Stalled => Refusal::RequestTimeout,
        }
    }
}

impl Exchange {
    pub(super) fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self { timeouts, turn: Mutex::new(Turn::Upstream(now)) }
    }

    /// The upstream wants more of the request body than has come.
    pub(super) fn wait_for_caller(&self) {
        let mut turn = self.lock();
        if let Turn::Upstream(_) = *turn {
            // Upstream => Caller
            *turn = Turn::Caller;
        }
    }

    /// A piece of the request body was handed over, or there are no more.
    pub(super) fn wait_for_upstream(&self, now: Instant) {
        let mut turn = self.lock();
        if let Turn::Caller | Turn::Upstream(_) = *turn {
            // Caller => Upstream, or its time begins anew
            *turn = Turn::Upstream(now);
        }
    }

    /// The request body failed.
    pub(super) fn blame_caller(&self, fault: Fault, now: Instant) {
        // Caller | Upstream => Over
        *self.lock() = Turn::Over(fault, now);
    }

    /// What the caller did to its request, if it did.
    pub(super) fn fault(&self) -> Option<Fault> {
        match *self.lock() {
            Turn::Over(fault, _) => Some(fault),
            Turn::Caller | Turn::Upstream(_) => None,
        }
    }

    /// What the caller has for its body.
    pub(super) fn allowance(&self) -> Allowance {
        Allowance::new(self.timeouts.caller)
    }

    /// When the next piece of the answer is late, if it has been waited for since `since`.
    pub(super) fn deadline(&self, since: Instant, now: Instant) -> Instant {
        // An answer that comes while the request is still on its way may wait for more of the request.
        since.max(self.upstreams_turn(now)) + self.timeouts.upstream
    }

    /// Resolves when the upstream has had its time.
    pub(super) async fn overdue(&self) {
        loop {
            let now = clock::now();
            let deadline = self.upstreams_turn(now) + self.timeouts.upstream;
            if deadline <= now {
                return;
            }
            // Whatever happens meanwhile only moves the deadline away.
            tokio::time::sleep_until(deadline).await;
        }
    }

    /// Since when it is the upstream's turn; `now` at the earliest if it is not.
    fn upstreams_turn(&self, now: Instant) -> Instant {
        match *self.lock() {
            // Once it is over, the upstream's side has its time to notice.
            Turn::Upstream(since) | Turn::Over(_, since) => since,
            Turn::Caller => now,
        }
    }

    /// Nothing panics under this lock; if it did, a turn would still be one.
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::Demand;

    const SECOND: Duration = Duration::from_secs(1);

    fn exchange() -> (Exchange, Instant) {
        let now = clock::now();
        let caller = Demand { grace: 60 * SECOND, min_rate: 0 };
        (Exchange::new(Timeouts { caller, upstream: 10 * SECOND }, now), now)
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstreams_time_runs_only_in_its_turn() {
        let (exchange, start) = exchange();
        exchange.wait_for_caller();
        let later = start + 50 * SECOND;
        assert_eq!(exchange.deadline(start, later), later + 10 * SECOND);
        assert_eq!(exchange.allowance().wait(|| start), start + 60 * SECOND);
        exchange.wait_for_upstream(later);
        assert_eq!(exchange.deadline(start, later + SECOND), later + 10 * SECOND);

        let waited = async {
            tokio::time::sleep_until(later).await;
            exchange.wait_for_upstream(later);
        };
        tokio::join!(exchange.overdue(), waited);
        assert_eq!(clock::now(), later + 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_of_the_caller_stays_one() {
        let (exchange, start) = exchange();
        assert_eq!(exchange.fault(), None);
        exchange.blame_caller(Fault::Stalled, start);
        exchange.wait_for_upstream(start);
        exchange.wait_for_caller();
        assert_eq!(exchange.fault(), Some(Fault::Stalled));
        assert_eq!(Fault::Stalled.refusal().status(), 408);
        assert_eq!(Fault::Broken.refusal().status(), 400);
    }
}
