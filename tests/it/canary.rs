//! Requests and answers that are full of marks: whatever the program writes, none of them may be in it.
//!
//! Everything that can be chosen freely says [`MARK`]; the rest is a customer of the simulated upstream.

use std::{net::SocketAddr, sync::Arc};

use http::Method;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    authority::Authority,
    harness::{DETAIL, Reply, request},
    program::{customer, get, send, send_rubbish},
};

/// What must be seen nowhere.
pub const MARK: &str = "canary";

/// A key that the simulated upstream is told to refuse.
pub const BAD_KEY: &str = "canary-bad-key";

/// Whatever a caller may send with a request, marked.
pub const HEADERS: [(&str, &str); 10] = [
    ("x-token", "canary-token"),
    ("authorization", "Bearer canary-bearer"),
    ("proxy-authorization", "Basic canary"),
    ("cookie", "canary=canary"),
    ("x-canary", "canary"),
    ("cache-control", "max-stale=canary, canary"),
    ("prefer", "wait=canary, canary=canary"),
    ("traceparent", "00-canary"),
    ("user-agent", "canary"),
    ("referer", "http://canary/canary"),
];

/// The customer who is looked up.
pub struct Marked {
    pub id: String,
    pub third_id: String,
    pub phone: String,
}

impl Marked {
    pub fn new() -> Self {
        let customer = customer(2);
        Self { id: customer.id.to_string(), third_id: customer.third_id.unwrap(), phone: customer.phones[0].clone() }
    }

