//! What gateways may ask of the place where they meet. Redis is one; a model of it in a test is another.
//!
//! Nothing here prints what it holds: keys and records are in it.

use std::{future::Future, pin::Pin, time::Duration};

use crate::link::Lost;

/// Names one grant, and no other.
pub type Token = String;

/// An answer that is to come.
pub type Calling<T> = Pin<Box<dyn Future<Output = Result<T, Lost>> + Send>>;

/// Where the gateways of all domains meet. Each call is one step for everybody.
pub trait Exchange: Send + Sync + 'static {
    /// Puts this gateway's offer in the place of its last one, and asks for the slot.
    fn ask(&self, domain: &str, asked: Asked) -> Calling<Reply>;

    /// The request of a grant is on the wire, or will never be: the slot is not held any longer.
    fn sent(&self, domain: &str, sent: Sent) -> Calling<()>;

    /// A verdict for everybody. The slot is not held any longer, and opens no sooner than in `delay`.
    fn publish(&self, domain: &str, sent: Sent, delay: Duration) -> Calling<()>;

    /// What is known of a grant.
    fn find(&self, domain: &str, token: &str) -> Calling<Found>;

    /// The winner of a grant lives.
    fn beat(&self, domain: &str, token: &str) -> Calling<()>;
}

/// An offer, and the question whether the slot is open.
#[derive(Clone)]
pub struct Asked {
    /// Who asks.
    pub gateway: Box<str>,
    /// Which server it takes the exchange to be.
    pub run: Box<str>,
    /// The gap that it keeps, margin included.
    pub gap: Duration,
    /// How long its request may take to be on the wire.
    pub hold: Duration,
    /// For how long there must be silence yet: it may have sent without a grant, or not know who has.
    pub silence: Duration,
    /// What it takes the clock of the exchange to show, in microseconds; 0 if it does not know.
    pub expected: u64,
    /// Whether it would use a slot; if not, it only offers.
    pub can: bool,
    /// Whether it wants a slot that nobody wants, for nothing that it offers.
    pub idle: bool,
    /// The turns of what it offers; empty to take its offer back.
    pub turns: Vec<Turn>,
    /// What it offers, for who is granted the slot to read.
    pub offer: Vec<u8>,
}

/// What decides whether it is a lane's turn.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// Names scope and lane, without a blank.
    pub lane: String,
    /// Whether nobody waits for it.
    pub background: bool,
    /// For how long it has waited for a slot.
    pub waited: Duration,
}

/// What became of a question for the slot.
#[derive(Clone)]
pub enum Reply {
    /// Not yet.
    Wait {
        /// In how long to ask again.
        wait: Duration,
        /// Whether somebody has the slot and has not said yet that its request is on the wire.
        held: bool,
        /// Whether this gateway is the one to ask first.
        lead: bool,
    },
    /// The slot is this gateway's.
    Granted(Grant),
}

/// A slot that is this gateway's.
#[derive(Clone)]
pub struct Grant {
    /// Its name.
    pub token: Token,
    /// When it was granted, by the clock of the exchange.
    pub micros: u64,
    /// The lane whose turn it is; none for an idle slot.
    pub lane: Option<String>,
    /// The offers of all gateways that have this lane, which are taken with it.
    pub offers: Vec<Vec<u8>>,
}

/// What a winner says of its grant.
#[derive(Clone)]
pub struct Sent {
    /// The grant.
    pub token: Token,
    /// From now on the slot opens after this.
    pub gap: Duration,
    /// What everybody is told.
    pub message: Option<Vec<u8>>,
}

/// What is known of a grant.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// Its verdict.
    Verdict(Vec<u8>),
    /// Its winner lives and has published none yet.
    Alive,
    /// Nothing: its winner has died, or what it said is forgotten.
    Nothing,
}
