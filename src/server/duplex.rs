//! Connections without sockets: what tests hand to the server, so that their time can stand still.

use std::io;

use tokio::{
    io::DuplexStream,
    sync::mpsc::{Receiver, Sender, channel},
};

use super::{Listener, Peer};

/// Connections made and not yet accepted: like a kernel's backlog, more than any test makes at once.
const BACKLOG: usize = 1024;

/// A listener and the way to connect to it.
#[must_use]
pub fn pair() -> (Connector, Duplex) {
    let (connections, accepts) = channel(BACKLOG);
    (Connector { connections }, Duplex { accepts })
}

/// Makes connections to a [`Duplex`]; its clones connect to the same one.
#[derive(Clone, Debug)]
pub struct Connector {
    connections: Sender<DuplexStream>,
}

impl Connector {
    /// A connection whose directions hold `buffer` bytes each before the writer has to wait.
    ///
    /// # Errors
    /// `ConnectionRefused` when the listener is gone.
    pub async fn connect(&self, buffer: usize) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(buffer);
        match self.connections.send(far).await {
            Ok(()) => Ok(near),
            Err(_gone) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// A [`Listener`] that accepts what its [`Connector`] connects.
#[derive(Debug)]
pub struct Duplex {
    accepts: Receiver<DuplexStream>,
}

impl Listener for Duplex {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        match self.accepts.recv().await {
            Some(stream) => Ok((stream, Peer::default())),
            // Nobody can connect any more, which is no error.
            None => std::future::pending().await,
        }
    }
}