    /// A body that asks for the customer in every way.
    pub fn body(&self) -> String {
        let Self { id, third_id, phone } = self;
        format!(
            r#"{{"audienceUserIdList":[{id}],"thirdIdList":["{third_id}"],"phoneList":["{phone}","canary"],
                "companyId":"canary-company","canary":{{"canary":["canary"]}}}}"#
        )
    }

    /// A customer as writes and events carry it.
    pub fn item(&self) -> String {
        let Self { id, third_id, phone } = self;
        format!(
            r#"{{"event":"canary","audienceUserId":{id},"thirdId":"{third_id}","phone":"{phone}","canary":"canary"}}"#
        )
    }

    /// Bodies of lookups and purges, good and bad.
    fn bodies(&self) -> Vec<String> {
        let Self { id, third_id, phone } = self;
        let whole = self.body();
        vec![
            format!(r#"{{"audienceUserIdList":["{id}"],"companyId":"canary"}}"#),
            format!(r#"{{"thirdIdList":["{third_id}","canary"]}}"#),
            format!(r#"{{"phoneList":["{phone}"]}}"#),
            format!(r#"{{"thirdIdList":["{BAD_KEY}"]}}"#),
            format!(r#"{{"phoneList":[{phone}]}}"#),
            format!(r#"{{"audienceUserIdList":["{id}canary"]}}"#),
            format!(r#"{{"phoneList":["{phone}"],"phoneList":["{phone}"]}}"#),
            r#"{"canary":1,"canary":2,"phoneList":["canary"]}"#.to_owned(),
            r#"{"phoneList":["canary\ud800"]}"#.to_owned(),
            format!(r#"{{"phoneList":[{}"canary"]}}"#, r#""canary","#.repeat(3)),
            format!(r#"{{"phoneList":["canary"],"canary":{}"canary"{}}}"#, "[".repeat(70), "]".repeat(70)),
            format!(
                r#"{{"phoneList":[{}]}}"#,
                (0..1001).map(|n| format!("\"canary{n}\"")).collect::<Vec<_>>().join(",")
            ),
            format!("{whole}{}", " ".repeat(64 << 10)),
            whole[1..].to_owned(),
            format!("{whole}canary"),
            format!(r#"["canary",{whole}]"#),
            "canary".to_owned(),
            String::new(),
            whole,
        ]
    }

    /// Messages that are no HTTP, or only half.
    fn rubbish(&self) -> Vec<Vec<u8>> {
        let Self { id, phone, .. } = self;
        let post = format!("POST {DETAIL}?canary={phone} HTTP/1.1\r\nhost: canary\r\n");
        let texts = [
            format!("POST {DETAIL} HTTP/1.1\r\nhost: x\r\nx-token canary {phone}\r\n\r\n"),
            format!("{phone} canary {id}\r\n\r\n"),
            format!("GET /{phone}canary HTTP/9.9\r\nhost: canary\r\n\r\n"),
            format!("GET http://{phone}:canary@canary/canary HTTP/1.1\r\nhost: canary\r\n\r\n"),
            "CONNECT canary:443 HTTP/1.1\r\nhost: canary:443\r\n\r\n".to_owned(),
            "CANARY * HTTP/1.1\r\nhost: canary\r\n\r\n".to_owned(),
            format!("GET /canary HTTP/1.1\r\nhost: canary\r\nhost: {phone}\r\n\r\n"),
            "GET /canary HTTP/1.1\r\nx-canary: canary\r\n\r\n".to_owned(),
            format!("{post}content-length: canary\r\n\r\n{phone}"),
            format!("{post}content-length: 5\r\ntransfer-encoding: canary\r\n\r\n{phone}"),
            format!("{post}content-length: 5000\r\n\r\n{{\"phoneList\":[\"{phone}canary"),
            format!("{post}transfer-encoding: chunked\r\n\r\n{phone}canaryzz\r\n"),
            format!(
                "{post}transfer-encoding: chunked\r\n\r\n6;canary={phone}\r\ncanary\r\n0\r\nx-canary: {phone}\r\n\r\n"
            ),
            "PUT /echo/canary HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n6\r\ncanarycanary\r\n"
                .to_owned(),
            format!("PUT /echo/canary HTTP/1.1\r\nhost: canary\r\ncontent-length: 900\r\n\r\n{phone}canary"),
            format!("{post}x-canary: {}\r\n\r\n", "canary".repeat(30_000)),
        ];
        let mut all: Vec<_> = texts.into_iter().map(String::into_bytes).collect();
        all.push(format!("{post}content-length: 9\r\nconnection: close\r\n\r\n").into_bytes());
        all.last_mut().expect("one").extend_from_slice(b"\"canary\xff\xfe");
        all.push(b"GET /\x00\xffcanary HTTP/1.1\r\nhost: canary\r\nx: \x7fcanary\r\n\r\n".to_vec());
        all
    }
}

/// Sends everything to a gateway: lookups, what passes through, writes, orders of operators, and what is no HTTP. Returns
/// what an operator can read of it.
pub async fn torment(callers: SocketAddr, operators: SocketAddr, marked: &Marked) -> String {
    let phone = &marked.phone;
    for body in marked.bodies() {
        for path in [DETAIL, "/api/audience/detail/?canary=canary"] {
            discreet(&send(callers, Method::POST, path, &body, &HEADERS).await);
        }
        for (method, path) in [
            (Method::POST, format!("/api/audience/detail;{phone}?phone={phone}&token=canary")),
            (Method::PUT, format!("/api/audience/detail?phone={phone}")),
            (Method::PUT, format!("/echo/canary/{phone}?canary={phone}")),
            (Method::POST, format!("/canary/../echo/canary?{phone}")),
            (Method::GET, format!("/..%2fcanary?phone={phone}")),
            (Method::GET, format!("/%canary{phone}")),
        ] {
            discreet(&send(callers, method, &path, &body, &HEADERS).await);
        }
        discreet(&send(callers, Method::POST, "/audience/info/batchAdd?canary", &body, &HEADERS).await);
        discreet(&send(operators, Method::POST, "/events?canary", &body, &HEADERS).await);
    }
    let write = format!(r#"{{"publicParams":{{"canary":"canary"}},"data":[{}]}}"#, marked.item());
    let encoded = [("content-encoding", "canary"), ("content-type", "canary/canary")];
    for headers in [&HEADERS[..], &encoded] {
        discreet(&send(callers, Method::POST, DETAIL, &marked.body(), headers).await);
        discreet(&send(callers, Method::POST, "/audience/info/batchAdd", &write, headers).await);
        discreet(&send(callers, Method::POST, DETAIL, &marked.body(), headers).await);
        discreet(&send(operators, Method::POST, "/events", &marked.item(), headers).await);
        discreet(&send(operators, Method::POST, "/purge", &marked.body(), headers).await);
    }
    let token = "/app/getOrgAccessToken?instanceAppid=canary&instanceSecrect=canary-secret";
    discreet(&send(callers, Method::GET, token, "", &HEADERS).await);
    discreet(&get(operators, "/canary?canary").await);
    for to in [callers, operators] {
        for rubbish in marked.rubbish() {
            let answer = send_rubbish(to, &rubbish).await;
            let is_echo = answer.starts_with("HTTP/1.1 200");
            assert!(is_echo || !answer.contains(MARK) && !answer.contains(&**phone), "{answer}");
        }
    }
    let mut seen = String::new();
    for path in ["/metrics", "/status.json", "/livez", "/readyz", "/"] {
        let reply = get(operators, path).await;
        seen += &format!("{:?} {}\n", reply.headers, reply.text());
    }
    seen
}

/// The same over HTTP/2: a lookup, what passes through, and frames that are none.
pub async fn torment_over_http_2(callers: SocketAddr, marked: &Marked) {
    let io = TcpStream::connect(callers).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    for (method, path) in [(Method::POST, DETAIL), (Method::PUT, "/echo/canary?canary"), (Method::GET, "/..%2fcanary")]
    {
        for body in [marked.body(), "canary".to_owned()] {
            let mut request = request(method.clone(), &format!("http://canary{path}"), &body, &HEADERS);
            request.headers_mut().remove("host");
            let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole answer").to_bytes();
            discreet(&Reply { status: parts.status, headers: parts.headers, body });
        }
    }
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let go_away = "\0\0\x0e\x07\0\0\0\0\0\0\0\0\0\0\0\0\x02canary";
    let settings = "\0\0\0\x04\0\0\0\0\0";
    for frames in [
        "canary canary canary canary".to_owned(),
        format!("{settings}{go_away}"),
        format!("{settings}\0\0\x06\x01\x04\0\0\0\x01canary"),
    ] {
        send_rubbish(callers, format!("{preface}{frames}")).await;
    }
}

/// What the gateway itself says to a caller repeats nothing of the request.
fn discreet(reply: &Reply) {
    let cache_status = reply.header("cache-status");
    assert!(!cache_status.contains(MARK), "{cache_status}");
    let own = reply.status.is_client_error() || reply.status.is_server_error();
    let envelope = serde_json::from_slice::<serde_json::Value>(&reply.body).ok();
    if own && envelope.is_some_and(|envelope| envelope["code"] == *reply.status.as_str()) {
        let said = format!("{:?} {}", reply.headers, reply.text());
        let Marked { id, third_id, phone } = Marked::new();
        for mark in [MARK, &id, &third_id, &phone] {
            assert!(!said.contains(mark), "{mark} is in {said}");
        }
    }
}

/// An upstream that speaks HTTP/2 in TLS and says goodbye, with a mark in it, to whoever connects.
pub async fn evil_over_http_2(authority: &Authority) -> (SocketAddr, JoinSet<()>) {
    let [cert, key] = authority.sign();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(cert).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let Ok(mut io) = tls.accept(io).await else { continue };
            let settings = b"\0\0\0\x04\0\0\0\0\0";
            let goodbye = b"\0\0\x0e\x07\0\0\0\0\0\0\0\0\0\0\0\0\x02canary";
            let _left = io.write_all(&[&settings[..], goodbye].concat()).await;
            let _left = io.read_to_end(&mut Vec::new()).await;
        }
    });
    (address, tasks)
}

/// An upstream that hands out a marked token, and to everything else says this, byte for byte, and hangs up.
pub async fn evil(says: &str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let says: Arc<str> = says.into();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((io, _)) = listener.accept().await {
            serving.spawn(answer(io, Arc::clone(&says)));
        }
    });
    (address, tasks)
}

const TOKEN: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
     {\"code\":\"200\",\"data\":{\"orgAccessToken\":\"canary-token-of-the-gateways\",\"expire\":7200},\"msg\":\"canary\"}";

/// Reads as much of a request as comes at once, or within its stated length, and answers.
async fn answer(mut io: TcpStream, says: Arc<str>) {
    let mut request = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match io.read(&mut piece).await {
            Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
            Ok(0) | Err(_) => break,
        }
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        let is_whole =
            length.map_or(!head.contains("chunked") || body.ends_with("0\r\n\r\n"), |length| body.len() >= length);
        if is_whole {
            break;
        }
    }
    let is_token_call = request.starts_with(b"GET") && request.windows(9).any(|word| word == b"getOrgAcc");
    let _left = io.write_all(if is_token_call { TOKEN } else { &says }.as_bytes()).await;
    let _left = io.shutdown().await;
}
