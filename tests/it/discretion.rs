//! Types that carry keys, records, tokens, credentials, bodies or query strings print nothing of them.
//!
//! A table formats one of each, filled with marks; and the source is read for types that print what they hold and hold
//! what may be personal, so that a new one is noticed.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use audience_gateway::{
    cache::{Answer, Forgotten, Of, Taken, Whose},
    clients::tokens::{Digest, Tokens},
    clock,
    config::Config,
    dispatch::{Client, Failure, Outcome, Wanted, batch, entry::Need, queue::Order, ticket::Finished},
    key::{self, Credential, Id, Key, Kind, Scope, Value},
    key_hash::KeyHasher,
    key_log::KeyLog,
    lookup::encode::{self, Pending},
    record::{Parts, Record},
    request::{purge, wire},
    route::{self, Router},
    secret::Secret,
    shape::Shape,
    upstream::{
        page,
        verdict::{Ask, Found, PassedOn, Success, Verdict},
        wire::Meaning,
    },
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::house::sources;

/// A mark in every text, and in every number.
const TEXT: &str = "canary";
const NUMBER: i64 = 7_700_770_077;

/// How the marks look in what prints a text, a number, or bytes one by one.
const TRACES: [&str; 4] = [TEXT, "7700770077", "99, 97, 110", "63616e61"];

/// What `{:?}` and `{:#?}` print.
fn printed(what: impl Debug) -> String {
    format!("{what:?} {}", format!("{what:#?}").split_whitespace().collect::<Vec<_>>().join(" "))
}

