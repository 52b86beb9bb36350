//! How soon callers are answered who all wait for one batch.
//!
//! Time runs from the moment at which the upstream begins to write its answer, and until the kernel reports the answer
//! of each caller as there: nothing is read meanwhile, so the measuring side costs next to nothing. Every answer is read
//! and compared afterwards.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use audience_gateway::clock::{self, Instant};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    Options,
    held::{self, FIRST},
};

/// The table's head.
pub(crate) const HEAD: &str = "\
| gateway's cores | waiters | woken p50 | p99 | last | gateway's CPU | measuring side's CPU |
|---|---:|---:|---:|---:|---:|---:|";

/// Keys in the batch.
const KEYS: usize = 100;
/// What is quiet for so long has nothing more to do.
const QUIET: Duration = Duration::from_millis(300);
/// How often it is looked whether the gateway listens, 10 ms apart.
const PATIENCE: usize = 1000;

/// The gateway's process, which ends with this value.
struct Gateway(Child, SocketAddr);

/// The upstream: says that a request has come, and answers it when it is told to.
struct Upstream {
    address: SocketAddr,
    asked: Receiver<()>,
    answer: SyncSender<usize>,
    answered: Receiver<Instant>,
}

/// What one round found, in milliseconds.
struct Found {
    woken: [f64; 3],
    gateway: f64,
    measuring: f64,
}

/// Has so many callers wait, again and again, and prints the medians.
pub(crate) fn measure(options: &Options, cores: &str, out: &mut impl Write) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    pin(if cores == "0" && options.bench { &[1] } else { &[0, 1] });
    let desk = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(options.bytes);
    let gateway = Gateway::start(&upstream, options.bench.then_some(cores), desk.path());
    let mut poll = Poll::new().unwrap();
    let mut lines: Vec<TcpStream> = (0..options.waiters).map(|number| connect(&poll, gateway.1, number)).collect();
    let mut found: Vec<Found> =
        (0..options.rounds).map(|round| wake(&mut poll, &mut lines, (&upstream, &gateway), round)).collect();
    let mut median = |of: fn(&Found) -> f64| {
        found.sort_by(|one, other| of(one).total_cmp(&of(other)));
        of(&found[found.len() / 2])
    };
    let cells = [
        median(|found| found.woken[0]),
        median(|found| found.woken[1]),
        median(|found| found.woken[2]),
        median(|found| found.gateway),
        median(|found| found.measuring),
    ];
    let cells = cells.map(|milliseconds| format!("{milliseconds:.1} ms")).join(" | ");
    writeln!(out, "| {cores} | {} | {cells} |", options.waiters).unwrap();
}

/// One batch: everybody asks, waits, is answered, and what they were given is compared.
fn wake(poll: &mut Poll, lines: &mut [TcpStream], (upstream, gateway): (&Upstream, &Gateway), round: usize) -> Found {
    let first = round * KEYS;
    let keys: Vec<String> = (first..first + KEYS).map(|customer| (FIRST + customer).to_string()).collect();
    lines[0].write_all(&request(&keys.join(","))).unwrap();
    upstream.asked.recv().unwrap();
    for (number, line) in lines.iter_mut().enumerate().skip(1) {
        line.write_all(&request(&keys[number % KEYS])).unwrap();
    }
    gateway.settle();
    let (cpu, own) = (gateway.cpu(), ran("/proc/thread-self/schedstat"));
    upstream.answer.send(first).unwrap();
    let arrived = arrivals(poll, lines.len());
    let own = ran("/proc/thread-self/schedstat").saturating_sub(own);
    let cpu = gateway.cpu().saturating_sub(cpu);
    let begun = upstream.answered.recv().unwrap();
    let mut took = Histogram::<u64>::new(3).unwrap();
    for arrived in arrived {
        took.record(u64::try_from((arrived - begun).as_nanos()).unwrap()).unwrap();
    }
    for (number, line) in lines.iter_mut().enumerate() {
        let wanted = if number == 0 { &keys[..] } else { &keys[number % KEYS..][..1] };
        check(line, wanted);
    }
    let milliseconds = |nanos: u64| nanos as f64 / 1e6;
    let woken = [0.5, 0.99, 1.0].map(|part| milliseconds(took.value_at_quantile(part)));
    Found { woken, gateway: cpu.as_secs_f64() * 1e3, measuring: own.as_secs_f64() * 1e3 }
}

