//! How the server ends.

use std::io::ErrorKind;

use super::*;

#[tokio::test(start_paused = true)]
async fn draining_finishes_what_is_under_way_and_closes_the_rest_at_once() {
    let mut fixture = Fixture::new();
    let mut fresh = fixture.connect().await;
    let mut idle = fixture.connect_idle().await;
    let mut busy = fixture.connect().await;
    busy.ask("/slow").await;
    settle().await;
    assert_eq!(fixture.stats.open(), 3);

    fixture.begin_shutdown();
    assert_eq!((fresh.rest().await, idle.rest().await), (String::new(), String::new()));
    assert_eq!(idle.age(), Duration::ZERO);
    settle().await;
    assert_eq!(fixture.stats.open(), 1);
    let refused = fixture.connector.connect(1).await.map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));

    let answer = busy.rest().await;
    assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
    drop(busy);
    fixture.wait_for_the_end().await;
    assert_eq!(fresh.age(), SLOW);
    assert_eq!(fixture.stats.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrived_with_the_shutdown_is_served() {
    let mut fixture = Fixture::new();
    let mut client = fixture.connect_idle().await;
    client.ask("/").await;
    fixture.begin_shutdown();
    assert!(client.rest().await.ends_with("hello"));
    drop(client);
    fixture.wait_for_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_is_waited_for_but_not_for_ever() {
    let mut fixture = Fixture::new();
    let mut finishing = fixture.connect().await;
    let mut abandoned = fixture.connect().await;
    finishing.send("GET / HTTP/1.1\r\n").await;
    abandoned.send("GET / HTTP/1.1\r\n").await;
    settle().await;
    fixture.begin_shutdown();
    settle().await;
    finishing.send("host: test\r\n\r\n").await;
    assert!(finishing.rest().await.ends_with("hello"));
    assert!(abandoned.rest().await.starts_with("HTTP/1.1 408"));
    drop(finishing);
    drop(abandoned);
    fixture.wait_for_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_without_connections_ends_at_once() {
    let mut fixture = Fixture::new();
    let begin = clock::now();
    fixture.begin_shutdown();
    fixture.wait_for_the_end().await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_ends_every_connection() {
    let mut fixture = Fixture::new();
    let mut idle = fixture.connect_idle().await;
    let mut busy = fixture.connect().await;
    busy.ask("/slow").await;
    settle().await;
    fixture.begin_shutdown();
    settle().await;
    fixture.running.abort_all();
    assert_eq!((busy.rest().await, idle.rest().await), (String::new(), String::new()));
    settle().await;
    assert_eq!((fixture.stats.open(), busy.age()), (0, Duration::ZERO));
}
