//! A stream that tells its connection's [`Activity`] what goes on, and whose shutdown lets the peer read its answer.
//!
//! **The lingering close.** Closing a socket with unread bytes in it is a reset, and a reset can destroy an answer that
//! the peer has not read yet: a 413 or 503 while the body is still on its way, say. So after its own side is shut down
//! the stream reads and discards until the peer's end, for a bounded number of bytes; `patience.rs` bounds the time.
//!
//! **A small answer** goes to the kernel as one piece, head and body together.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// Bytes that a lingering close reads at most: the default limit of a body, so that an honest client gets through.
pub(super) const LINGER_BYTES: usize = 1 << 20;

/// An answer up to this size is written in one piece: to copy it costs less than what the kernel does for a second piece.
const JOINED: usize = 4 << 10;

/// The watched stream.
#[derive(Debug)]
pub(super) struct Watched<Io> {
    io: Io,
    activity: Arc<Activity>,
    /// Bytes that may still be discarded, once its own side is shut down.
    lingering: Option<usize>,
}

impl<Io> Watched<Io> {
    pub(super) fn new(io: Io, activity: Arc<Activity>) -> Self {
        Self { io, activity, lingering: None }
    }

    pub(super) fn into_inner(self) -> Io {
        self.io
    }

    /// Tells what became of an attempt to write.
    fn note(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Ready(outcome) => self.activity.taken(*outcome.as_ref().unwrap_or(&0)),
            Poll::Pending => self.activity.stall(),
        }
        outcome
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.received();
        } else {
            self.activity.part();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.len() > 1 && bufs.iter().map(|buf| buf.len()).sum::<usize>() <= JOINED {
            let mut space = [MaybeUninit::<u8>::uninit(); JOINED];
            let mut joined = ReadBuf::uninit(&mut space);
            bufs.iter().for_each(|buf| joined.put_slice(buf));
            return self.poll_write(cx, joined.filled());
        }
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stream with a buffer of its own has it taken here.
        let outcome = Pin::new(&mut self.io).poll_flush(cx).map_ok(|()| 0);
        self.note(outcome).map_ok(|_nothing_new| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = match &mut this.lingering {
            Some(left) => left,
            lingering => {
                this.activity.close();
                ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
                if this.activity.is_parted() {
                    return Poll::Ready(Ok(()));
                }
                lingering.insert(LINGER_BYTES)
            }
        };
        poll_discard(&mut this.io, cx, left).map(Ok)
    }
}

/// Reads and discards; ready at the peer's end, at an error, or when no bytes are `left` to be discarded.
pub(super) fn poll_discard<Io: AsyncRead + Unpin>(io: &mut Io, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
    let mut space = [MaybeUninit::<u8>::uninit(); 4096];
    while *left > 0 {
        let mut discarded = ReadBuf::uninit(&mut space);
        if ready!(Pin::new(&mut *io).poll_read(cx, &mut discarded)).is_err() || discarded.filled().is_empty() {
            break;
        }
        *left = left.saturating_sub(discarded.filled().len());
    }
    Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order_whether_they_are_joined_or_not() {
        for size in [0, 1, JOINED - 8, JOINED - 7, JOINED - 6, 3 * JOINED] {
            let (near, mut far) = duplex(JOINED / 3);
            let mut watched = Watched::new(near, Activity::new());
            let body: Vec<u8> = (0..=255).cycle().take(size).collect();
            let sent = [&b"head\r\n\r"[..], &body].concat();
            let write = async move {
                let mut pieces = [IoSlice::new(b"head\r\n\r"), IoSlice::new(&body)];
                let mut pieces = &mut pieces[..];
                while !pieces.is_empty() {
                    let written = watched.write_vectored(pieces).await.expect("it reads");
                    IoSlice::advance_slices(&mut pieces, written);
                }
            };
            let mut got = Vec::new();
            let (read, ()) = tokio::join!(far.read_to_end(&mut got), write);
            read.expect("it is written");
            assert_eq!(got, sent, "{size}");
        }
    }
}
