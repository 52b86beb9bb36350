//! `[clients]`: who may call, and who may use the gateway's own credential.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::header::AUTHORIZATION;

use super::{
    credentials::credential_header,
    reader::Section,
    value::{flag, rate, string},
};
use crate::{
    clients::{Config, tokens::Tokens},
    upstream::credentials::Mode,
};

/// Whether anybody who can connect may use the gateway's own credential, and who may call. What is returned while there
/// are problems is a stand-in.
pub(super) fn clients(section: &mut Section<'_>, mode: &Mode) -> (bool, Option<Config>) {
    let allow_anonymous = section.take("allow_anonymous", false, flag);
    let tokens_file = section.optional("tokens_file", string(|path| Ok(PathBuf::from(path))));
    let header = section.optional("header", string(credential_header));
    let rate = section.optional("requests_per_second", rate);
    let Some(tokens_file) = tokens_file else {
        let without_use = [("header", header.is_some()), ("requests_per_second", rate.is_some())];
        for (key, _) in without_use.into_iter().filter(|(_, is_given)| *is_given) {
            let other = section.name("tokens_file");
            section.problem(key, format!("needs {other}: without it callers have no token"));
        }
        return (allow_anonymous, None);
    };
    if allow_anonymous {
        let other = section.name("tokens_file");
        section
            .problem("allow_anonymous", format!("must not be true beside {other}: nobody is let in without a token"));
    }
    let header = header.unwrap_or(AUTHORIZATION);
    if mode.headers().contains(&header) && section.is_sound("header") {
        let sentence = "must not be one of upstream.credentials.forward_headers: a client's token never goes upstream";
        section.problem("header", sentence);
    }
    let tokens = tokens(section, &tokens_file);
    (allow_anonymous, tokens.map(|tokens| Config { tokens_file, tokens, header, rate }))
}

/// What stands in the file; each of its bad lines is a problem.
fn tokens(section: &mut Section<'_>, path: &Path) -> Option<Tokens> {
    let flaws = match Tokens::read(path) {
        Ok(tokens) => return Some(tokens),
        Err(flaws) => flaws,
    };
    for flaw in flaws {
        section.problem("tokens_file", flaw.to_string());
    }
    None
}

/// With a credential of its own, the gateway answers whoever can connect, unless clients are known: that must be meant.
pub(super) fn check_reach(root: &mut Section<'_>, listen: SocketAddr, mode: &Mode, is_meant: bool) {
    if matches!(mode, Mode::Managed(_)) && !listen.ip().is_loopback() && !is_meant && root.is_sound("server") {
        let sentence = r#"must be a loopback address with mode = "managed": whoever can connect reads every customer; give clients.tokens_file or server.tls.client_ca or, to allow that on purpose, set clients.allow_anonymous = true"#;
        root.problem("server.listen", sentence);
    }
}
