//! What a configuration says when it says little, and the two files of the repository.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderName, Uri};
use tracing::level_filters::LevelFilter;

use super::{
    super::{LogFormat, Lookup, file::Written, reader::Reader, sections, value::format_duration},
    store::{in_redis, stored},
    tls::tls,
    *,
};
use crate::{
    cache, dispatch, lookup, passthrough,
    server::{self, authority::Authority},
    shape::{FieldPath, Shape, TAG_BATCHLIST},
    upstream::{self, credentials::Mode},
    warmup,
};

const GATEWAY: &str = include_str!("../../../config/gateway.toml");
const SMALLEST: &str = include_str!("../../../config/minimal.toml");

/// `config/gateway.toml` with every key that is left out by default put in.
pub(super) fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
        _ => line,
    };
    GATEWAY.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Every key that the reader asks for.
pub(super) fn known(text: &str) -> BTreeSet<String> {
    let written = Written::new(text, "configuration", std::iter::empty()).expect("TOML");
    Reader::read(written, sections::config).1.known().clone()
}

/// The leaves of a table, with indices left out.
fn leaves(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let separator = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{separator}{key}"), found);
            }
        }
        toml::Value::Array(array) if array.iter().any(toml::Value::is_table) => {
            array.iter().for_each(|value| leaves(value, &format!("{path}[]"), found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn leaves_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves(&text.parse::<toml::Table>().expect("TOML").into(), "", &mut found);
    found
}

fn batch_add(path: &str) -> passthrough::Invalidate {
    passthrough::Invalidate { path: path.to_owned(), items: "data".to_owned() }
}

#[test]
fn in_front_of_another_gateway_the_defaults_leave_the_pace_to_it() {
    let config = accepted("", &[("GATEWAY_UPSTREAM__KIND", "gateway")]);
    let dispatch = &config.lookups[0].dispatch;
    assert_eq!((dispatch.interval, dispatch.linger, dispatch.max_in_flight), (Duration::ZERO, Duration::ZERO, 64));
    assert_eq!(dispatch.mixed_lists, dispatch::MixedLists::Union);
    assert!(config.upstream.request_timeout > config.lookups[0].lookup.timeout);
    let again = Config::parse(&config.to_toml(), std::iter::empty()).expect("what is printed is a configuration");
    assert_eq!(again, config);
}

#[test]
fn every_default_is_the_contracts() {
    let seconds = Duration::from_secs;
    let expected = Config {
        server: super::super::Server {
            listen: "127.0.0.1:8080".parse().expect("an address"),
            admin_listen: "127.0.0.1:9090".parse().expect("an address"),
            allow_anonymous: false,
            max_body: 1024 * 1024,
            max_buffered: 256 * 1024 * 1024,
            compression: lookup::compression::Config {
                codings: lookup::compression::Coding::ALL.into(),
                min_size: 16 * 1024,
            },
            shutdown_grace: seconds(25),
            limits: server::Config {
                max_connections: 10_000,
                header_timeout: seconds(10),
                idle_timeout: seconds(75),
                min_rate: 240,
            },
            tls: None,
        },
        clients: None,
        upstream: upstream::Config {
            kind: upstream::Kind::Platform,
            base_url: Uri::from_static("https://integrate.rabbitpre.com/api/open"),
            connect_timeout: seconds(3),
            request_timeout: seconds(10),
            max_response: 32 * 1024 * 1024,
            ca_file: None,
            danger_accept_invalid_certs: false,
            credentials: Mode::Forward(vec![HeaderName::from_static("x-token")]),
        },
        lookups: vec![Lookup {
            shape: Shape::audience_detail(),
            lookup: lookup::Config { max_keys_per_request: 1000, timeout: seconds(30) },
            dispatch: dispatch::Config {
                kind: upstream::Kind::Platform,
                lookup: 0,
                interval: seconds(1),
                max_batch_keys: 100,
                max_pending_keys: 10_000,
                max_in_flight: 4,
                linger: Duration::from_millis(5),
                mixed_lists: dispatch::MixedLists::Auto,
                limit_per: dispatch::LimitPer::Gateway,
                idle_refresh: dispatch::Share::NONE,
                warmup: dispatch::Share::NONE,
                warmup_bytes: 0,
            },
        }],
        cache: cache::Config {
            capacity: 512 * 1024 * 1024,
            policy: cache::entry::Policy {
                ttl: seconds(10 * 60),
                negative_ttl: seconds(60),
                stale_while_revalidate: seconds(3600),
                stale_if_error: seconds(24 * 3600),
            },
            compression: cache::Compression::Off,
        },
        passthrough: passthrough::Config {
            enabled: true,
            allow: vec!["/".to_owned()],
            inject_token: vec![],
            limits: vec![],
            invalidate: ["/audience/info/batchAdd", "/api/integrate/audience/info/batchAdd"].map(batch_add).into(),
        },
        warmup: warmup::Config {
            enabled: false,
            path: "/api/audience/user/id/list".to_owned(),
            page_size: 1000,
            page_interval: seconds(10),
            capacity_share: dispatch::Share::new(0.5),
            slot_share: dispatch::Share::new(0.5),
        },
        replicas: None,
        store: None,
        log: super::super::Log { format: LogFormat::Json, level: LevelFilter::INFO.into(), key_hash_secret: None },
    };
    assert_eq!(accepted("", &[]), expected);
}

#[test]
fn the_two_files_of_the_repository_say_the_defaults() {
    let defaults = accepted("", &[]);
    assert_eq!(Config::parse(GATEWAY, pairs(&[])), Ok(defaults.clone()));
    assert_eq!(Config::parse(SMALLEST, pairs(&[])), Ok(defaults));
}

#[test]
fn the_complete_file_shows_every_known_key() {
    let shown = leaves_of(&uncommented());
    let missing: Vec<_> = known(&uncommented()).into_iter().filter(|key| !shown.contains(key)).collect();
    assert!(missing.is_empty(), "config/gateway.toml does not show {missing:?}");
    assert_eq!(known(&uncommented()).len(), 90, "a key came or went: does CONTRACT.md know?");
}

#[test]
fn the_complete_file_shows_no_unknown_key() {
    let problems = Config::parse(&uncommented(), pairs(&[])).expect_err("there are no files");
    // The mode is shown with its default, which has no use for the keys of the other one. And there are no files.
    let shown = [
        "upstream.credentials.instance_",
        "clients.tokens_file",
        "server.tls.",
        "log.key_hash_secret_file",
        "replicas.",
        "store.",
    ];
    let is_expected = |key: &str| shown.iter().any(|shown| key.starts_with(shown));
    assert!(problems.iter().all(|problem| is_expected(&problem.key)), "{problems}");
}

#[test]
fn the_resolved_text_shows_every_known_key() {
    let limit = "[[passthrough.limit]]\npath = \"/a\"\ninterval = \"2s\"\n";
    let config = accepted(limit, &[("GATEWAY_UPSTREAM__CA_FILE", "ca.pem")]);
    let own = ["MODE", "INSTANCE_APPID", "INSTANCE_SECRET"].map(|key| format!("GATEWAY_UPSTREAM__CREDENTIALS__{key}"));
    let managed = accepted("", &[(&*own[0], "managed"), (&*own[1], "app"), (&*own[2], "hunter2")]);
    let file = tokens_file(CRM);
    let clients = format!("[clients]\ntokens_file = {}\nrequests_per_second = 1", quoted(&file));
    let hashed = accepted("", &[("GATEWAY_LOG__KEY_HASH_SECRET", &"hunter2!".repeat(4))]);
    let mut shown = leaves_of(&config.to_toml());
    shown.extend(leaves_of(&accepted(&tls(&Authority::new("a"), true), &[]).to_toml()));
    shown.extend(leaves_of(&hashed.to_toml()));
    shown.extend(leaves_of(&accepted(&clients, &[]).to_toml()));
    shown.extend(leaves_of(&managed.to_toml()));
    let others = "[replicas]\nkind = \"redis\"\nurl = \"rediss://h\"\nusername = \"me\"\nca_file = \"ca.pem\"";
    shown.extend(leaves_of(&accepted(others, &[("GATEWAY_REPLICAS__PASSWORD", "hunter2")]).to_toml()));
    shown.extend(leaves_of(&accepted(&stored(), &[]).to_toml()));
    let redis = format!("{}username = \"me\"\n", in_redis());
    shown.extend(leaves_of(&accepted(&redis, &[("GATEWAY_STORE__PASSWORD", "hunter2")]).to_toml()));
    // Where a secret came from is not shown, like the secret.
    let files = ["upstream.credentials.instance_secret_file", "log.key_hash_secret_file"];
    shown.extend(files.map(str::to_owned));
    shown.extend(["replicas.password_file", "store.password_file"].map(str::to_owned));
    assert_eq!(shown, known(&uncommented()));
    assert!(!managed.to_toml().contains("hunter2") && !hashed.to_toml().contains("hunter2"));
    assert!(!format!("{managed:?}{hashed:?}").contains("hunter2"));
}

#[test]
fn the_resolved_text_reads_back_to_the_same_configuration() {
    let file = tokens_file(CRM);
    let authority = Authority::new("a");
    let tls = tls(&authority, false);
    let clients =
        format!("[clients]\ntokens_file = {}\nheader = \"X-Client\"\nrequests_per_second = 0.1\n", quoted(&file));
    let everything_else = r#"
        log = { format = "text", level = "off" }
        [server]
        listen = "[::]:0"
        max_body = "3B"
        compression = ["gzip"]
        compression_min_size = "0B"
        shutdown_grace = "0s"
        [cache]
        capacity = "0B"
        compression = "zstd-cold"
        ttl = "1h 2m 3s 4ms 5us 6ns"
        [warmup]
        enabled = true
        path = "/own/ids"
        page_size = 10000
        page_interval = "1m"
        capacity_share = 0.25
        slot_share = 1
        [passthrough]
        enabled = false
        allow = ["/a", "/b/"]
        [[passthrough.limit]]
        path = "/Own/Slow/"
        interval = "1m"
        max_wait = "0s"
        max_waiting = 7
        [[passthrough.invalidate]]
        path = "/Own/Write/"
        items = "odd \"list\""
        [[passthrough.invalidate]]
        path = "/API/integrate/audience/info/batchAdd"
        items = "customers"
        [[lookup]]
        path = "/api/audience/user/tag/batchlist"
        mixed_lists = "never"
        limit_per = "credential"
        [[lookup]]
        path = "/other"
        key = [{ list = "odd \"list\"", type = "int64", record = ["a", "b[].c"], unique = true }]
    "#;
    let env = [("GATEWAY_UPSTREAM__CA_FILE", "a\\b \"c\".pem"), ("GATEWAY_UPSTREAM__BASE_URL", "http://[::1]:81")];
    for config in [
        accepted("", &[]),
        accepted(everything_else, &env),
        accepted(&clients, &[]),
        accepted(&tls, &[]),
        accepted(&stored(), &[]),
        accepted(&in_redis(), &[]),
    ] {
        let text = config.to_toml();
        assert_eq!(Config::parse(&text, pairs(&[])).as_ref(), Ok(&config), "{text}");
    }
}

#[test]
fn each_built_in_path_has_the_interval_that_its_limit_asks_for() {
    let config = accepted(&format!("[[lookup]]\n[[lookup]]\npath = \"{TAG_BATCHLIST}/\"\n"), &[]);
    let intervals: Vec<_> = config.lookups.iter().map(|lookup| format_duration(lookup.dispatch.interval)).collect();
    assert_eq!(intervals, ["1s", "500ms"]);
    assert_eq!(config.lookups[1].shape, Shape::tag_batchlist());
    let config = accepted(&format!("[[lookup]]\npath = \"{TAG_BATCHLIST}\"\ninterval = \"3s\""), &[]);
    assert_eq!(config.lookups[0].dispatch.interval, Duration::from_secs(3));
}

#[test]
fn the_warm_up_is_for_the_first_lookup_with_a_unique_list_of_whole_numbers() {
    let text = r#"
        [[lookup]]
        path = "/own"
        key = [{ list = "names", record = ["name"], unique = true }, { list = "groups", type = "int64", record = ["g"] }]
        [[lookup]]
        [[lookup]]
        path = "/api/audience/user/tag/batchlist"
        [warmup]
        capacity_share = 0.25
        slot_share = 0.1
        [cache]
        capacity = "1000B"
    "#;
    let shares = |text: &str| {
        let lookups = accepted(text, &[]).lookups.into_iter();
        lookups.map(|lookup| (lookup.dispatch.warmup, lookup.dispatch.warmup_bytes)).collect::<Vec<_>>()
    };
    let none = (dispatch::Share::NONE, 0);
    assert_eq!(shares(text), [none; 3], "it is off");
    let on = text.replace("[warmup]", "[warmup]\nenabled = true");
    assert_eq!(shares(&on), [none, (dispatch::Share::new(0.1), 250), none]);
}

#[test]
fn a_path_of_the_users_own_spells_out_its_lists() {
    let config = accepted(
        r#"
        [[lookup]]
        path = "/own"
        [[lookup.key]]
        list = "phones"
        record = ["contacts[].phone", "phone"]
        [[lookup.key]]
        list = "ids"
        type = "int64"
        record = ["id"]
        unique = true
        "#,
        &[],
    );
    let lists = &config.lookups[0].shape.lists;
    assert_eq!((&*lists[0].name, &*lists[0].kind, lists[0].unique), ("phones", "phone", false));
    assert_eq!(lists[0].value_type.as_str(), "string");
    assert_eq!(lists[0].record[1], FieldPath::Member("phone".to_owned()));
    assert_eq!((&*lists[1].name, &*lists[1].kind, lists[1].unique), ("ids", "id", true));
    assert_eq!(lists[1].value_type.as_str(), "int64");
}

#[test]
fn lists_given_for_a_built_in_path_take_the_place_of_its_own() {
    let text = "[[lookup]]\nkey = [{ list = \"phoneList\", record = [\"phone\"], unique = true }]";
    let shape = accepted(text, &[]).lookups.remove(0).shape;
    assert_eq!((&*shape.path, shape.lists.len(), shape.lists[0].unique), ("/api/audience/detail", 1, true));
}

#[test]
fn a_limit_needs_a_path_and_an_interval_and_has_defaults_for_the_rest() {
    let text = "[[passthrough.limit]]\npath = \"/\"\ninterval = \"2s\"";
    let seconds = Duration::from_secs;
    let limit = |path: &str, interval| passthrough::Limit {
        path: path.to_owned(),
        interval,
        max_wait: seconds(10),
        max_waiting: 100,
    };
    let env = [("GATEWAY_PASSTHROUGH__LIMIT__1__PATH", "/a"), ("GATEWAY_PASSTHROUGH__LIMIT__1__INTERVAL", "3s")];
    assert_eq!(accepted(text, &env).passthrough.limits, [limit("/", seconds(2)), limit("/a", seconds(3))]);
    // What is below a lookup, or above it, passes through.
    let below = text.replace("\"/\"", "\"/api/audience/detail/more\"");
    assert_eq!(accepted(&below, &[]).passthrough.limits, [limit("/api/audience/detail/more", seconds(2))]);
}

#[test]
fn a_path_whose_writes_make_keys_old_joins_the_built_in_ones() {
    let text = "[[passthrough.invalidate]]\npath = \"/own/\"\n[[passthrough.invalidate]]\npath = \"/audience/INFO/batchAdd\"\n\
                items = \"list\"";
    let paths = accepted(text, &[]).passthrough.invalidate.into_iter().map(|one| (one.path, one.items));
    let expected =
        [("/audience/INFO/batchAdd", "list"), ("/api/integrate/audience/info/batchAdd", "data"), ("/own", "data")];
    assert_eq!(paths.collect::<Vec<_>>(), expected.map(|(path, items)| (path.to_owned(), items.to_owned())));
    let env = [("GATEWAY_PASSTHROUGH__INVALIDATE__0__PATH", "/other")];
    assert_eq!(accepted("", &env).passthrough.invalidate[2], batch_add("/other"));
    // A lookup never passes through: there is nothing to watch.
    let text = "[[lookup]]\npath = \"/audience/info/batchAdd\"\nkey = [{ list = \"a\", record = [\"b\"] }]";
    assert_eq!(accepted(text, &[]).passthrough.invalidate, [batch_add("/api/integrate/audience/info/batchAdd")]);
}
