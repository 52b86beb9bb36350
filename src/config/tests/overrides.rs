//! What the environment changes.

use std::{path::Path, time::Duration};

use super::*;
use crate::dispatch::MixedLists;

#[test]
fn every_kind_of_value_can_be_set_by_a_variable() {
    let text = "[cache]\nttl = \"1s\"\n[passthrough]\nenabled = true\n";
    let env = [
        ("GATEWAY_CACHE__TTL", "5m"),
        ("GATEWAY_CACHE__CAPACITY", "0"),
        ("GATEWAY_SERVER__LISTEN", "0.0.0.0:80"),
        ("GATEWAY_SERVER__MAX_CONNECTIONS", "7"),
        ("GATEWAY_PASSTHROUGH__ENABLED", "false"),
        ("GATEWAY_PASSTHROUGH__ALLOW", "/a, /b"),
        ("GATEWAY_UPSTREAM__CREDENTIALS__FORWARD_HEADERS", "[\"x-token\", 'X-Other']"),
        ("GATEWAY_UPSTREAM__CREDENTIALS__MODE", "forward"),
        ("GATEWAY_UPSTREAM__DANGER_ACCEPT_INVALID_CERTS", "true"),
        ("GATEWAY_UPSTREAM__CA_FILE", "/etc/ca.pem"),
        ("GATEWAY_LOG__FORMAT", "text"),
        ("GATEWAY_LOG__LEVEL", "debug"),
        ("GATEWAY_LOOKUP__0__INTERVAL", "2s"),
        ("GATEWAY_LOOKUP__0__MIXED_LISTS", "never"),
    ];
    let config = accepted(text, &env);
    assert_eq!(config.cache.policy.ttl, Duration::from_secs(300));
    assert_eq!(config.cache.capacity, 0);
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.server.limits.max_connections, 7);
    assert!(!config.passthrough.enabled);
    assert_eq!(config.passthrough.allow, ["/a", "/b"]);
    assert_eq!(config.upstream.credentials.headers(), ["x-token", "x-other"]);
    assert!(config.upstream.danger_accept_invalid_certs);
    assert_eq!(config.upstream.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(config.log.format.as_str(), "text");
    assert_eq!(config.log.level.to_string(), "debug");
    assert_eq!(config.lookups[0].dispatch.interval, Duration::from_secs(2));
    assert_eq!(config.lookups[0].dispatch.mixed_lists, MixedLists::Never);
}

#[test]
fn a_variable_wins_over_a_value_in_the_file_even_a_bad_one() {
    let config = accepted("[cache]\nttl = 7\n", &[("GATEWAY_CACHE__TTL", "5m")]);
    assert_eq!(config.cache.policy.ttl, Duration::from_secs(300));
}

#[test]
fn the_environment_alone_is_a_configuration() {
    let env = [("GATEWAY_UPSTREAM__BASE_URL", "https://integrate.rabbitpre.com/api/open/"), ("GATEWAY_CONFIG", "x")];
    assert_eq!(Config::parse("", pairs(&env)), Ok(accepted("", &[])));
}

#[test]
fn a_lookup_can_be_added_by_variables() {
    let env = [
        ("GATEWAY_LOOKUP__1__PATH", "/own"),
        ("GATEWAY_LOOKUP__1__KEY__0__LIST", "ids"),
        ("GATEWAY_LOOKUP__1__KEY__0__RECORD__0", "id"),
        ("GATEWAY_LOOKUP__1__KEY__0__RECORD__1", "ids[].id"),
    ];
    let config = accepted("", &env);
    assert_eq!(config.lookups.len(), 2);
    assert_eq!(config.lookups[1].shape.lists[0].record.len(), 2);
}

#[test]
fn one_element_of_an_array_can_be_replaced() {
    let text = "[passthrough]\nallow = [\"/a\", \"/b\"]\n";
    let config = accepted(text, &[("GATEWAY_PASSTHROUGH__ALLOW__1", "/c")]);
    assert_eq!(config.passthrough.allow, ["/a", "/c"]);
}

#[test]
fn a_variable_that_names_no_key_is_refused_by_its_name() {
    let env = [
        ("GATEWAY_CACHE__TLL", "5m"),
        ("GATEWAY_COLOUR__OF__MONEY", "green"),
        ("GATEWAY_LOOKUP__0__INTERVALL", "1s"),
        ("GATEWAY_LOOKUP__4__INTERVAL", "1s"),
        ("GATEWAY_PASSTHROUGH__ALLOW__3", "/c"),
        ("GATEWAY_UPSTREAM__CREDENTIALS", "{}"),
        ("GATEWAY__CACHE__CAPACITY", "0"),
    ];
    let too_far = "has an index too far: the elements of an array are numbered from 0 without a gap";
    let mut expected = vec![
        "GATEWAY_CACHE__TLL: is not a configuration key; did you mean GATEWAY_CACHE__TTL?".to_owned(),
        "GATEWAY_COLOUR__OF__MONEY: is not a configuration key".to_owned(),
        "GATEWAY_LOOKUP__0__INTERVALL: is not a configuration key; did you mean GATEWAY_LOOKUP__0__INTERVAL?"
            .to_owned(),
        format!("GATEWAY_LOOKUP__4__INTERVAL: {too_far}"),
        format!("GATEWAY_PASSTHROUGH__ALLOW__3: {too_far}"),
        "GATEWAY_UPSTREAM__CREDENTIALS: is a section, not a key".to_owned(),
        "GATEWAY__CACHE__CAPACITY: is not a configuration key; did you mean GATEWAY_CACHE__CAPACITY?".to_owned(),
    ];
    let mut found = refused("", &env);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_bad_value_in_a_variable_is_refused_by_the_variables_name() {
    let env = [
        ("GATEWAY_CACHE__TTL", "soon"),
        ("GATEWAY_SERVER__ADMIN_LISTEN", "127.0.0.1:8080"),
        ("GATEWAY_PASSTHROUGH__ALLOW", "/a,b"),
        ("GATEWAY_LOOKUP__0__MAX_IN_FLIGHT", "-1"),
    ];
    assert_eq!(
        refused("", &env),
        [
            "GATEWAY_SERVER__ADMIN_LISTEN: must not be the address of server.listen",
            "GATEWAY_LOOKUP__0__MAX_IN_FLIGHT: must be at least 1",
            "GATEWAY_CACHE__TTL: must be a duration such as \"250ms\", \"1s\" or \"10m\"",
            "GATEWAY_PASSTHROUGH__ALLOW: element 1 must start with /",
        ]
    );
}

#[test]
fn what_another_gateway_does_is_not_done_in_front_of_it() {
    let kind = "GATEWAY_UPSTREAM__KIND";
    assert_eq!(refused("", &[(kind, "sidecar")]), ["GATEWAY_UPSTREAM__KIND: must be one of \"platform\", \"gateway\""]);
    assert_eq!(
        refused("warmup.enabled = true\ncache.idle_refresh = 0.1\n", &[(kind, "gateway")]),
        [
            "cache.idle_refresh: must be 0 in front of another gateway, which refreshes what it holds",
            "warmup.enabled: must be false in front of another gateway: warm that one up",
        ]
    );
}
