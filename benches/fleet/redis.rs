//! The Redis between the gateways: a process of its own that keeps nothing on disk, and what it has been asked.

use std::{
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::town::{free_port, with_this};

/// How often it is looked whether it listens: 1 ms apart, so for 20 s.
const PATIENCE: usize = 20_000;

/// The server.
pub(crate) struct Redis {
    child: Child,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Redis {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let redis = Self { child: spawn(port), port };
        redis.ready();
        redis
    }

    /// Waits until it listens.
    fn ready(&self) {
        for _ in 0..PATIENCE {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("redis-server does not listen");
    }

    /// Lets it stand still: its connections stay, and nothing is answered.
    pub(crate) fn stand_still(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts another in its place, which knows nothing.
    pub(crate) fn replace(&mut self) {
        self.child = spawn(self.port);
        self.ready();
    }

    /// How many scripts it was asked to run so far.
    pub(crate) fn scripts(&self) -> u64 {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port, "INFO", "commandstats"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    }
}

fn spawn(port: u16) -> Child {
    let port = port.to_string();
    let mut command = with_this("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir", "/tmp"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed by tests/setup.sh")
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
