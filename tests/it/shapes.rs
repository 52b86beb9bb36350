//! Other lookup paths than the first: the one whose shape is built in as well, and one that the configuration makes up.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use audience_gateway::{
    config::Config,
    gateway::Gateway,
    server::duplex::{self, Connector},
    simulator::{Arrival, Call},
    upstream::connect::{Dial, Dialing, Io},
};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::harness::{App, DETAIL, Reply, Setup, all, exchange, request};

const TAGS: &str = "/api/audience/user/tag/batchlist";
const BOTH: &str = "[[lookup]]\nmax_batch_keys = 5\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"\n\
                    max_batch_keys = 5";

/// A body that asks for these customers by id.
fn by_ids(app: &App, customers: impl IntoIterator<Item = u64>) -> String {
    let ids: Vec<_> = customers.into_iter().map(|index| app.simulator.customer(index).id.to_string()).collect();
    format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").starts_with("audience-gateway; hit;")
}

/// What reached the upstream at one of its calls.
fn arrivals(app: &App, call: Call) -> Vec<Arrival> {
    app.simulator.arrivals().into_iter().filter(|arrival| arrival.call == call).collect()
}

fn gaps(arrivals: &[Arrival]) -> Vec<Duration> {
    arrivals.iter().zip(arrivals.iter().skip(1)).map(|(one, next)| next.moment - one.moment).collect()
}

#[tokio::test(start_paused = true)]
async fn the_tag_path_gives_tags_and_shares_no_answer_with_the_detail_path() {
    let app = Setup::new().config(BOTH).start();
    let body = by_ids(&app, [2, 13]);
    let ids = [2, 13].map(|index| app.simulator.customer(index).id.to_string());
    let tags: Vec<String> = ids.iter().flat_map(|id| app.simulator.expected_tags("", "", id)).collect();
    let reply = app.send(Method::POST, TAGS, &body, &[]).await;
    assert_eq!((reply.records(), is_hit(&reply)), (tags.clone(), false));
    let reply = app.lookup(&body).await;
    assert!(!is_hit(&reply), "what one path knows is nothing for the other");
    let details: Vec<String> =
        ids.iter().flat_map(|id| app.simulator.expected("", "", "audienceUserIdList", id)).collect();
    assert_eq!(reply.records(), details);
    for (path, records) in [(TAGS, &tags), (DETAIL, &details), ("/api/open/API/audience/user/tag/batchlist/", &tags)] {
        let reply = app.send(Method::POST, path, &body, &[]).await;
        assert!(is_hit(&reply), "{path}");
        assert_eq!(reply.records(), *records, "{path}");
    }
    // Tokens and companies are kept apart there, too.
    let other = app.send(Method::POST, TAGS, &body, &[("x-token", "one")]).await;
    let of_token = ids.iter().flat_map(|id| app.simulator.expected_tags("one", "", id));
    assert_eq!(other.records(), of_token.collect::<Vec<_>>());
    assert_eq!((arrivals(&app, Call::Tags).len(), arrivals(&app, Call::Detail).len()), (2, 1));
    let phones = app.send(Method::POST, TAGS, r#"{"phoneList":["10000"]}"#, &[]).await;
    assert_eq!((phones.status.as_u16(), phones.error_code().as_str()), (400, "INVALID_REQUEST"));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_busy_paths_each_keep_their_own_gap_and_neither_waits_for_the_other() {
    let app = Setup::new().config(BOTH).start();
    let began = Instant::now();
    let body = by_ids(&app, 0..50);
    let fifty = async |path| (app.send(Method::POST, path, &body, &[]).await.records().len(), began.elapsed());
    let ((tagged, tags_took), (detailed, details_took)) = tokio::join!(fifty(TAGS), fifty(DETAIL));
    assert_eq!((tagged, detailed), (50, 50));
    let (tags, details) = (arrivals(&app, Call::Tags), arrivals(&app, Call::Detail));
    assert_eq!((tags.len(), details.len()), (10, 10));
    for (path, arrivals, interval, took) in [(TAGS, tags, 500, tags_took), (DETAIL, details, 1000, details_took)] {
        let interval = Duration::from_millis(interval);
        for gap in gaps(&arrivals) {
            assert!(gap >= interval && gap < interval + interval / 10, "{gap:?} at {path}");
        }
        assert!(took < interval * 10, "{took:?} at {path}");
    }
    app.finish().await;
}

/// A path that nobody has built in: parcels, found by a number, or by a unique code that stands on each of their labels.
const PARCELS: &str = "/warehouse/parcels/search";
const CONFIG: &str = r#"
upstream.base_url = "http://upstream/v2"
[[lookup]]
path = "/warehouse/parcels/search"
interval = "200ms"
max_batch_keys = 4
mixed_lists = "union"
[[lookup.key]]
list = "numbers"
type = "int64"
record = ["number"]
unique = true
[[lookup.key]]
list = "codes"
record = ["labels[].code"]
unique = true
[[lookup.key]]
list = "shelves"
record = ["shelf"]
"#;

/// The parcel of a number, which has two labels and shares its shelf with another one.
fn parcel(number: u64) -> Value {
    json!({
        "labels": [{"code": format!("c{number}-a"), "x": 1}, {"code": format!("c{number}-b")}],
        "shelf": format!("s{}", number / 2),
        "number": number,
    })
}

/// Whether a search asks for a parcel: the union of its lists.
fn asks_for(search: &Value, parcel: &Value) -> bool {
    let has = |list: &str, value: &Value| search[list].as_array().is_some_and(|list| list.contains(value));
    has("numbers", &parcel["number"])
        || has("shelves", &parcel["shelf"])
        || parcel["labels"].as_array().unwrap().iter().any(|label| has("codes", &label["code"]))
}

/// The searches that reached the warehouse, and when.
type Searches = Arc<Mutex<Vec<(Instant, Value)>>>;

/// Twenty parcels behind a connection.
async fn warehouse(io: DuplexStream, searches: Searches) {
    let service = service_fn(|request: Request<Incoming>| async {
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v2/warehouse/parcels/search"));
        let body = request.into_body().collect().await?.to_bytes();
        let search: Value = serde_json::from_slice(&body).unwrap();
        searches.lock().unwrap().push((Instant::now(), search.clone()));
        sleep(Duration::from_millis(20)).await;
        let found: Vec<Value> = (0..20).map(parcel).filter(|parcel| asks_for(&search, parcel)).collect();
        let answer = json!({"code": "200", "errorCode": "SUCCESS", "msg": "ok", "data": found}).to_string();
        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(answer))))
    });
    // A connection that ends with an error is a gateway that has stopped.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}

