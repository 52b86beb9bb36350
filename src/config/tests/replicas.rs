//! `[replicas]`: other gateways in front of the same upstream.

use super::{accepted, refused};
use crate::replicas::WhenDown;

#[test]
fn a_gateway_is_alone_unless_it_is_told_of_others() {
    assert_eq!(accepted("", &[]).replicas, None);
    assert_eq!(accepted("[replicas]\nkind = \"none\"", &[]).replicas, None);
}

#[test]
fn others_are_met_in_redis_with_or_without_tls() {
    let config = accepted("[replicas]\nkind = \"redis\"\nurl = \"redis://cache.example\"", &[]);
    let shared = config.replicas.expect("it is given");
    assert_eq!(
        (&*shared.link.host, shared.link.port, shared.link.tls, shared.link.database),
        ("cache.example", 6379, false, 0)
    );
    assert_eq!((&*shared.prefix, shared.max_replicas), ("audience-gateway", 2));
    assert_eq!(shared.when_redis_is_down, WhenDown::Stale);
    let text = "[replicas]\nkind = \"redis\"\nurl = \"rediss://[::1]:7000/3\"\nprefix = \"mine\"\nusername = \"gateway\"\n\
                max_replicas = 5\nwhen_redis_is_down = \"share\"";
    let shared = accepted(text, &[("GATEWAY_REPLICAS__PASSWORD", "hunter2")]).replicas.expect("it is given");
    assert_eq!((&*shared.link.host, shared.link.port, shared.link.tls, shared.link.database), ("::1", 7000, true, 3));
    assert_eq!((shared.max_replicas, shared.when_redis_is_down), (5, WhenDown::Share));
}

#[test]
fn a_password_is_masked_wherever_it_is_printed() {
    let text = "[replicas]\nkind = \"redis\"\nurl = \"redis://h\"\npassword = \"hunter2\"";
    let config = accepted(text, &[]);
    assert!(config.to_toml().contains("url = \"redis://h:6379/0\""));
    assert!(!config.to_toml().contains("hunter2") && !format!("{config:?}").contains("hunter2"));
}

#[test]
fn everything_that_is_wrong_with_it_is_said_at_once() {
    let text = "[replicas]\nkind = \"redis\"\nurl = \"redis://user:hunter2@h\"\nprefix = \"a b\"\nmax_replicas = 0\n\
                when_redis_is_down = \"open\"";
    let problems = refused(text, &[]);
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(!problems.concat().contains("hunter2"));
    for (url, says) in [
        ("http://h", "redis://"),
        ("redis://", "address"),
        ("redis://h:0", "port"),
        ("redis://h/x", "database"),
        ("redis://h/0?a=b", "query"),
        ("", "empty"),
    ] {
        let problems = refused(&format!("[replicas]\nkind = \"redis\"\nurl = {url:?}"), &[]);
        assert!(problems.len() == 1 && problems[0].contains(says), "{url}: {problems:?}");
    }
    let missing = refused("[replicas]\nkind = \"redis\"\nusername = \"me\"", &[]);
    assert_eq!(missing.len(), 2, "{missing:?}");
    let sidecar = "[replicas]\nkind = \"redis\"\nurl = \"redis://h\"";
    assert_eq!(refused(sidecar, &[("GATEWAY_UPSTREAM__KIND", "gateway")]).len(), 1);
    assert_eq!(refused("[replicas]\nurl = \"redis://h\"", &[]).len(), 1);
}
