//! Requests whose end or recipient two servers could see differently: each is refused, and nothing of it goes upstream.
//!
//! `tests/requests/framing.txt` has them, as they come over the wire. The upstream is a script that reads by the letter of
//! RFC 9112 and fails on anything that it would have to guess.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use audience_gateway::{
    config::Config,
    gateway::Gateway,
    server::duplex::{self, Connector},
    upstream::connect::{Dial, Dialing, Io},
};
use http::Uri;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinSet,
    time::timeout,
};

const CASES: &str = include_str!("../requests/framing.txt");
const BUFFER: usize = 64 * 1024;
/// Less than any timeout of the gateway's: what is refused is refused at once.
const AT_ONCE: Duration = Duration::from_secs(1);
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggle\r\n\r\n";

/// One line of the table.
struct Case {
    tier: &'static str,
    answers: Vec<&'static str>,
    name: &'static str,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let lines = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut columns = line.splitn(4, " | ");
            let mut column = || columns.next().unwrap_or_else(|| panic!("four columns: {line}"));
            let (tier, answers, name, text) = (column(), column(), column(), column());
            Case { tier, answers: answers.split(' ').collect(), name, bytes: bytes(text) }
        })
        .collect()
}

/// The bytes that a line of the table stands for.
fn bytes(text: &str) -> Vec<u8> {
    let text =
        text.replace("<smuggled>", &SMUGGLED.escape_default().to_string()).replace("<host>", r"Host: gateway\r\n");
    let mut rest = text.as_bytes();
    let mut bytes = Vec::new();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let [escape, tail @ ..] = rest else { panic!("an escape ends: {text}") };
        rest = tail;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).expect("two digits")
            }
            other => *other,
        });
    }
    bytes
}

/// What the upstream was sent.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// The request lines since this was asked last.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("nobody panics here"))
    }

    fn add(&self, line: String) {
        self.0.lock().expect("nobody panics here").push(line);
    }
}

/// An upstream that answers every request with an envelope.
struct Literal {
    seen: Seen,
    tasks: Mutex<JoinSet<()>>,
}

impl Dial for Literal {
    fn dial(&self, _to: Uri) -> Dialing {
        let (near, far) = tokio::io::duplex(BUFFER);
        self.tasks.lock().expect("nobody panics here").spawn(serve(far, self.seen.clone()));
        Box::pin(async { Ok((Box::new(near) as Box<dyn Io>, false)) })
    }
}

/// Reads requests to the end of the connection. One that breaks off in its body is seen, and not answered.
async fn serve(mut io: DuplexStream, seen: Seen) {
    while let Some(line) = read_line(&mut io).await {
        seen.add(line.clone());
        let mut lengths = Vec::new();
        while let Some(field) = read_line(&mut io).await.filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(": ").expect("the gateway's headers are well-formed");
            if name == "content-length" || name == "transfer-encoding" {
                lengths.push((name.to_owned(), value.to_owned()));
            }
        }
        let read = match &*lengths {
            [] => Some(()),
            [(name, value)] if name == "content-length" => skip(&mut io, value.parse().expect("a number")).await,
            [(_, value)] if value == "chunked" => skip_chunks(&mut io).await,
            _ => panic!("a request has one length: {line} {lengths:?}"),
        };
        if read.is_none() {
            return;
        }
        let body = r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[]}"#;
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = if line.starts_with("HEAD ") { head } else { head + body };
        let _gone = io.write_all(answer.as_bytes()).await;
    }
}

async fn read_line(io: &mut DuplexStream) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(io.read_u8().await.ok()?);
    }
    line.truncate(line.len() - 2);
    assert!(!line.contains(&b'\r') && !line.contains(&b'\n'), "a bare CR or LF came upstream");
    Some(String::from_utf8_lossy(&line).into_owned())
}

async fn skip(io: &mut DuplexStream, bytes: usize) -> Option<()> {
    io.read_exact(&mut vec![0; bytes]).await.ok().map(drop)
}

