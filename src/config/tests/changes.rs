//! Two configurations, and what of their difference may change while the gateway runs: a row for every key there is.

use super::{
    super::{Changes, changes::LIVE},
    defaults::{known, uncommented},
    tls::tls,
    *,
};
use crate::server::authority::Authority;

/// Keys that need a restart.
const FIXED: [&str; 64] = [
    "store.ca_file",
    "store.capacity",
    "store.key_file",
    "store.kind",
    "store.max_age",
    "store.password",
    "store.password_file",
    "store.path",
    "store.prefix",
    "store.url",
    "store.username",
    "cache.capacity",
    "cache.compression",
    "cache.idle_refresh",
    "clients.allow_anonymous",
    "clients.header",
    "log.format",
    "log.key_hash_secret",
    "log.key_hash_secret_file",
    "lookup[].key[].list",
    "lookup[].key[].record",
    "lookup[].key[].type",
    "lookup[].key[].unique",
    "lookup[].limit_per",
    "lookup[].mixed_lists",
    "lookup[].path",
    "passthrough.inject_token",
    "passthrough.invalidate[].items",
    "passthrough.invalidate[].path",
    "passthrough.limit[].interval",
    "passthrough.limit[].max_wait",
    "passthrough.limit[].max_waiting",
    "passthrough.limit[].path",
    "replicas.ca_file",
    "replicas.kind",
    "replicas.max_replicas",
    "replicas.password",
    "replicas.password_file",
    "replicas.prefix",
    "replicas.url",
    "replicas.username",
    "replicas.when_redis_is_down",
    "server.admin_listen",
    "server.compression",
    "server.compression_min_size",
    "server.listen",
    "upstream.base_url",
    "upstream.ca_file",
    "upstream.connect_timeout",
    "upstream.credentials.forward_headers",
    "upstream.credentials.instance_appid",
    "upstream.credentials.instance_secret",
    "upstream.credentials.instance_secret_file",
    "upstream.credentials.mode",
    "upstream.danger_accept_invalid_certs",
    "upstream.kind",
    "upstream.max_response",
    "upstream.request_timeout",
    "warmup.capacity_share",
    "warmup.enabled",
    "warmup.page_interval",
    "warmup.page_size",
    "warmup.path",
    "warmup.slot_share",
];

const SECRET: &str = "hunter2!hunter2!hunter2!hunter2!";

/// A configuration with everything that has no default, and for each key a line that says something else, put before it.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("cache.capacity", "cache.capacity = \"1GiB\"", ""),
        ("cache.compression", "cache.compression = \"zstd\"", ""),
        ("cache.idle_refresh", "cache.idle_refresh = 0.5", ""),
        ("cache.negative_ttl", "cache.negative_ttl = \"7s\"", ""),
        ("cache.stale_if_error", "cache.stale_if_error = \"7s\"", ""),
        ("cache.stale_while_revalidate", "cache.stale_while_revalidate = \"7s\"", ""),
        ("cache.ttl", "cache.ttl = \"7s\"", ""),
        ("clients.allow_anonymous", "clients.allow_anonymous = true", ""),
        ("log.format", "log.format = \"text\"", ""),
        ("log.key_hash_secret", "log.key_hash_secret = \"hunter2!hunter2!hunter2!hunter2?\"", "hashed"),
        ("log.level", "log.level = \"warn,audience_gateway::cache=trace\"", ""),
        ("lookup[0].interval", "lookup = [{ interval = \"7s\" }]", ""),
        ("lookup[0].limit_per", "lookup = [{ limit_per = \"credential\" }]", ""),
        ("lookup[0].linger", "lookup = [{ linger = \"7ms\" }]", ""),
        ("lookup[0].max_batch_keys", "lookup = [{ max_batch_keys = 7 }]", ""),
        ("lookup[0].max_in_flight", "lookup = [{ max_in_flight = 7 }]", ""),
        ("lookup[0].max_keys_per_request", "lookup = [{ max_keys_per_request = 7 }]", ""),
        ("lookup[0].max_pending_keys", "lookup = [{ max_pending_keys = 7 }]", ""),
        ("lookup[0].mixed_lists", "lookup = [{ mixed_lists = \"never\" }]", ""),
        ("lookup[0].timeout", "lookup = [{ timeout = \"7s\" }]", ""),
        ("passthrough.allow", "passthrough.allow = [\"/a\"]", ""),
        ("passthrough.enabled", "passthrough.enabled = false", ""),
        (
            "passthrough.invalidate[0].items",
            "passthrough.invalidate = [{ path = \"/audience/info/batchAdd\", items = \"a\" }]",
            "",
        ),
        ("passthrough.limit[0].interval", "passthrough.limit = [{ path = \"/a\", interval = \"7s\" }]", "limit"),
        ("server.admin_listen", "server.admin_listen = \"127.0.0.1:7\"", ""),
        ("server.compression", "server.compression = [\"gzip\"]", ""),
        ("server.compression_min_size", "server.compression_min_size = \"7B\"", ""),
        ("server.header_timeout", "server.header_timeout = \"7s\"", ""),
        ("server.idle_timeout", "server.idle_timeout = \"7s\"", ""),
        ("server.listen", "server.listen = \"127.0.0.1:7\"", ""),
        ("server.max_body", "server.max_body = \"7B\"", ""),
        ("server.max_buffered", "server.max_buffered = \"7B\"", ""),
        ("server.max_connections", "server.max_connections = 7", ""),
        ("server.min_rate", "server.min_rate = \"7B\"", ""),
        ("server.shutdown_grace", "server.shutdown_grace = \"7s\"", ""),
        ("warmup.enabled", "warmup.enabled = true", ""),
        ("warmup.path", "warmup.path = \"/a\"", ""),
    ]
}

