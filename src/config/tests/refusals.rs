//! What is refused, and how it is said.

use std::io::Write as _;

use super::*;
use crate::clients::Rate;

/// Asserts that each text has exactly the problems that are written beside it.
#[track_caller]
fn each_is_refused(rows: &[(&str, &str)]) {
    for (text, line) in rows {
        assert_eq!(refused(text, &[]).join("\n"), *line, "{text}");
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = r#"
        [server]
        listen = "localhost:8080"
        max_connections = 0
        [upstream]
        base_url = "https://user:hunter2@host/"
        [upstream.credentials]
        instance_secret = "hunter2"
        [[lookup]]
        interval = "0s"
        timeout = 30
        mixed_lists = "both"
        [[lookup]]
        path = "/API/audience/detail?"
        [cache]
        capacity = "512 florins"
        tll = "1m"
        [store]
        kind = "paper"
    "#;
    let problems = Config::parse(text, pairs(&[("GATEWAY_LOG__LEVEL", "loud")])).expect_err("it is full of problems");
    let keys: Vec<_> = problems.iter().map(|problem| &*problem.key).collect();
    assert_eq!(
        keys,
        [
            "server.listen",
            "server.max_connections",
            "upstream.base_url",
            "upstream.credentials.instance_secret",
            "lookup[0].interval",
            "lookup[0].mixed_lists",
            "lookup[0].timeout",
            "lookup[1].path",
            "cache.capacity",
            "cache.tll",
            "store.kind",
            "GATEWAY_LOG__LEVEL",
        ]
    );
    let text = problems.to_string();
    assert_eq!(text.lines().count(), keys.len());
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("cache.tll: is not a configuration key; did you mean ttl?"), "{text}");
}

#[test]
fn the_base_url_is_the_one_thing_that_is_required() {
    let problems = Config::parse("", pairs(&[])).expect_err("there is no base_url");
    assert_eq!(lines(&problems), ["upstream.base_url: is required"]);
    let problems = Config::parse("[upstream]\nbase_url = \"\"", pairs(&[])).expect_err("it is empty");
    assert_eq!(lines(&problems), ["upstream.base_url: must not be empty"]);
}

#[test]
fn an_unknown_key_is_refused_and_the_nearest_known_one_named() {
    each_is_refused(&[
        ("[sever]\n", "sever: is not a configuration key; did you mean server?"),
        ("ttl = 1\n", "ttl: is not a configuration key"),
        ("[log]\n\"a\\nb\" = 1\n", "log.\"a\\nb\": is not a configuration key"),
        ("[[lookup]]\nintervall = \"1s\"\n", "lookup[0].intervall: is not a configuration key; did you mean interval?"),
        (
            "[[lookup]]\nkey = [{ list = \"a\", record = [\"b\"], uniqe = true }]\n",
            "lookup[0].key[0].uniqe: is not a configuration key; did you mean unique?",
        ),
    ]);
}

