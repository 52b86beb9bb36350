//! Server.
use std::time::Duration;

/// The limits of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Connections at once; a further one is told 503 and closed.
    pub max_connections: usize,
    /// A client must finish its headers within this.
    pub header_timeout: Duration,
    /// A connection with nothing under way is closed after this.
    pub idle_timeout: Duration,
}
