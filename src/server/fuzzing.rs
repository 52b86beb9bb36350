//! What must hold of the bytes of a connection, whatever they are.
//!
//! - Wherever they are cut into pieces, the same bytes pass, and the same kind of fault is found after them.
//! - What passes is a row of messages by the letter of RFC 9112, found by a second reading that repairs nothing.
//! - hyper, which reads what passes, finds the same messages with the same bodies, and refuses none by itself.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use fastrand::Rng;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

use super::framing::{Framing, MAX_HEAD, Wrong};

/// Trailers of one body that hyper takes.
const MAX_TRAILERS: usize = 100;

/// So often is hyper asked to go on: far more than any input needs.
const TURNS: usize = 10_000;

/// A message, as far as it came.
struct Message {
    target: Vec<u8>,
    /// Nothing where it broke off, or has more trailers than hyper takes.
    body: Option<Vec<u8>>,
    /// Whether the connection may end with it.
    is_last: bool,
}

/// A request that hyper found: its target, and its body if that came whole.
type Served = (String, Option<Vec<u8>>);

/// Reads bytes as a connection's.
pub fn framing(data: &[u8]) {
    let (passed, fault) = in_pieces(data, |_| data.len());
    let mut random = Rng::with_seed(data.iter().fold(7, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(*byte)));
    for longest in [1, 2, 40] {
        assert_eq!(in_pieces(data, |_| random.usize(1..=longest)), (passed, fault), "in pieces of up to {longest}");
    }
    let passed = &data[..passed];
    let messages = messages(passed);
    let (served, answers) = serve(passed);
    let last = served.len().checked_sub(1).and_then(|last| messages.get(last));
    let may_end = last.is_some_and(|last| last.is_last);
    assert!(served.len() <= messages.len(), "hyper sees a request too many");
    assert!(served.len() == messages.len() || may_end, "hyper sees {} of {}", served.len(), messages.len());
    for ((target, body), message) in served.iter().zip(&messages) {
        let sent = Uri::try_from(&*message.target).map(|target| target.to_string());
        assert_eq!(sent.as_ref().ok(), Some(target), "the target");
        assert_eq!(*body, message.body, "the body");
    }
    assert!(!String::from_utf8_lossy(&answers).contains("HTTP/1.1 4"), "hyper refuses nothing by itself");
}

/// How many bytes pass, and whether a fault is of a head or of a body.
fn in_pieces(data: &[u8], mut size: impl FnMut(&[u8]) -> usize) -> (usize, Option<bool>) {
    let mut framing = Framing::new();
    let (mut passed, mut read) = (0, 0);
    while read < data.len() {
        read = data.len().min(read + size(&data[read..]));
        let judged = framing.judge(&data[passed..read]);
        passed += judged.cleared;
        if let Some(fault) = judged.fault {
            return (passed, Some(matches!(fault, Wrong::Head(_))));
        }
    }
    (passed, None)
}

/// The messages whose heads are whole. Panics where something is not by the letter.
fn messages(mut rest: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let Some(end) = find(rest, b"\r\n\r\n") else { return messages };
        let head = ascii(&rest[..end]);
        let target = rest[..end].split(|byte| *byte == b' ').nth(1).expect("a target").to_vec();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "a line has one end");
        let mut lines = head.split("\r\n");
        let is_older = lines.next().expect("a request line").ends_with(" http/1.0");
        let fields: Vec<_> = lines.map(|line| line.split_once(':').expect("a field")).collect();
        let values = |name| fields.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.trim());
        assert!(values("host").count() == 1 || is_older && values("host").count() == 0, "one host");
        let closes = values("connection").flat_map(|value| value.split(',')).any(|option| option.trim() == "close");
        let lengths: Vec<_> = values("content-length").collect();
        let codings: Vec<_> = values("transfer-encoding").collect();
        rest = &rest[end + 4..];
        let body = match (&*lengths, &*codings) {
            ([], []) => Some(Vec::new()),
            ([length], []) => {
                assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "a length is a number");
                take(&mut rest, length.parse().expect("a length"))
            }
            ([], ["chunked"]) if !is_older => chunks(&mut rest),
            other => panic!("two lengths: {other:?}"),
        };
        let broke_off = body.is_none();
        messages.push(Message { target, body, is_last: is_older || closes });
        if broke_off {
            return messages;
        }
    }
}

/// The text in small letters, with a mark for whatever is no ASCII.
fn ascii(bytes: &[u8]) -> String {
    let letter = |byte: &u8| if byte.is_ascii() { char::from(byte.to_ascii_lowercase()) } else { '?' };
    bytes.iter().map(letter).collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn take(rest: &mut &[u8], length: u64) -> Option<Vec<u8>> {
    let (body, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(body.to_vec())
}

/// The body that comes in chunks, if all of it is there.
fn chunks(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = line(rest)?;
        let size = line.split(|byte| b"; \t".contains(byte)).next().expect("a size");
        let size = u64::from_str_radix(std::str::from_utf8(size).expect("digits"), 16).expect("a size");
        if size == 0 {
            break;
        }
        body.extend(take(rest, size)?);
        *rest = rest.strip_prefix(b"\r\n")?;
    }
    let mut trailers = 0;
    while !line(rest)?.is_empty() {
        trailers += 1;
    }
    (trailers <= MAX_TRAILERS).then_some(body)
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = find(rest, b"\r\n")?;
    let line = &rest[..end];
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a line has one end");
    *rest = &rest[end + 2..];
    Some(line)
}

/// A connection that has said all that it will say.
struct Script<'a> {
    rest: &'a [u8],
    written: Vec<u8>,
}

impl Read for Script<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.rest.split_at(self.rest.len().min(buf.remaining()));
        buf.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Script<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The requests that hyper finds, each with its body if that is whole, and what it writes.
fn serve(bytes: &[u8]) -> (Vec<Served>, Vec<u8>) {
    let served = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let target = request.uri().to_string();
        let served = &served;
        Box::pin(async move {
            let body = request.into_body().collect().await;
            served.borrow_mut().push((target, body.ok().map(|body| body.to_bytes().to_vec())));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        })
    });
    let script = Script { rest: bytes, written: Vec::new() };
    let mut connection =
        http1::Builder::new().half_close(true).max_buf_size(MAX_HEAD).serve_connection(script, service);
    let mut context = Context::from_waker(Waker::noop());
    let ended = (0..TURNS).any(|_| connection.poll_without_shutdown(&mut context).is_ready());
    assert!(ended, "hyper comes to an end");
    let written = connection.into_parts().io.written;
    (served.into_inner(), written)
}
