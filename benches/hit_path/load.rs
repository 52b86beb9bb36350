//! The load: connections of one thread, with one request under way on each at most.
//!
//! It must cost less than the server that it measures: requests are written beforehand, of an answer only the head is
//! read, and the kernel throws the rest away uncopied (`MSG_TRUNC`), unless it is to be compared.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use audience_gateway::clock::{self, Instant};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustix::net::{RecvFlags, recv};

use crate::reply::{Protocol, Reply};

/// How much is read at once: answers of a hundred keys fit.
const CHUNK: usize = 256 << 10;
/// Bodies from which on the rest is thrown away: for less, a second call costs more than the copy.
const THROW: usize = 32 << 10;
/// A server that says nothing for so long says nothing any more.
const SILENCE: Duration = Duration::from_secs(30);

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// How long the answer's body is.
    pub(crate) reply: usize,
}

/// Connections to a server, and what is asked over them.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    protocol: Protocol,
    lines: Vec<Line>,
    idle: Vec<usize>,
    chunk: Vec<u8>,
    chance: fastrand::Rng,
}

/// A connection.
struct Line {
    stream: TcpStream,
    reply: Reply,
    expected: usize,
    asked: usize,
    due: Instant,
    body: Vec<u8>,
}

/// An answer that is complete.
struct Done {
    line: usize,
    /// Which request it answers.
    asked: usize,
    due: Instant,
}

impl Load {
    /// Connects so often.
    pub(crate) fn connect(server: SocketAddr, protocol: Protocol, connections: usize) -> Self {
        let poll = Poll::new().unwrap();
        let line = |number: usize| {
            let stream = std::net::TcpStream::connect(server).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
            Line { stream, reply: Reply::default(), expected: 0, asked: 0, due: clock::now(), body: Vec::new() }
        };
        let lines: Vec<Line> = (0..connections).map(line).collect();
        let idle = (0..connections).rev().collect();
        let (events, chunk) = (Events::with_capacity(connections), vec![0; CHUNK]);
        Self { poll, events, protocol, lines, idle, chunk, chance: fastrand::Rng::with_seed(7) }
    }

    /// Asks everything once, in turn; where it is said what the answers are, they are compared.
    pub(crate) fn each(&mut self, asks: &[Ask], answer: Option<&dyn Fn(usize) -> Vec<u8>>) {
        let (mut next, mut answered) = (0, 0);
        while answered < asks.len() {
            while next < asks.len() && !self.idle.is_empty() {
                self.send(asks, next, clock::now());
                next += 1;
            }
            for done in self.receive(SILENCE, answer.is_some()) {
                answered += 1;
                if let Some(answer) = answer {
                    let body = std::mem::take(&mut self.lines[done.line].body);
                    assert!(body == answer(done.asked), "an answer is not what was asked for");
                }
                self.idle.push(done.line);
            }
        }
    }

    /// Asks again as soon as there is an answer, for so long; how many there were, and in how long.
    pub(crate) fn closed(&mut self, asks: &[Ask], lasts: Duration) -> (u64, Duration) {
        let begun = clock::now();
        let mut answered = 0;
        while !self.idle.is_empty() {
            self.send_any(asks, begun);
        }
        while self.idle.len() < self.lines.len() {
            let ended = begun.elapsed() >= lasts;
            for done in self.receive(SILENCE, false) {
                answered += 1;
                self.idle.push(done.line);
                if !ended {
                    self.send_any(asks, begun);
                }
            }
        }
        (answered, begun.elapsed())
    }

    /// Asks so often in a second, whatever becomes of it; how long answers took from when their request was due, in
    /// nanoseconds.
    pub(crate) fn open(&mut self, asks: &[Ask], per_second: f64, lasts: Duration) -> Histogram<u64> {
        let mut took = Histogram::new(3).unwrap();
        let begun = clock::now();
        let gap = Duration::from_secs_f64(1.0 / per_second);
        let mut due = begun;
        let mut waiting = VecDeque::new();
        while due < begun + lasts || !waiting.is_empty() || self.idle.len() < self.lines.len() {
            let now = clock::now();
            while due <= now && due < begun + lasts {
                waiting.push_back(due);
                due += gap;
            }
            while !waiting.is_empty() && !self.idle.is_empty() {
                let due = waiting.pop_front().unwrap();
                self.send_any(asks, due);
            }
            // It looks all the time: to be woken would take longer than an answer.
            for done in self.receive(Duration::ZERO, false) {
                took.record(u64::try_from(done.due.elapsed().as_nanos()).unwrap()).unwrap();
                self.idle.push(done.line);
            }
        }
        took
    }

    fn send_any(&mut self, asks: &[Ask], due: Instant) {
        let any = self.chance.usize(..asks.len());
        self.send(asks, any, due);
    }

    fn send(&mut self, asks: &[Ask], index: usize, due: Instant) {
        let line = &mut self.lines[self.idle.pop().unwrap()];
        let Ask { bytes, reply } = &asks[index];
        (line.expected, line.asked, line.due) = (*reply, index, due);
        line.reply.clear();
        let sent = line.stream.write(bytes).unwrap();
        assert_eq!(sent, bytes.len(), "a request fits into what the kernel keeps");
    }

    /// What is complete, after waiting so long at most for something to come.
    fn receive(&mut self, wait: Duration, keep: bool) -> Vec<Done> {
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        assert!(wait.is_zero() || !self.events.is_empty(), "the server is silent");
        let mut done = Vec::new();
        for event in &self.events {
            let number = event.token().0;
            let line = &mut self.lines[number];
            if line.read(self.protocol, &mut self.chunk, keep) {
                done.push(Done { line: number, asked: line.asked, due: line.due });
            }
        }
        done
    }
}

impl Line {
    /// Reads what there is; whether the answer is complete now.
    fn read(&mut self, protocol: Protocol, chunk: &mut [u8], keep: bool) -> bool {
        if keep && self.reply.left().is_none() {
            self.body.clear();
        }
        loop {
            let throw = !keep && self.reply.left().is_some_and(|left| left > 0);
            let most = if keep || throw { chunk.len() } else { THROW };
            let read = if throw {
                recv(&self.stream, &mut *chunk, RecvFlags::TRUNC).map(|(_, read)| read).map_err(Into::into)
            } else {
                self.stream.read(&mut chunk[..most])
            };
            match read {
                Ok(0) => panic!("the server closed a connection"),
                Ok(read) if throw => self.reply.skip(read),
                Ok(read) => {
                    let body = self.reply.take(protocol, &chunk[..read], self.expected);
                    if keep {
                        self.body.extend_from_slice(body);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("a connection broke: {error}"),
            }
            if self.reply.left() == Some(0) {
                return true;
            }
        }
    }
}
