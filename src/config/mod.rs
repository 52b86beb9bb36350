//! The configuration: what the program runs on, made from what the user wrote.
//!
//! The text of a TOML file and the environment ([`file`]) become a [`Config`] in which nothing is left to resolve, or
//! [`Problems`]: all of them at once, each with its key, before any socket is opened. Each module owns its own `Config`;
//! only this one composes them. Every key is taken in exactly one place ([`sections`], [`lookups`]), through a [`reader`]
//! that therefore knows which keys there are; `config/gateway.toml` and [`Config::to_toml`] are compared with it by tests.

mod changes;
mod clients;
mod credentials;
mod environment;
mod file;
mod invalidate;
mod limits;
mod link;
mod log;
mod lookups;
mod problems;
mod reader;
mod replicas;
mod resolved;
mod sections;
mod store;
mod tls;
mod url;
mod value;
mod warmup;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::Path, time::Duration};

pub use self::{
    changes::Changes,
    environment::environment,
    problems::{Problem, Problems},
};
use self::{file::Written, reader::Reader};
use crate::{cache, dispatch, log_filter::Filter, lookup, passthrough, secret::Secret, server, shape::Shape, upstream};

/// Everything the program runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The two listeners.
    pub server: Server,
    /// Who may call; without it anybody who can connect.
    pub clients: Option<crate::clients::Config>,
    /// How the upstream is reached.
    pub upstream: upstream::Config,
    /// The lookup paths, at least one and at most 255; a lookup's position is its number in a scope.
    pub lookups: Vec<Lookup>,
    /// What is kept and for how long.
    pub cache: cache::Config,
    /// What may pass through.
    pub passthrough: passthrough::Config,
    /// Which customers are fetched before anybody asks.
    pub warmup: crate::warmup::Config,
    /// With which other gateways it shares the upstream; without it, with none.
    pub replicas: Option<crate::replicas::Config>,
    /// What survives a restart, if anything does.
    pub store: Option<crate::store::Config>,
    /// What is logged.
    pub log: Log,
}

/// The two listeners and what they have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Where callers connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// Whether anybody who can connect may use the gateway's own credential, if it has one.
    pub allow_anonymous: bool,
    /// Bytes of one request body that the gateway reads itself.
    pub max_body: usize,
    /// Bytes of all bodies together that it keeps in memory.
    pub max_buffered: usize,
    /// Which answers are compressed for callers who accept that, and how.
    pub compression: lookup::compression::Config,
    /// How long what is under way may take to finish after a stop was asked for.
    pub shutdown_grace: Duration,
    /// The limits of each listener.
    pub limits: server::Config,
    /// TLS for callers; without it they speak plain HTTP. Operators always do.
    pub tls: Option<server::tls::Config>,
}

/// One lookup path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// Its path and key lists.
    pub shape: Shape,
    /// What its handler needs to know.
    pub lookup: lookup::Config,
    /// The limits of its queue.
    pub dispatch: dispatch::Config,
}

/// What is logged, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// What a line looks like.
    pub format: LogFormat,
    /// Which lines are written.
    pub level: Filter,
    /// With what keys are hashed to be named; without it they are not.
    pub key_hash_secret: Option<Secret>,
}

/// What a log line looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One JSON object for each line.
    Json,
    /// For a person at a terminal.
    Text,
}

impl LogFormat {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

impl Config {
    /// Reads a file, overridden by variables such as those of [`environment`].
    ///
    /// # Errors
    /// Everything that is wrong with it; an unreadable file is a problem too.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| Problems::unreadable(path, &error))?;
        Written::new(&text, &path.display().to_string(), env)?.try_into()
    }

    /// Reads a file's text, overridden by variables.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, env: impl Iterator<Item = (String, String)>) -> Result<Self, Problems> {
        Written::new(text, "configuration", env)?.try_into()
    }
}

impl TryFrom<Written> for Config {
    type Error = Problems;

    fn try_from(written: Written) -> Result<Self, Problems> {
        let (config, reader) = Reader::read(written, sections::config);
        let problems = reader.into_problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}
