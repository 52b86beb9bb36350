//! Where each message of a connection begins and ends, found before hyper reads it.
//!
//! hyper repairs what it can, and hides what it repaired: of a `Content-Length` beside `Transfer-Encoding`, of one given
//! twice, of lines that end in a bare LF, of whatever stands around a chunk's size, the parsed request shows nothing. So
//! the bytes are read once more, in front of hyper, and by a narrower rule.
//!
//! - **What hyper sees was judged before**, line by line, and a head's last line only with the whole head. What follows a
//!   fault is never seen by hyper, whatever it might make of it.
//! - **Both agree on the end of every message**, because nothing passes that leaves a choice: the next head is found where
//!   hyper will look for it.
//! - **Bytes of bodies are counted**, not looked at.
//! - Pure: it is given bytes and says how many of them may pass.

use memchr::memchr;

use super::head::{self, Fault, Head, Length};

/// The longest head in bytes, all of its lines and the empty ones around them. It is what other proxies take; and as many
/// bytes may be held of each connection that does not finish its head. hyper takes as much.
pub(super) const MAX_HEAD: usize = 64 << 10;

/// The longest request line: four times what others take (RFC 9112, section 3, asks for 8000 bytes), and half a head.
const MAX_REQUEST_LINE: usize = 32 << 10;

/// Fields in one head: what hyper takes.
const MAX_FIELDS: usize = 100;

/// The longest line in a body: a chunk's size with its extensions, or a trailer. It is what hyper takes.
const MAX_BODY_LINE: usize = 16 << 10;

/// Digits of a chunk's size: what a `u64` holds.
const SIZE_DIGITS: usize = 16;

/// The reader of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    size: Size,
    /// How much of the line that has begun is known to have no end.
    searched: usize,
}

/// What has passed of a head.
#[derive(Clone, Copy, Default, Debug)]
struct Size {
    bytes: usize,
    fields: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A request line. One empty line in front of it is ignored (RFC 9112, section 2.2).
    Request { after_empty_line: bool },
    /// A field of this head, or its end.
    Field(Head),
    /// So many bytes of a body.
    Body(u64),
    /// A chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of a chunk.
    ChunkEnd,
    /// A trailer, or the end of the body.
    Trailer,
}

/// What became of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Judged {
    /// So many from the front may pass. The rest is a line without its end, unless there is a fault.
    pub(super) cleared: usize,
    /// What is wrong with the bytes after those.
    pub(super) fault: Option<Wrong>,
}

/// A fault, and whose affair it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrong {
    /// Of a head: nobody has heard of this request.
    Head(Fault),
    /// Of a body, whose request is under way.
    Body(Fault),
}

const START: Place = Place::Request { after_empty_line: false };

impl Framing {
    /// At the beginning of a connection.
    pub(super) fn new() -> Self {
        Self { place: START, size: Size::default(), searched: 0 }
    }

