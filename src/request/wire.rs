//! The caller's JSON: a body becomes a scope and an ordered list of distinct keys.
//!
//! Invariants:
//! 1. The whole body is read by serde_json first: what is not one JSON object in UTF-8 goes no further.
//! 2. Every member belongs either to a key list of the shape or to the scope; a member that is `null` to neither.
//! 3. No name is given twice, at any depth: which of the two the upstream would take is not known, so a body that says
//!    both could be cached under one and answered by the other.
//! 4. A refusal's sentence names lists of the shape and nothing else that the body holds.

pub(super) mod keys;
pub(super) mod scan;

use std::{
    borrow::Cow,
    str::{Utf8Error, from_utf8},
    sync::Arc,
};

use serde_json::value::RawValue;

use self::{
    keys::Keys,
    scan::{Scanner, text},
};
use super::canonical::{MAX_DEPTH, MAX_FIELDS, Members, Unfit};
use crate::{
    error::Refusal,
    key::{Credential, Id, Scope},
    shape::Shape,
};

/// What a body asks for.
#[derive(Debug)]
pub struct Decoded {
    /// Who asks, and every field of the body that is no key list.
    pub scope: Arc<Scope>,
    /// The distinct keys: in the order of the shape's lists, and within a list in the order given. At least one.
    pub ids: Vec<Id>,
}

/// What stands in a body.
pub struct Question {
    /// The distinct keys, as in [`Decoded`].
    pub ids: Vec<Id>,
    /// Every other field, in canonical JSON.
    pub fields: String,
    /// The same fields as they are written: the inside of a JSON object.
    pub sent: String,
}

/// Reads a body on behalf of somebody.
///
/// # Errors
/// What [`read`] says.
pub fn decode(
    shape: &Shape,
    lookup: u8,
    credential: impl Into<Credential>,
    max_keys: usize,
    body: &[u8],
) -> Result<Decoded, Refusal> {
    let Question { ids, fields, sent } = read(shape, max_keys, body)?;
    Ok(Decoded { scope: Arc::new(Scope::new(lookup, credential, fields, sent)), ids })
}

/// Reads a body.
///
/// # Errors
/// [`Refusal::InvalidRequest`] when it is no JSON object, a list holds what cannot be its keys, a field is given twice, or
/// there are no keys or more than `max_keys`.
pub fn read(shape: &Shape, max_keys: usize, body: &[u8]) -> Result<Question, Refusal> {
    let mut scanner = Scanner::new(parse(body)?);
    if !scanner.take(b'{') {
        return Err(invalid("the body must be one JSON object"));
    }
    let mut keys = Keys::new(max_keys);
    let mut fields = Fields::new();
    while scanner.more(b'}') {
        let written = scanner.scalar();
        let name = text(written)?;
        scanner.take(b':');
        match shape.kinds().find(|(_, list)| *list.name == *name) {
            Some((kind, list)) => keys.read(kind, list, &mut scanner)?,
            None => fields.read(name, written, &mut scanner)?,
        }
    }
    let ids = keys.finish(shape)?;
    let (fields, sent) = fields.finish()?;
    Ok(Question { ids, fields, sent })
}

/// The members of a body that are no key lists.
pub(super) struct Fields<'a> {
    canonical: String,
    members: Members<'a>,
    /// The same members as they are written.
    sent: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new() -> Self {
        let mut canonical = String::new();
        let members = Members::open(&mut canonical);
        Self { canonical, members, sent: String::new() }
    }

    /// Steps over a member's value and takes it in. `written` is its name with quotes and escapes.
    pub(super) fn read(&mut self, name: Cow<'a, str>, written: &str, scanner: &mut Scanner<'a>) -> Result<(), Unfit> {
        if scanner.peek() == Some(b'n') {
            // Counts as absent, so it is not sent either: what the upstream is asked does not depend on who came first.
            scanner.scalar();
            self.members.absent(name);
            return Ok(());
        }
        let start = scanner.at();
        self.members.add(name, scanner, MAX_DEPTH, &mut self.canonical)?;
        let separator = if self.sent.is_empty() { "" } else { "," };
        self.sent.extend([separator, written, ":", scanner.since(start)]);
        if self.sent.len() > MAX_FIELDS { Err(Unfit::TooLong) } else { Ok(()) }
    }

    /// The canonical object, and the inside of the one that is sent.
    pub(super) fn finish(mut self) -> Result<(String, String), Unfit> {
        self.members.close(&mut self.canonical)?;
        Ok((self.canonical, self.sent))
    }
}

/// Checks that a body is one JSON value.
pub(super) fn parse(body: &[u8]) -> Result<&RawValue, Refusal> {
    let not_json = |line, column| invalid(format!("the body is not JSON: line {line} column {column}"));
    let body = from_utf8(body).map_err(|error| {
        let (line, column) = place(body, error);
        not_json(line, column)
    })?;
    serde_json::from_str(body).map_err(|error| not_json(error.line(), error.column()))
}

/// The line and the column, in bytes, of what is no UTF-8.
fn place(body: &[u8], error: Utf8Error) -> (usize, usize) {
    let before = &body[..error.valid_up_to()];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    (line, column)
}

pub(super) fn invalid(sentence: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::InvalidRequest(sentence.into())
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        invalid(unfit.as_str())
    }
}

#[cfg(test)]
mod grammar;
#[cfg(test)]
mod tests;
