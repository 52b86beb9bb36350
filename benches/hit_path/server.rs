//! A server under measurement: a program on core 0, its port, and its end with this value.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{options::Build, reply::Protocol, usage};

/// How often it is looked whether a program listens, or has ended: 1 ms apart, so for 20 s.
const PATIENCE: usize = 20_000;

/// A program that runs.
pub(crate) struct Server {
    /// What the table calls it.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    child: Child,
}

impl Server {
    /// Starts a program that listens on this port, in a folder that it may fill.
    pub(crate) fn start(name: &str, port: u16, command: Command, desk: &Path) -> Self {
        let log = desk.join(format!("{name}.txt"));
        let file = fs::File::create(&log).unwrap();
        let mut command = command;
        let command = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.current_dir(desk).spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { name: name.to_owned(), address, protocol: Protocol::Http, child };
        for _ in 0..PATIENCE {
            if TcpStream::connect(address).is_ok() {
                return server;
            }
            assert!(server.child.try_wait().unwrap().is_none(), "{name}: {}", fs::read_to_string(&log).unwrap());
            thread::sleep(Duration::from_millis(1));
        }
        panic!("{name} does not listen: {}", fs::read_to_string(&log).unwrap());
    }

    /// The gateway, or another build of it.
    pub(crate) fn gateway(build: &Build, upstream: SocketAddr, pins: bool, desk: &Path) -> Self {
        let port = free_port();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:0\"\nidle_timeout = \"1h\"\n\
             [upstream]\nbase_url = \"http://{upstream}/api/open\"\n\
             [[lookup]]\npath = \"/api/audience/detail\"\ninterval = \"1ms\"\n\
             [cache]\ncapacity = \"4GiB\"\nttl = \"24h\"\n[log]\nlevel = \"warn\"\n"
        );
        let file = desk.join(format!("{}.toml", build.name));
        fs::write(&file, config).unwrap();
        let mut command = on_core_0(&build.path.to_string_lossy(), pins);
        command.args(["serve", "--config"]).arg(file);
        Self::start(&build.name, port, command, desk)
    }

    /// This program again, as the floor that answers so many bytes.
    pub(crate) fn floor(bytes: usize, pins: bool, desk: &Path) -> Self {
        let port = free_port();
        let mut command = on_core_0(&this_program(), pins);
        command.arg("--serve").arg(format!("floor:{port}:{bytes}"));
        Self::start("floor", port, command, desk)
    }

    /// This program again, as the upstream of everybody.
    pub(crate) fn upstream(desk: &Path) -> Self {
        let port = free_port();
        let mut command = on_core_0(&this_program(), false);
        command.arg("--serve").arg(format!("upstream:{port}"));
        Self::start("upstream", port, command, desk)
    }

    /// Its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        usage::family(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first, so that it ends its own children; it may have ended by itself.
        let _ended = kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..PATIENCE / 10 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn this_program() -> String {
    std::env::current_exe().unwrap().to_string_lossy().into_owned()
}

/// A program that stays on core 0, or may go where it likes, and ends when this one does, however that ends.
pub(crate) fn on_core_0(program: &str, pins: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if pins {
        command.args(["taskset", "-c", "0"]);
    }
    command.arg(program);
    command
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