async fn skip_chunks(io: &mut DuplexStream) -> Option<()> {
    loop {
        let size = usize::from_str_radix(&read_line(io).await?, 16).expect("a plain size");
        if size == 0 {
            while !read_line(io).await?.is_empty() {}
            return Some(());
        }
        skip(io, size).await?;
        assert_eq!(read_line(io).await?, "");
    }
}

/// A gateway in front of it.
struct Fixture {
    callers: Connector,
    operators: Connector,
    seen: Seen,
    _running: JoinSet<()>,
}

impl Fixture {
    fn new() -> Self {
        let config = Config::parse("upstream.base_url = \"http://upstream/api/open\"", std::iter::empty());
        let seen = Seen::default();
        let dial = Literal { seen: seen.clone(), tasks: Mutex::default() };
        let gateway = Gateway::new(config.unwrap_or_else(|problems| panic!("{problems}")), Arc::new(dial));
        let (callers, listener) = duplex::pair();
        let (operators, admin) = duplex::pair();
        let mut running = JoinSet::new();
        running.spawn(gateway.expect("safe paths").serve(listener, admin, std::future::pending()));
        Self { callers, operators, seen, _running: running }
    }

    /// What comes back, in pieces of `size` bytes; `None` if the connection was not closed at once.
    async fn ask(&self, to: &Connector, bytes: &[u8], (size, is_last): (usize, bool)) -> Option<Vec<Answer>> {
        let mut io = to.connect(BUFFER).await.expect("the gateway listens");
        for piece in bytes.chunks(size) {
            // It may have been closed before the end.
            let _closed = io.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        if is_last {
            let _closed = io.shutdown().await;
        }
        let mut text = Vec::new();
        // A lookup waits for its slot.
        let patience = if is_last { 5 * AT_ONCE } else { AT_ONCE };
        timeout(patience, io.read_to_end(&mut text)).await.ok()?.expect("the connection ends orderly");
        Some(answers(&String::from_utf8(text).expect("answers are text"), bytes.starts_with(b"HEAD ")))
    }

    /// What the next caller sees, who has a proper request.
    async fn check_that_nothing_is_left_over(&self, case: &str) {
        let after = "GET /after HTTP/1.1\r\nHost: gateway\r\n\r\n";
        let answers = self.ask(&self.callers, after.as_bytes(), (BUFFER, true)).await.expect("an orderly end");
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200], "after {case}");
        assert_eq!(self.seen.take(), ["GET /api/open/after HTTP/1.1"], "after {case}");
    }
}

/// One answer of the gateway's.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Whether it is the gateway's envelope, and says that it is the last one.
    fn is_last_word(&self) -> bool {
        let envelope: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        self.head.contains("\r\nconnection: close\r\n") && envelope["errorCode"] == "INVALID_REQUEST"
    }
}

fn answers(mut text: &str, without_bodies: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let head = format!("{head}\r\n");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let (body, rest) = rest.split_at(if without_bodies { 0 } else { length.unwrap_or(0) });
        if status >= 200 {
            answers.push(Answer { status, head, body: body.to_owned() });
        }
        text = rest;
    }
    assert_eq!(text, "", "something follows the last answer");
    answers
}

