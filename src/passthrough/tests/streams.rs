//! Bodies flow: nothing is kept, and nothing goes on that nobody wants.

use http_body_util::{BodyExt, Empty};
use tokio::sync::oneshot;

use super::*;

/// Everything that the way may hold: hyper's buffers and the pipes, twice. Far below what is sent.
const HELD: usize = 4 << 20;
const LARGE: usize = 64 << 20;

/// Writes until nothing more is taken, and says how much was.
async fn fill(io: &mut DuplexStream) -> usize {
    let piece = vec![b'x'; 64 << 10];
    let mut taken = 0;
    while taken < LARGE {
        match timeout(SECOND, io.write(&piece)).await {
            Ok(written) => taken += written.expect("open"),
            Err(_elapsed) => break,
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_large_body_comes_back_whole_while_it_is_still_being_sent() {
    let fixture = Fixture::new();
    let head = format!("POST /echo/raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n");
    let (mut reader, mut writer) = tokio::io::split(fixture.connect().await);
    let sending = async {
        writer.write_all(head.as_bytes()).await.expect("open");
        for _ in 0..LARGE / PIPE {
            writer.write_all(&[b'x'; PIPE]).await.expect("open");
        }
    };
    let mut answer = Vec::new();
    let (read, ()) = tokio::join!(reader.read_to_end(&mut answer), sending);
    read.expect("an orderly end");
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(answer.len() - body, LARGE);
    assert!(answer[body..].iter().all(|byte| *byte == b'x'));
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_wait_for_a_slow_request() {
    let fixture = Fixture::new();
    let mut caller = fixture.connect().await;
    let head = b"POST /echo/raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 6000\r\n\r\n";
    caller.write_all(head).await.expect("open");
    for piece in [[b'h'; 3000], [b'i'; 3000]] {
        tokio::time::sleep(CALLER.grace - SECOND).await;
        caller.write_all(&piece).await.expect("open");
    }
    let answer = read_all(&mut caller).await;
    assert!(answer.contains("hhii") && answer.ends_with("ii"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_read_holds_the_caller_up() {
    let fixture = Fixture::scripted(|io| async move {
        std::future::pending::<()>().await;
        drop(io);
    });
    let mut caller = fixture.connect().await;
    let head = format!("POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n");
    caller.write_all(head.as_bytes()).await.expect("open");
    let taken = fill(&mut caller).await;
    assert!(taken < HELD, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_holds_the_upstream_up() {
    let (sender, mut taken) = tokio::sync::mpsc::channel(1);
    let fixture = Fixture::scripted(move |mut io| {
        let sender = sender.clone();
        async move {
            read_head(&mut io).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
            io.write_all(head.as_bytes()).await.expect("open");
            sender.send(fill(&mut io).await).await.expect("the test waits");
        }
    });
    let mut caller = fixture.connect().await;
    caller.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("open");
    let taken = taken.recv().await.expect("a number");
    assert!(taken < HELD, "{taken}");
}

/// An upstream that sends these bytes and tells when its connection ends.
fn watched(answer: &'static str) -> (Passthrough, oneshot::Receiver<()>) {
    let (sender, ended) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let upstream: Upstream = Arc::new(move |mut io: DuplexStream, tasks: &mut JoinSet<()>| {
        let sender = sender.lock().expect("no test panics here").take().expect("one connection");
        tasks.spawn(async move {
            read_head(&mut io).await;
            io.write_all(answer.as_bytes()).await.expect("open");
            wait_for_end(&mut io).await;
            sender.send(()).expect("the test waits");
        });
    });
    let client = Client::new(upstream_config(), Arc::new(Wire { upstream: Some(upstream), tasks: Mutex::default() }));
    let metrics = Metrics::new();
    (Passthrough::new(&everything(), (client, TIMEOUTS), metrics.passthrough(), cached(&metrics)), ended)
}

fn path() -> Path {
    Path::normalise("/x", BASE).expect("safe")
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_before_the_answer_takes_its_request_with_it() {
    let (passthrough, ended) = watched("");
    let asking = passthrough.handle(Request::new(Empty::new()), path());
    timeout(SECOND, asking).await.expect_err("there is no answer");
    timeout(SECOND, ended).await.expect("the connection ends at once").expect("it says so");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_within_the_answer_takes_its_request_with_it() {
    let (passthrough, ended) = watched("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell");
    let mut response = passthrough.handle(Request::new(Empty::new()), path()).await;
    let frame = response.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), "hell");
    drop(response);
    timeout(SECOND, ended).await.expect("the connection ends at once").expect("it says so");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_wait_for_the_request_ends_it() {
    let fixture = Fixture::scripted(|mut io| async move {
        read_head(&mut io).await;
        io.write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno").await.expect("open");
        std::future::pending::<()>().await;
    });
    let (mut reader, mut writer) = tokio::io::split(fixture.connect().await);
    let start = crate::clock::now();
    let head = format!("POST /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n");
    writer.write_all(head.as_bytes()).await.expect("open");
    let body = vec![b'x'; LARGE];
    let mut answer = String::new();
    let (read, written) = tokio::join!(reader.read_to_string(&mut answer), writer.write_all(&body));
    read.expect("an orderly end");
    written.expect_err("nobody wanted all of it");
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\r\n\r\nno"), "{answer}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}
