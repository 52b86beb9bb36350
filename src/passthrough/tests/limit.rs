//! The line of a paced path: who waits, for how long, and what widens the gap.

use http::StatusCode;
use tokio::time::sleep;

use super::{
    super::{
        Limit,
        limit::{Limits, Slot},
    },
    *,
};
use crate::{clock, error::Refusal};

/// The gap of an interval of two seconds before anything was refused, and after one refusal, in milliseconds.
pub(super) const GAP: u128 = 2050;
pub(super) const WIDER: u128 = 2075;

pub(super) fn limit(path: &str) -> Limit {
    Limit { path: path.to_owned(), interval: 2 * SECOND, max_wait: 10 * SECOND, max_waiting: 100 }
}

/// The line of one limit.
struct Line {
    limits: Arc<Limits>,
    start: clock::Instant,
    waiting: JoinSet<()>,
}

impl Line {
    fn new(limit: Limit) -> Self {
        let start = clock::now();
        Self { limits: Arc::new(Limits::new(&[limit], start)), start, waiting: JoinSet::new() }
    }

    fn millis(&self) -> u128 {
        (clock::now() - self.start).as_millis()
    }

    async fn slot(&self) -> Result<Arc<Slot>, Refusal> {
        Ok(self.limits.slot(&path("/a")).await?.expect("the path is limited"))
    }

    /// Joins the line, and sends as soon as it may; what comes of it, and when.
    async fn join(&mut self) -> Caller {
        let (limits, start) = (Arc::clone(&self.limits), self.start);
        let (told, said) = tokio::sync::oneshot::channel();
        let task = self.waiting.spawn(async move {
            let slot = limits.slot(&path("/a")).await;
            let slot = slot.map(|slot| slot.expect("the path is limited").on_wire());
            told.send((slot.err(), (clock::now() - start).as_millis())).unwrap_or(());
        });
        // It takes its place before the next one comes.
        tokio::task::yield_now().await;
        Caller { task, said }
    }
}

struct Caller {
    task: tokio::task::AbortHandle,
    said: tokio::sync::oneshot::Receiver<(Option<Refusal>, u128)>,
}

impl Caller {
    async fn said(self) -> (Option<Refusal>, u128) {
        self.said.await.expect("it is told something")
    }
}

pub(super) fn path(path: &str) -> Path {
    Path::normalise(path, BASE).expect("safe")
}

fn too_frequent(millis: u128) -> Option<Refusal> {
    Some(Refusal::TooFrequent(Duration::from_millis(u64::try_from(millis).expect("a wait"))))
}

#[tokio::test(start_paused = true)]
async fn first_come_is_first_served_a_gap_after_the_one_before_met_its_connection() {
    let mut line = Line::new(limit("/a"));
    let first = line.slot().await.expect("a slot");
    let (second, third) = (line.join().await, line.join().await);
    sleep(SECOND / 4).await;
    first.on_wire();
    assert_eq!(second.said().await, (None, 250 + GAP));
    assert_eq!(third.said().await, (None, 250 + 2 * GAP));
}

