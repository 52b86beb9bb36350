//! What two configurations differ in, and which of that may change while the gateway runs.

use std::collections::BTreeSet;

use super::{Config, reader::without_indices, resolved};

/// Keys that may change while it runs. All others need a restart: sockets are bound, memory is reserved, and what is cached
/// or queued was named by them.
pub(super) const LIVE: [&str; 26] = [
    "cache.ttl",
    "cache.negative_ttl",
    "cache.stale_while_revalidate",
    "cache.stale_if_error",
    "clients.requests_per_second",
    "clients.tokens_file",
    "log.level",
    "lookup[].interval",
    "lookup[].linger",
    "lookup[].max_batch_keys",
    "lookup[].max_in_flight",
    "lookup[].max_keys_per_request",
    "lookup[].max_pending_keys",
    "lookup[].timeout",
    "passthrough.allow",
    "passthrough.enabled",
    "server.header_timeout",
    "server.idle_timeout",
    "server.max_body",
    "server.max_buffered",
    "server.max_connections",
    "server.min_rate",
    "server.shutdown_grace",
    // Where TLS is spoken already.
    "server.tls.cert",
    "server.tls.client_ca",
    "server.tls.key",
];

/// With the certificate: files of one set.
const TLS: &str = "server.tls.";

/// The keys in which a configuration that is read differs from the one that runs.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Those that change now. The files of tokens and certificates are among them wherever they are used.
    pub live: BTreeSet<String>,
    /// Those that need a restart.
    pub fixed: BTreeSet<String>,
}

impl Config {
    /// What changes if this configuration takes over from this one.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let (before, after) = (resolved::leaves(self), resolved::leaves(new));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut changes = Changes::default();
        for key in keys.into_iter().filter(|key| before.get(*key) != after.get(*key)) {
            let which = if self.may_change(new, key) { &mut changes.live } else { &mut changes.fixed };
            which.insert(key.clone());
        }
        if self.clients.is_some() && new.clients.is_some() {
            changes.live.insert("clients.tokens_file".to_owned());
        }
        if self.server.tls.is_some() && new.server.tls.is_some() {
            changes.live.retain(|key| !key.starts_with(TLS));
            changes.live.insert("server.tls".to_owned());
        }
        changes
    }

    fn may_change(&self, new: &Self, key: &str) -> bool {
        let generic = without_indices(key);
        if generic.starts_with(TLS) {
            return self.server.tls.is_some() && new.server.tls.is_some();
        }
        if generic.starts_with("clients.") && self.clients.is_some() != new.clients.is_some() {
            return false;
        }
        LIVE.contains(&&*generic) && (!generic.starts_with("lookup[]") || self.has_paths_of(new))
    }

    fn has_paths_of(&self, other: &Self) -> bool {
        self.lookups.len() == other.lookups.len()
            && self.lookups.iter().zip(&other.lookups).all(|(one, other)| one.shape.path == other.shape.path)
    }

    /// Takes over from another configuration what may change while it runs.
    pub fn take_over(&mut self, new: &Self) {
        self.log.level = new.log.level.clone();
        self.cache.policy = new.cache.policy.clone();
        if self.has_paths_of(new) {
            for (own, new) in self.lookups.iter_mut().zip(&new.lookups) {
                own.lookup = new.lookup.clone();
                own.dispatch.interval = new.dispatch.interval;
                own.dispatch.linger = new.dispatch.linger;
                own.dispatch.max_batch_keys = new.dispatch.max_batch_keys;
                own.dispatch.max_in_flight = new.dispatch.max_in_flight;
                own.dispatch.max_pending_keys = new.dispatch.max_pending_keys;
            }
        }
        self.server.limits = new.server.limits.clone();
        self.server.max_body = new.server.max_body;
        self.server.max_buffered = new.server.max_buffered;
        self.server.shutdown_grace = new.server.shutdown_grace;
        self.passthrough.enabled = new.passthrough.enabled;
        self.passthrough.allow.clone_from(&new.passthrough.allow);
        if let (Some(own), Some(new)) = (&mut self.clients, &new.clients) {
            own.tokens_file.clone_from(&new.tokens_file);
            own.tokens = new.tokens.clone();
            own.rate = new.rate;
        }
        if let (Some(own), Some(new)) = (&mut self.server.tls, &new.server.tls) {
            own.files = new.files.clone();
            own.tls.replace(&new.tls);
        }
    }
}
