//! The configuration as `check` prints it: every key with the value the program would run on, as TOML that reads back to
//! the same [`Config`].

use std::collections::BTreeMap;

use super::{
    Config,
    link::format_address,
    value::{format_duration, format_size},
};
use crate::{dispatch::Share, link, server, shape::List, store, upstream::credentials::Mode};

/// Keys whose value is never printed.
const SECRETS: &[&str] = &["instance_secret", "key_hash_secret", "password"];
/// What is printed in its place.
const MASK: &str = "***";

impl Config {
    /// Every key with its value, secrets masked.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.write(Text::default())
    }

    fn write(&self, mut text: Text) -> String {
        self.write_server(&mut text);
        self.write_upstream(&mut text);
        for lookup in &self.lookups {
            text.header("[[lookup]]");
            text.key("path", &*lookup.shape.path);
            text.key("interval", format_duration(lookup.dispatch.interval));
            text.key("max_batch_keys", whole(lookup.dispatch.max_batch_keys));
            text.key("max_keys_per_request", whole(lookup.lookup.max_keys_per_request));
            text.key("max_pending_keys", whole(lookup.dispatch.max_pending_keys));
            text.key("max_in_flight", whole(lookup.dispatch.max_in_flight));
            text.key("linger", format_duration(lookup.dispatch.linger));
            text.key("timeout", format_duration(lookup.lookup.timeout));
            text.key("mixed_lists", lookup.dispatch.mixed_lists.as_str());
            text.key("limit_per", lookup.dispatch.limit_per.as_str());
            for list in &lookup.shape.lists {
                write_list(&mut text, list);
            }
        }
        self.write_rest(&mut text);
        text.written
    }

    fn write_server(&self, text: &mut Text) {
        text.header("[server]");
        text.key("listen", self.server.listen.to_string());
        text.key("admin_listen", self.server.admin_listen.to_string());
        text.key("max_connections", whole(self.server.limits.max_connections));
        text.key("max_body", format_size(bytes(self.server.max_body)));
        text.key("max_buffered", format_size(bytes(self.server.max_buffered)));
        let codings = self.server.compression.codings.iter();
        text.key("compression", codings.map(|coding| coding.as_str()).collect::<Vec<_>>());
        text.key("compression_min_size", format_size(bytes(self.server.compression.min_size)));
        text.key("header_timeout", format_duration(self.server.limits.header_timeout));
        text.key("idle_timeout", format_duration(self.server.limits.idle_timeout));
        text.key("min_rate", format_size(self.server.limits.min_rate));
        text.key("shutdown_grace", format_duration(self.server.shutdown_grace));
        if let Some(server::tls::Config { files, .. }) = &self.server.tls {
            text.header("[server.tls]");
            text.key("cert", files.cert.display().to_string());
            text.key("key", files.key.display().to_string());
            if let Some(path) = &files.client_ca {
                text.key("client_ca", path.display().to_string());
            }
        }
    }

    fn write_upstream(&self, text: &mut Text) {
        text.header("[upstream]");
        text.key("kind", self.upstream.kind.as_str());
        text.key("base_url", self.upstream.base_url.to_string());
        text.key("connect_timeout", format_duration(self.upstream.connect_timeout));
        text.key("request_timeout", format_duration(self.upstream.request_timeout));
        text.key("max_response", format_size(bytes(self.upstream.max_response)));
        if let Some(path) = &self.upstream.ca_file {
            text.key("ca_file", path.display().to_string());
        }
        text.key("danger_accept_invalid_certs", self.upstream.danger_accept_invalid_certs);
        text.header("[upstream.credentials]");
        match &self.upstream.credentials {
            Mode::Forward(headers) => {
                text.key("mode", "forward");
                text.key("forward_headers", headers.iter().map(ToString::to_string).collect::<Vec<_>>());
            }
            Mode::Managed(application) => {
                text.key("mode", "managed");
                text.key("instance_appid", &*application.id);
                text.key("instance_secret", application.secret.reveal());
            }
        }
        text.header("[clients]");
        text.key("allow_anonymous", self.server.allow_anonymous);
        if let Some(clients) = &self.clients {
            text.key("tokens_file", clients.tokens_file.display().to_string());
            text.key("header", clients.header.to_string());
            if let Some(rate) = clients.rate {
                text.key("requests_per_second", rate.per_second());
            }
        }
    }

    fn write_rest(&self, text: &mut Text) {
        text.header("[cache]");
        text.key("capacity", format_size(self.cache.capacity));
        text.key("ttl", format_duration(self.cache.policy.ttl));
        text.key("negative_ttl", format_duration(self.cache.policy.negative_ttl));
        text.key("stale_while_revalidate", format_duration(self.cache.policy.stale_while_revalidate));
        text.key("stale_if_error", format_duration(self.cache.policy.stale_if_error));
        text.key("compression", self.cache.compression.as_str());
        let share = self.lookups.first().map_or(Share::NONE, |lookup| lookup.dispatch.idle_refresh);
        text.key("idle_refresh", share.part());
        text.header("[passthrough]");
        text.key("enabled", self.passthrough.enabled);
        text.key("allow", self.passthrough.allow.clone());
        text.key("inject_token", self.passthrough.inject_token.clone());
        for limit in &self.passthrough.limits {
            text.header("[[passthrough.limit]]");
            text.key("path", &*limit.path);
            text.key("interval", format_duration(limit.interval));
            text.key("max_wait", format_duration(limit.max_wait));
            text.key("max_waiting", whole(limit.max_waiting));
        }
        for write in &self.passthrough.invalidate {
            text.header("[[passthrough.invalidate]]");
            text.key("path", &*write.path);
            text.key("items", &*write.items);
        }
        text.header("[warmup]");
        text.key("enabled", self.warmup.enabled);
        text.key("path", &*self.warmup.path);
        text.key("page_size", whole(self.warmup.page_size));
        text.key("page_interval", format_duration(self.warmup.page_interval));
        text.key("capacity_share", self.warmup.capacity_share.part());
        text.key("slot_share", self.warmup.slot_share.part());
        text.header("[replicas]");
        text.key("kind", if self.replicas.is_some() { "redis" } else { "none" });
        if let Some(shared) = &self.replicas {
            write_link(text, &shared.link);
            text.key("prefix", &*shared.prefix);
            text.key("max_replicas", i64::from(shared.max_replicas));
            text.key("when_redis_is_down", shared.when_redis_is_down.as_str());
        }
        self.write_store(text);
        text.header("[log]");
        text.key("format", self.log.format.as_str());
        text.key("level", self.log.level.to_string());
        if let Some(secret) = &self.log.key_hash_secret {
            text.key("key_hash_secret", secret.reveal());
        }
    }
}