/// What stands there before.
fn before(which: &str) -> String {
    match which {
        "hashed" => format!("log.key_hash_secret = {SECRET:?}"),
        "limit" => "passthrough.limit = [{ path = \"/a\", interval = \"2s\" }]".to_owned(),
        _ => String::new(),
    }
}

fn generic(key: &str) -> String {
    key.replace("[0]", "[]")
}

#[test]
fn every_key_either_changes_or_is_named() {
    let mut all: Vec<&str> = LIVE.iter().chain(&FIXED).copied().collect();
    all.sort_unstable();
    let known: Vec<_> = known(&uncommented()).into_iter().collect();
    assert_eq!(all, known, "a key came: may it change while the gateway runs?");
}

#[test]
fn a_key_that_may_change_takes_over_and_one_that_may_not_stays_and_is_named() {
    for (key, line, which) in rows() {
        let (old, new) = (accepted(&before(which), &[]), accepted(line, &[]));
        let changes = old.changes(&new);
        let live = LIVE.contains(&&*generic(key));
        assert_eq!(changes.live.contains(key), live, "{key}: {changes:?}");
        assert_eq!(changes.fixed.contains(key), !live, "{key}: {changes:?}");
        let mut after = old.clone();
        after.take_over(&new);
        assert_eq!(after == old, !live, "{key}");
        assert_eq!(after.changes(&new).fixed.contains(key), !live, "{key} is named for as long as it differs");
        assert!(!after.changes(&new).live.contains(key), "{key} has changed");
        if live {
            assert_eq!(after, new, "{key} is all that differs");
        }
    }
}

#[test]
fn what_has_not_changed_is_not_named() {
    let config = accepted("", &[]);
    assert_eq!(config.changes(&accepted("cache.ttl = \"600s\"", &[])), Changes::default());
}

#[test]
fn tokens_and_certificates_are_always_read_again_and_nothing_is_made_of_none() {
    let (file, authority) = (tokens_file(CRM), Authority::new("a"));
    let clients = format!("[clients]\ntokens_file = {}\n", quoted(&file));
    let both = accepted(&format!("{}\n{clients}", tls(&authority, false)), &[]);
    let changes = both.changes(&both);
    assert_eq!(changes.live.iter().collect::<Vec<_>>(), ["clients.tokens_file", "server.tls"]);
    assert!(changes.fixed.is_empty());
    let none = accepted("", &[]);
    for (old, new) in [(&none, &both), (&both, &none)] {
        let changes = old.changes(new);
        assert!(changes.live.is_empty(), "{changes:?}");
        for key in ["clients.tokens_file", "server.tls.cert", "server.tls.key"] {
            assert!(changes.fixed.contains(key), "{changes:?}");
        }
        let mut after = old.clone();
        after.take_over(new);
        assert_eq!(&after, old);
    }
}

#[test]
fn another_set_of_lookups_changes_none_of_them() {
    let old = accepted("[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"\n", &[]);
    let new = accepted("[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"\ntimeout = \"7s\"\n", &[]);
    let changes = old.changes(&new);
    assert!(changes.live.is_empty() && changes.fixed.contains("lookup[1].path"), "{changes:?}");
    let mut after = old.clone();
    after.take_over(&new);
    assert_eq!(after, old);
}

#[test]
fn a_secret_that_changes_is_named_and_not_shown() {
    let (old, new) =
        (accepted(&before("hashed"), &[]), accepted("log.key_hash_secret = \"hunter2!hunter2!hunter2!hunter2?\"", &[]));
    assert!(!format!("{:?}", old.changes(&new)).contains("hunter2"));
}
