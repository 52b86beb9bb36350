//! A stream that hyper reads from, which lets nothing pass that [`Framing`] has not judged.
//!
//! - **The usual read** goes straight into hyper's buffer and stays there: no copy, no allocation.
//! - **A line without its end** is kept back until the end comes.
//! - **After a fault in a head** hyper gets no more to read. What came before is answered; then the connection is taken
//!   from hyper (`connection.rs`), told, and closed.
//! - **After a fault in a body** hyper gets an error, which reaches whoever reads the body, and closes the connection.

use std::{
    fmt,
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    activity::Activity,
    framing::{Framing, Wrong},
    head::Fault,
};

/// The judged stream.
pub(super) struct Judged<Io> {
    io: Io,
    activity: Arc<Activity>,
    framing: Framing,
    /// What was read and has not been passed on.
    held: BytesMut,
    /// So many bytes of it may be.
    cleared: usize,
    wrong: Option<Wrong>,
}

impl<Io> fmt::Debug for Judged<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Judged({} bytes held)", self.held.len())
    }
}

impl<Io> Judged<Io> {
    pub(super) fn new(io: Io, activity: Arc<Activity>) -> Self {
        Self { io, activity, framing: Framing::new(), held: BytesMut::new(), cleared: 0, wrong: None }
    }

    /// The stream, and what is wrong with the head that was not passed on.
    pub(super) fn into_parts(self) -> (Io, Option<Fault>) {
        let fault = match self.wrong {
            Some(Wrong::Head(fault)) => Some(fault),
            Some(Wrong::Body(_)) | None => None,
        };
        (self.io, fault)
    }

    /// Judges what was read; how much of it may pass.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let judged = self.framing.judge(bytes);
        self.wrong = judged.fault;
        self.activity.frame(self.framing.is_in_body());
        judged.cleared
    }

    /// Passes on what may be passed on of what was held.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let passed = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..passed]);
        self.held.advance(passed);
        self.cleared -= passed;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        self.activity.hold(!self.held.is_empty());
    }
}

impl<Io: AsyncRead + Unpin> Judged<Io> {
    /// Reads into hyper's buffer and takes back what may not pass; whether anything was read.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        let is_end = bytes.is_empty();
        let passed = self.judge(bytes);
        if passed < bytes.len() {
            if self.wrong.is_none() {
                self.held.extend_from_slice(&bytes[passed..]);
                self.activity.hold(true);
            }
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(!is_end))
    }

    /// Reads on to the end of the line that is held; whether anything was read.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::<u8>::uninit(); 4096];
        let mut more = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut more))?;
        self.held.extend_from_slice(more.filled());
        let held = mem::take(&mut self.held);
        self.cleared = self.judge(&held);
        self.held = held;
        if self.wrong.is_some() {
            self.held.truncate(self.cleared);
        }
        Poll::Ready(Ok(!more.filled().is_empty()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Judged<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if this.cleared > 0 {
                this.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            match this.wrong {
                None => {}
                Some(Wrong::Head(_)) => {
                    // Nobody will wake this task for it, and nobody needs to: `connection.rs` looks when its turn ends.
                    this.activity.refuse();
                    return Poll::Pending;
                }
                Some(Wrong::Body(fault)) => {
                    this.activity.break_off();
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.as_str())));
                }
            }
            let goes_on =
                if this.held.is_empty() { ready!(this.poll_direct(cx, buf))? } else { ready!(this.poll_held(cx))? };
            if !goes_on && this.framing.is_in_body() {
                this.activity.break_off();
            }
            if !goes_on || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Judged<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn what_comes_whole_is_not_copied() {
        let (mut near, far) = duplex(1 << 10);
        let mut judged = Judged::new(far, Activity::new());
        let mut space = [0; 100];
        for _ in 0..3 {
            near.write_all(HEAD).await.expect("open");
            assert_eq!(judged.read(&mut space).await.expect("open"), HEAD.len());
            assert_eq!(&space[..HEAD.len()], HEAD);
            assert_eq!(judged.held.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn what_was_kept_back_is_passed_on_in_order_however_little_is_taken() {
        let (mut near, far) = duplex(1 << 10);
        let activity = Activity::new();
        let mut judged = Judged::new(far, Arc::clone(&activity));
        near.write_all(&HEAD[..20]).await.expect("open");
        let mut space = [0; 100];
        let passed = judged.read(&mut space).await.expect("open");
        let mut got = space[..passed].to_vec();
        assert_eq!(passed, "GET / HTTP/1.1\r\n".len());
        assert!(activity.is_holding());
        near.write_all(&HEAD[20..]).await.expect("open");
        drop(near);
        while let Ok(byte) = judged.read_u8().await {
            got.push(byte);
        }
        assert_eq!(got, HEAD);
        assert!(!activity.is_holding());
        assert_eq!(judged.held.capacity(), 0);
    }

    #[tokio::test]
    async fn a_fault_in_a_body_is_an_error_after_what_came_before_it() {
        let (mut near, far) = duplex(1 << 10);
        let mut judged = Judged::new(far, Activity::new());
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        near.write_all(&[&head[..], b"1\r\na\r\nzz\r\n"].concat()).await.expect("open");
        let mut passed = vec![0; head.len() + 6];
        judged.read_exact(&mut passed).await.expect("open");
        for _ in 0..2 {
            let error = judged.read_u8().await.expect_err("a fault");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