#[tokio::test(start_paused = true)]
async fn none_is_sent_while_one_has_no_connection_yet() {
    let mut line = Line::new(limit("/a"));
    let first = line.slot().await.expect("a slot");
    let second = line.join().await;
    sleep(5 * SECOND).await;
    // Its caller leaves, or it never gets a connection.
    drop(first);
    assert_eq!(second.said().await, (None, 5000));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_older_request_is_not_taken_for_the_connection_of_a_newer_one() {
    let mut line = Line::new(limit("/a"));
    let first = line.slot().await.expect("a slot");
    first.on_wire();
    let second = line.slot().await.expect("a slot");
    drop(first);
    let third = line.join().await;
    sleep(5 * SECOND).await;
    second.on_wire();
    assert_eq!(third.said().await, (None, GAP + 5000 + GAP));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_up_its_place_wherever_it_stands() {
    for leaver in 0..3 {
        let mut line = Line::new(limit("/a"));
        line.slot().await.expect("a slot").on_wire();
        let mut callers = vec![line.join().await, line.join().await, line.join().await];
        sleep(SECOND).await;
        callers.remove(leaver).task.abort();
        for (place, caller) in (1..).zip(callers) {
            assert_eq!(caller.said().await, (None, place * GAP), "the leaver was {leaver}");
        }
        // And none is left over.
        assert!(line.slot().await.is_ok());
        assert_eq!(line.millis(), 3 * GAP);
    }
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_for_too_long_is_told_so_at_once_and_comes_back_in_time() {
    let mut line = Line::new(limit("/a"));
    let mut callers = Vec::new();
    for _ in 0..5 {
        callers.push(line.join().await);
    }
    assert_eq!(line.join().await.said().await, (too_frequent(5 * GAP), 0));
    sleep(SECOND).await;
    assert_eq!(line.join().await.said().await, (None, 5 * GAP), "a second later it is soon enough");
    for (place, caller) in (0..).zip(callers) {
        assert_eq!(caller.said().await, (None, place * GAP));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may() {
    let mut line = Line::new(Limit { max_waiting: 2, ..limit("/a") });
    let callers = [line.join().await, line.join().await, line.join().await];
    assert_eq!(line.join().await.said().await, (too_frequent(3 * GAP), 0));
    for (place, caller) in (0..).zip(callers) {
        assert_eq!(caller.said().await, (None, place * GAP));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_no_wait_is_allowed() {
    let mut line = Line::new(Limit { max_wait: Duration::ZERO, ..limit("/a") });
    assert_eq!(line.join().await.said().await, (None, 0));
    assert_eq!(line.join().await.said().await, (too_frequent(GAP), 0));
    sleep(Duration::from_millis(2050)).await;
    assert_eq!(line.join().await.said().await, (None, GAP));
}

#[tokio::test(start_paused = true)]
async fn who_stands_behind_a_request_without_a_connection_waits_no_longer_than_it_may() {
    let mut line = Line::new(limit("/a"));
    let _first = line.slot().await.expect("a slot");
    assert_eq!(line.join().await.said().await, (too_frequent(0), 10_000));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_served_in_time_any_more_is_told_so_when_that_is_known() {
    let mut line = Line::new(limit("/a"));
    let first = line.slot().await.expect("a slot");
    first.on_wire();
    let callers = [line.join().await, line.join().await, line.join().await];
    sleep(SECOND).await;
    let mut answer = http::Response::new(http_body_util::Empty::<bytes::Bytes>::new());
    answer.headers_mut().insert("retry-after", http::HeaderValue::from_static("6"));
    let reader = first.reader(&answer, None).expect("a short answer is read");
    reader(StatusCode::TOO_MANY_REQUESTS, b"");
    let [second, third, fourth] = callers;
    assert_eq!(second.said().await, (None, 7000));
    assert_eq!(third.said().await, (None, 7000 + WIDER));
    assert_eq!(fourth.said().await, (too_frequent(6000 + 2 * WIDER), 1000));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_next_one_waits_a_little_longer() {
    let mut line = Line::new(limit("/a"));
    let first = line.slot().await.expect("a slot");
    first.on_wire();
    let second = line.join().await;
    sleep(2 * SECOND).await;
    first.failed();
    let (refusal, at) = second.said().await;
    assert_eq!(refusal, None);
    assert!((3200..=3501).contains(&at), "{at}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stops_keeps_nobody_waiting() {
    let mut line = Line::new(limit("/a"));
    line.slot().await.expect("a slot").on_wire();
    let callers = [line.join().await, line.join().await];
    sleep(SECOND).await;
    line.limits.drain(line.start + 3 * SECOND);
    let [second, third] = callers;
    assert_eq!(third.said().await, (Some(Refusal::ShuttingDown), 1000));
    assert_eq!(second.said().await, (None, GAP));
    assert_eq!(line.join().await.said().await, (Some(Refusal::ShuttingDown), GAP));
}

#[tokio::test(start_paused = true)]
async fn of_several_limits_the_longest_counts_by_whole_segments() {
    let limits = [("/", 2), ("/a/b", 20), ("/A/b/c/", 200)];
    let limits = limits.map(|(path, wait)| Limit { interval: wait * SECOND, max_wait: Duration::ZERO, ..limit(path) });
    for (asked, wait) in [
        ("/a/b/c", 200),
        ("/a/b/c/d", 200),
        ("/api/open/a/b/c", 200),
        ("/a/b/cd", 20),
        ("/A/b;v=1/", 20),
        ("//a/./x/../%62%2fd", 20),
        ("/a/bc", 2),
        ("/a", 2),
        ("/", 2),
    ] {
        let limits = Limits::new(&limits, clock::now());
        drop(limits.slot(&path(asked)).await.expect("the first goes at once"));
        let Err(Refusal::TooFrequent(told)) = limits.slot(&path(asked)).await else { panic!("{asked}: no pace") };
        assert_eq!(told, wait * SECOND * 41 / 40, "{asked}");
    }
    let one = Limits::new(&limits[1..2], clock::now());
    for other in ["/", "/a", "/a/bc", "/b/a/b"] {
        assert!(one.slot(&path(other)).await.expect("no line").is_none(), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_kind_leaves_the_gap_as_it_is_and_a_success_narrows_it() {
    let line = Line::new(Limit { max_wait: Duration::ZERO, ..limit("/a") });
    let answer = http::Response::new(http_body_util::Empty::<bytes::Bytes>::new());
    let mut gaps = Vec::new();
    for status in [200, 429, 500, 400, 200] {
        let slot = line.slot().await.expect("a slot");
        slot.on_wire();
        slot.reader(&answer, None).expect("a short answer is read")(StatusCode::from_u16(status).expect("one"), b"");
        let Err(Refusal::TooFrequent(gap)) = line.slot().await else { panic!("no pace") };
        gaps.push(gap);
        sleep(3 * SECOND).await;
    }
    let millis: Vec<_> = gaps.iter().map(Duration::as_millis).collect();
    assert_eq!(millis[..4], [GAP, WIDER, WIDER, WIDER]);
    assert!(gaps[1] == gaps[3] && gaps[4] < gaps[3] && gaps[4] > gaps[0], "{gaps:?}");
}
