//! The `[replicas]` section: other gateways in front of the same upstream.

use std::path::PathBuf;

use http::Uri;

use super::{
    credentials::secret_file,
    reader::Section,
    value::{Read, choice, count, string},
};
use crate::{
    link,
    replicas::{self, WhenDown},
    secret::Secret,
};

/// Redis' own.
const PORT: u16 = 6379;

/// As many gateways as anybody could want in front of one request a second.
const MOST_REPLICAS: usize = 1000;

/// Where the server is: host, port, whether over TLS, and the number of the database.
type Address = (Box<str>, u16, bool, u8);

/// Reads the section; none where there are no others.
pub(super) fn replicas(section: &mut Section<'_>) -> Option<replicas::Config> {
    let is_shared = section.take("kind", false, choice(&[("none", false), ("redis", true)]));
    let url = section.optional("url", string(address));
    let username = section.optional("username", string(|name| Ok(name.into())));
    let given = section.optional("password", string(|secret| Ok(Secret::new(secret))));
    let in_file = section.optional("password_file", string(secret_file));
    let ca_file = section.optional("ca_file", string(|path| Ok(PathBuf::from(path))));
    let prefix = section.take("prefix", "audience-gateway".into(), string(prefix));
    let max_replicas = section.take("max_replicas", 2, count(1..=MOST_REPLICAS));
    let modes = WhenDown::ALL.map(|mode| (mode.as_str(), mode));
    let when_redis_is_down = section.take("when_redis_is_down", WhenDown::Stale, choice(&modes));
    if !is_shared {
        for (key, is_given) in [("url", url.is_some()), ("password", given.is_some() || in_file.is_some())] {
            if is_given && section.is_sound("kind") {
                section.problem(key, r#"is only for kind = "redis""#);
            }
        }
        return None;
    }
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
    Some(replicas::Config {
        link: link::Config { host, port, tls, database, username, password, ca_file },
        prefix,
        // Within its range.
        max_replicas: u32::try_from(max_replicas).unwrap_or(1),
        when_redis_is_down,
    })
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
