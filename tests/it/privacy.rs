//! Nothing of a customer, a credential or a token reaches what the program writes, at its finest level, whatever is sent
//! and whatever is answered. With a secret the log names keys by their hash, and nothing else does.

use std::{collections::BTreeSet, net::SocketAddr};

use http::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::task::{JoinSet, LocalSet};

use crate::{
    authority::Authority,
    canary::{BAD_KEY, HEADERS, MARK, Marked, evil, evil_over_http_2, torment, torment_over_http_2},
    harness::DETAIL,
    program::{Desk, Program, send, send_rubbish, serve, simulate},
};

/// Fast, and quick to end.
const FINEST: &str = "log.level = \"trace\"\nserver.max_body = \"32KiB\"\nserver.shutdown_grace = \"2s\"\n";

const FAST: &str = "[[lookup]]\ninterval = \"25ms\"\n";

const SECRET: &str = "canary-secret-of-thirty-two-letters";

/// What a gateway wrote until it was told to stop.
async fn written(mut gateway: Program) -> String {
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let log = gateway.stderr();
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    assert!(log.lines().all(is_json), "each line is JSON: {log}");
    assert!(log.contains("\"upstream request\""), "the finest level is on: {log}");
    gateway.stdout() + &log
}

/// What must be seen nowhere: the mark, and everything that the customer's record says.
async fn marks(callers: SocketAddr) -> BTreeSet<String> {
    let Marked { id, third_id, phone } = Marked::new();
    let body = format!(r#"{{"audienceUserIdList":[{id}]}}"#);
    let reply = send(callers, Method::POST, DETAIL, &body, &HEADERS[..1]).await;
    let mut marks = BTreeSet::from([MARK.to_owned(), id, third_id, phone]);
    texts(&serde_json::from_str(&reply.records().concat()).expect("a record"), &mut marks);
    assert!(marks.len() > 10, "{marks:?}");
    marks
}

/// Every text of a record that says something of its customer. A few digits may stand in a timestamp.
fn texts(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::String(text) if text.len() > 10 || text.len() > 5 && !text.bytes().all(|byte| byte.is_ascii_digit()) => {
            found.insert(text.clone());
        }
        Value::Array(members) => members.iter().for_each(|member| texts(member, found)),
        Value::Object(members) => members.values().for_each(|member| texts(member, found)),
        _ => {}
    }
}

fn assert_discreet(written: &str, marks: &BTreeSet<String>) {
    for mark in marks {
        let line = written.lines().find(|line| line.contains(mark.as_str()));
        assert_eq!(line, None, "{mark} is written");
    }
}

