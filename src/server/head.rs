//! What a request's head may say, judged line by line: enough of it to know where the message ends.
//!
//! - **One reading.** Whatever two servers could read in two ways is refused, not repaired: the next one in the chain might
//!   repair it differently, and take a part of one request for another one.
//! - **No length but one.** A `Content-Length` is one plain number, a `Transfer-Encoding` is `chunked` and nothing else, and
//!   they do not stand side by side. A name that some server might take for one of the two is refused as well.
//! - **One host.** HTTP/1.1 has exactly one well-formed `Host`. Beside an absolute target it is ignored (RFC 9112, section
//!   3.2.2), but must be there.
//! - A line is looked at once, in place, without an allocation.

use memchr::memchr;

use super::target::{is_authority, is_target};

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Not a method, a target and a version with a space between each.
    RequestLine,
    /// Neither a path nor an `http` URI, `*` with another method than OPTIONS, or bytes that no target has.
    Target,
    /// A CONNECT. What follows it may be meant for the other end of a tunnel, which this server never makes.
    Tunnel,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A line that ends in something other than CR LF, or a second empty line in front of a request.
    LineEnd,
    /// Bytes that no name has, none at all, a space around it, or a folded line.
    FieldName,
    /// Bytes that no value has.
    FieldValue,
    /// Missing, given twice or malformed.
    Host,
    /// Given twice, or no plain number.
    ContentLength,
    /// Given twice, something other than `chunked`, or in HTTP/1.0.
    TransferEncoding,
    /// A length of each kind.
    TwoLengths,
    /// A chunk is not what a chunk is.
    Chunk,
    /// A trailer that is no field, or one that frames the message.
    Trailer,
    /// The request line is too long.
    TargetTooLong,
    /// The head is too long, or has too many fields.
    HeadTooLarge,
}

/// The longest body that hyper takes: it keeps the two numbers above for bodies whose length is not known, and would refuse
/// them by itself.
const MAX_LENGTH: u64 = u64::MAX - 2;

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// It has so many bytes; 0 where there is none.
    Known(u64),
    /// It comes in chunks.
    Chunked,
}

/// What has been read of a head.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Head {
    is_http_10: bool,
    has_host: bool,
    length: Option<Length>,
}

impl Fault {
    /// The sentence that the peer is told. It quotes nothing.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is malformed",
            Self::Target => "the request target is malformed",
            Self::Tunnel => "there is no tunnel to be had",
            Self::Version => "the version of HTTP must be 1.0 or 1.1",
            Self::LineEnd => "a line does not end in CR LF, or is empty in the wrong place",
            Self::FieldName => "the name of a header is malformed",
            Self::FieldValue => "a header has a control character",
            Self::Host => "Host must be given, once, and well-formed",
            Self::ContentLength => "Content-Length must be one plain number",
            Self::TransferEncoding => "Transfer-Encoding must be chunked, once, and in HTTP/1.1",
            Self::TwoLengths => "Content-Length and Transfer-Encoding exclude each other",
            Self::Chunk => "a chunk of the body is malformed",
            Self::Trailer => "a trailer is malformed",
            Self::TargetTooLong => "the request line is too long",
            Self::HeadTooLarge => "the headers are too large, or too many",
        }
    }
}

impl Head {
    /// Reads a request line.
    pub(super) fn of(line: &[u8]) -> Result<Self, Fault> {
        let (method, rest) = word(line).ok_or(Fault::RequestLine)?;
        let (target, version) = word(rest).ok_or(Fault::RequestLine)?;
        if !is_token(method) || version.contains(&b' ') {
            return Err(Fault::RequestLine);
        }
        let is_http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::Version),
        };
        if method == b"CONNECT" {
            return Err(Fault::Tunnel);
        }
        if !is_target(method, target) {
            return Err(Fault::Target);
        }
        Ok(Self { is_http_10, ..Self::default() })
    }

    /// Reads a field.
    pub(super) fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (name, value) = field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.has_host || !is_authority(value) {
                    return Err(Fault::Host);
                }
                self.has_host = true;
            }
            _ => match framing(name)? {
                None => {}
                Some(Framing::ContentLength) => self.add(number(value).ok_or(Fault::ContentLength)?)?,
                Some(Framing::TransferEncoding) => {
                    if self.is_http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Fault::TransferEncoding);
                    }
                    self.add(Length::Chunked)?;
                }
            },
        }
        Ok(())
    }

    /// Judges the whole.
    pub(super) fn end(self) -> Result<Length, Fault> {
        if !self.has_host && !self.is_http_10 {
            return Err(Fault::Host);
        }
        Ok(self.length.unwrap_or(Length::Known(0)))
    }

    fn add(&mut self, length: Length) -> Result<(), Fault> {
        match (self.length, length) {
            (None, _) => {
                self.length = Some(length);
                Ok(())
            }
            // Equal ones too: a sender that says it twice says it to two readers.
            (Some(Length::Known(_)), Length::Known(_)) => Err(Fault::ContentLength),
            (Some(Length::Chunked), Length::Chunked) => Err(Fault::TransferEncoding),
            (Some(_), _) => Err(Fault::TwoLengths),
        }
    }
}

/// Judges a field after a chunked body: it may say anything but what the message's frame or its recipient is.
pub(super) fn trailer(line: &[u8]) -> Result<(), Fault> {
    match field(line) {
        Ok((name, _)) if !name.eq_ignore_ascii_case(b"host") && framing(name) == Ok(None) => Ok(()),
        _ => Err(Fault::Trailer),
    }
}

