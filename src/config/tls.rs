//! `[server.tls]`: the certificates that callers see, and the authorities that sign callers'.

use std::path::PathBuf;

use super::{
    reader::Section,
    value::{Read, string},
};
use crate::server::tls::{Config, Files};

/// What callers' connections take; none where no certificate is given.
pub(super) fn tls(section: &mut Section<'_>) -> Option<Config> {
    let mut file = |key| section.optional(key, string(path));
    let (cert, key, client_ca) = (file("cert"), file("key"), file("client_ca"));
    let (Some(cert), Some(key)) = (&cert, &key) else {
        let is_given = cert.is_some() || key.is_some() || client_ca.is_some();
        for (key, is_missing) in [("cert", cert.is_none()), ("key", key.is_none())] {
            if is_given && is_missing && section.is_sound(key) {
                section.problem(key, "is required for TLS");
            }
        }
        return None;
    };
    let files = Files { cert: cert.clone(), key: key.clone(), client_ca };
    match files.read() {
        Ok(tls) => Some(Config { files, tls }),
        Err(flaws) => {
            for flaw in flaws {
                section.problem(flaw.file.as_str(), flaw.sentence);
            }
            None
        }
    }
}

fn path(path: &str) -> Read<PathBuf> {
    Ok(PathBuf::from(path))
}