#[tokio::test]
async fn nothing_that_callers_and_operators_send_is_written() {
    let desk = Desk::new();
    let (simulator, upstream) = simulate(&desk, &["--interval", "20ms", "--bad-key", BAD_KEY]).await;
    let config = desk.config(upstream, &[FINEST, FAST].concat());
    let (gateway, callers, operators) = serve(&desk, &config).await;
    let marks = marks(callers).await;
    let seen = torment(callers, operators, &Marked::new()).await;
    torment_over_http_2(callers, &Marked::new()).await;
    let log = written(gateway).await;
    for outcome in ["success", "rejected"] {
        assert!(log.contains(&format!(r#""outcome":"{outcome}""#)), "{log}");
    }
    assert!(!log.contains("\"key\""), "without a secret no line is about one key: {log}");
    assert_discreet(&(log + &seen + &simulator.stdout() + &simulator.stderr()), &marks);
}

#[tokio::test]
async fn with_a_secret_a_key_is_found_by_its_hash_and_by_nothing_else() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "20ms", "--bad-key", BAD_KEY]).await;
    let config = desk.config(upstream, &[FINEST, &format!("log.key_hash_secret = {SECRET:?}\n"), FAST].concat());
    let (gateway, callers, operators) = serve(&desk, &config).await;
    let marks = marks(callers).await;
    let marked = Marked::new();
    let seen = torment(callers, operators, &marked).await;
    let log = written(gateway).await;
    assert_discreet(&(log.clone() + &seen), &marks);

    let happened = async |kind: &str, value: &str| {
        let hash = hash(&desk, kind, value).await;
        assert!(hash.starts_with(&format!("{kind}:")) && hash.len() == kind.len() + 17, "{hash}");
        log.lines().filter(|line| line.contains(&hash)).map(what).collect::<BTreeSet<_>>()
    };
    let forgotten = "what was cached of a key was forgotten";
    for (kind, value) in [("audienceUserId", &marked.id), ("thirdId", &marked.third_id), ("phone", &marked.phone)] {
        let happened = happened(kind, value).await;
        for (message, how) in [
            ("a key was asked for", "miss"),
            ("a key was asked for", "hit"),
            ("a key was in an upstream request", "success"),
            ("a key that had to be fetched was answered", "200"),
            (forgotten, "write"),
            (forgotten, "event"),
            (forgotten, "purge"),
        ] {
            assert!(happened.contains(&(message.to_owned(), how.to_owned())), "{kind}: {message} {how}: {happened:?}");
        }
    }
    let rejected = ("a key was in an upstream request".to_owned(), "rejected".to_owned());
    assert!(happened("thirdId", BAD_KEY).await.contains(&rejected));
    assert!(happened("phone", "13000000000").await.is_empty(), "nobody asked for it");
    let respelled = format!(" 0{} ", marked.id);
    assert_eq!(hash(&desk, "audienceUserId", &respelled).await, hash(&desk, "audienceUserId", &marked.id).await);
}

/// What a line says happened to its key.
fn what(line: &str) -> (String, String) {
    let line: Value = serde_json::from_str(line).expect("JSON");
    let how = ["result", "outcome", "cause", "status"].iter().find_map(|field| line.get(field)).expect("one of them");
    (line["message"].as_str().expect("a text").to_owned(), how.as_str().map_or_else(|| how.to_string(), str::to_owned))
}

/// What `hash` prints of a key, given where no list of processes shows it.
async fn hash(desk: &Desk, kind: &str, value: &str) -> String {
    let hash = Program::start_and_tell(desk, "hash", &["hash", kind, "--config", "gateway.toml"], value);
    let (status, stdout, stderr) = hash.finished().await;
    assert_eq!((status, &*stderr), (Some(0), ""));
    stdout.trim_end().to_owned()
}

#[tokio::test]
async fn at_the_usual_level_the_secret_changes_nothing_in_the_log() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let config = desk.config(upstream, &format!("log.key_hash_secret = {SECRET:?}\n"));
    let (gateway, callers, _operators) = serve(&desk, &config).await;
    let marks = marks(callers).await;
    let log = written(gateway).await;
    assert!(!log.contains("\"key\""), "{log}");
    assert_discreet(&log, &marks);
}

#[tokio::test]
async fn hash_ends_with_64_and_one_line_that_quotes_nothing_where_something_is_wrong() {
    let desk = Desk::new();
    let upstream = "127.0.0.1:1".parse().unwrap();
    desk.config(upstream, "");
    let rows: [(&str, &[&str], &str); 9] = [
        ("", &["phone=13800000000canary"], "log.key_hash_secret"),
        ("canary", &["phone=13800000000canary"], "GATEWAY_LOG__KEY_HASH_SECRET"),
        (SECRET, &["fax=13800000000canary"], "audienceUserId, phone, thirdId"),
        (SECRET, &["13800000000canary"], "audienceUserId, phone, thirdId"),
        (SECRET, &["audienceUserId=13800000000canary"], "64-bit integer"),
        (SECRET, &["phone="], "no value"),
        (SECRET, &["phone"], "no value"),
        (SECRET, &["phone=1", "13800000000canary"], "one argument"),
        (SECRET, &["--13800000000canary"], "not shown"),
    ];
    for (secret, arguments, word) in rows {
        let environment = [("GATEWAY_LOG__KEY_HASH_SECRET", secret)];
        let environment = if secret.is_empty() { &[][..] } else { &environment };
        let arguments = [&["hash", "--config", "gateway.toml"], arguments].concat();
        let hash = Program::start_with(&desk, "hash", &arguments, environment);
        let (status, stdout, stderr) = hash.finished().await;
        assert_eq!((status, &*stdout, stderr.lines().count()), (Some(64), "", 1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word) && !stderr.contains(MARK) && !stderr.contains("13800000000"), "{stderr}");
    }
    for (arguments, word) in [(&["phone=13800000000"][..], "subcommand"), (&["serve", "13800000000"], "unexpected")] {
        let (status, _, stderr) = Program::start(&desk, "stray", arguments).finished().await;
        assert!(status == Some(64) && stderr.contains(word) && !stderr.contains("138"), "{stderr}");
    }
}

