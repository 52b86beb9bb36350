//! What the user may say about a comparison, and what it is by default.

use std::{path::PathBuf, str::FromStr};

use clap::Parser;

/// Compares what a lookup costs that is a hit on every key.
#[derive(Clone, Parser, Debug)]
#[command(name = "hit_path")]
pub(crate) struct Options {
    /// Turns of every server; odd, so that there is one in the middle.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) rounds: usize,
    /// How long a turn lasts.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub(crate) seconds: f64,
    /// Keys in a lookup; `hot` is one key, always the same.
    #[arg(long, default_value = "hot,1,10,50,100", value_delimiter = ',', value_name = "K")]
    pub(crate) keys: Vec<Keys>,
    /// Connections that ask at the same time.
    #[arg(long, default_value = "32,128", value_delimiter = ',', value_name = "C")]
    pub(crate) connections: Vec<usize>,
    /// Only these of floor, gateway, nginx, varnish, redis.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Another program to be measured as the gateway is, under a name.
    #[arg(long, value_name = "NAME=PATH")]
    pub(crate) gateway: Vec<Build>,
    /// Customers that are cached.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) customers: usize,
    /// This program as one of the servers.
    #[arg(long, hide = true)]
    pub(crate) serve: Option<String>,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// A smoke test, whatever else is said.
    #[arg(long)]
    pub(crate) test: bool,
}

/// How many keys a lookup has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// One, and always the same.
    Hot,
    /// So many, of customers at random.
    Random(usize),
}

/// A program that is a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    /// What the table calls it.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Options {
    /// Whether this server is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Whether nothing was left out or added.
    pub(crate) fn is_whole(&self) -> bool {
        self.only.is_empty() && self.gateway.is_empty() && self.keys.len() == 5 && self.connections.len() == 2
    }

    /// Whether servers and load have a core each.
    pub(crate) fn pins(&self) -> bool {
        self.bench && !self.test
    }

    /// As small as it may be and still have every part in it that needs no other program.
    pub(crate) fn smoke(self) -> Self {
        Self {
            rounds: 1,
            seconds: 0.1,
            keys: vec![Keys::Hot, Keys::Random(10)],
            connections: vec![8],
            only: vec!["floor".to_owned(), "gateway".to_owned()],
            gateway: Vec::new(),
            customers: 200,
            test: true,
            ..self
        }
    }
}

impl Keys {
    /// Keys in one lookup.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Hot => 1,
            Self::Random(count) => count,
        }
    }

    /// What a table calls it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Hot => "1 hot key".to_owned(),
            Self::Random(1) => "1 key".to_owned(),
            Self::Random(count) => format!("{count} keys"),
        }
    }
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("hot", _) => Ok(Self::Hot),
            (_, Ok(count @ 1..=1000)) => Ok(Self::Random(count)),
            _ => Err("is neither `hot` nor a number from 1 to 1000".to_owned()),
        }
    }
}

impl FromStr for Build {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("is no NAME=PATH")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}
