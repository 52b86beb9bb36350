//! `[log]`: what is logged, how, and whether it names keys.

use tracing::level_filters::LevelFilter;

use super::{
    Log, LogFormat,
    credentials::secret_file,
    reader::Section,
    value::{Read, choice, string},
};
use crate::secret::Secret;

/// Characters of the secret: as many as `openssl rand -hex 16` writes, whose 128 bits nobody guesses.
const SHORTEST_SECRET: usize = 32;

pub(super) fn log(section: &mut Section<'_>) -> Log {
    let formats = [LogFormat::Json, LogFormat::Text].map(|format| (format.as_str(), format));
    Log {
        format: section.take("format", LogFormat::Json, choice(&formats)),
        level: section.take("level", LevelFilter::INFO.into(), string(str::parse)),
        key_hash_secret: key_hash_secret(section),
    }
}

/// The secret, here or in a file.
fn key_hash_secret(section: &mut Section<'_>) -> Option<Secret> {
    let given = section.optional("key_hash_secret", string(|secret| long_enough(Secret::new(secret))));
    let in_file = section.optional("key_hash_secret_file", string(|path| long_enough(secret_file(path)?)));
    if given.is_some() && in_file.is_some() {
        let other = section.name("key_hash_secret");
        section.problem("key_hash_secret_file", format!("must not be given beside {other}"));
    }
    given.or(in_file)
}

/// Who guesses the secret can try all phone numbers.
fn long_enough(secret: Secret) -> Read<Secret> {
    if secret.reveal().chars().count() < SHORTEST_SECRET {
        return Err(format!(
            "must have at least {SHORTEST_SECRET} characters, such as those of `openssl rand -hex 32`"
        ));
    }
    Ok(secret)
}
