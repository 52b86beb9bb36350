//! Walking over JSON text that is already known to be valid.
//!
//! serde_json has read the whole text before a [`Scanner`] exists (it is made from a [`RawValue`]), so nothing here checks
//! the grammar again: a walk costs one look at each byte, borrows what it gives, and keeps numbers as they were written,
//! which no serde visitor does.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::request::canonical::Unfit;

/// A place in valid JSON text; a copy goes its own way.
#[derive(Clone, Copy)]
pub(in crate::request) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Stands before a value.
    pub(in crate::request) fn new(json: &'a RawValue) -> Self {
        Self { text: json.get(), at: 0 }
    }

    /// The next byte that is no whitespace; stands before it.
    pub(in crate::request) fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over a byte if it is the next one.
    pub(in crate::request) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Steps to the next member of the array or object that was entered; false when its end was stepped over.
    pub(in crate::request) fn more(&mut self, close: u8) -> bool {
        self.take(b',');
        !self.take(close) && self.at < self.text.len()
    }

    /// Steps over a string, a number, `true`, `false` or `null`, and gives it as it is written.
    pub(in crate::request) fn scalar(&mut self) -> &'a str {
        let quoted = self.peek() == Some(b'"');
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        self.at += if quoted {
            string_length(rest)
        } else {
            rest.iter().position(|byte| b",:]} \t\n\r".contains(byte)).unwrap_or(rest.len())
        };
        &self.text[start..self.at]
    }

    /// Where the scanner stands, for [`since`](Self::since).
    pub(in crate::request) fn at(&self) -> usize {
        self.at
    }

    /// The text from an earlier place to here.
    pub(in crate::request) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }
}

/// The bytes of the string at the start, quotes included.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What a string means: borrowed exactly when it is written without an escape.
///
/// # Errors
/// When it escapes half of a surrogate pair, which no text has.
pub(in crate::request) fn text(quoted: &str) -> Result<Cow<'_, str>, Unfit> {
    if !quoted.as_bytes().contains(&b'\\') {
        return Ok(Cow::Borrowed(quoted.trim_matches('"')));
    }
    serde_json::from_str(quoted).map(Cow::Owned).or(Err(Unfit::NoText))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_meets_every_part_as_it_is_written() {
        let json: &RawValue = serde_json::from_str(r#" { "a\"}" : [ -1.50e+3 ,"]\\", null ] } "#).expect("JSON");
        let mut scanner = Scanner::new(json);
        assert!(scanner.take(b'{') && scanner.more(b'}'));
        assert_eq!(scanner.scalar(), r#""a\"}""#);
        assert!(scanner.take(b':') && scanner.peek() == Some(b'['));
        let start = scanner.at();
        assert!(scanner.take(b'['));
        let mut members = Vec::new();
        while scanner.more(b']') {
            members.push(scanner.scalar());
        }
        assert_eq!(members, ["-1.50e+3", r#""]\\""#, "null"]);
        assert_eq!(scanner.since(start), r#"[ -1.50e+3 ,"]\\", null ]"#);
        assert!(!scanner.more(b'}') && !scanner.more(b'}'));
    }

    #[test]
    fn a_string_is_borrowed_unless_it_has_an_escape() {
        assert!(matches!(text(r#""电话""#), Ok(Cow::Borrowed("电话"))));
        assert!(matches!(text(r#""""#), Ok(Cow::Borrowed(""))));
        assert_eq!(text(r#""\u7535\ud83d\ude00\"""#).as_deref(), Ok("电😀\""));
        for unfit in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#] {
            assert_eq!(text(unfit), Err(Unfit::NoText), "{unfit}");
        }
    }
}