#[tokio::test(start_paused = true)]
async fn every_request_of_the_table_is_answered_as_it_says_and_none_is_smuggled() {
    let fixture = Fixture::new();
    let cases = cases();
    let mut tiers = std::collections::BTreeMap::new();
    for Case { tier, answers, name, bytes } in &cases {
        *tiers.entry(*tier).or_insert(0) += 1;
        let is_refused = answers.last() == Some(&"400");
        for size in [BUFFER, 1, 7] {
            let case = format!("{name} ({tier}), {size} bytes at once");
            let got = fixture.ask(&fixture.callers, bytes, (size, !is_refused)).await;
            let got = got.unwrap_or_else(|| panic!("{case}: not closed at once"));
            let statuses: Vec<u16> = got.iter().map(|answer| answer.status).collect();
            let said: Vec<u16> = answers.iter().map(|said| said[..3].parse().expect("a status")).collect();
            assert_eq!(statuses, said, "{case}");
            assert_eq!(
                got.last().is_some_and(Answer::is_last_word),
                is_refused,
                "{case}: {}",
                got.last().unwrap().head
            );

            let seen = fixture.seen.take();
            let meant = statuses.iter().filter(|status| **status == 200).count();
            // Of a request whose body turns out to be broken a part is upstream already.
            let broken = usize::from(is_refused && has_chunks(bytes));
            assert!(seen.len() <= meant + broken, "{case}: {seen:?}");
            assert!(!seen.iter().any(|line| line.contains("/open/smuggled")), "{case}: {seen:?}");
            fixture.check_that_nothing_is_left_over(&case).await;
        }
    }
    assert_eq!(cases.len(), 264);
    let tiers: Vec<_> = tiers.into_iter().collect();
    assert_eq!(tiers, [("acceptable", 9), ("ambiguous", 101), ("compliant", 55), ("severe", 99)]);
}

/// Whether the head is proper, so that only the chunks may not be.
fn has_chunks(bytes: &[u8]) -> bool {
    bytes.windows(32).any(|piece| piece == b"\r\nTransfer-Encoding: chunked\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn the_admin_listener_refuses_the_same_heads() {
    let fixture = Fixture::new();
    let mut refused = 0;
    for Case { answers, name, bytes, .. } in cases() {
        if *answers == ["400"] && !has_chunks(&bytes) {
            refused += 1;
            let got = fixture.ask(&fixture.operators, &bytes, (BUFFER, false)).await;
            let got = got.unwrap_or_else(|| panic!("{name}: not closed at once"));
            assert!(matches!(&*got, [only] if only.status == 400 && only.is_last_word()), "{name}");
        }
    }
    assert_eq!(refused, 157);
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_is_its_callers_fault_and_nobody_elses() {
    let fixture = Fixture::new();
    for path in ["/meant", "/api/audience/detail"] {
        for body in
            ["5\r\nhello\r\nzz\r\n", "5\r\nhel", "5;a\n", "5\r\nhello\r\n0\r\nHost: x\r\n\r\n", "5\r\nhello\r\n"]
        {
            let request = format!("POST {path} HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            let got = fixture.ask(&fixture.callers, request.as_bytes(), (BUFFER, true)).await.expect("an orderly end");
            assert!(matches!(&*got, [only] if only.status == 400 && only.is_last_word()), "{path} {body:?}");
        }
    }
    let got = fixture.ask(&fixture.operators, b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n", (BUFFER, true)).await;
    let metrics = &got.expect("an orderly end")[0].body;
    let count = |sample: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no sample {sample}"))
    };
    assert_eq!(count(r#"gateway_passthrough_requests_total{status="400"}"#), 5.0);
    assert_eq!(count(r#"gateway_passthrough_requests_total{status="502"}"#), 0.0);
    for outcome in ["unavailable", "invalid", "success"] {
        let sample = format!(r#"gateway_upstream_requests_total{{lookup="/api/audience/detail",outcome="{outcome}"}}"#);
        assert_eq!(count(&sample), 0.0, "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_of_everything_names_the_methods_and_asks_nobody() {
    let fixture = Fixture::new();
    for to in [&fixture.callers, &fixture.operators] {
        let request = b"OPTIONS * HTTP/1.1\r\nHost: gateway\r\n\r\n";
        let got = fixture.ask(to, request, (BUFFER, true)).await.expect("an orderly end");
        assert_eq!(got[0].status, 200);
        assert!(got[0].head.contains("\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"), "{}", got[0].head);
    }
    assert!(fixture.seen.take().is_empty());
}