    /// Judges bytes that begin where the last ones that passed ended. After a fault there is nothing more to judge.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Judged {
        let mut cleared = 0;
        while cleared < bytes.len() {
            let rest = &bytes[cleared..];
            match self.step(rest) {
                Ok(0) => break,
                Ok(passed) => cleared += passed,
                Err(fault) => {
                    let fault = if self.is_in_body() { Wrong::Body(fault) } else { Wrong::Head(fault) };
                    return Judged { cleared, fault: Some(fault) };
                }
            }
        }
        Judged { cleared, fault: None }
    }

    /// Whether a body has not come to its end.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.place, Place::Request { .. } | Place::Field(_))
    }

    /// One line, or as much of a body as there is; 0 where a line has no end yet.
    fn step(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let (left, then): (u64, fn(u64) -> Place) = match self.place {
            Place::Body(left) => (left, |left| if left == 0 { START } else { Place::Body(left) }),
            Place::Chunk(left) => (left, |left| if left == 0 { Place::ChunkEnd } else { Place::Chunk(left) }),
            _ => return self.line(rest),
        };
        let passed = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        self.place = then(left - passed as u64);
        Ok(passed)
    }

    fn line(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let Some(end) = memchr(b'\n', &rest[self.searched..]) else {
            self.searched = rest.len();
            return self.unfinished(rest);
        };
        let end = self.searched + end;
        self.searched = 0;
        let line = rest[..end].strip_suffix(b"\r").ok_or(Fault::LineEnd)?;
        self.size.bytes = self.measure(&rest[..=end])?;
        self.place = match self.place {
            Place::Request { after_empty_line: false } if line.is_empty() => Place::Request { after_empty_line: true },
            Place::Request { .. } if line.is_empty() => return Err(Fault::LineEnd),
            Place::Request { .. } => Place::Field(Head::of(line)?),
            Place::Field(head) if line.is_empty() => {
                self.size = Size::default();
                match head.end()? {
                    Length::Known(0) => START,
                    Length::Known(length) => Place::Body(length),
                    Length::Chunked => Place::ChunkSize,
                }
            }
            Place::Field(mut head) => {
                self.size.fields += 1;
                if self.size.fields > MAX_FIELDS {
                    return Err(Fault::HeadTooLarge);
                }
                head.field(line)?;
                Place::Field(head)
            }
            Place::ChunkSize => match chunk_size(line).ok_or(Fault::Chunk)? {
                0 => Place::Trailer,
                size => Place::Chunk(size),
            },
            Place::ChunkEnd if line.is_empty() => Place::ChunkSize,
            Place::ChunkEnd => return Err(Fault::Chunk),
            Place::Trailer if line.is_empty() => START,
            Place::Trailer => {
                head::trailer(line)?;
                Place::Trailer
            }
            place @ (Place::Body(_) | Place::Chunk(_)) => place,
        };
        Ok(end + 1)
    }

    /// Whether a line, of which so much has come, is too long or makes the head too large; the bytes of the head with it.
    fn measure(&self, line: &[u8]) -> Result<usize, Fault> {
        let head = self.size.bytes + line.len();
        match self.place {
            Place::Request { .. } if line.len() > MAX_REQUEST_LINE => {
                // Without a space in all that, it is the method that is too long, and no method is.
                let has_target = line[..MAX_REQUEST_LINE].contains(&b' ');
                Err(if has_target { Fault::TargetTooLong } else { Fault::RequestLine })
            }
            Place::Request { .. } | Place::Field(_) if head > MAX_HEAD => Err(Fault::HeadTooLarge),
            Place::Request { .. } | Place::Field(_) => Ok(head),
            // Whether its end has come with it or not: where bytes are cut into pieces must not matter.
            Place::ChunkSize | Place::Trailer if line.len() >= MAX_BODY_LINE => Err(Fault::Chunk),
            _ => Ok(0),
        }
    }

    /// A line that has not ended, and may be wrong or too long already.
    fn unfinished(&mut self, line: &[u8]) -> Result<usize, Fault> {
        self.measure(line)?;
        match self.place {
            // Whoever speaks TLS to this port should not have to wait for a line's end to be told.
            Place::Request { .. } if !matches!(line[0], b'\r' | b'!'..=b'~') => Err(Fault::RequestLine),
            Place::ChunkEnd if line != b"\r" => Err(Fault::Chunk),
            _ => Ok(0),
        }
    }
}

/// A chunk's size. Extensions are for one hop only, and this is where they end; what they may be made of is text.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if digits > SIZE_DIGITS || !extensions.iter().all(is_text) {
        return None;
    }
    if !extensions.is_empty() && extensions.trim_ascii_start().first() != Some(&b';') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

