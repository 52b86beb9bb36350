//! The program under attack, over real sockets: slow clients disturb nobody and are gone after their limit, and what passes
//! through leaves nothing in memory.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::program::{DEADLINE, Desk, by_id, get, lookup, send, serve, simulate, until};

/// Slow clients of each kind.
const CROWD: usize = 500;
/// Between two bytes of a slow client.
const PAUSE: Duration = Duration::from_secs(1);
/// A lookup beside them takes no longer: a hit takes a millisecond on a machine that does nothing else.
const PROMPT: Duration = Duration::from_secs(3);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Who is slow, and at what.
#[derive(Clone, Copy)]
enum Slow {
    Head,
    Body,
    Reader,
}

impl Slow {
    fn request(self) -> &'static str {
        match self {
            Self::Head => "POST /api/audience/detail HTTP/1.1\r\nhost: x\r\nx-slow: ",
            Self::Body => "POST /echo/count HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n",
            // More than the kernel keeps for one connection.
            Self::Reader => "GET /bytes?n=33554432 HTTP/1.1\r\nhost: x\r\n\r\n",
        }
    }
}

/// A client that sends, or reads, a byte a second for as long as it may. How long that was.
async fn be_slow(to: SocketAddr, slow: Slow) -> Duration {
    let socket = TcpSocket::new_v4().unwrap();
    // What it does not read should not lie in its own buffers.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut io = socket.connect(to).await.unwrap();
    let begin = Instant::now();
    io.write_all(slow.request().as_bytes()).await.unwrap();
    let (mut reader, mut writer) = io.split();
    let mut byte = [0];
    loop {
        let gone = match slow {
            Slow::Reader => {
                sleep(PAUSE).await;
                // What had been sent is lost with the connection: the end is seen as an error, or by trying to send.
                reader.read(&mut byte).await.unwrap_or(0) == 0 || writer.write_all(b"\r\n").await.is_err()
            }
            Slow::Head | Slow::Body => match timeout(PAUSE, reader.read(&mut byte)).await {
                // It is told, or cut off.
                Ok(_told) => true,
                Err(_elapsed) => writer.write_all(b"x").await.is_err(),
            },
        };
        if gone {
            return begin.elapsed();
        }
    }
}

#[tokio::test]
async fn fifteen_hundred_slow_clients_disturb_nobody_and_are_gone_after_their_limit() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let desk = Desk::new();
    let (_upstream, address) = simulate(&desk, &[]).await;
    let limits = "server.header_timeout = \"3s\"\nserver.idle_timeout = \"4s\"\n";
    let config = desk.config(address, limits);
    let (_gateway, callers, operators) = serve(&desk, &config).await;
    assert_eq!(lookup(callers, &by_id(2)).await.status, 200);

    let begin = Instant::now();
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        for slow in [Slow::Head, Slow::Body, Slow::Reader] {
            crowd.spawn(be_slow(callers, slow));
        }
    }
    let open = async || get(operators, "/status.json").await.json()["connections"]["open"].as_u64();
    until("most of them to be there", async || open().await.filter(|open| *open > CROWD as u64)).await;
    for _ in 0..50 {
        let asked = Instant::now();
        let reply = lookup(callers, &by_id(2)).await;
        assert_eq!(reply.header("cache-status").split(';').nth(1), Some(" hit"), "{}", reply.text());
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    }
    let lasted = timeout(DEADLINE, crowd.join_all()).await.expect("all of them are gone");
    until("every connection to be let go", async || open().await.filter(|open| *open == 0)).await;
    let longest = lasted.iter().max().unwrap();
    assert!(*longest < Duration::from_secs(15), "{longest:?} of {:?}", begin.elapsed());
    let metrics = get(operators, "/metrics").await;
    let ended: Vec<&str> =
        metrics.text().lines().filter(|line| line.starts_with("gateway_connections_ended")).collect();
    for reason in ["slow_head", "slow_body", "slow_reader"] {
        let counted =
            ended.iter().find_map(|line| line.split_once(&format!("{{reason=\"{reason}\"}} "))?.1.parse().ok());
        // On a busy machine some are answered, or done, in another way first: a body whose connection to the upstream is not
        // made in time, a reader whose answer comes late.
        let least = if reason == "slow_head" { CROWD } else { CROWD * 9 / 10 };
        assert!(counted.is_some_and(|counted: usize| (least..=CROWD).contains(&counted)), "{reason}: {ended:#?}");
    }
}

/// Reads this many bytes; how long it took.
async fn download(from: SocketAddr, bytes: u64) -> Duration {
    let begin = Instant::now();
    let mut io = TcpStream::connect(from).await.unwrap();
    let request = format!("GET /bytes?n={bytes} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let (mut piece, mut read) = (vec![0; 256 << 10], 0);
    loop {
        match io.read(&mut piece).await.unwrap() {
            0 => break,
            some => read += some as u64,
        }
    }
    assert!((bytes..bytes + 1000).contains(&read), "{read} of {bytes}");
    begin.elapsed()
}

/// Sends this many bytes; how long it took.
async fn upload(to: SocketAddr, bytes: u64) -> Duration {
    let begin = Instant::now();
    let mut io = TcpStream::connect(to).await.unwrap();
    let head = format!("POST /echo/count HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
    io.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 256 << 10];
    for _ in 0..bytes / piece.len() as u64 {
        io.write_all(&piece).await.unwrap();
    }
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(&format!("{{\"bodyBytes\":{bytes}}}")), "{answer}");
    begin.elapsed()
}

#[tokio::test]
async fn a_gibibyte_passes_through_in_each_direction_and_memory_stays() {
    let desk = Desk::new();
    let (_upstream, address) = simulate(&desk, &[]).await;
    let (gateway, callers, _operators) = serve(&desk, &desk.config(address, "")).await;
    // Once round, so that what is made on the first use is there.
    send(callers, Method::POST, "/echo/count", "x", &[]).await;
    let before = gateway.memory("VmRSS");
    let down = download(callers, GIB).await;
    let up = upload(callers, GIB).await;
    let most = gateway.memory("VmHWM");
    assert!(most - before < 20 * MIB, "{} KiB more ({down:?} down, {up:?} up)", (most - before) >> 10);
}
