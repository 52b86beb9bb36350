//! The heart: callers wait on keys, never on requests; one worker decides, at the moment a slot opens, which keys ride.
//!
//! [`queue`] (what waits, for whom), [`batch`] (what is on its way), [`compose`] and [`share`] (who rides), [`pacer`] (when), [`absence`] (what an answer
//! without a record proves) and [`promise`] (how long it will take) are pure. [`spare`] and [`warm`] say what becomes of
//! room that nobody wants, [`seat`] and [`sharing`] make it one of several gateways with one queue, [`timeline`] remembers for a person to see. [`worker`] is the one task that drives them. [`Handle`] is what callers hold: its methods are
//! synchronous and lock the state for one step; no lock is held across an `.await`.
//!
//! Invariants:
//! 1. Starts of upstream requests are at least one interval apart (for each credential, if so configured): retries,
//!    refreshes and probes included; after a stall there is no burst.
//! 2. A key is in at most one of queued, held, in flight. It goes upstream once however many wait for it.
//! 3. Every waiter is answered exactly once. A caller that leaves removes only itself; no caller's future owns
//!    anybody's fetch.
//! 4. The cache is written before anyone is woken. A refusal, an error or an unattributable answer is never written.
//! 5. Absence is only believed from a request that can prove it.
//! 6. Keys of two scopes never share a batch.
//! 7. Every queue, batch, wait and retry has a limit; reaching it is an answer to somebody and a count in a metric.

pub mod absence;
pub mod batch;
pub mod batch_limit;
mod believe;
mod compose;
mod demand;
pub mod entry;
mod fleet;
mod forget;
mod handle;
pub mod idle;
mod merge;
mod offers;
mod origin;
pub mod pacer;
mod promise;
pub mod queue;
mod report;
mod ride;
mod seat;
mod settle;
mod share;
mod sharing;
mod spare;
mod tell;
pub mod ticket;
mod tickets;
pub mod timeline;
mod warm;
mod worker;

use std::time::Duration;

use crate::upstream;

pub use self::{
    fleet::{Fleet, IDLE, MAX_CREDENTIALS, Recruit},
    handle::{Handle, Health, Refused, Status, Waiting, Wanted},
    idle::Share,
    seat::Sharing,
    ticket::{Client, Failure, Outcome},
    warm::{Warming, WarmingKeys},
    worker::{Ask, Asking, Worker},
};

/// What is known of requests that carry several lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MixedLists {
    /// Records are believed at once, absence only once a union has been proved.
    Auto,
    /// A request with several lists is known to be a union.
    Union,
    /// One list per request.
    Never,
}

impl MixedLists {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Union => "union",
            Self::Never => "never",
        }
    }
}

/// Whose requests share one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitPer {
    /// Everybody's: the upstream counts by account or by address.
    Gateway,
    /// Those of one credential: the upstream counts by token.
    Credential,
}

impl LimitPer {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Credential => "credential",
        }
    }
}

/// The limits of one lookup path's queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What is asked.
    pub kind: upstream::Kind,
    /// The position of the lookup path in the configuration, which is part of every scope.
    pub lookup: u8,
    /// At most one upstream request per interval, never a burst; none where another gateway keeps the pace.
    pub interval: Duration,
    /// Keys in one upstream request.
    pub max_batch_keys: usize,
    /// Keys waiting, all callers together.
    pub max_pending_keys: usize,
    /// Upstream requests under way at once when the upstream is slower than the interval.
    pub max_in_flight: usize,
    /// How long an idle queue waits for company before its first request.
    pub linger: Duration,
    /// What is known of requests that carry several lists.
    pub mixed_lists: MixedLists,
    /// Whose requests share one slot.
    pub limit_per: LimitPer,
    /// Which part of the slots may be used, while nobody wants them, to refresh keys that are about to expire.
    pub idle_refresh: Share,
    /// Which part of them may be used to fetch keys that nobody has asked for yet.
    pub warmup: Share,
    /// Up to how many bytes in the cache that is done.
    pub warmup_bytes: u64,
}
