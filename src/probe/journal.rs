//! What was asked and what was said, request by request; and when that is enough.

use std::time::Duration;

use http::StatusCode;

use crate::{
    dispatch::pacer::MAX_RETRY_AFTER,
    key::Kind,
    upstream::{Spelling, wire::Carried},
};

/// Refusals in a row after which nothing more is asked.
const REFUSALS: usize = 2;

/// Failures, in a row or not, after which nothing more is asked.
const FAILURES: usize = 3;

/// One key of a request with several lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// A given key, by its position.
    Given(usize),
    /// A key of this kind that nobody should have.
    MadeUp(Kind),
}

/// What one request asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// A given key, by its position, with nothing beside it.
    Alone(usize),
    /// A key of this kind that nobody should have.
    Nobody(Kind),
    /// Keys in several lists, one in each.
    Mixed(Vec<Part>),
    /// A given key once more, closer to the request before than the configured interval.
    Closer {
        /// The key's position.
        key: usize,
        /// How close.
        gap: Duration,
    },
}

/// What came of a request. No `Debug`: records carry keys.
pub(super) enum Said {
    /// An answer, and what its records carry; none where nobody was found.
    Found(Vec<Carried>),
    /// Asked too often, and how long the upstream wants to be left alone.
    Throttled(Option<Duration>),
    /// The credential is not taken.
    Unauthorized,
    /// Refused for what it asks.
    Rejected,
    /// No answer, or none that can be understood, and why.
    Failed(String),
}

/// One request and what came of it.
pub(super) struct Asked {
    pub(super) question: Question,
    /// From the start of the request before it to its own, both counted from when they met their connection.
    pub(super) gap: Option<Duration>,
    /// From its connection to the end of the answer.
    pub(super) took: Duration,
    /// The HTTP status, if there was an answer.
    pub(super) status: Option<StatusCode>,
    /// The envelope, if the answer had one, fit to be shown.
    pub(super) spelling: Option<Spelling>,
    pub(super) said: Said,
}

/// Why nothing more was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Everything had been.
    Complete,
    /// [`REQUESTS`](super::REQUESTS) had been sent.
    Budget,
    /// The upstream refused twice in a row.
    Refused,
    /// The upstream failed three times.
    Failed,
    /// The upstream does not take the credential.
    Unauthorized,
    /// The upstream asked to be left alone for longer than anybody watches a terminal.
    Patience(Duration),
    /// The user stopped it.
    Interrupted,
}

impl End {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Budget => "budget",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unauthorized => "unauthorized",
            Self::Patience(_) => "patience",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Every request so far.
#[derive(Default)]
pub(super) struct Journal(pub(super) Vec<Asked>);

impl Journal {
    /// Why nothing more may be asked, if so, whatever there is still to be learned.
    pub(super) fn end(&self) -> Option<End> {
        let throttled = |asked: &&Asked| matches!(asked.said, Said::Throttled(_));
        let failures = self.0.iter().filter(|asked| matches!(asked.said, Said::Failed(_))).count();
        let refusals = self.0.iter().rev().take_while(throttled).count();
        match self.0.last().map(|last| &last.said)? {
            Said::Unauthorized => Some(End::Unauthorized),
            _ if refusals >= REFUSALS => Some(End::Refused),
            Said::Throttled(Some(wait)) if *wait > MAX_RETRY_AFTER => Some(End::Patience(*wait)),
            _ if failures >= FAILURES => Some(End::Failed),
            _ => None,
        }
    }

    /// What the upstream said to a question: records, or that it rejects it.
    pub(super) fn answer(&self, question: &Question) -> Option<&Asked> {
        let settles = |asked: &&Asked| matches!(asked.said, Said::Found(_) | Said::Rejected);
        self.0.iter().filter(settles).find(|asked| asked.question == *question)
    }

    /// The records that a question found, if it was answered.
    pub(super) fn found(&self, question: &Question) -> Option<&[Carried]> {
        match &self.answer(question)?.said {
            Said::Found(records) => Some(records),
            _ => None,
        }
    }

    /// The steps below the interval that were tried, each with the gap that was wanted.
    pub(super) fn closer(&self) -> impl Iterator<Item = (&Asked, Duration)> {
        self.0.iter().filter_map(|asked| match asked.question {
            Question::Closer { gap, .. } => Some((asked, gap)),
            _ => None,
        })
    }
}
