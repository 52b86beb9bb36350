//! What ten thousand connections of each hostile kind cost: the peak of the gateway's memory, and whether it still answers.
//!
//! ```sh
//! cargo bench --bench attack
//! ```
//! Each kind has a gateway process of its own, over real sockets on this machine, with time limits that are not reached:
//! what is measured is the worst that may be there at once. The simulated upstream is another process.
//!
//! | column | means |
//! |---|---|
//! | connections | made; fewer where each needs one to the upstream too and the system does not allow so many open files |
//! | open | of them, those that the gateway has kept |
//! | peak RSS, each | the most memory that the gateway's process ever had, and what of that came with one connection |
//! | kernel | what TCP holds for all sockets of this machine, both ends among them |
//! | lookup | how long a cached lookup takes beside them, the longest of fifty |
//!
//! Without `--bench`, which `cargo bench` says, twenty connections of each kind are made: a smoke test.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use audience_gateway::simulator::{self, Simulator};
use clap::Parser;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Clients that connect at the same time.
const AT_ONCE: usize = 200;
/// How long a client tries to send what nobody may read.
const PATIENCE: Duration = Duration::from_secs(1);
const KIB: usize = 1 << 10;

#[derive(Parser)]
struct Options {
    /// Connections of each kind.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Only the kinds whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Measures; `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One kind of client.
struct Kind {
    name: &'static str,
    /// What it sends.
    sends: Vec<u8>,
    /// Whether it then reads its answer.
    reads: bool,
    /// Whether each needs a connection to the upstream.
    passes: bool,
}

fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

/// A lookup of so many customers.
fn lookup(keys: u64) -> Vec<u8> {
    let simulator = Simulator::new(simulator::Config::default());
    let ids: Vec<_> = (0..keys).map(|index| simulator.customer(index).id.to_string()).collect();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","));
    [post("/api/audience/detail", body.len()), body.into_bytes()].concat()
}

