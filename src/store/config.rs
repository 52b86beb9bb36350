//! Where a store is, and with which key.

use std::{path::PathBuf, time::Duration};

use super::StoreKey;
use crate::link;

/// Where answers are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Config {
    /// In a directory of this process.
    Disk(OnDisk),
    /// At a server, for every gateway of a prefix.
    Redis(InRedis),
}

/// Where on a disk, and how many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnDisk {
    /// The directory.
    pub path: PathBuf,
    /// Bytes on the disk; the oldest answers are removed first.
    pub capacity: u64,
    /// How long an answer is kept.
    pub max_age: Duration,
    /// What rows are encrypted with; without it the key lies in the directory.
    pub key_file: Option<KeyFile>,
}

/// At which server. How many it keeps is a matter of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InRedis {
    /// The server.
    pub link: link::Config,
    /// What every name begins with.
    pub prefix: Box<str>,
    /// How long an answer is kept.
    pub max_age: Duration,
    /// What rows are encrypted with, the same for all gateways; without it whoever reads the server reads them.
    pub key_file: Option<KeyFile>,
}

/// A key and where it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// What was in it.
    pub key: StoreKey,
}
