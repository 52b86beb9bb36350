//! A gateway whose upstream is another gateway: two processes in front of a simulator, over real sockets.

use std::{net::SocketAddr, time::Duration};

use audience_gateway::simulator::{self, Simulator};
use http::Method;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    harness::{DETAIL, Reply},
    program::{Desk, Program, by_id, customer, get, lookup, send, serve, until},
};

/// A sidecar, the shared gateway, and the upstream that both are for.
struct Chain {
    simulator: Simulator,
    shared: SocketAddr,
    sidecar: SocketAddr,
    operators: SocketAddr,
    shared_program: Program,
    _sidecar: Program,
    _desks: [Desk; 2],
    _upstream: JoinSet<()>,
}

impl Chain {
    /// Starts them, with these lines in the shared gateway's configuration and in the sidecar's.
    async fn start(of_shared: &str, of_sidecar: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let latency = Duration::from_millis(20);
        let config = simulator::Config { interval: Duration::ZERO, latency, ..simulator::Config::default() };
        let simulator = Simulator::new(config);
        let mut tasks = JoinSet::new();
        tasks.spawn(simulator.clone().serve(listener, std::future::pending()));
        let desks = [Desk::new(), Desk::new()];
        let (shared_program, shared, _) = serve(&desks[0], &desks[0].config(upstream, of_shared)).await;
        let relays = format!("upstream.kind = \"gateway\"\n{of_sidecar}");
        let (sidecar_program, sidecar, operators) = serve(&desks[1], &desks[1].config(shared, &relays)).await;
        Self {
            simulator,
            shared,
            sidecar,
            operators,
            shared_program,
            _sidecar: sidecar_program,
            _desks: desks,
            _upstream: tasks,
        }
    }

    async fn ask(&self, body: &str, headers: &[(&str, &str)]) -> Reply {
        send(self.sidecar, Method::POST, DETAIL, body, headers).await
    }
}

fn age(reply: &Reply) -> u64 {
    reply.header("age").parse().expect("a number of seconds")
}