/// Every key, with its indices, and its value, secrets too: to be compared, and never to be shown.
pub(super) fn leaves(config: &Config) -> BTreeMap<String, toml::Value> {
    let text = config.write(Text { reveals: true, ..Text::default() });
    let table: toml::Table = text.parse().expect("this holds because it is written to be read back");
    let mut found = BTreeMap::new();
    collect(toml::Value::Table(table), String::new(), &mut found);
    found
}

fn collect(value: toml::Value, path: String, found: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                collect(value, path, found);
            }
        }
        toml::Value::Array(array) if array.iter().any(toml::Value::is_table) => {
            for (index, value) in array.into_iter().enumerate() {
                collect(value, format!("{path}[{index}]"), found);
            }
        }
        value => drop(found.insert(path, value)),
    }
}

impl Config {
    fn write_store(&self, text: &mut Text) {
        text.header("[store]");
        let (max_age, key_file) = match &self.store {
            None => return text.key("kind", "none"),
            Some(store::Config::Disk(store)) => {
                text.key("kind", "disk");
                text.key("path", store.path.display().to_string());
                text.key("capacity", format_size(store.capacity));
                (store.max_age, &store.key_file)
            }
            Some(store::Config::Redis(store)) => {
                text.key("kind", "redis");
                write_link(text, &store.link);
                text.key("prefix", &*store.prefix);
                (store.max_age, &store.key_file)
            }
        };
        text.key("max_age", format_duration(max_age));
        if let Some(file) = key_file {
            text.key("key_file", file.path.display().to_string());
        }
    }
}

fn write_link(text: &mut Text, link: &link::Config) {
    text.key("url", format_address(link));
    if let Some(username) = &link.username {
        text.key("username", &**username);
    }
    if let Some(password) = &link.password {
        text.key("password", password.reveal());
    }
    if let Some(path) = &link.ca_file {
        text.key("ca_file", path.display().to_string());
    }
}

fn write_list(text: &mut Text, list: &List) {
    text.header("[[lookup.key]]");
    text.key("list", &*list.name);
    text.key("type", list.value_type.as_str());
    let paths: Vec<String> = list.record.iter().map(ToString::to_string).collect();
    text.key("record", paths);
    text.key("unique", list.unique);
}

/// Counts are read from TOML's integers, so they fit one.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn bytes(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// TOML in the order in which it was written.
#[derive(Default)]
struct Text {
    written: String,
    /// Whether secrets are written as what they are.
    reveals: bool,
}

impl Text {
    fn header(&mut self, header: &str) {
        if !self.written.is_empty() {
            self.written.push('\n');
        }
        self.written.push_str(header);
        self.written.push('\n');
    }

    fn key(&mut self, key: &str, value: impl Into<toml::Value>) {
        let value = if SECRETS.contains(&key) && !self.reveals { MASK.into() } else { value.into() };
        self.written.push_str(&format!("{key} = {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_masked() {
        let mut text = Text::default();
        text.header("[upstream.credentials]");
        text.key("instance_secret", "hunter2");
        assert_eq!(text.written, "[upstream.credentials]\ninstance_secret = \"***\"\n");
    }
}
