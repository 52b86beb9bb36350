//! `[store]`: what outlives the process.

use std::time::Duration;

use super::{accepted, pairs, refused};
use crate::{config, store::Config};

/// A store on a disk, with a key file.
pub(super) fn stored() -> String {
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/store.key");
    format!("[store]\nkind = \"disk\"\npath = \"/a b\"\ncapacity = \"1GiB\"\nkey_file = {key:?}\n")
}

#[test]
fn a_store_keeps_answers_as_long_as_they_may_be_given_unless_told_otherwise() {
    let store = accepted("[store]\nkind = \"disk\"\npath = \"a\"", &[]).store.expect("a store");
    let Config::Disk(store) = store else { panic!("it is on a disk") };
    assert_eq!((store.capacity, store.max_age), (10 << 30, Duration::from_secs(24 * 3600 + 600)));
    assert!(store.key_file.is_none());
    let problems = config::Config::parse(
        "upstream.base_url = \"http://a\"\n[store]\nkind = \"disk\"\ncapacity = \"1MiB\"\nkey_file = \"Cargo.toml\"",
        pairs(&[]),
    );
    let problems = problems.expect_err("three problems").to_string();
    for key in ["store.path", "store.capacity", "store.key_file"] {
        assert!(problems.contains(key), "{problems}");
    }
    assert_eq!(accepted(&stored().replace("disk", "none"), &[]).store, None);
}

/// A store in Redis with all that may be said of one, but for its password.
pub(super) fn in_redis() -> String {
    let disk = "kind = \"disk\"\npath = \"/a b\"\ncapacity = \"1GiB\"";
    let redis =
        "kind = \"redis\"\nurl = \"rediss://h:7000/3\"\nca_file = \"ca.pem\"\nprefix = \"mine\"\nmax_age = \"1h\"";
    stored().replace(disk, redis)
}

#[test]
fn a_store_in_redis_needs_an_address_and_hides_its_password() {
    let text = format!("{}username = \"me\"\n", in_redis());
    let config = accepted(&text, &[("GATEWAY_STORE__PASSWORD", "hunter2")]);
    assert!(!config.to_toml().contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    let Some(Config::Redis(store)) = config.store else { panic!("it is in Redis") };
    assert_eq!((&*store.link.host, store.link.port, store.link.tls, store.link.database), ("h", 7000, true, 3));
    assert_eq!((&*store.prefix, store.max_age), ("mine", Duration::from_secs(3600)));
    assert!(store.key_file.is_some() && store.link.password.is_some());
    let problems = refused("[store]\nkind = \"redis\"\npath = \"a\"", &[]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(refused("[store]\nkind = \"disk\"\npath = \"a\"\nurl = \"redis://h\"", &[]).len(), 1);
    let problems = refused("[store]\nkind = \"redis\"\nurl = \"redis://user:hunter2@h\"", &[]);
    assert!(problems.len() == 1 && !problems[0].contains("hunter2"), "{problems:?}");
}
