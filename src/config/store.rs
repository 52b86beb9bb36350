//! `[store]`: what survives a restart.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    credentials::secret_file,
    link::Keys,
    reader::Section,
    value::{Read, choice, duration, size, string},
};
use crate::{
    cache::entry::Policy,
    store::{Config, InRedis, KeyFile, OnDisk, StoreKey},
};

/// Less is not worth a disk; more than 16 TiB is a slip of the finger.
const CAPACITY: RangeInclusive<u64> = 16 << 20..=16 << 40;
const DEFAULT_CAPACITY: u64 = 10 << 30;
/// From a second to as long as an answer may be good at most.
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2 * 365 * 24 * 60 * 60);

/// What kind of store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Disk,
    Redis,
}

/// Reads the section; no store unless one is asked for.
pub(super) fn store(section: &mut Section<'_>, policy: &Policy) -> Option<Config> {
    let kinds = [("none", Kind::None), ("disk", Kind::Disk), ("redis", Kind::Redis)];
    let kind = section.take("kind", Kind::None, choice(&kinds));
    let path = section.optional("path", string(|path| Ok(PathBuf::from(path))));
    let capacity = section.take("capacity", DEFAULT_CAPACITY, size(CAPACITY));
    let max_age = section.take("max_age", longest(policy), duration(AGE));
    let key_file = section.optional("key_file", string(key_file));
    let keys = Keys::read(section);
    if kind != Kind::Redis {
        keys.refuse(section);
    }
    if kind == Kind::Disk && path.is_none() && section.is_sound("path") {
        section.problem("path", r#"is required by kind = "disk""#);
    }
    if kind == Kind::Redis && path.is_some() {
        section.problem("path", r#"is only for kind = "disk""#);
    }
    match kind {
        Kind::None => None,
        Kind::Disk => Some(Config::Disk(OnDisk { path: path.unwrap_or_default(), capacity, max_age, key_file })),
        Kind::Redis => {
            let (link, prefix) = keys.server(section);
            Some(Config::Redis(InRedis { link, prefix, max_age, key_file }))
        }
    }
}

/// The longest that any answer may be given.
fn longest(policy: &Policy) -> Duration {
    let stale = policy.stale_while_revalidate.max(policy.stale_if_error);
    (policy.ttl.max(policy.negative_ttl) + stale).clamp(*AGE.start(), *AGE.end())
}

fn key_file(path: &str) -> Read<KeyFile> {
    let secret = secret_file(path)?;
    let key = StoreKey::parse(secret.reveal());
    let key = key.ok_or("must hold 32 bytes in hex or base64, such as what `openssl rand -hex 32` prints")?;
    Ok(KeyFile { path: PathBuf::from(path), key })
}
