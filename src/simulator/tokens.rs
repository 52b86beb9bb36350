//! Tokens: who they were issued to, until when, and which were taken back.
//!
//! A token stands for the application it was issued to, so that a refreshed token still sees the same records; a token
//! that nobody issued stands for itself.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::clock::Instant;

/// Issued tokens remembered before those that expired are forgotten.
const MAX_ISSUED: usize = 100_000;

/// Who a token was issued to, and until when it holds.
#[derive(Debug)]
struct Issued {
    app: String,
    expires: Instant,
}

/// Every token that was issued or revoked.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: HashMap<String, Issued>,
    revoked: HashSet<String>,
    serial: u64,
}

impl Tokens {
    /// A new token for the application.
    pub(super) fn issue(&mut self, app: &str, ttl: Duration, now: Instant) -> String {
        self.serial += 1;
        if self.issued.len() >= MAX_ISSUED {
            self.issued.retain(|_, issued| now < issued.expires);
        }
        let token = format!("issued-{}-{:08x}", self.serial, super::customers::digest(app) >> 32);
        self.issued.insert(token.clone(), Issued { app: app.to_owned(), expires: now + ttl });
        token
    }

    /// Takes a token back, issued or not.
    pub(super) fn revoke(&mut self, token: &str) {
        self.revoked.insert(token.to_owned());
    }

    /// Whether the token is good.
    pub(super) fn is_good(&self, token: &str, accept_any: bool, now: Instant) -> bool {
        let known = self.issued.get(token).map_or(accept_any && !token.is_empty(), |issued| now < issued.expires);
        known && !self.revoked.contains(token)
    }

    /// Whom the token stands for.
    pub(super) fn principal(&self, token: &str) -> String {
        self.issued.get(token).map_or_else(|| token.to_owned(), |issued| format!("app:{}", issued.app))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_until_it_expires_or_is_revoked() {
        let now = crate::clock::now();
        let ttl = Duration::from_secs(7200);
        let mut tokens = Tokens::default();
        let first = tokens.issue("app", ttl, now);
        let second = tokens.issue("app", ttl, now);
        assert_ne!(first, second);
        assert_eq!(tokens.principal(&first), tokens.principal(&second));
        assert!(tokens.is_good(&first, false, now));
        assert!(!tokens.is_good(&first, true, now + ttl));
        tokens.revoke(&first);
        assert!(!tokens.is_good(&first, true, now));
        assert!(tokens.is_good(&second, true, now));
    }

    #[test]
    fn a_token_nobody_issued_is_good_only_where_any_is() {
        let now = crate::clock::now();
        let mut tokens = Tokens::default();
        assert!(tokens.is_good("any", true, now));
        assert!(!tokens.is_good("any", false, now));
        assert!(!tokens.is_good("", true, now));
        assert_eq!(tokens.principal("any"), "any");
        tokens.revoke("any");
        assert!(!tokens.is_good("any", true, now));
    }
}
