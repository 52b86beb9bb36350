//! The stream that HTTP is spoken on: plain or TLS, with what was read of it to find out which.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A stream whose first bytes have been read already, and are read again.
pub(super) struct Begun<Io> {
    /// What was read, and has not been read again.
    first: BytesMut,
    io: Io,
}

impl<Io> fmt::Debug for Begun<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begun({} bytes)", self.first.len())
    }
}

/// A connection as HTTP sees it.
#[derive(Debug)]
pub(super) enum Wire<Io> {
    /// As it was accepted.
    Plain(Begun<Io>),
    /// Inside TLS, whose state is large and not every connection's.
    Tls(Box<TlsStream<Begun<Io>>>),
}

impl<Io> Begun<Io> {
    pub(super) fn new(io: Io) -> Self {
        Self { first: BytesMut::new(), io }
    }

    /// What was read ahead.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// The stream; what was read ahead of it is gone.
    pub(super) fn into_inner(self) -> Io {
        self.io
    }
}

impl<Io: AsyncRead + Unpin> Begun<Io> {
    /// Reads ahead; whether there was anything.
    pub(super) async fn read_ahead(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| {
            // Not kept over a wait: a connection that sends nothing costs no buffer.
            let mut space = [std::mem::MaybeUninit::<u8>::uninit(); 4096];
            let mut more = ReadBuf::uninit(&mut space);
            std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut more))?;
            self.first.extend_from_slice(more.filled());
            Poll::Ready(Ok(!more.filled().is_empty()))
        })
        .await
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Begun<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let again = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..again]);
        self.first.advance(again);
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Begun<Io> {
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

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