fn scope() -> Arc<Scope> {
    let mut headers = HeaderMap::new();
    headers.insert("x-token", HeaderValue::from_static(TEXT));
    let credential = key::credential(&[HeaderName::from_static("x-token")], &headers);
    Arc::new(Scope::new(0, credential, r#"{"companyId":"canary"}"#, r#""companyId":"canary""#))
}

fn ids() -> Vec<Id> {
    let number = Id { kind: Kind(0), value: Value::Int(NUMBER) };
    vec![number, Id { kind: Kind(2), value: Value::Text(TEXT.into()) }]
}

fn keys() -> Vec<Key> {
    ids().into_iter().map(|id| Key { scope: scope(), id }).collect()
}

const RECORD: &str = r#"{"audienceUserId":7700770077,"phone":"canary"}"#;

fn record() -> Record {
    let json = RECORD.as_bytes();
    Record::new(Parts { json, scope: scope(), ids: &ids(), carried: 2, identity: Some(0), fetched_at: clock::now() })
}

fn answer() -> Answer {
    Answer::new([record()], clock::now(), 0)
}

fn refusal() -> Arc<PassedOn> {
    let content_type = Some(HeaderValue::from_static(TEXT));
    Arc::new(PassedOn {
        status: StatusCode::OK,
        content_type,
        retry_after: None,
        body: Bytes::from_static(RECORD.as_bytes()),
    })
}

fn success() -> Success {
    let found = Found { json: RECORD.as_bytes().into(), ids: ids(), carried: 2, identity: Some(0) };
    let envelope = Bytes::from_static(br#"{"msg":"canary","data":["#);
    Success {
        envelope,
        records: vec![found],
        of: vec![vec![0]],
        unmatched: false,
        age: Duration::ZERO,
        exclusive: vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_and_who_asks_is_not_printed() {
    let shape = Shape::audience_detail();
    let body = r#"{"audienceUserIdList":[7700770077],"phoneList":["canary"],"companyId":"canary","canary":1}"#;
    let credential = scope().credential.clone();
    let application = Credential::Application(TEXT.into(), vec![]);
    let router = Router::new("", ["/own"]).unwrap();
    let target = Uri::from_static("/canary?phone=canary&token=canary");
    let wanted = Wanted {
        max_age: None,
        client: Client::Unknown,
        keys: keys(),
        fallback: vec![],
        fresh: false,
        no_store: false,
        deadline: clock::now(),
        partial: false,
        trace: None,
    };
    let order = Order {
        client: Client::Unknown,
        keys: keys(),
        fallback: vec![],
        need: Need::Company,
        fresh: false,
        no_store: false,
        waker: (),
    };
    let mut token = HeaderMap::new();
    token.insert("x-token", HeaderValue::from_static(TEXT));
    let rows = [
        printed(ids()),
        printed(keys()),
        printed(scope()),
        printed((&credential, &application)),
        printed(key::credential(&[HeaderName::from_static("x-token")], &token)),
        printed(Ask::new(scope(), ids())),
        printed(wire::decode(&shape, 0, credential.clone(), 10, body.as_bytes()).unwrap()),
        printed(purge::decode(&[(&shape, 10)], body.as_bytes()).unwrap()),
        printed(router.route(&Method::POST, &target)),
        printed(route::Path::normalise("/canary", "").unwrap()),
        printed(Whose::Credentials(&credential)),
        printed((wanted, order)),
        printed(Pending { shape: &shape, ids: &ids() }),
    ];
    for row in rows {
        assert!(!TRACES.iter().any(|trace| row.contains(trace)), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_answers_is_not_printed() {
    let shape = Shape::audience_detail();
    let ask = Ask::new(scope(), ids());
    let failed = || Failure::Refused(refusal());
    let page = br#"{"code":"200","data":{"audienceUserIdList":["7700770077"]}}"#;
    let page = page::read(shape.list(Kind(0)), StatusCode::OK, page);
    assert!(matches!(page, page::Page::Ids(_)));
    let meaning = |body: String| audience_gateway::upstream::wire::read(&shape, &ask, StatusCode::OK, body.as_bytes());
    let understood = meaning(format!(r#"{{"code":"200","msg":"canary","data":[{RECORD}]}}"#));
    assert!(matches!(understood, Meaning::Success(_)));
    let rejected = meaning(r#"{"code":"400001","msg":"canary"}"#.to_owned());
    let broken = meaning(r#"{"code":"canary"#.to_owned());
    let batch = batch::Settled::Answered(answer());
    let outcomes = [Some(Outcome::Answer(answer())), Some(Outcome::Failed(failed()))].into_iter().collect();
    let rows = [
        printed(record()),
        printed(answer()),
        printed(refusal()),
        printed(success()),
        printed((Verdict::Success(success()), Verdict::Rejected(refusal()), Verdict::Unauthorized(refusal()))),
        printed((understood, rejected, broken)),
        printed(page),
        printed((batch, batch::Settled::Failed(failed()), batch::Settled::Retry(Failure::Unavailable(Duration::ZERO)))),
        printed(Finished { waker: (), outcomes }),
        printed((Taken::Held(answer()), Taken::Outdated(answer()))),
        printed(Of { id: ids().remove(0), records: vec![], keep: true }),
        printed(Forgotten { keys: 2, records: 1, held: keys(), meant: keys(), answered: keys(), customers: keys() }),
        printed(encode::encode(Bytes::from_static(b"{\"data\":["), [answer()].iter(), None)),
    ];
    for row in rows {
        assert!(!TRACES.iter().any(|trace| row.contains(trace)), "{row}");
    }
}

#[test]
fn secrets_and_tokens_are_not_printed() {
    let secret = Secret::new("canary".repeat(6));
    let hash = "63616e61".repeat(8);
    let text = format!(
        "upstream.base_url = \"http://x\"\nlog.key_hash_secret = {0:?}\n\
         upstream.credentials = {{ mode = \"managed\", instance_appid = \"app\", instance_secret = {0:?} }}",
        "canary".repeat(6)
    );
    let config = Config::parse(&text, std::iter::empty()).unwrap();
    let rows = [
        printed(&secret),
        printed(KeyHasher::new(&secret)),
        printed(KeyLog::new(Some(&secret))),
        printed(Digest::of(b"canary")),
        printed(Tokens::parse(format!("crm:{hash}").as_bytes()).unwrap()),
        printed(Tokens::parse(format!("canary {hash}").as_bytes()).unwrap_err()),
        config.to_toml(),
        printed(config),
    ];
    for row in rows {
        assert!(!TRACES.iter().any(|trace| row.contains(trace)), "{row}");
    }
}

/// Types that print a text of theirs, and why it is nobody's.
const NOT_PERSONAL: [(&str, &str); 26] = [
    ("clients/tokens.rs Flaw", "its sentences quote nothing"),
    ("config/changes.rs Changes", "names of keys of the configuration"),
    ("config/problems.rs Problem", "its sentences quote nothing"),
    ("error.rs Refusal", "its sentences quote nothing"),
    ("link/mod.rs Clock", "the name that a server gave itself"),
    ("link/mod.rs Config", "of the configuration; the password is a Secret"),
    ("link/mod.rs Lost", "why there is no answer, in words that the program has"),
    ("log_filter.rs Filter", "configured"),
    ("passthrough/invalidate.rs Invalidate", "configured"),
    ("passthrough/limit.rs Limit", "configured"),
    ("passthrough/mod.rs Config", "configured"),
    ("probe/mixed.rs Mixed", "names of kinds"),
    ("replicas/mod.rs Config", "of the configuration"),
    ("route.rs Router", "configured"),
    ("server/stream.rs Source", "the server's own words"),
    ("server/tls.rs Flaw", "its sentence quotes nothing"),
    ("shape.rs FieldPath", "configured"),
    ("shape.rs List", "configured"),
    ("shape.rs Shape", "configured"),
    ("store/config.rs InRedis", "of the configuration"),
    ("trace/span.rs Value", "words of the program and of its configuration"),
    ("upstream/client.rs NoAnswer", "a sentence of the gateway's, or of TLS or the system about a connection"),
    ("upstream/credentials.rs Application", "the application's name; its secret is a `Secret`"),
    ("upstream/mod.rs Config", "configured; a URL with a password is refused"),
    ("upstream/verdict.rs Verdict", "as `NoAnswer`"),
    ("warmup/mod.rs Config", "configured"),
];

/// What may hold something personal: whatever holds text or bytes, and numbers of the size of an id.
const MAY_BE_PERSONAL: [&str; 14] = [
    "BoxError",
    "Bytes",
    "BytesMut",
    "Cow",
    "CredentialHeaders",
    "HeaderMap",
    "HeaderValue",
    "Parts",
    "PathAndQuery",
    "RawValue",
    "String",
    "Uri",
    "i64",
    "str",
];

fn may_be_personal(fields: &str) -> bool {
    let whole = ["[u8", "<u8>", "Request<", "Response<"];
    let fields = fields.replace("&'static str", "");
    let mut words = fields.split(|letter: char| !letter.is_alphanumeric());
    words.any(|word| MAY_BE_PERSONAL.contains(&word)) || whole.iter().any(|part| fields.contains(part))
}

/// The name of the struct or enum that begins at a line, or soon after, and its text without comments.
fn item(code: &str, line: usize) -> (&str, String) {
    let mut lines = code.lines().skip(line).skip_while(|line| line.trim_start().starts_with("#["));
    let head = lines.next().expect("an attribute stands in front of an item");
    let mut words = head.split(|letter: char| !letter.is_alphanumeric());
    let name =
        words.by_ref().skip_while(|word| !matches!(*word, "struct" | "enum")).nth(1).expect("an item has a name");
    let mut text = head.to_owned();
    if head.ends_with('{') {
        let indent = head.len() - head.trim_start().len();
        let is_end = |line: &&str| line.trim_start() == "}" && line.len() - line.trim_start().len() == indent;
        let inside = lines.take_while(|line| !is_end(line)).filter_map(|line| line.split("//").next());
        inside.for_each(|line| text.extend(["\n", line]));
    }
    (name, text)
}

#[test]
fn what_may_be_personal_is_recognised() {
    for fields in ["a: String,", "Bytes", "pub json: Box<[u8]>,", "Vec<u8>", "Box<str>", "&'a str", "Ids(Vec<i64>)"] {
        assert!(may_be_personal(fields), "{fields}");
    }
    for fields in ["Kind(pub u8)", "a: &'static str", "id: Id,", "Option<Duration>", "bytes: usize"] {
        assert!(!may_be_personal(fields), "{fields}");
    }
    let code = "#[derive(Debug)]\n#[a]\npub struct A {\n    // String\n    b: u8,\n}\nstruct C(String);\n";
    assert_eq!(item(code, 1), ("A", "pub struct A {\n    \n    b: u8,".to_owned()));
}

#[test]
fn whatever_derives_debug_holds_nothing_personal_in_the_open() {
    let mut seen = 0;
    let mut found = BTreeSet::new();
    // The simulated upstream's customers are made up, and it writes no log.
    for (file, text) in
        sources().into_iter().filter(|(file, _)| !file.starts_with("simulator/") && !file.contains("tests"))
    {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let derives = |line: &str| line.trim_start().starts_with("#[derive(") && line.contains("Debug");
        for (at, _) in code.lines().enumerate().filter(|(_, line)| derives(line)) {
            let (name, fields) = item(code, at + 1);
            seen += 1;
            if may_be_personal(&fields) {
                found.insert(format!("{file} {name}"));
            }
        }
    }
    assert!(seen > 60, "only {seen} types were read");
    let known: BTreeSet<_> = NOT_PERSONAL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "write a Debug that shows nothing of it, or say here why it may be seen");
}
