//! How soon callers go on who all wait for one batch: the wake-up alone, without a socket.
//!
//! Time runs from the moment at which the dispatcher is given the upstream's answer, so that writing it into the cache is in
//! it, and until the task of each caller goes on with what it was given.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::sync_channel,
    },
    time::Duration,
};

use audience_gateway::{
    clock::{self, Instant},
    dispatch::{self, Client, Handle, LimitPer, MixedLists, Outcome, Share, Wanted, Worker},
    key::Key,
    metrics::Metrics,
    upstream::{Kind, verdict::Verdict},
};
use hdrhistogram::Histogram;
use tokio::{
    runtime::Builder,
    sync::{Notify, mpsc},
    task::JoinSet,
};

use crate::{
    Options,
    held::{self, Held},
    wake::pin,
};

/// The table's head.
pub(crate) const HEAD: &str = "\
| cores | waiters | goes on p50 | p99 | last |
|---|---:|---:|---:|---:|";

/// Keys in the batch.
const KEYS: usize = 100;
/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has so many callers wait, again and again, and prints the medians.
pub(crate) fn measure(options: &Options, cores: usize, out: &mut impl Write) {
    pin(if cores == 1 { &[0] } else { &[0, 1] });
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = builder.worker_threads(cores).enable_time().build().unwrap();
    // By a task, as callers are: `block_on` itself is no thread of the runtime.
    let (done, rounds) = sync_channel(1);
    let (waiters, count, bytes) = (options.waiters, options.rounds, options.bytes);
    runtime.block_on(async move {
        let mut all = JoinSet::new();
        all.spawn(async move { done.send(measure_all(waiters, count, bytes).await).unwrap() });
        all.join_all().await;
    });
    let mut rounds = rounds.recv().unwrap();
    let mut median = |part: usize| {
        rounds.sort_by_key(|round| round[part]);
        rounds[rounds.len() / 2][part] as f64 / 1e6
    };
    let cells = [0, 1, 2].map(|part| format!("{:.1} ms", median(part))).join(" | ");
    writeln!(out, "| {cores} | {waiters} | {cells} |").unwrap();
}

/// The median, the 99th percentile and the last of each round, in nanoseconds.
async fn measure_all(waiters: usize, count: usize, bytes: usize) -> Vec<[u64; 3]> {
    let mut rounds = Vec::new();
    for _ in 0..count {
        rounds.push(round(waiters, bytes).await);
    }
    rounds
}

/// One batch: everybody waits for a key of it, and goes on.
async fn round(waiters: usize, bytes: usize) -> [u64; 3] {
    let held = Held::new(1 << 30, bytes);
    let answer = Arc::new(Notify::new());
    let (asked, mut was_asked) = mpsc::channel(1);
    let (answered, mut was_answered) = mpsc::channel(1);
    let customers: Vec<usize> = (0..KEYS).collect();
    let (shape, cache) = held.parts();
    let (body, meant) = (held::bodies(&customers, bytes), Arc::clone(&shape));
    let told = Arc::clone(&answer);
    let ask: dispatch::Ask = Box::new(move |ask, _on_wire| {
        let (success, answer) = (held::success(&meant, &ask, &body), Arc::clone(&told));
        let (asked, answered) = (asked.clone(), answered.clone());
        Box::pin(async move {
            asked.send(()).await.unwrap();
            answer.notified().await;
            answered.send(clock::now()).await.unwrap();
            Verdict::Success(success)
        })
    });
    let metrics = Metrics::new().dispatch("/waiters");
    let (worker, handle) = Worker::new(config(waiters), shape, cache, metrics, ask);
    let mut working = JoinSet::new();
    working.spawn(worker.run());
    let mut waiting = JoinSet::new();
    let first = wait(handle.clone(), customers.iter().map(|&customer| held.key(customer)).collect());
    waiting.spawn(async move {
        first.await;
    });
    was_asked.recv().await.unwrap();
    let ready = Arc::new(AtomicUsize::new(1));
    let started = clock::now();
    let took: Arc<[AtomicU64]> = (1..waiters).map(|_| AtomicU64::new(0)).collect();
    for number in 1..waiters {
        let (waits, ready) = (wait(handle.clone(), vec![held.key(number % KEYS)]), Arc::clone(&ready));
        let took = Arc::clone(&took);
        waiting.spawn(async move {
            ready.fetch_add(1, SeqCst);
            took[number - 1].store(nanos(waits.await, started), SeqCst);
            // A connection goes on, too: the end of a task is nothing that a caller waits for.
            std::future::pending::<()>().await;
        });
    }
    while ready.load(SeqCst) < waiters {
        tokio::task::yield_now().await;
    }
    // What is quiet has nothing more to do.
    tokio::time::sleep(Duration::from_millis(50)).await;
    answer.notify_one();
    let mut all = Histogram::<u64>::new(3).unwrap();
    let begun = nanos(was_answered.recv().await.unwrap(), started);
    while took.iter().any(|took| took.load(SeqCst) == 0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    took.iter().for_each(|took| all.record(took.load(SeqCst).saturating_sub(begun)).unwrap());
    [0.5, 0.99, 1.0].map(|part| all.value_at_quantile(part))
}

fn nanos(at: Instant, since: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(since).as_nanos()).unwrap()
}

/// A caller; when it goes on.
async fn wait(handle: Handle, keys: Vec<Key>) -> Instant {
    let (now, count) = (clock::now(), keys.len());
    let wanted = Wanted {
        client: Client::Unknown,
        keys,
        fallback: Vec::new(),
        fresh: false,
        max_age: None,
        no_store: false,
        deadline: now + PATIENCE,
        partial: false,
        trace: None,
    };
    let outcomes = handle.submit(now, wanted).ok().unwrap().outcomes(now + PATIENCE).await;
    let at = clock::now();
    assert!(outcomes.len() == count && outcomes.iter().all(|one| matches!(one, Some(Outcome::Answer(_)))));
    at
}

fn config(waiters: usize) -> dispatch::Config {
    dispatch::Config {
        lookup: 0,
        kind: Kind::Platform,
        interval: Duration::from_millis(1),
        max_batch_keys: KEYS,
        max_pending_keys: waiters.max(KEYS),
        max_in_flight: 4,
        linger: Duration::ZERO,
        mixed_lists: MixedLists::Auto,
        limit_per: LimitPer::Gateway,
        idle_refresh: Share::NONE,
        warmup: Share::NONE,
        warmup_bytes: 0,
    }
}