#[test]
fn a_section_of_the_wrong_form_is_refused() {
    each_is_refused(&[
        ("cache = 5\n", "cache: must be a table: write [cache]"),
        ("[[cache]]\n", "cache: must be a table: write [cache]"),
        ("[lookup]\npath = \"/x\"\n", "lookup: must be an array of tables: write [[lookup]]"),
        ("[[lookup]]\nkey = 5\n", "lookup[0].key: must be an array of tables: write [[lookup.key]]"),
        ("lookup = []\n", "lookup: must have an element; leave it out for the customer-detail call"),
        ("[passthrough]\nallow = \"/\"\n", "passthrough.allow: must be an array of strings"),
        ("[passthrough]\nallow = [\"/\", 5]\n", "passthrough.allow[1]: must be a string"),
        ("[passthrough]\nallow = [\"/\", \"a\"]\n", "passthrough.allow[1]: must start with /"),
        ("[[passthrough.invalidate]]\n", "passthrough.invalidate[0].path: is required"),
        ("[[passthrough.invalidate]]\npath = \"a\"\n", "passthrough.invalidate[0].path: must start with /"),
        (
            "[[passthrough.invalidate]]\npath = \"/a\"\nitems = \"\"\n",
            "passthrough.invalidate[0].items: must not be empty",
        ),
        (
            "[[passthrough.invalidate]]\npath = \"/API/audience/detail/\"\n",
            "passthrough.invalidate[0].path: is the path of a lookup, which never passes through",
        ),
        (
            "[[passthrough.invalidate]]\npath = \"/api/open/api/audience/detail\"\n",
            "passthrough.invalidate[0].path: is the path of a lookup, which never passes through",
        ),
        (
            "passthrough.invalidate = [{ path = \"/a\" }, { path = \"/A/\" }]\n",
            "passthrough.invalidate[1].path: is the path of passthrough.invalidate[0].path too",
        ),
        ("[[passthrough.limit]]\ninterval = \"2s\"\n", "passthrough.limit[0].path: is required"),
        ("[[passthrough.limit]]\npath = \"/a\"\n", "passthrough.limit[0].interval: is required"),
        (
            "[[passthrough.limit]]\npath = \"/a\"\ninterval = \"0s\"\n",
            "passthrough.limit[0].interval: must be at least 1ms",
        ),
        (
            "[[passthrough.limit]]\npath = \"/a\"\ninterval = \"2s\"\nmax_waiting = 0\n",
            "passthrough.limit[0].max_waiting: must be at least 1",
        ),
        (
            "[[passthrough.limit]]\npath = \"/API/audience/detail;v=1/\"\ninterval = \"2s\"\n",
            "passthrough.limit[0].path: is the path of a lookup, which has its own interval",
        ),
        (
            "[[passthrough.limit]]\npath = \"/api/open/api/audience/detail\"\ninterval = \"2s\"\n",
            "passthrough.limit[0].path: is the path of a lookup, which has its own interval",
        ),
        (
            "passthrough.limit = [{ path = \"/a\", interval = \"2s\" }, { path = \"/A/;b\", interval = \"2s\" }]\n",
            "passthrough.limit[1].path: is the path of passthrough.limit[0].path too",
        ),
    ]);
}

#[test]
fn a_limit_that_makes_no_sense_is_refused() {
    each_is_refused(&[
        ("[warmup]\npage_size = 10001\n", "warmup.page_size: must be at most 10000"),
        ("[warmup]\npage_interval = \"0s\"\n", "warmup.page_interval: must be at least 1ms"),
        ("[warmup]\nslot_share = 1.5\n", "warmup.slot_share: must be a number from 0 to 1"),
        ("[warmup]\npath = \"ids\"\n", "warmup.path: must start with /"),
        (
            "[warmup]\nenabled = true\nslot_share = 0\n",
            "warmup.slot_share: must be above 0, or nothing is ever fetched",
        ),
        (
            "[warmup]\nenabled = true\n[[lookup]]\npath = \"/x\"\nkey = [{ list = \"a\", type = \"int64\", record = [\"b\"] }]\n",
            "warmup.enabled: needs a [[lookup]] with a unique list of the type \"int64\"",
        ),
        ("[server]\nheader_timeout = \"0s\"\n", "server.header_timeout: must be at least 1ms"),
        ("[server]\nidle_timeout = \"2days\"\n", "server.idle_timeout: must be at most 1d"),
        ("[server]\nmax_body = \"0B\"\n", "server.max_body: must be at least 1B"),
        ("[server]\nmax_body = \"2TiB\"\n", "server.max_body: must be at most 1024GiB"),
        ("[server]\nmax_connections = 1000000000\n", "server.max_connections: must be at most 100000000"),
        ("[[lookup]]\ninterval = \"999us\"\n", "lookup[0].interval: must be at least 1ms"),
        ("[[lookup]]\nmax_batch_keys = 0\n", "lookup[0].max_batch_keys: must be at least 1"),
        ("[[lookup]]\nmax_keys_per_request = 0\n", "lookup[0].max_keys_per_request: must be at least 1"),
        ("[[lookup]]\nmax_pending_keys = 0\n", "lookup[0].max_pending_keys: must be at least 1"),
        ("[[lookup]]\nmax_in_flight = 0\n", "lookup[0].max_in_flight: must be at least 1"),
        ("[[lookup]]\ntimeout = \"0s\"\n", "lookup[0].timeout: must be at least 1ms"),
        (
            "[[lookup]]\ntimeout = \"5ms\"\n",
            "lookup[0].linger: must be shorter than lookup[0].timeout, or nobody waits long enough",
        ),
        ("[cache]\nttl = \"500years\"\n", "cache.ttl: must be at most 365d"),
    ]);
    accepted("[cache]\ncapacity = \"0B\"\nttl = \"0s\"\n[[lookup]]\nlinger = \"0s\"\ninterval = \"1ms\"\n", &[]);
}

