//! What is recorded of a trace: spans of lookups, of their waits, and of the requests upstream that end them.
//!
//! Nothing is recorded unless somebody [takes](Recorder::new) the spans; then a span is made when it is over, in one piece.
//! Attributes are names of configured paths, words of this program and counts: never a word of a caller or the upstream.

use std::sync::Arc;

use super::Context;
use crate::clock::Instant;

/// Which side of a request a span is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A request that came.
    Server,
    /// What the gateway does by itself.
    Internal,
    /// A request that it sent.
    Client,
}

/// What an attribute says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A word of the program or of its configuration.
    Word(String),
    /// A count.
    Count(u64),
}

/// Something that took time and is over.
#[derive(Clone, Debug)]
pub struct Span {
    /// What it is: one of a few words.
    pub name: &'static str,
    /// Where it is in its trace.
    pub context: Context,
    /// The span above it.
    pub parent: Option<u64>,
    /// Whether the one above it is somebody else's.
    pub is_parent_remote: bool,
    /// Which side of a request it is.
    pub side: Side,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// What it says of itself.
    pub attributes: Vec<(&'static str, Value)>,
    /// What else led to it.
    pub links: Vec<Context>,
    /// Whether it failed.
    pub is_error: bool,
}

/// Who takes spans.
pub trait Take: Send + Sync {
    /// Takes one; must not wait.
    fn take(&self, span: Span);
}

/// Takes spans to whoever wants them, or nowhere.
#[derive(Clone, Default)]
pub struct Recorder(Option<Arc<dyn Take>>);

impl Recorder {
    /// Takes spans there.
    #[must_use]
    pub fn new(take: Arc<dyn Take>) -> Self {
        Self(Some(take))
    }

    /// Whether anybody wants spans.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Where a lookup is in its trace: below its caller's place, or, where spans are recorded, in a trace that it begins.
    #[must_use]
    pub fn enter(&self, caller: Option<&Context>) -> Option<Context> {
        match (caller, self.is_on()) {
            (Some(caller), true) => Some(caller.child()),
            (Some(caller), false) => Some(caller.clone()),
            (None, true) => Some(Context::begin(true)),
            (None, false) => None,
        }
    }

    /// Records a span, if its trace is recorded at all.
    pub fn record(&self, span: impl FnOnce() -> Span) {
        if let Some(take) = &self.0 {
            let span = span();
            if span.context.is_sampled() {
                take.take(span);
            }
        }
    }
}
