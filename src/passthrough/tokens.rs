//! Tokens that are handed out through the gateway: whose they are is learned on the way.
//!
//! The token call passes through like any other. Its query names the application and its answer holds the token, which the
//! upstream gives to nobody who does not know the secret. So whoever asks with that token is that application.

use std::sync::Arc;

use http::{Uri, header::ACCEPT_ENCODING, request};
use percent_encoding::percent_decode_str;

use super::judged::Reader;
use crate::{
    clock,
    route::Path,
    upstream::{
        credentials::Credentials,
        token::{self, Issued},
    },
};

/// Knows the token call among what passes through.
pub(super) struct Tokens {
    path: Option<Path>,
    credentials: Arc<Credentials>,
}

impl Tokens {
    pub(super) fn new(credentials: Arc<Credentials>) -> Self {
        Self { path: Path::normalise(token::PATH, "").ok(), credentials }
    }

    /// Who learns from the answer, if the request is the token call. It is asked for as it is, not compressed.
    pub(super) fn watch(&self, parts: &mut request::Parts, path: &Path) -> Option<Reader> {
        let own = self.path.as_ref().is_some_and(|own| own.canonical() == path.canonical());
        let application = own.then(|| application(&parts.uri)).flatten()?;
        parts.headers.remove(ACCEPT_ENCODING);
        let (credentials, asked_at) = (Arc::clone(&self.credentials), clock::now());
        Some(Box::new(move |status, body| {
            if let Some(Issued { token, lifetime }) = token::read(status, body) {
                credentials.issued_to(&application, token, (asked_at, lifetime));
            }
        }))
    }
}

/// The application that a token call names: once, or nobody can tell which of them the upstream took.
fn application(uri: &Uri) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(name, _)| percent_decode_str(name).eq(b"instanceAppid".iter().copied()));
    let (Some((_, value)), None) = (named.next(), named.next()) else { return None };
    let value = percent_decode_str(&value.replace('+', " ")).decode_utf8().ok()?.into_owned();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_is_what_the_query_names_once() {
        let named = |query: &str| application(&format!("/x?{query}").parse().expect("a URI"));
        assert_eq!(named("instanceAppid=a%2Fb&instanceSecrect=s").as_deref(), Some("a/b"));
        assert_eq!(named("instanceSecrect=s&instanceAppid=a+b").as_deref(), Some("a b"));
        for none in ["", "instanceSecrect=s", "instanceAppid=", "instanceAppid=a&instanceAppid=b", "instanceAppid=%ff"]
        {
            assert_eq!(named(none), None, "{none}");
        }
        assert_eq!(named("instanceAppid=a&instance%41ppid=b"), None, "however the name is spelled");
    }
}
