//! Several gateways in front of one upstream: one slot and one queue for all of them, agreed on through Redis.
//!
//! What the gateways of a *domain* (a lookup path, and a credential where the limit is counted by credential) tell each
//! other, and in which words. Who decides what, and when, is [`dispatch`](crate::dispatch)'s affair.
//!
//! ```text
//! offer ──▶ slot opens ──▶ grant: one gateway, with all offers of a scope ──▶ sent: "taken", heard by all
//!   ▲                                                                           │
//!   └── nobody answered in time ◀── waiting for the verdict ◀──────────────────┤
//!                                                                               ▼
//!             cache, then callers, at every gateway ◀── published ◀── the winner's verdict
//! ```
//! - **Soft.** Nothing that Redis holds is needed to go on: every key stays in the queue of the gateway whose callers wait
//!   for it until it is answered. Redis may forget everything at any moment; that costs an interval of silence.
//! - **The slot** is judged by the clock of Redis alone, in one step, and is *held* from the grant until the winner says
//!   that its request is on the wire: from then on the interval counts.
//! - **Secrets stay.** A credential never leaves its gateway: a scope is named by a hash, and a grant of a scope's keys goes
//!   to a gateway that has the credential.

mod exchange;
mod hub;
mod message;
mod name;
mod offer;
mod scripts;
mod verdict;

use std::time::Duration;

pub use self::{
    exchange::{Asked, Calling, Exchange, Found, Grant, Reply, Sent, Token, Turn},
    hub::{Event, Post, Replica, Replicas},
    message::{Done, Message, Taken},
    name::{client_name, domain_name, scope_name},
    offer::{Demand, LaneOffer, Lookup, Wish},
    scripts::Redis,
};
use crate::link;

/// What this version of the protocol is called in the names of its keys: gateways of two versions do not meet.
pub const FORMAT: &str = "v1";

/// How long an offer stands that is not renewed: that of a gateway which has died vanishes.
pub const OFFER_STANDS: Duration = Duration::from_secs(2);

/// How long a verdict can be fetched by whoever missed its publication.
pub const VERDICT_KEPT: Duration = Duration::from_secs(15);

/// How long a winner is believed to live that says nothing.
pub const ALIVE: Duration = Duration::from_millis(1500);

/// How several gateways share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where Redis is.
    pub link: link::Config,
    /// In front of every name there: who shares it, shares the slot.
    pub prefix: Box<str>,
    /// How many gateways there are at most.
    pub max_replicas: u32,
    /// What to do while Redis cannot be asked.
    pub when_redis_is_down: WhenDown,
}

/// What to do while Redis cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenDown {
    /// Nothing is asked of the upstream: what is cached is answered, everything else is refused.
    Stale,
    /// Each gateway keeps to its part of the rate: as if there were as many as there may be.
    Share,
}

impl WhenDown {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stale, Self::Share];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Share => "share",
        }
    }
}
