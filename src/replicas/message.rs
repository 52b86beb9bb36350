//! What everybody of a domain is told: which keys a winner asks for, and what became of them.
//!
//! A message is its domain, a blank, and JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{exchange::Token, offer::Wish, verdict::Written};
use crate::upstream::verdict::Verdict;

/// Something that everybody of a domain is told.
#[derive(Serialize, Deserialize)]
pub enum Message {
    /// A request is on its way.
    Taken(Taken),
    /// It is over.
    Done(Done),
}

/// A request that is on its way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Taken {
    /// Its grant.
    pub token: Token,
    /// Which gateway asks.
    pub from: Box<str>,
    /// When it was granted, by the clock of the exchange, in microseconds.
    pub granted: u64,
    /// How long after now the slot opens again, in microseconds.
    pub gap: u64,
    /// The lane of its keys.
    pub lane: String,
    /// Its keys, in the order asked.
    pub wishes: Vec<Wish>,
}

/// A request that is over.
#[derive(Serialize, Deserialize)]
pub struct Done {
    /// Its grant.
    pub token: Token,
    /// Which gateway asked.
    pub from: Box<str>,
    verdict: Written,
}

impl Done {
    /// What became of a request.
    #[must_use]
    pub fn new(token: Token, from: Box<str>, verdict: &Verdict) -> Self {
        Self { token, from, verdict: Written::new(verdict) }
    }

    /// The verdict, if it can be read.
    #[must_use]
    pub fn verdict(self) -> Option<Verdict> {
        self.verdict.read()
    }
}

impl Message {
    /// As it is published.
    #[must_use]
    pub fn write(&self, domain: &str) -> Vec<u8> {
        let mut text = format!("{domain} ").into_bytes();
        // It is made of what JSON has, and goes into memory.
        let _written = serde_json::to_writer(&mut text, self);
        text
    }

    /// Whom it is for, and what it says.
    pub(super) fn address(text: &[u8]) -> Option<(&str, Bytes)> {
        let blank = text.iter().position(|byte| *byte == b' ')?;
        Some((std::str::from_utf8(&text[..blank]).ok()?, Bytes::copy_from_slice(&text[blank + 1..])))
    }

    /// What it says, without its address.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}