/// What an upstream may say that is no answer, each with marks in it.
const EVIL: [&str; 16] = [
    "",
    "canary canary canary\r\n\r\n",
    "HTTP/1.1 200 canary\r\ncanary canary\r\n\r\n",
    "HTTP/1.1 200 OK\r\nx-canary: \x01canary\r\n\r\ncanary",
    "HTTP/1.1 canary canary\r\ncontent-length: 6\r\n\r\ncanary",
    "HTTP/1.1 200 OK\r\ncontent-length: canary\r\n\r\ncanary",
    "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"code\":\"canary\"",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\ncanary\r\n",
    "HTTP/1.1 200 OK\r\nset-cookie: canary\r\nconnection: close\r\n\r\ncanary",
    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"code\":\"400001\",\"errorCode\":\"canary\",\"msg\":\"canary 13800138777\"}",
    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"code\":\"100200\",\"msg\":\"canary\"}",
    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"code\":\"200\",\"msg\":\"canary\",\"data\":\"canary\"}",
    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"code\":\"200\",\"msg\":\"canary\",\"data\":[{\"phone\":\"canary\"}]}",
    "HTTP/1.1 302 canary\r\nlocation: http://canary/canary\r\nconnection: close\r\n\r\n",
    "HTTP/1.1 429 canary\r\nretry-after: canary\r\nconnection: close\r\n\r\ncanary",
    "HTTP/1.1 500 canary\r\nconnection: close\r\n\r\n<canary>",
];

#[tokio::test]
async fn nothing_that_an_upstream_says_is_written_whoevers_token_it_takes() {
    let hash = Sha256::digest("canary-client").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let managed = format!(
        "upstream.credentials = {{ mode = \"managed\", instance_appid = \"app\", instance_secret = {SECRET:?} }}\n\
         clients = {{ tokens_file = \"tokens\", requests_per_second = 3 }}\npassthrough.inject_token = [\"/echo\"]\n"
    );
    for more in [String::new(), managed] {
        let mut runs = JoinSet::new();
        let local = LocalSet::new();
        for says in EVIL {
            let run = provoke(says, more.clone(), hash.clone());
            runs.spawn_local_on(async move { (says, run.await) }, &local);
        }
        let runs = local.run_until(runs.join_all()).await;
        for (says, written) in runs {
            for mark in [MARK, "13800138777", &hash[..16], "63616e617279"] {
                let line = written.lines().find(|line| line.contains(mark));
                assert_eq!(line, None, "{mark} is written after {says:?}");
            }
        }
    }
}

