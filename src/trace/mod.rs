//! Whose trace a request belongs to: W3C Trace Context, read strictly and continued.
//!
//! - **Nothing is believed that is malformed.** A `traceparent` that is not exactly what the recommendation says, or that
//!   stands there twice, is no trace; a `tracestate` that is not ([`state`]) is left out, and the trace goes on.
//! - **No trace is made up** for a caller who has none, unless spans are [recorded](span).
//! - **A request upstream serves many callers** ([`Onward`]): with one trace among them it continues that; with several it
//!   begins one of its own, linked to theirs; with none it has none.

pub mod span;
mod state;

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::span::{Recorder, Span};

/// `traceparent`.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Somebody records this trace.
const SAMPLED: u8 = 1;
/// Its id was drawn at random.
const RANDOM: u8 = 2;

/// Callers of one request upstream whose traces are looked at: as many as a span may have links.
pub const MOST_LINKS: usize = 128;

/// The name of a trace: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A place in a trace.
#[derive(Clone, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace_id: TraceId,
    /// The span there: not zero.
    pub span_id: u64,
    flags: u8,
    state: Option<HeaderValue>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a caller wrote is not repeated.
        f.write_str("Context(..)")
    }
}

impl Context {
    /// The place that a caller's headers name.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        let (trace_id, span_id, flags) = parent(line.as_bytes())?;
        Some(Self { trace_id: TraceId(trace_id), span_id, flags, state: state::read(headers.get_all(TRACESTATE)) })
    }

    /// A trace that begins here.
    #[must_use]
    pub fn begin(is_sampled: bool) -> Self {
        let flags = RANDOM | if is_sampled { SAMPLED } else { 0 };
        Self { trace_id: TraceId(fastrand::u128(1..)), span_id: new_span_id(), flags, state: None }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: new_span_id(), ..self.clone() }
    }

    /// Whether somebody records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Its flags, as they travel.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Says in a request's headers that it belongs here.
    pub fn write(&self, headers: &mut HeaderMap) {
        let Self { trace_id, span_id, flags, state } = self;
        let line = format!("00-{trace_id}-{span_id:016x}-{flags:02x}");
        headers.insert(TRACEPARENT, HeaderValue::try_from(line).expect("this holds because it is digits and dashes"));
        if let Some(state) = state {
            headers.insert(TRACESTATE, state.clone());
        }
    }
}

fn new_span_id() -> u64 {
    fastrand::u64(1..)
}

/// The parts of a `traceparent`. A later version may have more behind them, which is not understood and not passed on.
fn parent(line: &[u8]) -> Option<(u128, u64, u8)> {
    let (parent, more) = line.split_at_checked(55)?;
    let version = hex(&parent[..2])?;
    let dashes = [2, 35, 52].iter().all(|&at| parent[at] == b'-');
    let as_long_as_it_should_be = more.is_empty() || version > 0 && more[0] == b'-';
    if version == 0xff || !dashes || !as_long_as_it_should_be {
        return None;
    }
    let trace_id = hex(&parent[3..35]).filter(|id| *id != 0)?;
    let span_id = hex(&parent[36..52]).and_then(|id| u64::try_from(id).ok()).filter(|id| *id != 0)?;
    let flags = hex(&parent[53..]).and_then(|flags| u8::try_from(flags).ok())?;
    // What the flags of a later version mean is not known.
    Some((trace_id, span_id, if version == 0 { flags } else { flags & (SAMPLED | RANDOM) }))
}

/// Lower-case digits only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// A caller who waits for a request upstream: where its lookup is in its trace, and where its wait is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The lookup.
    pub lookup: Context,
    /// Its wait, below it; the same place where no spans are recorded.
    pub wait: Context,
}

/// Where a request upstream belongs.
#[derive(Clone, Debug)]
pub struct Onward {
    /// Its place, which goes upstream.
    pub context: Context,
    /// What is above it in its trace; nothing where it begins one.
    pub parent: Option<u64>,
    /// The lookups that it serves.
    pub links: Vec<Arc<Waiting>>,
}

impl Onward {
    /// The place of a request that serves these callers. Where spans are recorded it is a new one below theirs.
    #[must_use]
    pub fn of(links: Vec<Arc<Waiting>>, recorder: &Recorder) -> Option<Self> {
        let first = &links.first()?.wait;
        let is_one = links.iter().all(|link| link.wait.trace_id == first.trace_id);
        let (context, parent) = match (is_one, recorder.is_on()) {
            (true, true) => (first.child(), Some(first.span_id)),
            (true, false) => (first.clone(), Some(first.span_id)),
            (false, _) => (Context::begin(links.iter().any(|link| link.wait.is_sampled())), None),
        };
        Some(Self { context, parent, links })
    }

    /// The traces of its callers, where its own is another: for the log, which names a few.
    #[must_use]
    pub fn linked(&self) -> Option<String> {
        let mut others: Vec<TraceId> = Vec::new();
        for link in &self.links {
            let id = link.lookup.trace_id;
            if id != self.context.trace_id && !others.contains(&id) && others.len() < 8 {
                others.push(id);
            }
        }
        (!others.is_empty()).then(|| others.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests;
