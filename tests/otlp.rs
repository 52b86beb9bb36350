//! Spans as a collector gets them: the program, built with the feature `otlp`, in front of a simulated upstream.
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use audience_gateway::server::{self, Received};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::{net::TcpListener, task::JoinSet};
use tower::service_fn;

use crate::{
    harness::DETAIL,
    program::{DEADLINE, Desk, Program, by_id, customer, send, simulate, until},
};

#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "it/harness.rs"]
mod harness;
#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "it/program.rs"]
mod program;

/// One field of a message in protobuf's wire format: its number, and its bytes or its number's.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().expect("a whole number");
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, varint(&mut message).to_be_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).unwrap(),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        found.push((tag >> 3, value.to_vec()));
        message = rest;
    }
    found
}

fn all(message: &[u8], number: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(own, _)| *own == number).map(|(_, value)| value).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    links: Vec<String>,
    took: u64,
}

impl Span {
    fn read(message: &[u8]) -> Self {
        let one = |number| all(message, number).into_iter().next().unwrap_or_default();
        let moment = |number| u64::from_le_bytes(one(number).try_into().expect("a time"));
        Self {
            trace: hex(&one(1)),
            id: hex(&one(2)),
            parent: hex(&one(4)),
            name: String::from_utf8(one(5)).unwrap(),
            links: all(message, 13).iter().map(|link| hex(&all(link, 2)[0])).collect(),
            took: moment(8) - moment(7),
        }
    }
}

type Exported = Arc<Mutex<Vec<(String, Bytes)>>>;

/// A collector that takes everything.
async fn collector() -> (SocketAddr, Exported, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let exported = Exported::default();
    let noted = Arc::clone(&exported);
    let service = service_fn(move |request: Request<Received>| {
        let noted = Arc::clone(&noted);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap_or_default().to_bytes();
            noted.lock().unwrap().push((path, body));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let limits = server::Config { max_connections: 100, header_timeout: DEADLINE, idle_timeout: DEADLINE, min_rate: 0 };
    let mut serving = JoinSet::new();
    serving.spawn(server::serve(listener, service, limits, std::future::pending()));
    (address, exported, serving)
}

fn spans(exported: &Exported) -> Vec<Span> {
    let exported = exported.lock().unwrap();
    let scopes = exported.iter().flat_map(|(_, body)| all(body, 1)).flat_map(|resource| all(&resource, 2));
    scopes.flat_map(|scope| all(&scope, 2)).map(|span| Span::read(&span)).collect()
}

async fn serve(desk: &Desk, upstream: SocketAddr, collector: SocketAddr) -> (Program, SocketAddr) {
    desk.config(upstream, "[[lookup]]\ninterval = \"25ms\"\nlinger = \"500ms\"\n");
    let endpoint = format!("http://{collector}");
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let gateway = Program::start_with(desk, "serve", &["serve", "--config", "gateway.toml"], &environment);
    let callers = until("the gateway to serve", async || {
        let log = gateway.stderr();
        log.split_once("\"listen\":\"")?.1.split_once('"')?.0.parse().ok()
    })
    .await;
    (gateway, callers)
}

#[tokio::test]
async fn a_lookup_its_wait_and_the_request_upstream_are_spans_and_a_shared_request_links_to_those_it_served() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "20ms"]).await;
    let (collector, exported, _collecting) = collector().await;
    let (mut gateway, callers) = serve(&desk, upstream, collector).await;
    let parent = |digit: char| format!("00-{}-b7ad6b7169203331-01", digit.to_string().repeat(32));

    // One, with its caller's trace; then two that share a request; then one whose trace nobody records.
    let traced = [("traceparent", parent('1'))];
    let headers: Vec<_> = traced.iter().map(|(name, value)| (*name, &**value)).collect();
    assert_eq!(send(callers, Method::POST, DETAIL, &by_id(2), &headers).await.status, 200);
    let mut asking = JoinSet::new();
    for (customer, digit) in [(3, '2'), (4, '3')] {
        let parent = parent(digit);
        asking.spawn(async move {
            send(callers, Method::POST, DETAIL, &by_id(customer), &[("traceparent", &*parent)]).await.status
        });
    }
    assert!(asking.join_all().await.iter().all(|status| *status == 200));
    let unrecorded = parent('4').replace("-01", "-00");
    send(callers, Method::POST, DETAIL, &by_id(2), &[("traceparent", &*unrecorded)]).await;
    send(callers, Method::POST, DETAIL, &by_id(2), &[]).await;
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.stderr());

    let spans = spans(&exported);
    assert!(exported.lock().unwrap().iter().all(|(path, _)| path == "/v1/traces"));
    let find = |name: &str, trace: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name && span.trace == trace).cloned().collect();
        let [one] = &found[..] else { panic!("{name} of {trace}: {found:?} in {spans:?}") };
        one.clone()
    };
    let [one, two, three] = ['1', '2', '3'].map(|digit| digit.to_string().repeat(32));
    for trace in [&one, &two, &three] {
        let (lookup, wait) = (find("lookup", trace), find("wait", trace));
        assert_eq!((&*lookup.parent, &wait.parent), ("b7ad6b7169203331", &lookup.id));
        assert!(lookup.took >= wait.took && wait.took > 1_000_000, "{lookup:?} {wait:?}");
    }
    let alone = find("upstream", &one);
    assert_eq!((&alone.parent, &alone.links), (&find("wait", &one).id, &vec![find("lookup", &one).id]));
    let shared = spans.iter().find(|span| span.name == "upstream" && span.trace != one).expect("the shared one");
    assert!(shared.parent.is_empty() && ![&two, &three].contains(&&shared.trace), "{shared:?}");
    let mut links = shared.links.clone();
    links.sort_unstable();
    let mut served = [find("lookup", &two).id, find("lookup", &three).id];
    served.sort_unstable();
    assert_eq!(links, served);
    assert!(!spans.iter().any(|span| span.trace == "4".repeat(32)), "what is not sampled is not recorded");
    let begun = spans.iter().filter(|span| span.name == "lookup" && span.parent.is_empty()).count();
    assert_eq!((begun, spans.len()), (1, 9), "a hit without a trace begins one: {spans:?}");

    let all = exported.lock().unwrap().iter().flat_map(|(_, body)| body.to_vec()).collect::<Vec<_>>();
    for personal in [2, 3, 4].map(|index| customer(index).id.to_string()) {
        assert!(!all.windows(personal.len()).any(|window| window == personal.as_bytes()));
    }
    assert!(all.windows(16).any(|window| window == b"audience-gateway"), "the service has its name");
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_named_once_and_holds_up_nobody() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "20ms"]).await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (mut gateway, callers) = serve(&desk, upstream, nowhere).await;
    for index in 2..5 {
        assert_eq!(send(callers, Method::POST, DETAIL, &by_id(index), &[]).await.status, 200);
    }
    until("the failure", async || gateway.stderr().contains("spans cannot be exported").then_some(())).await;
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert_eq!(gateway.stderr().matches("spans cannot be exported").count(), 1);
}