/// When the last bytes of every answer came.
fn arrivals(poll: &mut Poll, waiters: usize) -> Vec<Instant> {
    let mut events = Events::with_capacity(waiters);
    let mut arrived = vec![None; waiters];
    let mut missing = waiters;
    loop {
        poll.poll(&mut events, Some(QUIET)).unwrap();
        let now = clock::now();
        if events.is_empty() && missing == 0 {
            return arrived.into_iter().flatten().collect();
        }
        for event in &events {
            missing -= usize::from(arrived[event.token().0].replace(now).is_none());
        }
    }
}

/// Reads an answer that is there; it must have these customers' records.
fn check(line: &mut TcpStream, wanted: &[String]) {
    let mut answer = Vec::new();
    let ended = line.read_to_end(&mut answer).expect_err("it stays open");
    assert_eq!(ended.kind(), ErrorKind::WouldBlock, "{ended}");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && length.parse() == Ok(body.len()), "{head}");
    assert!(wanted.iter().all(|id| body.contains(&format!("\"audienceUserId\":{id},"))), "records are missing");
}

fn connect(poll: &Poll, to: SocketAddr, number: usize) -> TcpStream {
    let stream = std::net::TcpStream::connect(to).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
    stream
}

fn request(ids: &str) -> Vec<u8> {
    let body = format!(r#"{{"audienceUserIdList":[{ids}]}}"#);
    let length = body.len();
    format!("POST /api/audience/detail HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

impl Upstream {
    fn start(bytes: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (says, asked) = sync_channel(1);
        let (answer, told) = sync_channel::<usize>(1);
        let (done, answered) = sync_channel(1);
        thread::spawn(move || {
            let mut io = listener.accept().unwrap().0;
            // It ends with the gateway that is connected.
            while read_request(&mut io) {
                says.send(()).unwrap();
                let first = told.recv().unwrap();
                let records: Vec<String> =
                    (first..first + KEYS).map(|customer| held::record(customer, bytes)).collect();
                let body =
                    format!(r#"{{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{}]}}"#, records.join(","));
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                let answer = format!("{head} {}\r\n\r\n{body}", body.len());
                let begun = clock::now();
                io.write_all(answer.as_bytes()).unwrap();
                done.send(begun).unwrap();
            }
        });
        Self { address, asked, answer, answered }
    }
}

/// Reads a request to its end; whether there was one.
fn read_request(io: &mut std::net::TcpStream) -> bool {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match io.read(&mut chunk) {
            Ok(read @ 1..) => text.extend_from_slice(&chunk[..read]),
            Ok(0) | Err(_) => return false,
        }
        // The body is an object whose only closing bracket is its last byte.
        if text.ends_with(b"}") {
            return true;
        }
    }
}

impl Gateway {
    fn start(upstream: &Upstream, cores: Option<&str>, desk: &Path) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:0\"\nmax_connections = 15000\n\
             idle_timeout = \"1h\"\n[upstream]\nbase_url = \"http://{}/api/open\"\nrequest_timeout = \"60s\"\n\
             [[lookup]]\npath = \"/api/audience/detail\"\ninterval = \"1ms\"\ntimeout = \"60s\"\n[log]\nlevel = \"error\"\n",
            upstream.address
        );
        fs::write(desk.join("gateway.toml"), config).unwrap();
        let program = env!("CARGO_BIN_EXE_audience-gateway");
        // It ends when this program does, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if let Some(cores) = cores {
            command.args(["taskset", "-c", cores]);
        }
        let command =
            command.args([program, "serve", "--config", "gateway.toml"]).current_dir(desk).stdin(Stdio::null());
        let mut gateway = Self(command.spawn().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        for _ in 0..PATIENCE {
            if std::net::TcpStream::connect(gateway.1).is_ok() {
                return gateway;
            }
            assert!(gateway.0.try_wait().unwrap().is_none(), "the gateway does not run");
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the gateway does not listen");
    }

    /// What its threads ran for.
    fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        threads.map(|thread| ran(thread.unwrap().path().join("schedstat"))).sum()
    }

    /// Waits until it has read what there is, and waits itself.
    fn settle(&self) {
        let mut before = Duration::MAX;
        loop {
            let now = self.cpu();
            // The timers of thousands of connections wake it for moments.
            if now.saturating_sub(before) < QUIET / 20 && now >= before {
                return;
            }
            before = now;
            thread::sleep(QUIET);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What a thread ran for, as the kernel counts it.
fn ran(schedstat: impl AsRef<Path>) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

/// Keeps this thread, and what it starts, on these cores, where there are so many.
pub(crate) fn pin(cores: &[usize]) {
    let mut set = rustix::thread::CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    let _fewer = rustix::thread::sched_setaffinity(None, &set);
}
