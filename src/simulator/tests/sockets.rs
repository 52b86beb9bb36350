//! The one test over a real socket: that it listens, answers and ends.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::simulator::{Config, Simulator};

#[tokio::test]
async fn it_serves_a_listener_until_the_shutdown() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let simulator = Simulator::new(Config::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(simulator.clone().serve(listener, async { stopped.await.unwrap_or(()) }));
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
    tasks.spawn(async { connection.await.unwrap_or(()) });
    let request = Request::get("/bytes?n=70000").header("host", "x").body(Empty::<Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.collect().await.expect("a body").to_bytes().len(), 70_000);
    assert_eq!(simulator.arrivals().len(), 1);
    stop.send(()).expect("it still serves");
    // Both the server and, because its connection ends, the client come to their end.
    while tasks.join_next().await.is_some() {}
}