#[test]
fn the_two_listeners_may_not_share_an_address() {
    let line = "server.admin_listen: must not be the address of server.listen";
    each_is_refused(&[
        ("[server]\nlisten = \"127.0.0.1:9090\"\n", line),
        ("[server]\nlisten = \"0.0.0.0:9090\"\n", line),
    ]);
    accepted("[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n", &[]);
    accepted("[server]\nlisten = \"127.0.0.2:9090\"\n", &[]);
}

#[test]
fn two_lookups_may_not_answer_the_same_requests() {
    let batchlist = "/api/audience/user/tag/batchlist";
    let key = "key = [{ list = \"a\", record = [\"b\"] }]";
    for (first, second) in [
        (batchlist.to_owned(), batchlist.to_owned()),
        (batchlist.to_owned(), batchlist.to_uppercase()),
        (batchlist.to_owned(), format!("{batchlist}/")),
        // The base path may be given or left out.
        (batchlist.to_owned(), format!("/api/open{batchlist}")),
    ] {
        let text = format!("[[lookup]]\npath = \"{first}\"\n{key}\n[[lookup]]\npath = \"{second}\"\n{key}\n");
        assert_eq!(refused(&text, &[]), ["lookup[1].path: answers the same requests as lookup[0].path"]);
    }
}

#[test]
fn a_lookup_path_is_a_path_with_a_shape() {
    each_is_refused(&[
        ("[[lookup]]\npath = \"a\"\n", "lookup[0].path: must start with /"),
        ("[[lookup]]\npath = \"/a?b\"\n", "lookup[0].path: must be a path alone, without query or fragment"),
        (
            "[[lookup]]\npath = \"/own\"\n",
            "lookup[0].path: has no built-in shape: say with [[lookup.key]] which lists it takes",
        ),
        (
            "[[lookup]]\n[[lookup.key]]\nrecord = [\"a.b\"]\n",
            "lookup[0].key[0].list: is required\n\
             lookup[0].key[0].record[0]: must be a record path: `field` or `list[].field`",
        ),
        (
            "[[lookup]]\nkey = [{ list = \"a\" }]\n",
            "lookup[0].key[0].record: is required: where does a record carry the key?",
        ),
        (
            "[[lookup]]\nkey = [{ list = \"a\", record = [\"b\"], type = \"int\" }]\n",
            "lookup[0].key[0].type: must be one of \"int64\", \"string\"",
        ),
        (
            "[[lookup]]\nkey = [{ list = \"a\", record = [\"b\"] }, { list = \"a\", record = [\"c\"] }]\n",
            "lookup[0].key[1].list: names the same list as lookup[0].key[0].list",
        ),
    ]);
}