fn phone(number: u64) -> String {
    format!(r#"{{"phoneList":["1390000{number:04}"]}}"#)
}

#[tokio::test]
async fn an_answer_passes_both_unchanged_and_its_ages_add_up() {
    let chain = Chain::start("lookup = [{ interval = \"200ms\" }]", "").await;
    let first = lookup(chain.shared, &by_id(2)).await;
    sleep(Duration::from_millis(2100)).await;
    let through = lookup(chain.sidecar, &by_id(2)).await;
    assert_eq!((through.status, &through.body), (first.status, &first.body));
    assert!(through.header("cache-status").contains("fwd=miss"), "{:?}", through.headers);
    assert!(age(&through) >= 2, "{:?}", through.headers);
    let again = lookup(chain.sidecar, &by_id(2)).await;
    assert!(again.header("cache-status").starts_with("audience-gateway; hit"), "{:?}", again.headers);
    assert!(age(&again) >= 2 && again.body == first.body);
    assert_eq!(chain.simulator.lookups().len(), 1);
    // Absence has an age, too; and who wants nothing so old has it fetched, past both caches.
    let nobody = r#"{"phoneList":["12"]}"#;
    lookup(chain.shared, nobody).await;
    sleep(Duration::from_millis(1100)).await;
    assert!(age(&lookup(chain.sidecar, nobody).await) >= 1);
    assert!(age(&lookup(chain.sidecar, nobody).await) >= 1);
    let young = chain.ask(&by_id(2), &[("cache-control", "max-age=1")]).await;
    assert!(young.status == 200 && age(&young) <= 1, "{:?}", young.headers);
    let before = chain.simulator.lookups().len();
    let anew = chain.ask(&by_id(2), &[("cache-control", "no-cache")]).await;
    // It counts from when the sidecar asked, with what it waited at the shared gateway.
    assert!(anew.status == 200 && age(&anew) <= 1, "{:?}", anew.headers);
    assert_eq!(chain.simulator.lookups().len(), before + 1);
}

#[tokio::test]
async fn between_them_there_is_no_interval() {
    let chain = Chain::start("lookup = [{ interval = \"500ms\" }]", "").await;
    let all: Vec<_> = (0..40).map(|index| customer(index).id.to_string()).collect();
    let all = format!(r#"{{"audienceUserIdList":[{}]}}"#, all.join(","));
    assert_eq!(lookup(chain.shared, &all).await.status, 200);
    let began = Instant::now();
    for index in 0..40 {
        let reply = lookup(chain.sidecar, &by_id(index)).await;
        assert_eq!(reply.records().len(), 1);
        assert!(reply.header("cache-status").contains("fwd=miss"), "{:?}", reply.headers);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "40 lookups that the shared gateway can answer took {took:?}");
    assert_eq!(chain.simulator.lookups().len(), 1);
    // Others do not wait for what that one has to fetch.
    let (mut slow, sidecar) = (JoinSet::new(), chain.sidecar);
    for number in [1, 2] {
        slow.spawn(async move { lookup(sidecar, &phone(number)).await.status.as_u16() });
    }
    assert_eq!(lookup(chain.sidecar, &by_id(41)).await.status, 200);
    assert_eq!(slow.join_all().await, [200, 200]);
}

#[tokio::test]
async fn scope_and_credentials_reach_the_upstream_and_never_mix() {
    let chain = Chain::start("", "").await;
    let id = customer(3).id;
    let mut bodies = Vec::new();
    for (token, company) in [("one", "31"), ("one", "32"), ("two", "31")] {
        let body = format!(r#"{{"companyId":"{company}","audienceUserIdList":[{id}]}}"#);
        let reply = chain.ask(&body, &[("x-token", token)]).await;
        let expected = chain.simulator.expected(token, company, "audienceUserIdList", &id.to_string());
        assert_eq!(reply.records(), expected, "{token} {company}");
        bodies.push(reply.body);
    }
    assert!(bodies[0] != bodies[1] && bodies[0] != bodies[2]);
    assert_eq!(chain.simulator.lookups().len(), 3);
}

#[tokio::test]
async fn a_refusal_of_the_shared_gateway_is_passed_on_with_its_wait_and_holds_up_nobody_else() {
    let chain = Chain::start("lookup = [{ interval = \"20s\" }]", "").await;
    assert_eq!(lookup(chain.shared, &by_id(2)).await.status, 200);
    for _ in 0..4 {
        let refused = chain.ask(&phone(1), &[("prefer", "wait=2")]).await;
        assert_eq!((refused.status.as_u16(), &*refused.error_code()), (429, "TOO_FREQUENT"));
        let wait: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((3..=21).contains(&wait), "the shared gateway knows when its next slot is: {wait}");
    }
    let status = get(chain.operators, "/status.json").await.json();
    assert_eq!(status["lookups"][0]["upstream"]["state"], "up");
    assert_eq!(lookup(chain.sidecar, &by_id(2)).await.status, 200);
}

#[tokio::test]
async fn a_write_through_the_sidecar_makes_old_what_both_have() {
    let chain = Chain::start("", "").await;
    let before = lookup(chain.sidecar, &by_id(5)).await;
    chain.simulator.touch(5);
    assert_eq!(lookup(chain.sidecar, &by_id(5)).await.body, before.body, "nobody has said so");
    let write = format!(r#"{{"data":[{{"audienceUserId":{}}}]}}"#, customer(5).id);
    let written = send(chain.sidecar, Method::POST, "/audience/info/batchAdd", &write, &[]).await;
    assert_eq!(written.status, 200, "{}", written.text());
    let after = lookup(chain.sidecar, &by_id(5)).await;
    assert_eq!(after.status, 200);
    assert_ne!(after.body, before.body);
}

#[tokio::test]
async fn while_the_shared_gateway_is_away_what_is_cached_is_given_and_the_rest_is_a_502() {
    let mut chain = Chain::start("", "cache.ttl = \"1s\"\ncache.stale_while_revalidate = \"0s\"").await;
    let cached = lookup(chain.sidecar, &by_id(2)).await;
    chain.shared_program.signal("TERM");
    chain.shared_program.exit().await;
    sleep(Duration::from_millis(1100)).await;
    let stale = lookup(chain.sidecar, &by_id(2)).await;
    assert_eq!((stale.status.as_u16(), &stale.body), (200, &cached.body));
    assert!(stale.header("cache-status").contains("stale=1"), "{:?}", stale.headers);
    let missing = until("the outage to be known", async || {
        let reply = lookup(chain.sidecar, &phone(1)).await;
        (reply.status == 502).then_some(reply)
    });
    assert!(!missing.await.header("retry-after").is_empty());
}
