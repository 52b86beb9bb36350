//! One lookup over a kept connection, and what it was told, compared with what the upstream has.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use audience_gateway::{clock, simulator::Simulator};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

const LIST: &str = "audienceUserIdList";
/// Longer than a gateway lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(40);

/// Callers, who know what is right.
#[derive(Clone)]
pub(crate) struct Callers {
    client: Client<HttpConnector, Full<Bytes>>,
    simulator: Simulator,
}

/// What a lookup was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// Every record that was asked for, and so many of them from the cache.
    Right { keys: u64, hits: u64 },
    /// A success that is none.
    Wrong,
    /// An error, by its name.
    Refused(String),
    /// Nothing: the connection broke, or could not be made.
    Nothing,
}

impl Callers {
    /// Callers of this town's gateways.
    pub(crate) fn new(simulator: &Simulator) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, simulator: simulator.clone() }
    }

    /// Asks for customers by their numbers.
    pub(crate) async fn ask(&self, gateway: SocketAddr, customers: &[u64]) -> (Said, Duration) {
        let ids: Vec<String> = customers.iter().map(|&index| self.simulator.customer(index).id.to_string()).collect();
        let body = format!(r#"{{"{LIST}":[{}]}}"#, ids.join(","));
        let begun = clock::now();
        let answer = timeout(PATIENCE, self.exchange(gateway, body)).await;
        let took = clock::now().saturating_duration_since(begun);
        let Ok(Some((status, from_cache, body))) = answer else { return (Said::Nothing, took) };
        if status != StatusCode::OK {
            return (Said::Refused(error_code(&body)), took);
        }
        let has = |id: &String| self.simulator.expected("", "", LIST, id).iter().all(|record| body.contains(&**record));
        let Some((keys, hits)) = from_cache.filter(|_| ids.iter().all(has)) else { return (Said::Wrong, took) };
        (Said::Right { keys, hits }, took)
    }

    async fn exchange(&self, to: SocketAddr, body: String) -> Option<(StatusCode, Option<(u64, u64)>, String)> {
        let request = Request::post(format!("http://{to}/api/audience/detail")).body(Full::from(body)).unwrap();
        let response = self.client.request(request).await.ok()?;
        let (status, from_cache) = (response.status(), from_cache(&response));
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, from_cache, String::from_utf8(body.to_vec()).ok()?))
    }
}

/// Keys that were asked for, and those of them that were cached, as `Cache-Status` tells.
fn from_cache(response: &Response<Incoming>) -> Option<(u64, u64)> {
    let status = response.headers().get("cache-status")?.to_str().ok()?;
    let figure = |name: &str| {
        let mut words = status.split([' ', '"']);
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    Some((figure("keys")?, figure("hit")? + figure("stale")? + figure("negative")?))
}

fn error_code(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["errorCode"].as_str().unwrap_or("no error of ours").to_owned()
}

/// A gateway's metrics, if it serves.
pub(crate) fn metrics(operators: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(operators).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