#[test]
fn there_are_at_most_255_lookups_and_255_lists() {
    let keys = |count: usize| {
        (0..count).fold(String::new(), |text, n| text + &format!("{{ list = \"l{n}\", record = [\"r{n}\"] }},"))
    };
    let lookups = |count: usize| {
        let one = |n| format!("[[lookup]]\npath = \"/own/{n}\"\nkey = [{}]\n", keys(1));
        (0..count).map(one).collect::<String>()
    };
    assert_eq!(accepted(&lookups(255), &[]).lookups.len(), 255);
    assert_eq!(refused(&lookups(256), &[]), ["lookup: must have at most 255 elements"]);
    assert_eq!(accepted(&format!("[[lookup]]\nkey = [{}]", keys(255)), &[]).lookups[0].shape.lists.len(), 255);
    let refused = refused(&format!("[[lookup]]\nkey = [{}]", keys(256)), &[]);
    assert_eq!(refused, ["lookup[0].key: must have at most 255 elements"]);
}

#[test]
fn a_credential_is_at_least_one_header_of_the_callers() {
    let header = |names: &str| format!("[upstream.credentials]\nforward_headers = [{names}]\n");
    for (names, line) in [
        ("", ": must name at least one header: it is what tells callers apart"),
        ("\"x-token\", \"X-Token\"", ": names a header twice"),
        ("\"x token\"", "[0]: must be the name of a header"),
        ("\"x-token\", \"Host\"", "[1]: must not be a header that belongs to one connection or message"),
    ] {
        // The table upstream is opened below its own child, which TOML allows.
        assert_eq!(refused(&header(names), &[]), [format!("upstream.credentials.forward_headers{line}")]);
    }
}

