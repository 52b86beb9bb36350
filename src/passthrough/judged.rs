//! An answer that the gateway has to read before its caller sees the end of it: held back until it is read.
//!
//! It may say what became of a write, or hand out a token; what the caller asks next depends on that. An envelope is a few
//! hundred bytes, and what it says stands at any place of it. So up to [`HELD`] bytes wait for the end of the answer; then
//! it is read, and only then does the caller get to see what was held. An answer that is longer is judged by its status
//! alone, and streamed from there on; so is one for which the [budget](crate::request::budget) has no room, and one that is
//! compressed, once it has ended.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tower::BoxError;

use crate::request::budget::{NoRoom, Share};

/// Bytes that are held back: the ids of the 500 customers that one write may import take a sixth of it.
pub(super) const HELD: usize = 64 << 10;

/// Reads an answer: its status, and its body if all of it was held. Dropped unused when the answer broke off.
pub(super) type Reader = Box<dyn FnOnce(StatusCode, &[u8]) + Send>;

/// The body of an answer that is read.
pub(super) struct Judged<B> {
    body: B,
    status: StatusCode,
    /// Until it has read.
    reader: Option<Reader>,
    /// What the caller has not got yet.
    held: VecDeque<Frame<Bytes>>,
    /// Bytes in it.
    held_bytes: usize,
    /// What they take of the budget until the answer is read.
    share: Share,
    end: End,
}

/// What follows what is held.
enum End {
    /// The rest of the body.
    Open,
    /// Nothing.
    Reached,
    /// The body broke off.
    Broken(Option<BoxError>),
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Judged<B> {
    pub(super) fn new(body: B, status: StatusCode, reader: Reader, share: Share) -> Self {
        let mut judged =
            Self { body, status, reader: Some(reader), held: VecDeque::new(), held_bytes: 0, share, end: End::Open };
        if judged.body.is_end_stream() {
            // The caller sees the end with the head.
            judged.settle(false);
        }
        judged
    }

    /// Reads on until the answer has been read, or is too long for that.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.reader.is_some() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let bytes = bytes(&frame);
                    self.held_bytes += bytes;
                    self.held.push_back(frame);
                    let is_unknown = self.held_bytes > HELD || self.share.grow(bytes) == Err(NoRoom);
                    if is_unknown || self.body.is_end_stream() {
                        self.settle(is_unknown);
                    }
                }
                Some(Err(error)) => {
                    self.end = End::Broken(Some(error));
                    // Nobody knows what became of it.
                    self.reader = None;
                }
                None => {
                    self.end = End::Reached;
                    self.settle(false);
                }
            }
        }
        Poll::Ready(())
    }

    /// Has it read, or only its status where not all of it is known.
    fn settle(&mut self, is_unknown: bool) {
        let Some(reader) = self.reader.take() else { return };
        let known = if is_unknown { &VecDeque::new() } else { &self.held };
        let pieces: Vec<&[u8]> = known.iter().filter_map(Frame::data_ref).map(|piece| &**piece).collect();
        reader(self.status, &pieces.concat());
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Judged<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.poll_settled(cx));
        if let Some(frame) = self.held.pop_front() {
            self.held_bytes -= bytes(&frame);
            if self.held.is_empty() {
                self.share.release();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.end {
            End::Open => Pin::new(&mut self.body).poll_frame(cx),
            End::Reached => Poll::Ready(None),
            End::Broken(error) => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        let over = match &self.end {
            End::Open => self.body.is_end_stream(),
            End::Reached => true,
            End::Broken(error) => error.is_none(),
        };
        self.reader.is_none() && self.held.is_empty() && over
    }

    fn size_hint(&self) -> SizeHint {
        let (held, rest) = (self.held_bytes as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper.saturating_add(held));
        }
        whole
    }
}

fn bytes(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}