fn kinds() -> Vec<Kind> {
    let head = |bytes: usize| [&b"GET / HTTP/1.1\r\nhost: x\r\nx: "[..], &vec![b'x'; bytes - 40]].concat();
    let half = |path: &str| [post(path, KIB * KIB), vec![b' '; KIB * KIB / 2]].concat();
    let kind = |name, sends| Kind { name, sends, reads: false, passes: false };
    let passing = |name, sends| Kind { name, sends, reads: false, passes: true };
    vec![
        kind("idle, nothing sent", Vec::new()),
        Kind { reads: true, ..kind("keep-alive after a lookup", lookup(1)) },
        kind("half a head, 8 KiB", head(8 * KIB)),
        kind("half a head, 63 KiB", head(63 * KIB)),
        kind("half a lookup's body, 512 KiB of 1 MiB", half("/api/audience/detail")),
        kind("does not read a lookup's answer, 240 KB", lookup(100)),
        passing("half a body that passes, 512 KiB of 1 MiB", half("/echo/count")),
        passing("does not read a download, 1 GiB", b"GET /bytes?n=1073741824 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ]
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    let connections = if options.bench { options.connections } else { 20 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = io::stdout();
    writeln!(out, "| kind | connections | open | peak RSS | each | kernel | lookup |")?;
    writeln!(out, "|---|---:|---:|---:|---:|---:|---:|")?;
    for kind in kinds().into_iter().filter(|kind| kind.name.contains(&options.only)) {
        // One end of each connection is in this process, the other one in the gateway, where one to the upstream may follow.
        let ends = if kind.passes { 2 } else { 1 };
        let most = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(200) / ends;
        let row = runtime.block_on(attack(&kind, connections.min(most)));
        writeln!(out, "{row}")?;
    }
    Ok(())
}

/// Attacks a gateway of its own with so many clients; a row of the table.
async fn attack(kind: &Kind, connections: usize) -> String {
    let desk = tempfile::tempdir().unwrap();
    let (_upstream, address) = simulate(&desk).await;
    let (gateway, callers, operators) = serve(&desk, address, connections + 100).await;
    ask(callers, &lookup(100)).await;
    let before = memory(&gateway, "VmRSS");
    let held = connect_all(callers, kind, connections).await;
    let open = settled(operators).await;
    let (lookup, mut longest) = (lookup(1), Duration::ZERO);
    for _ in 0..50 {
        let asked = Instant::now();
        ask(callers, &lookup).await;
        longest = longest.max(asked.elapsed());
    }
    let peak = memory(&gateway, "VmHWM");
    let kernel = kernel_memory();
    drop(held);
    format!(
        "| {} | {connections} | {open} | {:.1} MiB | {:.1} KiB | {:.0} MiB | {:.1} ms |",
        kind.name,
        peak as f64 / 1_048_576.0,
        peak.saturating_sub(before) as f64 / 1024.0 / connections as f64,
        kernel as f64 / 1_048_576.0,
        longest.as_secs_f64() * 1000.0,
    )
}

/// The connections of all clients, which have sent what they send.
async fn connect_all(to: SocketAddr, kind: &Kind, connections: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(connections);
    while held.len() < connections {
        let mut clients = JoinSet::new();
        for _ in held.len()..connections.min(held.len() + AT_ONCE) {
            clients.spawn(connect(to, kind.sends.clone(), kind.reads));
        }
        held.extend(clients.join_all().await);
    }
    held
}

async fn connect(to: SocketAddr, sends: Vec<u8>, reads: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // What it does not read should not lie in its own buffers.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut io = socket.connect(to).await.unwrap();
    // It may be refused, or left waiting, before it has sent everything.
    let _sent = timeout(PATIENCE, io.write_all(&sends)).await;
    if reads {
        read_answer(&mut io).await;
    }
    io
}

/// Reads one answer to its end; its body.
async fn read_answer(io: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let some = io.read_buf(&mut answer).await.unwrap();
        assert!(some > 0, "closed before an answer");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if length.is_some_and(|length| body.len() >= length) {
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            return body.to_owned();
        }
    }
}

/// Has a lookup answered.
async fn ask(callers: SocketAddr, lookup: &[u8]) {
    let mut io = TcpStream::connect(callers).await.unwrap();
    io.write_all(lookup).await.unwrap();
    read_answer(&mut io).await;
}

/// How many connections the gateway has, once it has taken in all that it takes.
async fn settled(operators: SocketAddr) -> u64 {
    let mut before = None;
    loop {
        sleep(PATIENCE).await;
        let now = open(operators).await;
        if before.replace(now) == Some(now) {
            return now;
        }
    }
}

async fn open(operators: SocketAddr) -> u64 {
    let mut io = TcpStream::connect(operators).await.unwrap();
    io.write_all(b"GET /status.json HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&read_answer(&mut io).await).unwrap();
    status["connections"]["open"].as_u64().unwrap()
}

/// A program that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn start(desk: &TempDir, arguments: &[&str], writes: &Path) -> Running {
    let file = fs::File::create(writes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_audience-gateway"));
    let command = command.args(arguments).env_clear().current_dir(desk.path()).stdin(Stdio::null());
    Running(command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap())
}

/// Waits until the program has written what says where it listens.
async fn written<T>(to: &Path, find: impl Fn(&str) -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = find(&fs::read_to_string(to).unwrap()) {
            return found;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not listen: {}", fs::read_to_string(to).unwrap());
}

async fn simulate(desk: &TempDir) -> (Running, SocketAddr) {
    let writes = desk.path().join("simulate.txt");
    let running = start(desk, &["simulate", "--listen", "127.0.0.1:0"], &writes);
    (running, written(&writes, |text| text.split_once("http://")?.1.split_once('/')?.0.parse().ok()).await)
}

async fn serve(desk: &TempDir, upstream: SocketAddr, max_connections: usize) -> (Running, SocketAddr, SocketAddr) {
    let config = format!(
        "[upstream]\nbase_url = \"http://{upstream}/api/open\"\nrequest_timeout = \"10m\"\n[server]\n\
         listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmax_connections = {max_connections}\n\
         header_timeout = \"10m\"\nidle_timeout = \"10m\"\n"
    );
    fs::write(desk.path().join("gateway.toml"), config).unwrap();
    let writes = desk.path().join("serve.txt");
    let running = start(desk, &["serve", "--config", "gateway.toml"], &writes);
    let find = |text: &str| {
        let line = text.lines().find(|line| line.contains("\"serving\""))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((line["listen"].as_str()?.parse().ok()?, line["admin_listen"].as_str()?.parse().ok()?))
    };
    let (callers, operators) = written(&writes, find).await;
    (running, callers, operators)
}

/// A figure of the kernel's about a process's memory, in bytes.
fn memory(of: &Running, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", of.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// What TCP holds, in bytes.
fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap();
    let pages = text.lines().find_map(|line| line.strip_prefix("TCP: ")?.split_once("mem ")?.1.parse::<u64>().ok());
    pages.unwrap() * 4096
}
