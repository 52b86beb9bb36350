//! The body of an answer on its way to a caller.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tower::BoxError;

use crate::{lookup::chunk::Chunk, passthrough};

/// In one piece, or streamed.
pub enum ResponseBody {
    /// The gateway's own: what a lookup is answered, or a refusal.
    Own(Full<Chunk>),
    /// What passes through.
    Streamed(passthrough::Body),
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "ResponseBody::Own(..)",
            Self::Streamed(_) => "ResponseBody::Streamed(..)",
        })
    }
}

impl From<Chunk> for ResponseBody {
    fn from(chunk: Chunk) -> Self {
        Self::Own(Full::new(chunk))
    }
}

impl Body for ResponseBody {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(Chunk::from))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}
