//! The key lists of a body: what may stand in them, and each key once.
//!
//! Invariants: no sentence quotes a value; nothing is kept beyond the limit; a value and its other spelling (`747`,
//! `"747"`, `"0747"`) are one key.

use std::{borrow::Cow, collections::HashSet, mem::replace};

use super::{
    invalid,
    scan::{Scanner, text},
};
use crate::{
    error::Refusal,
    key::{Id, Kind, Value},
    shape::{List, Shape, ValueType},
};

/// Up to so many members a list is searched from its start: comparing is cheaper than hashing until about here.
const SEARCHED: usize = 64;

/// The keys of one body, as its lists are read.
pub(in crate::request) struct Keys {
    ids: Vec<Id>,
    /// Which lists were given, by [`Kind`].
    given: [bool; 256],
    max: usize,
}

impl Keys {
    pub(in crate::request) fn new(max: usize) -> Self {
        Self { ids: Vec::new(), given: [false; 256], max }
    }

    /// Steps over a list and takes its keys in.
    pub(in crate::request) fn read(
        &mut self,
        kind: Kind,
        list: &List,
        scanner: &mut Scanner<'_>,
    ) -> Result<(), Refusal> {
        if replace(&mut self.given[kind.index()], true) {
            return Err(invalid(format!("{} is given twice", list.name)));
        }
        if scanner.peek() == Some(b'n') {
            scanner.scalar();
            return Ok(());
        }
        if !scanner.take(b'[') {
            return Err(mistyped(list));
        }
        let first = self.ids.len();
        let mut seen = HashSet::new();
        while scanner.more(b']') {
            if let Some(value) = read_member(list, scanner)? {
                self.add(Id { kind, value }, first, &mut seen)?;
            }
        }
        Ok(())
    }

    /// Takes a key in unless the list that began at `first` has it. `seen` is used once the list is long.
    fn add(&mut self, id: Id, first: usize, seen: &mut HashSet<Value>) -> Result<(), Refusal> {
        let list = &self.ids[first..];
        let known = if list.len() < SEARCHED {
            list.contains(&id)
        } else {
            if seen.is_empty() {
                seen.extend(list.iter().map(|id| id.value.clone()));
            }
            !seen.insert(id.value.clone())
        };
        if known {
            return Ok(());
        }
        if self.ids.len() >= self.max {
            return Err(invalid(format!("too many keys: at most {} in one request", self.max)));
        }
        self.ids.push(id);
        Ok(())
    }

    /// The keys in the order of the shape's lists.
    pub(in crate::request) fn finish(self, shape: &Shape) -> Result<Vec<Id>, Refusal> {
        if self.ids.is_empty() {
            return Err(none_given([shape]));
        }
        Ok(self.sorted())
    }

    /// The same, where there may be none.
    pub(in crate::request) fn sorted(mut self) -> Vec<Id> {
        if !self.ids.is_sorted_by_key(|id| id.kind) {
            // A stable sort: within a list the order stays as given.
            self.ids.sort_by_key(|id| id.kind);
        }
        self.ids
    }
}

/// Steps over a member of a list; nothing for `null` and blank strings.
fn read_member(list: &List, scanner: &mut Scanner<'_>) -> Result<Option<Value>, Refusal> {
    let text = match (scanner.peek(), list.value_type) {
        (Some(b'n'), _) => {
            scanner.scalar();
            return Ok(None);
        }
        (Some(b'"'), _) => text(scanner.scalar())
            .map_err(|_unfit| invalid(format!("{} holds a string with half of a surrogate pair", list.name)))?,
        (Some(b'-' | b'0'..=b'9'), ValueType::Int64) => Cow::Borrowed(scanner.scalar()),
        _ => return Err(mistyped(list)),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    list.value_type.read(&text).map(Some).ok_or_else(|| mistyped(list))
}

fn mistyped(list: &List) -> Refusal {
    invalid(match list.value_type {
        ValueType::Int64 => format!("{} must be an array of ids: 64-bit integers, or strings of digits", list.name),
        ValueType::Text => format!("{} must be an array of strings", list.name),
    })
}

/// There is no key in any list of these shapes: `give at least one key in audienceUserIdList, thirdIdList or phoneList`.
pub(in crate::request) fn none_given<'a>(shapes: impl IntoIterator<Item = &'a Shape>) -> Refusal {
    let mut names: Vec<&str> = Vec::new();
    for list in shapes.into_iter().flat_map(|shape| &shape.lists) {
        if !names.contains(&&*list.name) {
            names.push(&list.name);
        }
    }
    let names = match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    invalid(format!("give at least one key in {names}"))
}
