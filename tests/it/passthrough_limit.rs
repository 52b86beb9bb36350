//! `[[passthrough.limit]]`: what the upstream limits and passes through waits for its slot, as lookups do.

use std::time::Duration;

use audience_gateway::simulator::{Arrival, Call};
use http::Method;
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::harness::{App, Reply, Setup, all, read_reply};

const TAGS: &str = "/api/audience/getTagList";
const LIMIT: &str = "[[passthrough.limit]]\npath = \"/api/audience/getTagList\"\ninterval = \"2s\"\n";

/// The gap of an interval of two seconds before anything was refused, in milliseconds.
const GAP: u128 = 2050;

/// What a caller with a connection of its own is told, and after how many milliseconds.
async fn ask(app: &App, (method, path): (Method, &str), start: Instant) -> (Reply, u128) {
    let reply = app.send(method, path, "", &[("x-token", "alice")]).await;
    (reply, start.elapsed().as_millis())
}

fn tag_lists(app: &App) -> Vec<Arrival> {
    let mut arrivals = app.simulator.arrivals();
    arrivals.retain(|arrival| arrival.call == Call::TagList);
    arrivals
}

fn gaps(arrivals: &[Arrival]) -> Vec<u128> {
    arrivals.windows(2).map(|pair| (pair[1].moment - pair[0].moment).as_millis()).collect()
}

/// A caller who waits for its answer.
async fn begin(app: &App, path: &str) -> tokio::io::DuplexStream {
    let mut io = app.connect().await.expect("the gateway listens");
    let head = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    io.write_all(head.as_bytes()).await.expect("open");
    sleep(Duration::from_millis(1)).await;
    io
}

