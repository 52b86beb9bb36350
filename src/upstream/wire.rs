//! The upstream's JSON: the body of a request, and which record belongs to which key.
//!
//! Attribution goes by the records' own fields, never by position:
//! - a record belongs to every asked key whose value one of its fields carries; a number and a string of the same
//!   digits are one id;
//! - a record that no asked key explains is given to nobody; the keys without a record are then asked again, each in a
//!   request of its own ([`Success::unmatched`](super::verdict::Success));
//! - in a request of one key there is nothing to guess: where no record carries the key, what came is its answer.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Duration,
};

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    envelope::{self, Reading},
    verdict::{Ask, Found, Success},
};
use crate::{
    key::{Id, Kind, Value},
    shape::{FieldPath, List, Shape, ValueType},
};

/// What one HTTP answer means.
#[derive(Debug)]
pub enum Meaning {
    /// Answered, and attributed.
    Success(Success),
    /// Asked too often.
    Throttled,
    /// The credential is not taken.
    Unauthorized,
    /// Refused for what it asks.
    Rejected,
    /// A server's failure, and which.
    Unavailable(&'static str),
    /// It cannot be understood, and why.
    Invalid(&'static str),
}

/// The body of the request that asks for these keys.
#[must_use]
pub fn request_body(shape: &Shape, ask: &Ask) -> Vec<u8> {
    let mut body = String::with_capacity(64 + ask.scope.sent.len() + ask.ids.len() * 24);
    body.push('{');
    body.push_str(&ask.scope.sent);
    for (kind, list) in shape.kinds() {
        let mut members = ask.ids.iter().filter(|id| id.kind == kind).peekable();
        if members.peek().is_none() {
            continue;
        }
        if body.len() > 1 {
            body.push(',');
        }
        body.push_str(&json_string(&list.name));
        body.push_str(":[");
        for (position, id) in members.enumerate() {
            if position > 0 {
                body.push(',');
            }
            match &id.value {
                Value::Int(number) => body.push_str(&number.to_string()),
                Value::Text(text) => body.push_str(&json_string(text)),
            }
        }
        body.push(']');
    }
    body.push('}');
    body.into_bytes()
}

/// Judges an answer, and attributes its records to the keys that were asked.
#[must_use]
pub fn read(shape: &Shape, ask: &Ask, status: StatusCode, body: &[u8]) -> Meaning {
    match envelope::read(status, body) {
        Reading::Success(head, records) => attribute(shape, &ask.ids, &records)
            .map_or(Meaning::Invalid("a record is no JSON object"), |success| {
                Meaning::Success(Success { envelope: head, ..success })
            }),
        Reading::Throttled => Meaning::Throttled,
        Reading::Unauthorized => Meaning::Unauthorized,
        Reading::Rejected => Meaning::Rejected,
        Reading::Unavailable(reason) => Meaning::Unavailable(reason),
        Reading::Invalid(reason) => Meaning::Invalid(reason),
    }
}

/// The ids that one record of an answer carries, whether or not they were asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Carried {
    /// Every id that one of its fields carries.
    pub ids: Vec<Id>,
    /// Position in `ids` of the one that names this customer and no other.
    pub identity: Option<usize>,
}

impl Carried {
    /// Whether both are of one customer: by the id that names it, else by all that they carry.
    #[must_use]
    pub fn same_customer(&self, other: &Self) -> bool {
        let identity = |carried: &Self| carried.identity.map(|position| carried.ids[position].clone());
        match (identity(self), identity(other)) {
            (Some(one), Some(two)) => one == two,
            _ => self.ids == other.ids,
        }
    }
}

/// What every record of a success carries, in the order in which they came; nothing where the answer is no success.
#[must_use]
pub fn carried(shape: &Shape, status: StatusCode, body: &[u8]) -> Option<Vec<Carried>> {
    let Reading::Success(_, records) = envelope::read(status, body) else { return None };
    let carried = |json: &&RawValue| ids_of(shape, json).map(|(ids, identity)| Carried { ids, identity });
    records.iter().map(carried).collect()
}

/// The ids that an object of a lookup's shape carries: an item of a write, or an event; nothing where it is no object.
#[must_use]
pub fn carried_by(shape: &Shape, json: &RawValue) -> Option<Vec<Id>> {
    ids_of(shape, json).map(|(ids, _)| ids)
}

fn attribute(shape: &Shape, asked: &[Id], data: &[&RawValue]) -> Option<Success> {
    let positions: HashMap<&Id, usize> = asked.iter().enumerate().map(|(position, id)| (id, position)).collect();
    let mut success = Success {
        age: Duration::ZERO,
        envelope: Default::default(),
        records: Vec::with_capacity(data.len()),
        of: vec![Vec::new(); asked.len()],
        unmatched: false,
        exclusive: Vec::new(),
    };
    // Every text that came under the id that names a customer.
    let mut seen: HashMap<Id, HashSet<&str>> = HashMap::new();
    let mut strangers = Vec::new();
    for json in data {
        let (ids, mut identity) = ids_of(shape, json)?;
        if let Some(position) = identity {
            let texts = seen.entry(ids[position].clone()).or_default();
            if !texts.insert(json.get()) {
                // The same customer once more, because two keys reach it.
                continue;
            }
            if texts.len() > 1 {
                // Something else under the same id: kept, but not as a version of that customer.
                identity = None;
            }
        }
        let matched: Vec<usize> = ids.iter().filter_map(|id| positions.get(id).copied()).collect();
        let carried = ids.len();
        let record = Found { json: json.get().as_bytes().into(), ids, carried, identity };
        if matched.is_empty() {
            strangers.push(record);
            continue;
        }
        for position in matched {
            success.of[position].push(success.records.len());
        }
        success.records.push(record);
    }
    success.exclusive = exclusive(shape, asked, &success);
    if let ([only], true) = (asked, success.records.is_empty()) {
        for mut record in strangers {
            record.ids.push(only.clone());
            success.of[0].push(success.records.len());
            success.records.push(record);
        }
    } else {
        success.unmatched = !strangers.is_empty();
    }
    Some(success)
}

/// For each kind, whether a record came that only a key of this kind explains.
///
/// A record that carries a text of another kind that was asked for might be explained by that too, spelled in another
/// way. It counts only where every key of that kind was found as it is spelled, so that none is left to be explained.
fn exclusive(shape: &Shape, asked: &[Id], success: &Success) -> Vec<bool> {
    let open = |kind: Kind| asked.iter().zip(&success.of).any(|(id, of)| id.kind == kind && of.is_empty());
    let open: Vec<bool> = shape.kinds().map(|(kind, list)| list.value_type == ValueType::Text && open(kind)).collect();
    let mut explained: Vec<Vec<Kind>> = vec![Vec::new(); success.records.len()];
    for (id, of) in asked.iter().zip(&success.of) {
        of.iter().for_each(|&record| explained[record].push(id.kind));
    }
    let alone = explained.iter().zip(&success.records).filter_map(|(kinds, record)| {
        let kind = *kinds.first()?;
        let only = kinds.iter().all(|other| *other == kind);
        let respelled = record.ids.iter().any(|id| id.kind != kind && open[id.kind.index()]);
        (only && !respelled).then_some(kind)
    });
    let mut exclusive = vec![false; shape.lists.len()];
    alone.for_each(|kind| exclusive[kind.index()] = true);
    exclusive
}

/// The ids that a record's own fields carry, and the position of the one that identifies its customer.
fn ids_of(shape: &Shape, json: &RawValue) -> Option<(Vec<Id>, Option<usize>)> {
    #[derive(Deserialize)]
    struct Members<'a>(#[serde(borrow)] HashMap<Cow<'a, str>, &'a RawValue>);
    let Members(members) = serde_json::from_str(json.get()).ok()?;
    let mut ids: Vec<Id> = Vec::new();
    // Not a search of `ids`: a caller's write may carry as many as fit into its body.
    let mut known = HashSet::new();
    let mut identity = None;
    for (kind, list) in shape.kinds() {
        for value in values_of(list, &members) {
            let id = Id { kind, value };
            if known.insert(id.clone()) {
                if list.unique && identity.is_none() {
                    identity = Some(ids.len());
                }
                ids.push(id);
            }
        }
    }
    Some((ids, identity))
}

fn values_of(list: &List, members: &HashMap<Cow<'_, str>, &RawValue>) -> Vec<Value> {
    let mut values = Vec::new();
    for path in &list.record {
        match path {
            FieldPath::Member(name) => {
                values.extend(members.get(name.as_str()).and_then(|raw| value(list.value_type, raw)));
            }
            FieldPath::EachMember { list: name, member } => {
                let Some(raw) = members.get(name.as_str()) else { continue };
                let Ok(objects) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else { continue };
                for object in objects {
                    let Ok(object) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(object.get()) else {
                        continue;
                    };
                    values.extend(object.get(member.as_str()).and_then(|raw| value(list.value_type, raw)));
                }
            }
        }
    }
    values
}

/// A field's value in its canonical form; nothing for null, an empty string, or what cannot be a value of this type.
pub(super) fn value(value_type: ValueType, raw: &RawValue) -> Option<Value> {
    let raw = raw.get();
    let text: Cow<'_, str> = match raw.as_bytes().first()? {
        b'"' => Cow::Owned(serde_json::from_str(raw).ok()?),
        b'-' | b'0'..=b'9' => Cow::Borrowed(raw),
        _ => return None,
    };
    value_type.read(&text)
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("this holds because a string always serialises")
}

#[cfg(test)]
mod tests;
