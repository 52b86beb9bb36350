//! What a request's head may say, judged line by line: enough of it to know where the message ends.
//!
//! - **One reading.** Whatever two servers could read in two ways is refused, not repaired: the next one in the chain might
//!   repair it differently, and take a part of one request for another one.
//! - **No length but one.** A `Content-Length` is one plain number, a `Transfer-Encoding` is `chunked` and nothing else, and
//!   they do not stand side by side. A name that some server might take for one of the two is refused as well.
//! - **One host.** HTTP/1.1 has exactly one well-formed `Host`. Beside an absolute target it is ignored (RFC 9112, section
//!   3.2.2), but must be there.
//! - A line is looked at once, in place, without an allocation.

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Not a method, a target and a version with a space between each.
    RequestLine,
    /// Neither a path nor an `http` URI, `*` with another method than OPTIONS, or bytes that no target has.
    Target,
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
    /// Given twice, no plain number, or in place where there can be none.
    ContentLength,
    /// Given twice, something other than `chunked`, or in HTTP/1.0.
    TransferEncoding,
    /// A length of each kind.
    TwoLengths,
    /// A chunk is not what a chunk is.
    Chunk,
    /// A trailer that is no field, or one that frames the message.
    Trailer,
}

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
    is_connect: bool,
    has_host: bool,
    length: Option<Length>,
}

impl Fault {
    /// The sentence that the peer is told. It quotes nothing.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is malformed",
            Self::Target => "the request target is malformed",
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
        }
    }
}

impl Head {
    /// Reads a request line.
    pub(super) fn of(line: &[u8]) -> Result<Self, Fault> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::RequestLine);
        };
        if !is_token(method) {
            return Err(Fault::RequestLine);
        }
        let is_http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::Version),
        };
        if !is_target(method, target) {
            return Err(Fault::Target);
        }
        Ok(Self { is_http_10, is_connect: method == b"CONNECT", ..Self::default() })
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
        match self.length {
            // What follows a CONNECT may be meant for the other end of the tunnel.
            Some(Length::Known(_)) if self.is_connect => Err(Fault::ContentLength),
            Some(Length::Chunked) if self.is_connect => Err(Fault::TransferEncoding),
            length => Ok(length.unwrap_or(Length::Known(0))),
        }
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
enum Framing {
    ContentLength,
    TransferEncoding,
}

/// Which of the two a name is; a fault where it only looks like one.
fn framing(name: &[u8]) -> Result<Option<Framing>, Fault> {
    const NAMES: [(&[u8], &[u8], Framing); 2] = [
        (b"content-length", b"contentlength", Framing::ContentLength),
        (b"transfer-encoding", b"transferencoding", Framing::TransferEncoding),
    ];
    for (proper, letters, framing) in NAMES {
        if name.eq_ignore_ascii_case(proper) {
            return Ok(Some(framing));
        }
        // CGI and its heirs make `_` of `-`, and some make nothing of both.
        let of_name = name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
        if name.len() >= letters.len() && of_name.eq(letters.iter().copied()) {
            return Err(Fault::FieldName);
        }
    }
    Ok(None)
}

/// A field's name and value, without the space around the value.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Fault::FieldName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Fault::FieldName);
    }
    // All of them, not until the first: this way it is done many bytes at a time.
    let is_bad = |byte: u8| (byte < b' ' && byte != b'\t') | (byte == 0x7f);
    if value.iter().fold(false, |bad, byte| bad | is_bad(*byte)) {
        return Err(Fault::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

fn number(value: &[u8]) -> Option<Length> {
    // Not `parse`, which takes a sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Length::Known)
}

fn is_target(method: &[u8], target: &[u8]) -> bool {
    match target {
        b"*" => method == b"OPTIONS",
        _ if method == b"CONNECT" => target.contains(&b':') && is_authority(target),
        [b'/', ..] => is_path(target),
        _ => {
            let is_scheme = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
            let Some(scheme) = [&b"http://"[..], b"https://"].into_iter().find(|scheme| is_scheme(scheme)) else {
                return false;
            };
            let rest = &target[scheme.len()..];
            let (authority, path) =
                rest.split_at(rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len()));
            is_authority(authority) && is_path(path)
        }
    }
}

/// Whether these may be a path and a query. More than the RFC allows, and no more than hyper takes: callers do send what
/// should have been escaped, UTF-8 above all, and no server takes that for anything else.
fn is_path(path: &[u8]) -> bool {
    let mut in_query = false;
    for byte in path {
        match byte {
            b'?' => in_query = true,
            b'"' if in_query => return false,
            b'`' if !in_query => return false,
            0..=b' ' | b'#' | b'<' | b'>' | 0x7f => return false,
            _ => {}
        }
    }
    path.is_ascii() || std::str::from_utf8(path).is_ok()
}

/// Whether this is a host and perhaps a port: a name, an IPv4 address, or an IPv6 address in brackets.
fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (address, port) = (&rest[..end], &rest[end + 1..]);
            let is_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
            if !address.contains(&b':') || !address.iter().all(is_address) {
                return false;
            }
            (address, port)
        }
        _ => value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len())),
    };
    let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:".contains(byte);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host.iter().all(in_host) && is_port
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