/// The two fields that say how long a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    ContentLength,
    TransferEncoding,
}

/// Which of the two a name is; a fault where it only looks like one.
pub(super) fn framing(name: &[u8]) -> Result<Option<Framing>, Fault> {
    const NAMES: [(&[u8], &[u8], Framing); 2] = [
        (b"content-length", b"contentlength", Framing::ContentLength),
        (b"transfer-encoding", b"transferencoding", Framing::TransferEncoding),
    ];
    if name.len() < NAMES[0].1.len() {
        return Ok(None);
    }
    for (proper, letters, framing) in NAMES {
        if name.eq_ignore_ascii_case(proper) {
            return Ok(Some(framing));
        }
        // CGI and its heirs make `_` of `-`, and some make nothing of both.
        let of_name = name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
        if of_name.eq(letters.iter().copied()) {
            return Err(Fault::FieldName);
        }
    }
    Ok(None)
}

/// A field's name and value, without the space around the value.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    // What ends the name must be the colon: neither a space nor anything else stands between.
    let end = line.iter().position(|byte| !TOKEN[usize::from(*byte)]).ok_or(Fault::FieldName)?;
    let (name, [b':', value @ ..]) = line.split_at(end) else { return Err(Fault::FieldName) };
    if name.is_empty() {
        return Err(Fault::FieldName);
    }
    // All of them, not until the first: this way it is done many bytes at a time.
    let is_bad = |byte: u8| (byte < b' ' && byte != b'\t') | (byte == 0x7f);
    if value.iter().fold(false, |bad, byte| bad | is_bad(*byte)) {
        return Err(Fault::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

/// What stands before the first space, and what after it.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b' ', line)?;
    Some((&line[..end], &line[end + 1..]))
}

fn number(value: &[u8]) -> Option<Length> {
    // Not `parse`, which takes a sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = std::str::from_utf8(value).ok()?.parse().ok()?;
    (length <= MAX_LENGTH).then_some(Length::Known(length))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// The bytes of a token (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &[&str]) -> Result<Length, Fault> {
        let (first, fields) = lines.split_first().expect("a request line");
        let mut head = Head::of(first.as_bytes())?;
        fields.iter().try_for_each(|line| head.field(line.as_bytes()))?;
        head.end()
    }

    #[test]
    fn a_head_says_one_length() {
        let (post, host) = ("POST /a HTTP/1.1", "Host: a");
        let cases: [(&[&str], Result<Length, Fault>); 10] = [
            (&[], Ok(Length::Known(0))),
            (&["content-length:007"], Ok(Length::Known(7))),
            (&["Content-Length: 18446744073709551613"], Ok(Length::Known(u64::MAX - 2))),
            (&["Content-Length: 18446744073709551614"], Err(Fault::ContentLength)),
            (&["TRANSFER-ENCODING: \tCHUNKED "], Ok(Length::Chunked)),
            (&["Content-Length: 7", "Content-Length: 7"], Err(Fault::ContentLength)),
            (&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], Err(Fault::TransferEncoding)),
            (&["Transfer-Encoding: chunked", "Content-Length: 7"], Err(Fault::TwoLengths)),
            (&["Content-Length: 7", "Transfer-Encoding: chunked"], Err(Fault::TwoLengths)),
            (&["Content-Length: +7"], Err(Fault::ContentLength)),
        ];
        for (fields, length) in cases {
            assert_eq!(judge(&[&[post, host], fields].concat()), length, "{fields:?}");
        }
        assert_eq!(judge(&["CONNECT a:443 HTTP/1.1", host]), Err(Fault::Tunnel));
        assert_eq!(judge(&["POST /a HTTP/1.0", "Transfer-Encoding: chunked"]), Err(Fault::TransferEncoding));
    }

    #[test]
    fn only_the_older_http_does_without_a_host() {
        assert_eq!(judge(&["GET /a HTTP/1.0"]), Ok(Length::Known(0)));
        assert_eq!(judge(&["GET /a HTTP/1.1"]), Err(Fault::Host));
        assert_eq!(judge(&["GET http://a/ HTTP/1.1"]), Err(Fault::Host));
        assert_eq!(judge(&["GET /a HTTP/1.1", "Host: a", "host: a"]), Err(Fault::Host));
        assert_eq!(judge(&["GET /a HTTP/1.0", "Host: a", "host: a"]), Err(Fault::Host));
    }

    #[test]
    fn what_looks_like_a_length_is_one_or_is_refused() {
        assert_eq!(framing(b"Content-Length"), Ok(Some(Framing::ContentLength)));
        assert_eq!(framing(b"transfer-encoding"), Ok(Some(Framing::TransferEncoding)));
        for name in ["content_length", "ContentLength", "Content--Length", "Transfer.Encoding", "-transfer-encoding"] {
            assert_eq!(framing(name.as_bytes()), Err(Fault::FieldName), "{name}");
        }
        for name in ["content-type", "content-lengths", "x-content-length", "transfer-encodin", "content"] {
            assert_eq!(framing(name.as_bytes()), Ok(None), "{name}");
        }
        assert_eq!(trailer(b"X-Sum: 1"), Ok(()));
        for line in ["Host: a", "Content-Length: 1", "transfer_encoding: x", "X-Sum", " X: 1", "X : 1", "X: \0"] {
            assert_eq!(trailer(line.as_bytes()), Err(Fault::Trailer), "{line}");
        }
    }
}
