//! Where connections come from, and how accepting survives its errors.
//!
//! An accept error never ends the server. One that concerns a single connection is skipped; any other (no file
//! descriptors, say) pauses accepting, longer each time up to a bound, and is logged when it begins and when it is over.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

use crate::clock;

/// The first pause after an accept error: short, because a descriptor is usually freed within milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause: a second is how long a person takes not to notice that the trouble is over.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an answer that the kernel takes before they can be sent. Left to itself it takes up to four MiB for a peer that does
/// not read, of a memory that all connections share; what is under way to a peer that does is not counted.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Who is at the other end: a request extension of every request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peer {
    /// `None` for streams that have no address.
    pub address: Option<SocketAddr>,
    /// Whether the connection is TLS.
    pub is_secure: bool,
}

impl Peer {
    /// Whoever connected from there, over a connection that is plain so far.
    #[must_use]
    pub fn at(address: Option<SocketAddr>) -> Self {
        Self { address, is_secure: false }
    }
}

/// A source of connections.
pub trait Listener: Send {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Dropping the future before it resolves must lose none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        // It only fails when the connection is gone already, which the first read will find out.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Ok((stream, Peer::at(Some(address))))
    }
}

/// A listener that has learned patience.
#[derive(Debug)]
pub(super) struct Acceptor<L> {
    listener: L,
    state: State,
}

/// Whether accepting works.
#[derive(Clone, Copy, Debug)]
enum State {
    Accepting,
    /// The last attempt failed; the next one is due, after this pause, at that moment.
    Failing {
        pause: Duration,
        retry: Instant,
    },
}

impl<L: Listener> Acceptor<L> {
    pub(super) fn new(listener: L) -> Self {
        Self { listener, state: State::Accepting }
    }

    /// The next connection, however many errors come before it. Cancelling it loses neither a connection nor the pause.
    pub(super) async fn accept(&mut self) -> (L::Io, Peer) {
        loop {
            if let State::Failing { retry, .. } = self.state {
                sleep_until(retry).await;
            }
            match self.listener.accept().await {
                Ok(accepted) => {
                    if let State::Failing { .. } = self.state {
                        tracing::warn!("accepting connections again");
                        // Failing => Accepting
                        self.state = State::Accepting;
                    }
                    return accepted;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => self.pause(&error, clock::now()),
            }
        }
    }

    fn pause(&mut self, error: &io::Error, now: Instant) {
        let pause = match self.state {
            State::Accepting => {
                tracing::error!(%error, "cannot accept connections; trying on");
                FIRST_PAUSE
            }
            State::Failing { pause, .. } => LONGEST_PAUSE.min(pause * 2),
        };
        // Accepting | Failing => Failing
        self.state = State::Failing { pause, retry: now + pause };
    }
}

/// The client was gone before it was accepted, which says nothing about the next one.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// Fails with the errors given, last first, then accepts.
    struct Failing(Vec<io::ErrorKind>);

    impl Listener for Failing {
        type Io = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
            match self.0.pop() {
                Some(kind) => Err(kind.into()),
                None => Ok((tokio::io::duplex(1).0, Peer::default())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accept_errors_pause_accepting_for_longer_and_longer_up_to_a_bound() {
        let begin = clock::now();
        Acceptor::new(Failing(vec![io::ErrorKind::Other; 3])).accept().await;
        assert_eq!(begin.elapsed(), Duration::from_millis(5 + 10 + 20));

        let begin = clock::now();
        Acceptor::new(Failing(vec![io::ErrorKind::Other; 10])).accept().await;
        assert_eq!(begin.elapsed(), Duration::from_millis(5 + 10 + 20 + 40 + 80 + 160 + 320 + 640 + 1000 + 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_connection_pauses_nothing() {
        let begin = clock::now();
        Acceptor::new(Failing(vec![io::ErrorKind::ConnectionAborted; 3])).accept().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_accept_keeps_its_pause() {
        let begin = clock::now();
        let mut acceptor = Acceptor::new(Failing(vec![io::ErrorKind::Other; 8]));
        while tokio::time::timeout(Duration::from_millis(3), acceptor.accept()).await.is_err() {}
        assert_eq!(begin.elapsed(), Duration::from_millis(5 + 10 + 20 + 40 + 80 + 160 + 320 + 640));
    }
}
