//! Asks the real upstream a handful of bounded questions, and says which settings fit what it answers.
//!
//! [`arguments`] reads what the user wrote; [`plan`] chooses the next question from what has been answered; [`journal`]
//! is what was asked and said; [`mixed`] and [`findings`] are what follows from it, [`settings`] what to configure,
//! [`report`] how it is told. All of that is pure. [`run`] is the one shell that reads the clock and sends.
//!
//! Invariants:
//! 1. At most [`REQUESTS`] requests, one at a time, paced as the gateway paces: never closer than the configured interval,
//!    or than what the user said may be tried.
//! 2. After a refusal a whole interval passes, or what `Retry-After` asks for. Two refusals in a row, or three failures,
//!    end it; so does an upstream that does not take the credential.
//! 3. Only kinds, counts, forms, statuses, codes and times are told: never a key, a record or a token.

pub mod arguments;
mod discretion;
pub mod findings;
mod journal;
mod mixed;
mod plan;
pub mod report;
mod run;
pub mod settings;

use std::{sync::Arc, time::Duration};

pub use self::{arguments::Written, findings::Findings, report::Report, run::run};
use self::{discretion::Discretion, journal::Question};
use crate::{
    key::{Id, Kind, Scope},
    shape::Shape,
};

/// The most requests of one run: a dozen seconds of an upstream's patience at its documented pace.
pub const REQUESTS: usize = 12;

/// The most keys: each is asked alone once, and two thirds of the requests are left for the other questions.
pub const MAX_KEYS: usize = 4;

/// The lookup that is asked about.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its position in the configuration.
    pub lookup: u8,
    /// Its path and lists.
    pub shape: Shape,
    /// Its configured interval.
    pub interval: Duration,
}

/// What to ask, with everything that it takes.
pub struct Probe {
    target: Target,
    scope: Arc<Scope>,
    /// The given keys, each once.
    keys: Vec<Id>,
    /// For each kind, a key that nobody should have.
    made_up: Vec<Id>,
    /// The shortest interval that may be tried.
    fastest: Option<Duration>,
    discretion: Discretion,
}

impl Probe {
    /// The keys of one question.
    fn ids(&self, question: &Question) -> Vec<Id> {
        match question {
            Question::Alone(key) | Question::Closer { key, .. } => vec![self.keys[*key].clone()],
            Question::Nobody(kind) => vec![self.made_up[kind.index()].clone()],
            Question::Mixed(parts) => parts
                .iter()
                .map(|part| match part {
                    journal::Part::Given(key) => self.keys[*key].clone(),
                    journal::Part::MadeUp(kind) => self.made_up[kind.index()].clone(),
                })
                .collect(),
        }
    }

    /// The name of a kind.
    fn kind_name(&self, kind: Kind) -> &str {
        &self.target.shape.list(kind).kind
    }

    /// The longest that a run lasts when every answer comes at once, for a person who waits for it.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.target.interval * u32::try_from(REQUESTS).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
