//! The program as a process: started, watched and signalled by a test, over real sockets.
//!
//! Time is real here: every wait is for something and has a deadline, and every process ends with the test that began it.

use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use audience_gateway::simulator::{self, Customer, Simulator};
use http::Method;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::harness::{DETAIL, Reply, exchange, request, try_exchange};

/// No wait takes longer: a process on a busy machine needs a second, not thirty.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(15);

/// Polls until there is something, or panics with what was waited for.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        sleep(LOOK).await;
    }
}

/// A directory for one test: what is written and printed is in it.
pub struct Desk(pub TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    /// A configuration in front of this upstream, on ports that the kernel chooses.
    pub fn config(&self, upstream: SocketAddr, more: &str) -> PathBuf {
        let text = format!(
            "upstream.base_url = \"http://{upstream}/api/open\"\n\
             server.listen = \"127.0.0.1:0\"\nserver.admin_listen = \"127.0.0.1:0\"\n{more}\n"
        );
        self.write("gateway.toml", &text)
    }
}

/// A running program; killed when it is dropped.
pub struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Program {
    pub fn start(desk: &Desk, name: &str, arguments: &[&str]) -> Self {
        Self::start_with(desk, name, arguments, &[])
    }

    /// Starts it in the test's directory, with these environment variables and no others.
    pub fn start_with(desk: &Desk, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(desk, name, Stdio::null(), (arguments, environment))
    }

    /// Starts it as [`start`](Self::start) does, and gives it all of this to read.
    pub fn start_and_tell(desk: &Desk, name: &str, arguments: &[&str], input: &str) -> Self {
        let input = File::open(desk.write(&format!("{name}.stdin"), input)).unwrap();
        Self::spawn(desk, name, input.into(), (arguments, &[]))
    }

    fn spawn(desk: &Desk, name: &str, input: Stdio, (arguments, environment): (&[&str], &[(&str, &str)])) -> Self {
        let (stdout, stderr) =
            (desk.0.path().join(format!("{name}.stdout")), desk.0.path().join(format!("{name}.stderr")));
        let child = Command::new(env!("CARGO_BIN_EXE_audience-gateway"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(desk.0.path())
            .stdin(input)
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .expect("the program starts");
        Self { child, stdout, stderr }
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// A figure of the kernel's about its memory, in bytes: `VmRSS`, or `VmHWM` for the most that it ever was.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.expect("a number of kB") * 1024
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("sh").args(["-c", "kill -s $0 $1", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub async fn exit(&mut self) -> ExitStatus {
        until("the program to end", async || self.child.try_wait().unwrap()).await
    }

    /// Its status and what it wrote, once it has ended by itself.
    pub async fn finished(mut self) -> (Option<i32>, String, String) {
        let status = self.exit().await;
        (status.code(), self.stdout(), self.stderr())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The simulated upstream as a process, and where it listens.
pub async fn simulate(desk: &Desk, more: &[&str]) -> (Program, SocketAddr) {
    let arguments = [&["simulate", "--listen", "127.0.0.1:0"], more].concat();
    let program = Program::start(desk, "simulate", &arguments);
    let address = until("the simulator to listen", async || {
        let printed = program.stdout();
        printed.split_once("http://")?.1.split_once('/')?.0.parse().ok()
    })
    .await;
    (program, address)
}

/// A gateway as a process, and where it listens: for callers, for operators.
pub async fn serve(desk: &Desk, config: &Path) -> (Program, SocketAddr, SocketAddr) {
    serve_as(desk, "serve", config, &[]).await
}

/// The same under a name of its own, where there are several, and with these environment variables.
pub async fn serve_as(
    desk: &Desk,
    name: &str,
    config: &Path,
    environment: &[(&str, &str)],
) -> (Program, SocketAddr, SocketAddr) {
    let program = Program::start_with(desk, name, &["serve", "--config", config.to_str().unwrap()], environment);
    let (callers, operators) = until("the gateway to serve", async || {
        let log = program.stderr();
        let line = log.lines().find(|line| line.contains("\"serving\""))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((line["listen"].as_str()?.parse().ok()?, line["admin_listen"].as_str()?.parse().ok()?))
    })
    .await;
    (program, callers, operators)
}

pub async fn send(to: SocketAddr, method: Method, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
    let io = TcpStream::connect(to).await.unwrap_or_else(|error| panic!("{to}: {error}"));
    exchange(io, request(method, path, body, headers)).await
}

pub async fn lookup(to: SocketAddr, body: &str) -> Reply {
    send(to, Method::POST, DETAIL, body, &[]).await
}

/// The same, unless the gateway is gone or dies meanwhile. Nobody panics of it: a panic that is told with its backtrace keeps
/// every other task of a small runtime from running for half a second.
pub async fn lookup_unless_killed(to: SocketAddr, body: String) -> Option<Reply> {
    let io = TcpStream::connect(to).await.ok()?;
    try_exchange(io, request(Method::POST, DETAIL, &body, &[])).await.ok()
}

pub async fn get(from: SocketAddr, path: &str) -> Reply {
    send(from, Method::GET, path, "", &[]).await
}

/// A customer of the simulator as it is without any flags.
pub fn customer(index: u64) -> Customer {
    Simulator::new(simulator::Config::default()).customer(index)
}

pub fn by_id(index: u64) -> String {
    format!(r#"{{"audienceUserIdList":[{}]}}"#, customer(index).id)
}

/// Sends what a caller may send by mistake, bytes that are no HTTP, and reads what comes back.
pub async fn send_rubbish(to: SocketAddr, rubbish: impl AsRef<[u8]>) -> String {
    let mut io = TcpStream::connect(to).await.unwrap();
    let _refused = io.write_all(rubbish.as_ref()).await;
    let _closed = io.shutdown().await;
    let mut answer = Vec::new();
    let _reset = tokio::time::timeout(DEADLINE, io.read_to_end(&mut answer)).await.expect("it is closed");
    // Over HTTP/2 it is framed.
    String::from_utf8_lossy(&answer).into_owned()
}
