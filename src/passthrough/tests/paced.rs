//! Requests to a path with a pace, from the caller to the upstream.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tokio::time::sleep;

use super::{
    limit::{GAP, WIDER, limit, path},
    *,
};
use crate::clock;

/// When the second of two requests to an upstream that gives the first one this answer was sent, in milliseconds, and when
/// the first one's caller had the first byte of its body.
async fn gap_after(answer: &'static str) -> (u128, u128) {
    let config = Config { limits: vec![limit("/a")], ..everything() };
    let start = clock::now();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    let upstream: Upstream = Arc::new(move |mut io: DuplexStream, tasks: &mut JoinSet<()>| {
        let heads = Arc::clone(&heads);
        drop(tasks.spawn(async move {
            read_head(&mut io).await;
            heads.lock().expect("no test panics here").push((clock::now() - start).as_millis());
            io.write_all(answer.as_bytes()).await.unwrap_or(());
            // It ends a second later, or with the connection.
            sleep(SECOND).await;
        }));
    });
    let fixture = Fixture::with(&config, Some(upstream));
    let mut caller = fixture.connect().await;
    caller.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("open");
    let first = async {
        read_head(&mut caller).await;
        let _none = caller.read_u8().await;
        let body_at = (clock::now() - start).as_millis();
        wait_for_end(&mut caller).await;
        body_at
    };
    let (body_at, _) = tokio::join!(first, async {
        sleep(SECOND / 2).await;
        fixture.get("/a").await
    });
    let seen = seen.lock().expect("no test panics here").clone();
    assert_eq!((seen.len(), seen[0]), (2, 0));
    (seen[1], body_at)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_widens_the_gap_in_whatever_way_it_is_said() {
    const ENVELOPE: &str = r#"{"code":"100500","errorCode":"100500","msg":"操作频繁,请稍后重试","data":null}"#;
    let answer = |head: &str, body: &str| -> &'static str {
        Box::leak(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}").into_boxed_str())
    };
    let length = format!("200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}", ENVELOPE.len());
    let (gap, wider) = (GAP, WIDER);
    let long = "x".repeat(70_000);
    let refused_and_long = format!(r#"{{"msg":"操作频繁","x":"{long}"}}"#);
    for (answer, expected, at_once) in [
        (answer("429 Too Many Requests\r\ncontent-length: 0", ""), wider, true),
        (answer("429 Too Many Requests\r\ncontent-type: text/event-stream", "x"), wider, true),
        (answer("200 OK\r\ncontent-type: application/json; charset=utf-8", ENVELOPE), wider, false),
        (answer("200 OK", ENVELOPE), wider, false),
        (answer(&length, ENVELOPE), wider, true),
        // A stream is not held back to be judged, nor is what is long.
        (answer("200 OK\r\ncontent-type: application/x-ndjson", ENVELOPE), gap, true),
        (answer("200 OK\r\ncontent-type: application/json", &refused_and_long), gap, true),
        (answer("200 OK\r\ncontent-type: application/json\r\ncontent-length: 80000", "["), gap, true),
        // An error of another kind says nothing of the pace.
        (answer("500 Oops\r\ncontent-length: 0", ""), gap, true),
    ] {
        let (second, body_at) = gap_after(answer).await;
        let what = answer.chars().take(100).collect::<String>();
        assert_eq!(second, expected, "{what}");
        assert_eq!(body_at == 0, at_once, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_allowed_to_pass_takes_no_slot() {
    let config = Config { limits: vec![limit("/a")], allow: vec!["/b".to_owned()], ..everything() };
    let fixture = Fixture::with(&config, Some(simulated()));
    let start = clock::now();
    for _ in 0..3 {
        assert_eq!(status(&fixture.get("/a").await), "404");
    }
    assert_eq!(clock::now(), start);
    assert_eq!((fixture.counted("404"), fixture.counted("429")), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_dropped_cost_nobody_a_slot() {
    let simulator = Simulator::new(simulator::Config::default());
    let served = simulator.clone();
    let upstream: Upstream = Arc::new(move |io, tasks| drop(tasks.spawn(served.clone().serve_connection(io))));
    let client = Client::new(upstream_config(), Arc::new(Wire { upstream: Some(upstream), tasks: Mutex::default() }));
    let metrics = Metrics::new();
    let config = Config { limits: vec![limit("/api/audience/getTagList")], ..everything() };
    let passthrough = Passthrough::new(&config, (client, TIMEOUTS), metrics.passthrough(), cached(&metrics));
    let ask = || passthrough.handle(Request::new(Empty::<Bytes>::new()), path("/api/audience/getTagList"));
    let leave = || timeout(SECOND, ask());
    // Here the first one leaves while it waits for its answer: it was sent, and counts.
    let first = timeout(Duration::from_millis(10), ask());
    let (first, second, third, stays) = tokio::join!(first, leave(), leave(), ask());
    assert!(first.is_err() && second.is_err() && third.is_err());
    assert_eq!(stays.status(), 200);
    let arrivals = simulator.arrivals();
    assert_eq!(arrivals.len(), 2);
    assert_eq!((arrivals[1].moment - arrivals[0].moment).as_millis(), GAP);
}

/// Dials slowly.
struct SlowWire(Simulator, Mutex<JoinSet<()>>);

impl Dial for SlowWire {
    fn dial(&self, _to: Uri) -> Dialing {
        let (near, far) = duplex(PIPE);
        self.1.lock().expect("no test panics here").spawn(self.0.clone().serve_connection(far));
        Box::pin(async {
            sleep(Duration::from_millis(300)).await;
            Ok((Box::new(near) as Box<dyn Io>, false))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_connection_does_not_bring_two_requests_nearer_to_each_other() {
    let simulator = Simulator::new(simulator::Config::default());
    let client = Client::new(upstream_config(), Arc::new(SlowWire(simulator.clone(), Mutex::default())));
    let metrics = Metrics::new();
    let config = Config { limits: vec![limit("/api/audience/getTagList")], ..everything() };
    let passthrough = Passthrough::new(&config, (client, TIMEOUTS), metrics.passthrough(), cached(&metrics));
    let ask = || async {
        let request = Request::new(Empty::<Bytes>::new());
        let answer = passthrough.handle(request, path("/api/audience/getTagList")).await;
        answer.into_body().collect().await.map(drop)
    };
    let (one, two) = tokio::join!(ask(), ask());
    assert!(one.is_ok() && two.is_ok());
    let arrivals = simulator.arrivals();
    assert_eq!((arrivals[1].moment - arrivals[0].moment).as_millis(), GAP);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_cannot_be_reached_is_asked_less_often() {
    let fixture = Fixture::with(&Config { limits: vec![limit("/a")], ..everything() }, None);
    let start = clock::now();
    for _ in 0..3 {
        assert_eq!(status(&fixture.get("/a").await), "502");
    }
    // At once, after the gap, and after the pause of the second failure.
    let took = (clock::now() - start).as_millis();
    assert!((GAP + 2400..=GAP + 3001).contains(&took), "{took}");
}
