//! Response bodies as scripts: bytes, filling, pauses and sudden ends, in order.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::clock;

/// What [`Step::Fill`] repeats: 16 KiB that any reader can check.
static FILLING: [u8; 16 << 10] = [b'x'; 16 << 10];

/// One step of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// These bytes.
    Data(Bytes),
    /// So many bytes of `x`.
    Fill(u64),
    /// Nothing for a while.
    Wait(Duration),
    /// The connection breaks.
    Break,
}

/// A response's body.
pub(super) enum Body {
    /// A script, with the length that it announces.
    Script {
        /// What is still to come.
        steps: VecDeque<Step>,
        /// What is announced to be still to come; `None`: sent in chunks.
        length: Option<u64>,
        /// The pause under way.
        pause: Option<Pin<Box<Sleep>>>,
    },
    /// The request's own body, on its way back.
    Returned(Incoming),
}

impl Body {
    /// These bytes at once.
    pub(super) fn whole(bytes: Bytes) -> Self {
        let length = Some(bytes.len() as u64);
        Self::script([Step::Data(bytes)], length)
    }

    /// A script that announces a length, true or not.
    pub(super) fn script(steps: impl IntoIterator<Item = Step>, length: Option<u64>) -> Self {
        Self::Script { steps: steps.into_iter().collect(), length, pause: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let (steps, length, pause) = match self.get_mut() {
            Self::Returned(incoming) => {
                return Pin::new(incoming).poll_frame(cx).map_err(io::Error::other);
            }
            Self::Script { steps, length, pause } => (steps, length, pause),
        };
        loop {
            if let Some(sleep) = pause {
                ready!(sleep.as_mut().poll(cx));
                *pause = None;
            }
            let bytes = match steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Break) => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
                Some(Step::Wait(wait)) => {
                    *pause = Some(Box::pin(tokio::time::sleep_until(clock::now() + wait)));
                    continue;
                }
                Some(Step::Data(bytes)) => bytes,
                Some(Step::Fill(left)) => {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(FILLING.len());
                    if left > now as u64 {
                        steps.push_front(Step::Fill(left - now as u64));
                    }
                    Bytes::from_static(&FILLING[..now])
                }
            };
            if bytes.is_empty() {
                continue;
            }
            *length = length.map(|length| length.saturating_sub(bytes.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Script { steps, pause, .. } => steps.is_empty() && pause.is_none(),
            Self::Returned(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Script { length: Some(length), .. } => SizeHint::with_exact(*length),
            Self::Script { length: None, .. } => SizeHint::default(),
            Self::Returned(incoming) => incoming.size_hint(),
        }
    }
}

/// A request's body in one piece, of at most so many bytes.
pub(super) async fn collect(body: Incoming, limit: usize) -> Option<Bytes> {
    http_body_util::Limited::new(body, limit).collect().await.ok().map(http_body_util::Collected::to_bytes)
}
