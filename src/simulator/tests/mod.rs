//! The simulator over in-memory connections in paused time.

mod faults;
mod limits;
mod siblings;
mod sockets;
mod switches;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json, value::RawValue};
use tokio::task::JoinSet;

use super::{Config, Simulator};

const DETAIL: &str = "/api/audience/detail";

/// A simulator and the connections to it.
struct Bench {
    sim: Simulator,
    tasks: JoinSet<()>,
}

/// A whole answer.
#[derive(Debug)]
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { customers: 1000, ..Config::default() };
        change(&mut config);
        Self { sim: Simulator::new(config), tasks: JoinSet::new() }
    }

    /// One without a limit.
    fn unlimited(change: impl FnOnce(&mut Config)) -> Self {
        Self::new(|config| {
            config.interval = Duration::ZERO;
            change(config);
        })
    }

    async fn connect(&mut self) -> SendRequest<Full<Bytes>> {
        let (client, server) = tokio::io::duplex(64 << 10);
        self.tasks.spawn(self.sim.clone().serve_connection(server));
        let (sender, connection) = handshake(TokioIo::new(client)).await.expect("a handshake over a duplex");
        self.tasks.spawn(async move { connection.await.unwrap_or(()) });
        sender
    }

    /// Sends on a connection of its own.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Seen, hyper::Error> {
        let mut sender = self.connect().await;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        Ok(Seen { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    async fn post(&mut self, path: &str, body: &Value) -> Seen {
        self.send(post(path, "", body)).await.expect("an answer")
    }

    async fn get(&mut self, path: &str) -> Seen {
        let request = Request::get(path).body(Full::default()).expect("a request");
        self.send(request).await.expect("an answer")
    }

    /// Looks up customers by number.
    async fn lookup(&mut self, indices: &[u64]) -> Seen {
        let body = self.by_id(indices);
        self.post(DETAIL, &body).await
    }

    fn by_id(&self, indices: &[u64]) -> Value {
        json!({"audienceUserIdList": indices.iter().map(|index| self.sim.customer(*index).id).collect::<Vec<_>>()})
    }

    /// The record of one customer by its id, asked without a token.
    fn record(&self, index: u64) -> String {
        let id = self.sim.customer(index).id.to_string();
        self.sim.expected("", "", "audienceUserIdList", &id).concat()
    }
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().expect("a code").to_owned()
    }

    /// The records byte for byte.
    fn records(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Envelope {
            data: Vec<Box<RawValue>>,
        }
        let envelope: Envelope = serde_json::from_slice(&self.body).expect("an envelope with a list");
        envelope.data.iter().map(|record| record.get().to_owned()).collect()
    }
}

fn post(path: &str, token: &str, body: &Value) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("x-token", token);
    }
    request.body(Full::from(body.to_string())).expect("a request")
}
