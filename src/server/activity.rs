//! What is going on on one connection, as told by its stream and its service, in a few relaxed atomics.
//!
//! All of a connection runs in one task, so there is never a race to order: the atomics only make the sharing `Send`.
//! Nothing here knows the time; `patience.rs` draws the conclusions when the task's turn ends.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// For the first byte since it was accepted.
    Fresh,
    /// For the rest of a request's head.
    Head,
    /// For the service, or for the request's body.
    Busy,
    /// For the next request; nothing is under way.
    Idle,
    /// For the peer to take bytes of the answer.
    Stalled,
    /// For the peer to close its side; everything has been sent.
    Closing,
}

/// The stage, a mark that differs whenever the same stage was entered anew, and what the peer has taken by now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    pub(super) mark: u32,
    /// Bytes, since the connection was accepted.
    pub(super) taken: u64,
}

/// One connection's activity.
#[derive(Debug)]
pub(super) struct Activity {
    /// `Fresh`, `Head`, `Busy` or `Idle`, by number.
    exchange: AtomicU8,
    /// The peer does not take what is written.
    stalled: AtomicBool,
    /// The stream is being shut down.
    closing: AtomicBool,
    /// The peer has shut down its side, or nothing that it may still send matters.
    parted: AtomicBool,
    /// A line has come without its end, and hyper has not got it yet.
    holding: AtomicBool,
    /// What came next is no request.
    refused: AtomicBool,
    /// The body under way will never come to its end.
    broken: AtomicBool,
    /// The body under way has not come to its end.
    in_body: AtomicBool,
    /// The service has given up waiting for the body under way.
    late: AtomicBool,
    /// Counts answers, and bytes taken after a stall.
    mark: AtomicU32,
    /// Bytes that the peer took.
    written: AtomicU64,
}

const FRESH: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const IDLE: u8 = 3;

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            exchange: AtomicU8::new(FRESH),
            stalled: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            parted: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            in_body: AtomicBool::new(false),
            late: AtomicBool::new(false),
            mark: AtomicU32::new(0),
            written: AtomicU64::new(0),
        })
    }

    /// What the connection is waiting for now.
    pub(super) fn progress(&self) -> Progress {
        let stage = match self.exchange.load(Relaxed) {
            // An answer that is not taken comes before everything: nothing else can go on.
            _ if self.stalled.load(Relaxed) => Stage::Stalled,
            _ if self.closing.load(Relaxed) => Stage::Closing,
            FRESH => Stage::Fresh,
            HEAD => Stage::Head,
            BUSY => Stage::Busy,
            _ => Stage::Idle,
        };
        Progress { stage, mark: self.mark.load(Relaxed), taken: self.written() }
    }

    /// Bytes came. After a pipelined request they may be a part of the next head that nobody can tell from the body
    /// before it; then the idle timeout counts until another byte comes.
    pub(super) fn received(&self) {
        if self.exchange.load(Relaxed) != BUSY {
            // Fresh | Idle => Head
            self.exchange.store(HEAD, Relaxed);
        }
    }

    /// Bytes that the peer has taken, or the kernel on its behalf.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// The peer took bytes.
    pub(super) fn taken(&self, bytes: usize) {
        // No increment in one step is needed: this task is the only writer.
        self.written.store(self.written.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
        if self.stalled.load(Relaxed) {
            // Stalled => whatever the exchange is in
            self.stalled.store(false, Relaxed);
            self.advance();
        }
    }

    /// The peer takes no bytes for now.
    pub(super) fn stall(&self) {
        // Busy | Idle | Closing => Stalled
        self.stalled.store(true, Relaxed);
    }

    /// Everything is written, and the stream is about to be shut down.
    pub(super) fn close(&self) {
        // any => Closing
        self.closing.store(true, Relaxed);
    }

    /// There is no more to be heard from the peer: the close need not wait for it.
    pub(super) fn part(&self) {
        self.parted.store(true, Relaxed);
    }

    /// Whether the close need not wait for the peer.
    pub(super) fn is_parted(&self) -> bool {
        self.parted.load(Relaxed)
    }

    /// Whether a line without its end is kept from hyper.
    pub(super) fn hold(&self, holding: bool) {
        self.holding.store(holding, Relaxed);
    }

    /// Whether hyper knows less of the connection than has come.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Relaxed)
    }

    /// What came next is no request, and hyper will get no more to read.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    /// The body under way will never come to its end.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Relaxed);
    }

    /// Whether the body under way will never come to its end.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// Whether more of the body under way is to come.
    pub(super) fn frame(&self, in_body: bool) {
        self.in_body.store(in_body, Relaxed);
    }

    /// Whether the service has given up waiting for a body.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    /// Whether what came is no request. Everything before it has been answered: hyper reads on only when it is, and every
    /// byte of the answer is taken.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    fn advance(&self) {
        // No increment in one step is needed: this task is the only writer.
        self.mark.store(self.mark.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// One request under way: from the call of the service until its answer's body is written or dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
}

impl InFlight {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        // Head => Busy
        activity.exchange.store(BUSY, Relaxed);
        Self { activity: Arc::clone(activity) }
    }

    /// Whether no request can follow an answer with this status: the request's body will never come to its end, or the
    /// service has said that it does not wait for it any more (RFC 9110, section 15.5.9).
    pub(super) fn is_last(&self, status: StatusCode) -> bool {
        if status == StatusCode::REQUEST_TIMEOUT && self.activity.in_body.load(Relaxed) {
            self.activity.late.store(true, Relaxed);
        }
        self.activity.is_broken() || self.activity.is_late()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Busy => Idle
        self.activity.exchange.store(IDLE, Relaxed);
        self.activity.advance();
    }
}

/// An answer's body, which keeps its request under way.
#[derive(Debug)]
pub(super) struct Answer<B> {
    /// None in an answer of the server's own.
    body: Option<B>,
    _in_flight: InFlight,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body: Some(body), _in_flight: in_flight }
    }

    pub(super) fn empty(in_flight: InFlight) -> Self {
        Self { body: None, _in_flight: in_flight }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
