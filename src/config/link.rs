//! Where Redis is, for every section that needs it.

use std::path::PathBuf;

use http::Uri;

use super::{
    credentials::secret_file,
    reader::Section,
    value::{Read, string},
};
use crate::{link, secret::Secret};

/// Redis' own.
const PORT: u16 = 6379;

/// Where the server is: host, port, whether over TLS, and the number of the database.
type Address = (Box<str>, u16, bool, u8);

/// What a section says of a server.
pub(super) struct Keys {
    url: Option<Address>,
    username: Option<Box<str>>,
    given: Option<Secret>,
    in_file: Option<Secret>,
    ca_file: Option<PathBuf>,
    prefix: Box<str>,
}

impl Keys {
    /// Reads all of them, needed or not.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            url: section.optional("url", string(address)),
            username: section.optional("username", string(|name| Ok(name.into()))),
            given: section.optional("password", string(|secret| Ok(Secret::new(secret)))),
            in_file: section.optional("password_file", string(secret_file)),
            ca_file: section.optional("ca_file", string(|path| Ok(PathBuf::from(path)))),
            prefix: section.take("prefix", "audience-gateway".into(), string(prefix)),
        }
    }

    /// No server is asked: what says where it is must not be there.
    pub(super) fn refuse(&self, section: &mut Section<'_>) {
        let has_password = self.given.is_some() || self.in_file.is_some();
        for (key, is_given) in [("url", self.url.is_some()), ("password", has_password)] {
            if is_given && section.is_sound("kind") {
                section.problem(key, r#"is only for kind = "redis""#);
            }
        }
    }

    /// The server that is asked, and what every name there begins with.
    pub(super) fn server(self, section: &mut Section<'_>) -> (link::Config, Box<str>) {
        let Self { url, username, given, in_file, ca_file, prefix } = self;
        if given.is_some() && in_file.is_some() {
            let other = section.name("password");
            section.problem("password_file", format!("must not be given beside {other}"));
        }
        if url.is_none() && section.is_sound("url") {
            section.problem("url", r#"is required by kind = "redis""#);
        }
        let password = given.or(in_file);
        if username.is_some() && password.is_none() && section.is_sound("password_file") {
            section.problem("username", "needs a password or a password_file");
        }
        let (host, port, tls, database) = url.unwrap_or_else(|| ("localhost".into(), PORT, false, 0));
        if ca_file.is_some() && !tls && section.is_sound("url") {
            section.problem("ca_file", "is only for a url that starts with rediss://");
        }
        (link::Config { host, port, tls, database, username, password, ca_file }, prefix)
    }
}

/// The server's address as one text.
pub(super) fn format_address(link: &link::Config) -> String {
    let scheme = if link.tls { "rediss" } else { "redis" };
    let host = if link.host.contains(':') { format!("[{}]", link.host) } else { link.host.to_string() };
    format!("{scheme}://{host}:{}/{}", link.port, link.database)
}

fn address(text: &str) -> Read<Address> {
    const SHAPE: &str = r#"must be an address such as "redis://host:6379/0" or "rediss://host""#;
    let uri: Uri = text.parse().or(Err(SHAPE))?;
    let tls = match uri.scheme_str() {
        Some("redis") => false,
        Some("rediss") => true,
        _ => return Err("must start with redis:// or rediss://".to_owned()),
    };
    let authority = uri.authority().ok_or(SHAPE)?;
    if authority.as_str().contains('@') {
        return Err("must not carry a user name or a password: there are username and password_file".to_owned());
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("must not carry a query or a fragment".to_owned());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("must name a host".to_owned());
    }
    let port = match authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
        None => PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("must have a port from 1 to 65535, or none")?,
    };
    let database = match uri.path().trim_matches('/') {
        "" => 0,
        number => number.parse().or(Err("must end with the number of a database, or with nothing"))?,
    };
    Ok((host.into(), port, tls, database))
}

/// What stands in front of every name. Braces would say on which node of a cluster it is kept.
fn prefix(text: &str) -> Read<Box<str>> {
    let plain = text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte));
    if plain { Ok(text.into()) } else { Err("must be plain ASCII without blanks, braces or wildcards".to_owned()) }
}