#[test]
fn a_credential_of_the_gateways_own_needs_an_application_and_one_secret() {
    let managed = |keys: &str| format!("[upstream.credentials]\nmode = \"managed\"\n{keys}");
    let at = |line: &str| format!("upstream.credentials.{line}");
    let secret = "instance_secret: is required by mode = \"managed\", here, in instance_secret_file, or in the variable \
                  GATEWAY_UPSTREAM__CREDENTIALS__INSTANCE_SECRET";
    let both = ["instance_appid: is required by mode = \"managed\"", secret].map(at);
    assert_eq!(refused(&managed(""), &[]), both);
    assert_eq!(refused(&managed("instance_appid = \"a\""), &[]), [at(secret)]);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("text");
    let in_file = managed(&format!("instance_appid = \"a\"\ninstance_secret_file = {path:?}\n"));
    assert_eq!(
        refused(&in_file, &[]),
        [at("instance_secret_file: must hold the secret on one line, and nothing else")]
    );
    std::fs::write(path, "hunter2\n").expect("room for a line");
    let config = accepted(&in_file, &[]);
    assert!(!config.to_toml().contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    let variable = ("GATEWAY_UPSTREAM__CREDENTIALS__INSTANCE_SECRET", "hunter2");
    assert_eq!(accepted(&managed("instance_appid = \"a\""), &[variable]).upstream, config.upstream);
    let sentence = "instance_secret_file: must not be given beside GATEWAY_UPSTREAM__CREDENTIALS__INSTANCE_SECRET";
    assert_eq!(refused(&in_file, &[variable]), [at(sentence)]);
    assert_eq!(
        refused("[upstream.credentials]\ninstance_appid = \"a\"", &[]),
        [at("instance_appid: is only for mode = \"managed\"")]
    );
}

#[test]
fn with_a_credential_of_its_own_the_gateway_is_open_to_others_only_on_purpose() {
    let managed = "[upstream.credentials]\nmode = \"managed\"\ninstance_appid = \"a\"\ninstance_secret = \"s\"\n";
    accepted(managed, &[]);
    let everywhere = ("GATEWAY_SERVER__LISTEN", "0.0.0.0:8080");
    let refused = refused(managed, &[everywhere]);
    assert!(matches!(&refused[..], [one] if one.contains("clients.allow_anonymous = true")), "{refused:?}");
    accepted(managed, &[everywhere, ("GATEWAY_CLIENTS__ALLOW_ANONYMOUS", "true")]);
    accepted("", &[everywhere]);
    let file = tokens_file(CRM);
    accepted(&format!("{managed}[clients]\ntokens_file = {}", quoted(&file)), &[everywhere]);
}

#[test]
fn callers_are_known_by_tokens_as_a_file_says() {
    let file = tokens_file(CRM);
    let clients = |rest: &str| format!("[clients]\ntokens_file = {}\n{rest}", quoted(&file));
    let config = accepted(&clients(""), &[]).clients.expect("clients");
    assert_eq!((config.header.as_str(), config.rate, config.tokens.iter().count()), ("authorization", None, 1));
    let shown = format!("{:?}\n{}", accepted(&clients(""), &[]), accepted(&clients(""), &[]).to_toml());
    assert!(shown.contains("crm") && !shown.contains("ba7816bf"), "{shown}");
    let rate = ("GATEWAY_CLIENTS__REQUESTS_PER_SECOND", "2.5");
    let config = accepted(&clients("header = \"X-Client\""), &[rate]).clients.expect("clients");
    assert_eq!((config.header.as_str(), config.rate.map(Rate::per_second)), ("x-client", Some(2.5)));
    // Managed, no header of the caller's goes upstream as its credential.
    let managed = "[upstream.credentials]\nmode = \"managed\"\ninstance_appid = \"a\"\ninstance_secret = \"s\"\n";
    accepted(&format!("{managed}{}", clients("header = \"x-token\"")), &[]);
    let both =
        "clients.header: must not be one of upstream.credentials.forward_headers: a client's token never goes upstream";
    let ours = "[upstream.credentials]\nforward_headers = [\"x-tenant\", \"Authorization\"]\n";
    each_is_refused(&[
        (&clients("header = \"X-Token\""), both),
        (&format!("{ours}{}", clients("")), both),
        (
            &clients("header = \"host\""),
            "clients.header: must not be a header that belongs to one connection or message",
        ),
        (
            &clients("allow_anonymous = true"),
            "clients.allow_anonymous: must not be true beside clients.tokens_file: nobody is let in without a token",
        ),
        (&clients("requests_per_second = 0"), "clients.requests_per_second: must be a number from 0.001 to 1000000"),
        (
            "[clients]\nheader = \"a\"\nrequests_per_second = 1",
            "clients.header: needs clients.tokens_file: without it callers have no token\n\
             clients.requests_per_second: needs clients.tokens_file: without it callers have no token",
        ),
    ]);
}

#[test]
fn every_bad_line_of_a_file_of_tokens_is_a_problem_that_quotes_nothing() {
    let file = tokens_file(&format!("# who\n{CRM}hunter2\n\nhunter2:abc\n"));
    let text = format!("[clients]\ntokens_file = {}", quoted(&file));
    let expected = [
        "clients.tokens_file: line 3 must be name:sha256-hex-of-token",
        "clients.tokens_file: line 5 must end with a SHA-256 in 64 hexadecimal digits",
    ];
    assert_eq!(refused(&text, &[]), expected);
    drop(file);
    let missing = refused(&text, &[]);
    assert_eq!(missing, ["clients.tokens_file: cannot be read: entity not found"]);
}

#[test]
fn a_file_is_read_and_one_that_cannot_be_is_a_problem() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_owned();
    file.write_all(MINIMAL.as_bytes()).expect("room for a line");
    assert_eq!(Config::load(&path, pairs(&[])), Ok(accepted("", &[])));
    file.write_all(b"base_url =\n").expect("room for a line");
    let problems = Config::load(&path, pairs(&[])).expect_err("no TOML").to_string();
    assert!(problems.starts_with(&format!("{}, line 3: is not TOML: ", path.display())), "{problems}");
    drop(file);
    let problems = Config::load(&path, pairs(&[])).expect_err("no file").to_string();
    assert!(problems.starts_with(&format!("{}: cannot be read: ", path.display())), "{problems}");
}