/// What the processes write in front of an upstream that says this: a gateway, `check`, and `probe`.
async fn provoke(says: &'static str, more: String, hash: String) -> String {
    let desk = Desk::new();
    let (upstream, _serving) = evil(says).await;
    desk.write("tokens", &format!("crm:{hash}\n"));
    let quick = "upstream.request_timeout = \"300ms\"\n";
    let config = desk.config(upstream, &[FINEST, quick, &more, FAST].concat());
    let (gateway, callers, operators) = serve(&desk, &config).await;
    for (request, body) in [
        (
            &*format!("POST {DETAIL}"),
            r#"{"thirdIdList":["canary"],"phoneList":["canary13800138777"],"canary":"canary"}"#,
        ),
        ("PUT /echo/canary?canary", "canary"),
        ("POST /audience/info/batchAdd?canary", r#"{"data":[{"phone":"canary"}]}"#),
        ("GET /app/getOrgAccessToken?instanceAppid=canary&instanceSecrect=canary", ""),
    ] {
        let headers = "host: x\r\nauthorization: Bearer canary-client\r\nx-token: canary-token\r\nprefer: wait=1\r\n";
        let length = body.len();
        let request =
            format!("{request} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        let answer = send_rubbish(callers, request).await;
        let is_own =
            ["UPSTREAM_UNAVAILABLE", "LOOKUP_TIMEOUT", "TOO_FREQUENT"].iter().any(|code| answer.contains(code));
        assert!(!is_own || !answer.contains(MARK), "{answer}");
    }
    let mut all = String::new();
    for path in ["/metrics", "/status.json"] {
        all += send(operators, Method::GET, path, "", &[]).await.text();
    }
    all += &written(gateway).await;
    let path = config.to_str().unwrap();
    let probe = ["probe", "--config", path, "--key", "phone=canary13800138777", "--body-field", "canary=\"canary\""];
    // A gateway that has a token of its own takes no other.
    let token = if more.is_empty() { &[("GATEWAY_PROBE_TOKEN", "canary-token")][..] } else { &[] };
    for program in [
        Program::start(&desk, "check", &["check", "--config", path]),
        Program::start_with(&desk, "probe", &probe, token),
    ] {
        let (_, stdout, stderr) = program.finished().await;
        all += &(stdout + &stderr);
    }
    all
}

#[tokio::test]
async fn a_goodbye_over_http_2_is_not_written() {
    let (desk, authority) = (Desk::new(), Authority::new("a"));
    let (upstream, _serving) = evil_over_http_2(&authority).await;
    let config = format!(
        "upstream = {{ base_url = \"https://localhost:{}\", ca_file = {:?}, request_timeout = \"300ms\" }}\n\
         server.listen = \"127.0.0.1:0\"\nserver.admin_listen = \"127.0.0.1:0\"\n{FINEST}",
        upstream.port(),
        authority.ca()
    );
    let (gateway, callers, _operators) = serve(&desk, &desk.write("gateway.toml", &config)).await;
    let reply = send(callers, Method::POST, DETAIL, r#"{"phoneList":["canary"]}"#, &[("prefer", "wait=2")]).await;
    assert!(reply.status.is_server_error() && !reply.text().contains(MARK), "{}", reply.text());
    let log = written(gateway).await;
    let reason = log.lines().find(|line| line.contains("\"upstream request\""));
    assert!(reason.is_some_and(|line| line.contains("the connection broke: ")), "{log}");
    assert!(!log.contains(MARK), "{log}");
}

#[tokio::test]
async fn no_clients_token_or_its_hash_is_written() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    // `printf %s red-canary | sha256sum`
    let hash = "a6693b9dcf0bc84ac553d2f0a9f5c501788c3a1cc08b036ce6e15f0e2dc86711";
    let tokens = desk.write("tokens", &format!("crm:{hash}\n"));
    let config = format!("log.level = \"trace\"\nclients.tokens_file = {tokens:?}\nclients.requests_per_second = 1");
    let (gateway, callers, _operators) = serve(&desk, &desk.config(upstream, &config)).await;
    for token in ["red-canary", "red-canary", "green-canary"] {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        send(callers, Method::POST, DETAIL, r#"{"audienceUserIdList":[1]}"#, &headers).await;
        send(callers, Method::GET, "/echo", "", &headers).await;
    }
    send_rubbish(callers, "GET /echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer red-canary\r\nx y: z\r\n\r\n").await;
    let log = written(gateway).await;
    for secret in [MARK, &hash[..16]] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