struct ToWarehouse(mpsc::Sender<DuplexStream>);

impl Dial for ToWarehouse {
    fn dial(&self, _to: http::Uri) -> Dialing {
        let connections = self.0.clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            connections.send(far).await?;
            Ok((Box::new(near) as Box<dyn Io>, false))
        })
    }
}

async fn search(callers: &Connector, body: &str) -> Reply {
    let io = callers.connect(1 << 16).await.unwrap();
    exchange(io, request(Method::POST, PARCELS, body, &[])).await
}

fn numbers(reply: &Reply) -> Vec<u64> {
    reply.json()["data"].as_array().unwrap().iter().map(|parcel| parcel["number"].as_u64().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_path_from_configuration_alone_is_served_batched_and_cached_under_all_unique_keys() {
    let searches = Searches::default();
    let (connections, mut accepts) = mpsc::channel(8);
    let (mut tasks, seen) = (JoinSet::new(), Arc::clone(&searches));
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Some(io) = accepts.recv().await {
            serving.spawn(warehouse(io, Arc::clone(&seen)));
        }
    });
    let config = Config::parse(CONFIG, std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
    let gateway = Gateway::new(config, Arc::new(ToWarehouse(connections))).unwrap();
    let ((callers, listener), (_operators, admin)) = (duplex::pair(), duplex::pair());
    let (stop, stopped) = oneshot::channel::<()>();
    tasks.spawn(async move {
        let told = async { drop(stopped.await) };
        gateway.serve(listener, admin, told).await;
    });

    // Batched: ten keys of three kinds from ten callers at once, four in a request.
    let bodies: Vec<String> = (0..10)
        .map(|number| match number % 3 {
            0 => format!(r#"{{"numbers":[{number}]}}"#),
            1 => format!(r#"{{"codes":["c{number}-b"]}}"#),
            _ => format!(r#"{{"shelves":["s{}"]}}"#, number / 2),
        })
        .collect();
    let calls = bodies.iter().map(|body| {
        let (callers, body) = (callers.clone(), body.clone());
        async move { search(&callers, &body).await }
    });
    for (number, reply) in (0..).zip(all(calls.collect::<Vec<_>>()).await) {
        let expected = if number % 3 == 2 { vec![number / 2 * 2, number / 2 * 2 + 1] } else { vec![number] };
        assert_eq!(numbers(&reply), expected);
    }
    let sent = searches.lock().unwrap().clone();
    assert_eq!(sent.len(), 3);
    for (one, next) in sent.iter().zip(&sent[1..]) {
        assert!(next.0 - one.0 >= Duration::from_millis(200));
    }
    // Cached under every unique key of each parcel, however it was found, and not under its shelf.
    let found: BTreeSet<u64> =
        (0..10).flat_map(|n| if n % 3 == 2 { vec![n / 2 * 2, n / 2 * 2 + 1] } else { vec![n] }).collect();
    for number in found {
        for body in [
            format!(r#"{{"numbers":["{number}"]}}"#),
            format!(r#"{{"codes":["c{number}-a"]}}"#),
            format!(r#"{{"codes":["c{number}-b"]}}"#),
        ] {
            let reply = search(&callers, &body).await;
            assert_eq!((numbers(&reply), is_hit(&reply)), (vec![number], true), "{body}");
            assert!(reply.text().contains(&parcel(number).to_string()), "byte for byte: {}", reply.text());
        }
    }
    assert_eq!(searches.lock().unwrap().len(), 3);
    let shelf = search(&callers, r#"{"shelves":["s0"]}"#).await;
    assert_eq!((numbers(&shelf), is_hit(&shelf)), (vec![0, 1], false), "two parcels may share it");
    assert_eq!(search(&callers, r#"{"phoneList":["1"]}"#).await.status, 400);
    drop(stop);
    while tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {}
}