#[tokio::test(start_paused = true)]
async fn five_at_once_are_all_answered_at_the_upstreams_pace_and_the_sixth_is_told_its_wait() {
    let app = Setup::new().config(LIMIT).start();
    let start = Instant::now();
    let asking = || ask(&app, (Method::GET, TAGS), start);
    let (one, two, three, four, five, six) = tokio::join!(asking(), asking(), asking(), asking(), asking(), asking());
    let mut answered = [one, two, three, four, five, six];
    answered.sort_by_key(|(reply, _)| reply.status);
    let (late, told_after) = answered.last().expect("six answers");
    assert_eq!((late.status.as_u16(), late.error_code().as_str(), *told_after), (429, "TOO_FREQUENT", 0));
    assert_eq!((late.header("retry-after"), late.json()["msg"].as_str()), ("11", Some("操作频繁,请稍后重试")));
    for (reply, _) in &answered[..5] {
        assert_eq!((reply.status.as_u16(), reply.records().len()), (200, 95), "{}", reply.text());
    }
    assert_eq!(gaps(&tag_lists(&app)), [GAP; 4]);
    assert!(tag_lists(&app).iter().all(|arrival| arrival.outcome.passed_the_limiter()));
    assert_eq!(app.metric("gateway_passthrough_requests_total{status=\"429\"}").await, 1.0);
    // Who comes back when it was told to is answered at once.
    tokio::time::sleep_until(start + Duration::from_secs(11)).await;
    let (reply, at) = ask(&app, (Method::GET, TAGS), start).await;
    assert_eq!((reply.status.as_u16(), at), (200, 11_080));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_the_upstream_refuses_what_comes_at_once() {
    let app = Setup::new().start();
    let start = Instant::now();
    let (one, two) = tokio::join!(ask(&app, (Method::GET, TAGS), start), ask(&app, (Method::GET, TAGS), start));
    assert!([one, two].iter().any(|(reply, _)| reply.error_code() == "100500"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_finished_sending_keeps_its_place() {
    let app = Setup::new().config(LIMIT).start();
    let mut line = [begin(&app, TAGS).await, begin(&app, TAGS).await, begin(&app, TAGS).await];
    line[1].shutdown().await.expect("open");
    for io in &mut line {
        assert_eq!(read_reply(io).await.status, 200);
    }
    assert_eq!(gaps(&tag_lists(&app)), [GAP; 2]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_spelling_of_the_path_and_no_method_gets_around_the_pace() {
    let app = Setup::new().config(LIMIT).start();
    let start = Instant::now();
    let ways = [
        (Method::GET, TAGS),
        (Method::GET, "/api/open/API/audience//getTagList/?a=b"),
        (Method::GET, "/api/x/../audience/get%54agList"),
        (Method::HEAD, "/api/audience;v=1/GETTAGLIST"),
        (Method::DELETE, "/api/open/api/audience/getTagList"),
    ];
    let replies = futures(&app, &ways, start).await;
    let mut done: Vec<_> = replies.iter().map(|(_, at)| *at).collect();
    done.sort_unstable();
    for (place, at) in (0..).zip(&done) {
        assert!(*at >= place * GAP, "{done:?}");
    }
    let mut moments: Vec<_> = app.simulator.arrivals().iter().map(|arrival| arrival.moment).collect();
    moments.sort_unstable();
    assert_eq!(moments.len(), ways.len());
    assert!(moments.windows(2).all(|pair| (pair[1] - pair[0]).as_millis() >= GAP));
    // Another path that begins with the same letters is another call.
    let before = Instant::now();
    let (reply, _) = ask(&app, (Method::GET, "/api/audience/getTagListing"), before).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (404, "404"));
    assert!(before.elapsed() < Duration::from_millis(200));
    app.finish().await;
}

/// Asks in each of these ways at once.
async fn futures(app: &App, ways: &[(Method, &str); 5], start: Instant) -> [(Reply, u128); 5] {
    let [one, two, three, four, five] = ways.clone().map(|way| ask(app, way, start));
    tokio::join!(one, two, three, four, five).into()
}

#[tokio::test(start_paused = true)]
async fn other_calls_and_lookups_keep_their_own_pace_meanwhile() {
    let app = Setup::new().config(LIMIT).start();
    let start = Instant::now();
    let mut line = Vec::new();
    for _ in 0..4 {
        line.push(begin(&app, TAGS).await);
    }
    let (reply, at) = ask(&app, (Method::GET, "/api/audience/user/id/list?size=3"), start).await;
    assert_eq!(reply.status, 200);
    assert!(at < 200, "{at}");
    let lookups = (0..4).map(|customer| {
        let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(customer).id);
        let caller = app.caller();
        async move {
            sleep(Duration::from_millis(100 * customer)).await;
            caller.lookup(body).await
        }
    });
    let replies = all(lookups.collect::<Vec<_>>()).await;
    assert!(replies.iter().all(|reply| reply.records().len() == 1));
    assert_eq!(app.upstream_lookups().len(), 2);
    assert!(start.elapsed() < Duration::from_millis(1300), "{:?}", start.elapsed());
    for io in &mut line {
        assert_eq!(read_reply(io).await.status, 200);
    }
    assert_eq!(gaps(&tag_lists(&app)), [GAP; 3]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_passed_on_and_widens_the_gap_until_there_are_no_more() {
    // The upstream turns out to want a little more time than is documented.
    let slower = Duration::from_millis(2070);
    let app = Setup::new().config(LIMIT).upstream(|upstream| upstream.tag_list_interval = slower).start();
    let mut line = Vec::new();
    for _ in 0..4 {
        line.push(begin(&app, TAGS).await);
    }
    let mut codes = Vec::new();
    for io in &mut line {
        let reply = read_reply(io).await;
        assert_eq!(reply.status, 200);
        codes.push(reply.json()["code"].as_str().expect("a code").to_owned());
    }
    assert_eq!(codes, ["200", "100500", "200", "200"]);
    let gaps = gaps(&tag_lists(&app));
    assert_eq!(gaps[..2], [GAP, 2075]);
    assert!((2074..=2075).contains(&gaps[2]), "{gaps:?}");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_the_gateway_stops_is_answered_within_the_grace_period() {
    let mut app = Setup::new().config("server.shutdown_grace = \"5s\"").config(LIMIT).start();
    let mut line = JoinSet::new();
    for _ in 0..5 {
        let mut io = begin(&app, TAGS).await;
        line.spawn(async move { read_reply(&mut io).await.status.as_u16() });
    }
    app.begin_to_stop();
    let mut statuses = line.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 503, 503]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_may_be_limited_and_is_read_all_the_same() {
    let app = Setup::new()
        .config("[[passthrough.limit]]\npath = \"/audience/info\"\ninterval = \"2s\"\n")
        .upstream(|upstream| upstream.rejection_status = 200)
        .start();
    let items = vec![r#"{"thirdId":"new"}"#; 501].join(",");
    let body = format!(r#"{{"publicParams":{{}},"data":[{items}]}}"#);
    let start = Instant::now();
    for _ in 0..2 {
        let reply = app.send(Method::POST, "/audience/info/batchAdd", &body, &[("x-token", "alice")]).await;
        assert_eq!(reply.json()["code"], "400003", "{}", reply.text());
    }
    assert!(start.elapsed().as_millis() >= GAP);
    assert_eq!(app.metric("gateway_invalidations_total{outcome=\"not_applied\"}").await, 2.0);
    app.finish().await;
}