#[cfg(test)]
impl Framing {
    /// The heads in these bytes, and whether anything is wrong with them.
    pub(super) fn heads(mut bytes: &[u8]) -> (usize, bool) {
        let mut framing = Framing::new();
        let mut heads = 0;
        while !bytes.is_empty() {
            let in_head = matches!(framing.place, Place::Field(_));
            match framing.step(bytes) {
                Ok(0) => break,
                Ok(passed) => bytes = &bytes[passed..],
                Err(_) => return (heads, true),
            }
            heads += usize::from(in_head && !matches!(framing.place, Place::Field(_)));
        }
        (heads, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that stands there.
    fn at(place: Place) -> Framing {
        Framing { place, ..Framing::new() }
    }

    /// What is cleared of bytes that come in pieces of this size, and the fault after it.
    fn judge_in_pieces(bytes: &[u8], size: usize) -> (Vec<u8>, Option<Wrong>) {
        let mut framing = Framing::new();
        let (mut passed, mut held) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            held.extend_from_slice(piece);
            let Judged { cleared, fault } = framing.judge(&held);
            passed.extend(held.drain(..cleared));
            if fault.is_some() {
                return (passed, fault);
            }
        }
        (passed, None)
    }

    #[test]
    fn messages_follow_each_other_wherever_they_are_cut() {
        let stream = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab\nGET /b HTTP/1.0\r\n\r\n\
            PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\n\r\n\r\n0\r\nX: 1\r\n\r\n\
            GET /d HTTP/1.1\r\nHost: a\r\n\r\n";
        for size in 1..=stream.len() {
            let (passed, fault) = judge_in_pieces(stream, size);
            assert_eq!((passed.len(), fault), (stream.len(), None), "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_of_a_faulty_line_passes_nor_the_end_of_a_faulty_head() {
        for (stream, passes, fault) in [
            ("GET /a HTTP/1.1\r\nHost : a\r\n\r\n", 17, Wrong::Head(Fault::FieldName)),
            ("GET /a HTTP/1.1\r\nA: 1\r\n\r\nGET", 23, Wrong::Head(Fault::Host)),
            ("GET /a HTTP/1.1\nHost: a\n\n", 0, Wrong::Head(Fault::LineEnd)),
            (
                "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                60,
                Wrong::Body(Fault::Chunk),
            ),
        ] {
            for size in 1..=stream.len() {
                let (passed, wrong) = judge_in_pieces(stream.as_bytes(), size);
                assert_eq!((passed.len(), wrong), (passes, Some(fault)), "{stream:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_line_without_an_end_is_looked_at_once_and_not_for_ever() {
        let mut framing = Framing::new();
        let mut line = b"GET /".to_vec();
        assert_eq!(framing.judge(&line), Judged { cleared: 0, fault: None });
        assert_eq!(framing.searched, line.len());
        line.resize(MAX_REQUEST_LINE, b'a');
        assert_eq!(framing.judge(&line), Judged { cleared: 0, fault: None });
        line.push(b'a');
        assert_eq!(framing.judge(&line).fault, Some(Wrong::Head(Fault::TargetTooLong)));
        let method = vec![b'A'; MAX_REQUEST_LINE + 1];
        assert_eq!(Framing::new().judge(&method).fault, Some(Wrong::Head(Fault::RequestLine)));

        let mut framing = at(Place::ChunkSize);
        let line = vec![b'0'; MAX_BODY_LINE];
        assert_eq!(framing.judge(&line).fault, Some(Wrong::Body(Fault::Chunk)));
    }

    /// What a head of so many bytes and fields comes to, in pieces.
    fn head_of(bytes: usize, fields: usize) -> (usize, Option<Wrong>) {
        let mut head = b"GET /a HTTP/1.1\r\nHost: a\r\n".to_vec();
        (2..fields).for_each(|_| head.extend_from_slice(b"X: 1\r\n"));
        let filling = bytes - head.len() - "X: \r\n\r\n".len();
        head.extend_from_slice(format!("X: {}\r\n\r\n", "x".repeat(filling)).as_bytes());
        assert_eq!(head.len(), bytes);
        let (passed, fault) = judge_in_pieces(&head, 1000);
        (passed.len(), fault)
    }

    #[test]
    fn a_head_has_a_limit_in_bytes_and_in_fields() {
        let too_large = Some(Wrong::Head(Fault::HeadTooLarge));
        assert_eq!(head_of(MAX_HEAD, 3), (MAX_HEAD, None));
        assert_eq!(head_of(MAX_HEAD + 1, 3).1, too_large);
        assert_eq!(head_of(2000, MAX_FIELDS), (2000, None));
        assert_eq!(head_of(2000, MAX_FIELDS + 1).1, too_large);
    }

    #[test]
    fn each_head_is_measured_by_itself() {
        let line = "x".repeat(MAX_REQUEST_LINE - "GET / HTTP/1.1\r\n".len());
        let heads = format!("\r\nGET /{line} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(5);
        assert_eq!(judge_in_pieces(heads.as_bytes(), 5000), (heads.clone().into_bytes(), None));
    }

    #[test]
    fn a_line_is_too_long_even_if_its_end_comes_with_it() {
        let size = [b"1;", &vec![b'x'; MAX_BODY_LINE][..], b"\r\n"].concat();
        assert_eq!(at(Place::ChunkSize).judge(&size), Judged { cleared: 0, fault: Some(Wrong::Body(Fault::Chunk)) });
    }

    #[test]
    fn a_line_may_be_wrong_before_it_has_ended() {
        for (place, bytes, fault) in [
            (START, "\u{16}\u{3}", Some(Wrong::Head(Fault::RequestLine))),
            (START, "\r", None),
            (Place::ChunkEnd, "x", Some(Wrong::Body(Fault::Chunk))),
            (Place::ChunkEnd, "\r", None),
        ] {
            let mut framing = at(place);
            assert_eq!(framing.judge(bytes.as_bytes()), Judged { cleared: 0, fault }, "{bytes:?}");
        }
    }

    #[test]
    fn a_chunk_has_a_plain_size() {
        for (line, size) in [("0", 0), ("00a", 10), ("5;x=y", 5), ("5 ;x", 5), ("FFFFFFFFFFFFFFFF", u64::MAX)] {
            assert_eq!(chunk_size(line.as_bytes()), Some(size), "{line}");
        }
        for line in ["", ";x", " 5", "5 ", "5 5", "+5", "-0", "0x5", "5,", "5;\0", "5;\r", "00000000000000005"] {
            assert_eq!(chunk_size(line.as_bytes()), None, "{line:?}");
        }
    }
}
