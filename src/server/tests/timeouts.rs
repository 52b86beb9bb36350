//! How long a connection may go on waiting.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_sends_nothing_is_closed_after_the_header_timeout() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.age(), HEADER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_cut_with_408() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    for byte in ["G", "E", "T", " ", "/"] {
        tokio::time::sleep(HEADER_TIMEOUT / 6).await;
        client.send(byte).await;
    }
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n") && answer.contains("connection: close"), "{answer}");
    assert!(answer.contains(r#""errorCode":"REQUEST_TIMEOUT""#), "{answer}");
    assert_eq!(client.rest().await, "");
    assert_eq!(client.age(), HEADER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_head_in_pieces_is_served_when_it_is_complete_in_time() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    for piece in ["GET / HT", "TP/1.1\r\nhost: ", "test\r\n\r\n"] {
        tokio::time::sleep(HEADER_TIMEOUT / 4).await;
        client.send(piece).await;
    }
    assert!(client.answer().await.ends_with("hello"));
}

#[tokio::test(start_paused = true)]
async fn a_later_head_is_cut_too_counted_from_its_first_byte() {
    let fixture = Fixture::new();
    let mut client = fixture.connect_idle().await;
    let quiet = IDLE_TIMEOUT - Duration::from_secs(1);
    tokio::time::sleep(quiet).await;
    client.send("GET / HT").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 408"));
    assert_eq!(client.age(), quiet + HEADER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_the_idle_timeout_though_the_header_timeout_is_shorter() {
    let fixture = Fixture::new();
    let mut client = fixture.connect_idle().await;
    for _ in 0..3 {
        tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        client.ask("/").await;
        assert!(client.answer().await.ends_with("hello"));
    }
    let before = client.age();
    assert_eq!(client.rest().await, "");
    assert_eq!(client.age() - before, IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_left_alone() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.ask("/slow").await;
    assert!(client.answer().await.ends_with("slow"));
    assert_eq!(client.age(), SLOW);
    // And the idle timeout counts from its end.
    assert_eq!(client.rest().await, "");
    assert_eq!(client.age(), SLOW + IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_may_take_its_time() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbo").await;
    tokio::time::sleep(IDLE_TIMEOUT * 2).await;
    client.send("dy").await;
    assert!(client.answer().await.ends_with("body"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_its_answer_is_cut() {
    for path in ["/whole", "/pieces"] {
        let fixture = Fixture::new();
        let mut client = fixture.connect().await;
        client.ask(path).await;
        settle().await;
        tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        assert_eq!(fixture.stats.open(), 1, "{path}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(fixture.stats.open(), 0, "{path}");
        assert!(client.rest().await.len() < LARGE, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_a_byte_a_second_is_cut() {
    for path in ["/whole", "/pieces"] {
        let fixture = Fixture::new();
        let mut client = fixture.connect().await;
        client.ask(path).await;
        settle().await;
        while fixture.stats.open() > 0 {
            client.io.read_u8().await.expect("there is something left in between");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Every byte buys it four milliseconds.
        let extra = client.age() - IDLE_TIMEOUT;
        assert!(extra <= Duration::from_secs(2), "{path}: {extra:?} more");
        assert_eq!(fixture.stats.ended(Reason::SlowReader), 1, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_answer_trickles_does_not_make_its_reader_slow() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.ask("/trickle").await;
    assert!(client.answer().await.ends_with("xxxx"));
    assert!(client.age() > 3 * IDLE_TIMEOUT, "{:?}", client.age());
    assert!(Reason::ALL.iter().all(|reason| fixture.stats.ended(*reason) == 0));
}

#[tokio::test(start_paused = true)]
async fn why_a_connection_was_ended_is_counted() {
    let rows = [
        ("", Reason::Idle),
        ("GET / HT", Reason::SlowHead),
        ("GET / HTTP/1.1\r\nhost : test\r\n\r\n", Reason::MalformedHead),
        ("GET / HTTP/1.1\r\nhost: test\r\n\r\n", Reason::Idle),
        ("GET /pieces HTTP/1.1\r\nhost: test\r\n\r\n", Reason::SlowReader),
        ("GET /panic HTTP/1.1\r\nhost: test\r\n\r\n", Reason::Panic),
        ("POST /patient HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhell", Reason::SlowBody),
        ("POST /patient HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Reason::BrokenBody),
    ];
    for (request, reason) in rows {
        let fixture = Fixture::new();
        let mut client = fixture.connect().await;
        client.send(request).await;
        tokio::time::sleep(IDLE_TIMEOUT * 2).await;
        assert_eq!(fixture.stats.open(), 0, "{request:?}");
        let counted = Reason::ALL.map(|reason| fixture.stats.ended(reason));
        assert_eq!((fixture.stats.ended(reason), counted.iter().sum::<u64>()), (1, 1), "{request:?}: {counted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_wait_for_a_body_any_more_ends_its_connection_and_says_so() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("POST /patient HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhell").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{answer}");
    assert_eq!(client.age(), HEADER_TIMEOUT);

    // A 408 to a request that has all come is the service's own affair.
    let mut client = fixture.connect().await;
    client.ask("/408").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 408"));
    client.ask("/").await;
    assert!(client.answer().await.ends_with("hello"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_but_reads_gets_all_of_its_answer() {
    for path in ["/whole", "/pieces"] {
        let fixture = Fixture::new();
        let mut client = fixture.connect().await;
        client.ask(path).await;
        let mut piece = vec![0; 64 << 10];
        let mut read = 0;
        while read < LARGE {
            tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
            let taken = client.io.read(&mut piece).await.expect("the connection is open");
            assert!(taken > 0, "{path} was cut after {read} bytes");
            read += taken;
        }
        client.ask("/").await;
        assert!(client.answer().await.ends_with("hello"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_long_for_the_peers() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nxx").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 413"));
    assert_eq!((client.age(), fixture.stats.open()), (Duration::ZERO, 1));
    tokio::time::sleep(crate::server::patience::LINGER * 2).await;
    assert_eq!(fixture.stats.open(), 0);
}
