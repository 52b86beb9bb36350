//! What of an answer reaches the caller.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_is_passed_on_as_it_is_but_for_what_concerns_the_connection() {
    let fixture = Fixture::answering(
        "HTTP/1.1 418 Short And Stout\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: teapot\r\nset-cookie: a=1\r\n\
         set-cookie: b=2\r\nconnection: x-private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
         upgrade: h2c\r\nvia: 1.1 fred\r\nlocation: http://upstream:8081/y\r\ncontent-length: 2\r\n\r\nok",
    );
    let answer = fixture.get("/x").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.lines().collect();
    lines[1..].sort_unstable();
    let expected = [
        "HTTP/1.1 418 Short And Stout",
        "connection: close",
        "content-length: 2",
        "date: Thu, 01 Jan 1970 00:00:00 GMT",
        "location: http://upstream:8081/y",
        "server: teapot",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "via: 1.1 fred, 1.1 audience-gateway",
    ];
    assert_eq!((lines, body), (expected.to_vec(), "ok"));
    assert_eq!(fixture.counted("other"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_head_is_answered_with_the_length_and_no_body() {
    let fixture = Fixture::new();
    let answer = fixture.ask("HEAD /bytes?n=5000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("\r\ncontent-length: 5000\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_stay_without() {
    for (status_line, kept) in [("204 No Content", "x-a: 1"), ("304 Not Modified", "etag: \"1\"")] {
        let text = format!("HTTP/1.1 {status_line}\r\n{kept}\r\n\r\n");
        let fixture = Fixture::answering(text.leak());
        let answer = fixture.get("/x").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status_line}\r\n")), "{answer}");
        assert!(answer.contains(kept) && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(!answer.contains("content-length") && !answer.contains("transfer-encoding"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_hint_is_not_taken_for_the_answer() {
    let fixture = Fixture::answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let answer = fixture.get("/x").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_with_its_connection_is_passed_on_whole() {
    let fixture = Fixture::scripted(|mut io| async move {
        read_head(&mut io).await;
        io.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").await.expect("open");
    });
    let answer = fixture.get("/x").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("via: 1.0 audience-gateway\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n9\r\nall of it\r\n0\r\n\r\n"), "{answer}");
}
