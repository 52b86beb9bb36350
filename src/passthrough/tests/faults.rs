//! What goes wrong, and whose fault it is.

use super::*;
use crate::clock;

#[tokio::test(start_paused = true)]
async fn an_upstream_that_cannot_be_reached_is_unavailable() {
    let fixture = Fixture::with(&everything(), None);
    let answer = fixture.get("/x").await;
    assert_eq!(status(&answer), "502");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(echoed(&answer)["errorCode"], "UPSTREAM_UNAVAILABLE");
    assert_eq!(fixture.counted("502"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_unavailable() {
    for nonsense in [
        "HTTP/1.1 two hundred\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(status(&Fixture::answering(nonsense).get("/x").await), "502", "{nonsense}");
    }
    let closing = Fixture::scripted(|mut io| async move { drop(read_head(&mut io).await) });
    assert_eq!(status(&closing.get("/x").await), "502");
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_has_its_time_from_the_end_of_the_request() {
    let fixture = Fixture::scripted(|mut io| async move {
        wait_for_end(&mut io).await;
    });
    let start = clock::now();
    let answer = fixture.get("/x").await;
    assert_eq!((status(&answer), start.elapsed()), ("504", TIMEOUTS.upstream));
    assert_eq!(echoed(&answer)["errorCode"], "UPSTREAM_UNAVAILABLE");

    let mut caller = fixture.connect().await;
    let head = b"POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 15000\r\n\r\n";
    caller.write_all(head).await.expect("open");
    let start = clock::now();
    for _ in 0..5 {
        // In all longer than any timeout.
        tokio::time::sleep(CALLER.grace - SECOND).await;
        caller.write_all(&[b'x'; 3000]).await.expect("open");
    }
    assert_eq!(status(&read_all(&mut caller).await), "504");
    assert_eq!(start.elapsed(), 5 * (CALLER.grace - SECOND) + TIMEOUTS.upstream);
    assert_eq!(fixture.counted("504"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_take_the_body_has_its_time_too() {
    let fixture = Fixture::scripted(|io| async move {
        std::future::pending::<()>().await;
        drop(io);
    });
    let mut caller = fixture.connect().await;
    let head = b"POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100000000\r\n\r\n";
    caller.write_all(head).await.expect("open");
    let start = clock::now();
    let (mut reader, mut writer) = tokio::io::split(caller);
    let mut answer = String::new();
    let body = vec![0; 100_000_000];
    let (read, written) = tokio::join!(reader.read_to_string(&mut answer), writer.write_all(&body));
    read.expect("an orderly end");
    written.expect_err("nobody wanted all of it");
    // Its connection is let go at once, although the upstream still does not take a byte.
    assert_eq!((status(&answer), start.elapsed()), ("504", TIMEOUTS.upstream));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_caller_is_told_so() {
    let fixture = Fixture::new();
    let start = clock::now();
    let answer = fixture.ask("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhell").await;
    assert_eq!((status(&answer), start.elapsed()), ("408", CALLER.grace));
    assert_eq!((fixture.counted("408"), fixture.counted("502")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_sends_a_byte_a_second_is_told_so_too_and_its_upload_ends() {
    let fixture = Fixture::new();
    let mut caller = fixture.connect().await;
    caller.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n").await.expect("open");
    let start = clock::now();
    let (mut reader, mut writer) = tokio::io::split(caller);
    let trickling = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SECOND).await;
        }
    };
    let answer = tokio::select! {
        answer = read_all(&mut reader) => answer,
        () = trickling => panic!("it is told before it is cut off"),
    };
    let took = start.elapsed();
    assert_eq!(status(&answer), "408");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // Thirty bytes buy 0.3 seconds.
    assert!((CALLER.grace..CALLER.grace + SECOND).contains(&took), "{took:?}");
    assert_eq!((fixture.counted("408"), fixture.counted("502")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_does_not_make_a_fast_caller_late() {
    // It takes its time over each of the first pieces, in all longer than the caller's grace; what is left then is
    // buffered on the way.
    let fixture = Fixture::scripted(|mut io| async move {
        read_head(&mut io).await;
        let mut left = 60 * PIPE;
        while left > 0 {
            if left > 20 * PIPE {
                tokio::time::sleep(TIMEOUTS.upstream / 4).await;
            }
            let mut piece = vec![0; PIPE];
            left -= io.read_exact(&mut piece).await.expect("open");
        }
        io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap_or(());
        wait_for_end(&mut io).await;
    });
    let start = clock::now();
    let body = "x".repeat(60 * PIPE);
    let head = format!("POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = fixture.ask(&(head + &body)).await;
    assert_eq!(status(&answer), "200");
    assert!(start.elapsed() > 3 * CALLER.grace, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_is_its_callers_fault() {
    let fixture = Fixture::new();
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = fixture.ask(&format!("{head}2\r\nhi\r\nzz\r\nhi\r\n")).await;
    assert_eq!(status(&answer), "400");

    let mut caller = fixture.connect().await;
    caller.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhell").await.expect("open");
    caller.shutdown().await.expect("open");
    assert_eq!(status(&read_all(&mut caller).await), "400");
    assert_eq!((fixture.counted("400"), fixture.counted("502")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_coding_that_would_be_lost_is_refused() {
    let fixture = Fixture::new();
    let answer = fixture
        .ask("POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert_eq!(status(&answer), "400");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stalls_is_cut_off() {
    let fixture = Fixture::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell");
    let start = clock::now();
    let answer = fixture.get("/x").await;
    assert_eq!((status(&answer), start.elapsed()), ("200", TIMEOUTS.upstream));
    assert!(answer.ends_with("\r\n\r\nhell"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_slowly_is_not_cut_off() {
    let fixture = Fixture::new();
    let start = clock::now();
    let answer = fixture.get("/slow?ms=90000").await;
    assert_eq!((answer.matches("drop\n").count(), start.elapsed()), (10, 90 * SECOND));
}
