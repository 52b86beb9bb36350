//! What must hold of a caller's body.
//!
//! - It is taken exactly where a second reading takes it, for the same keys in the same order and the same scope; so is a
//!   purge with the same bytes.
//! - What it means does not depend on how it is spelled: with other whitespace, escapes, order of fields, and spellings of
//!   its keys it is the same lookup.
//! - What goes upstream for it asks for the same keys in the same scope, and nothing that is made of it is longer than it is.
//! - Two bodies, with `===` on a line between them, share a scope exactly where their fields mean the same.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::value::RawValue;

use super::{
    json::{self, Tree},
    shapes,
};
use crate::{
    key::{Id, Kind, Value},
    request::{
        canonical::{MAX_DEPTH, MAX_FIELDS},
        purge::{self, Purge},
        wire::{self, Decoded},
    },
    shape::{List, Shape, ValueType},
    upstream::{verdict::Ask, wire::request_body},
};

/// What a body means.
struct Meaning {
    ids: Vec<Id>,
    /// The fields that are no lists, in their one form.
    fields: Tree,
    /// The same, as they are written.
    written: Vec<(String, String)>,
}

/// Reads bytes as a body, or as two. Those that are longer than fields may be have a limit of their own.
pub fn request(data: &[u8]) {
    if data.len() > MAX_FIELDS {
        return;
    }
    let parts = data.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
    let (one, other) = parts.map_or((data, None), |at| (&data[..at], Some(&data[at + SEPARATOR.len()..])));
    for (shape, max) in shapes::all() {
        let first = lookup(&shape, max, one);
        let second = other.and_then(|other| lookup(&shape, max, other));
        if let (Some((first, meant)), Some((second, also_meant))) = (first, second) {
            assert_eq!(first.scope == second.scope, meant.fields == also_meant.fields, "fields decide the scope");
        }
    }
    purge(one);
}

/// Between two bodies: it stands in no JSON.
const SEPARATOR: &[u8] = b"\n===\n";

fn lookup(shape: &Shape, max: usize, body: &[u8]) -> Option<(Decoded, Meaning)> {
    let decoded = wire::decode(shape, 0, vec![], max, body);
    let meaning = meaning(shape, max, body);
    assert_eq!(decoded.is_ok(), meaning.is_some(), "{:?}", decoded.err());
    let (decoded, meaning) = (decoded.ok()?, meaning?);
    assert!(decoded.ids == meaning.ids, "the keys");
    assert_eq!(*decoded.scope.fields, meaning.fields.plain(), "the scope in its one form");
    assert!(decoded.scope.fields.len() <= body.len() && decoded.scope.sent.len() <= body.len());
    let sent = format!("{{{}}}", decoded.scope.sent);
    let sent = json::members(sent.as_bytes()).expect("an object");
    let sent: Vec<_> = sent.into_iter().map(|(name, json)| (name, json.get().to_owned())).collect();
    assert_eq!(sent, meaning.written, "the scope as it is sent");

    let ask = Ask::new(decoded.scope.clone(), decoded.ids.clone());
    is_same(&decoded, shape, max, &request_body(shape, &ask));
    let respelled = respelled(shape, &meaning, &mut Rng::with_seed(seed(body)));
    if respelled.len() <= MAX_FIELDS {
        is_same(&decoded, shape, max, respelled.as_bytes());
    }
    Some((decoded, meaning))
}

fn is_same(decoded: &Decoded, shape: &Shape, max: usize, body: &[u8]) {
    let again = wire::decode(shape, 0, vec![], max, body);
    let again = again.unwrap_or_else(|refusal| panic!("{refusal:?}: {}", body.escape_ascii()));
    assert!(again.ids == decoded.ids, "the keys of {}", body.escape_ascii());
    assert!(again.scope == decoded.scope, "the scope of {}", body.escape_ascii());
}

/// The bytes decide what is made of them, so that a finding is found again.
fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn meaning(shape: &Shape, max: usize, body: &[u8]) -> Option<Meaning> {
    let mut lists: Vec<Vec<Value>> = vec![Vec::new(); shape.lists.len()];
    let mut fields = Vec::new();
    for (name, json) in members(body)? {
        match shape.lists.iter().position(|list| list.name == name) {
            Some(place) => lists[place] = values(&shape.lists[place], json)?,
            None => fields.push((name, json)),
        }
    }
    let mut written = fields.clone();
    written.retain(|(_, json)| json.get() != "null");
    let written = written.into_iter().map(|(name, json)| (name, json.get().to_owned())).collect();
    let ids = ids(lists);
    (1..=max).contains(&ids.len()).then_some(Meaning { ids, fields: normal(fields)?, written })
}

/// The members of an object in which no name is given twice.
fn members(body: &[u8]) -> Option<Vec<(String, &RawValue)>> {
    let members = json::members(body)?;
    let names: BTreeSet<_> = members.iter().map(|(name, _)| name).collect();
    (names.len() == members.len()).then_some(members)
}

fn ids(lists: Vec<Vec<Value>>) -> Vec<Id> {
    let of_kind = |(kind, values): (Kind, Vec<Value>)| values.into_iter().map(move |value| Id { kind, value });
    (0..).map(Kind).zip(lists).flat_map(of_kind).collect()
}

/// Fields in their one form, without those that count as absent.
fn normal(fields: Vec<(String, &RawValue)>) -> Option<Tree> {
    let fields = fields.into_iter().map(|(name, json)| (name, Tree::of(json, MAX_DEPTH))).collect();
    let Tree::Object(mut fields) = Tree::Object(fields).normal()? else { return None };
    fields.retain(|(_, value)| *value != Tree::Null);
    Some(Tree::Object(fields))
}

/// The distinct keys of a list; nothing where it holds something else.
fn values(list: &List, json: &RawValue) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    let members = match Tree::of(json, 1) {
        Tree::Null => Vec::new(),
        Tree::List(members) => members,
        _ => return None,
    };
    for member in members {
        let value = match (list.value_type, member) {
            (_, Tree::Null) => continue,
            (_, Tree::Text(text)) if text.trim().is_empty() => continue,
            (ValueType::Int64, Tree::Text(text) | Tree::Number(text)) => Value::Int(integer(text.trim())?),
            (ValueType::Text, Tree::Text(text)) => Value::Text(text.into()),
            _ => return None,
        };
        if !values.contains(&value) {
            values.push(value);
        }
    }
    Some(values)
}

/// Digits, and a sign only where it is a minus.
pub(super) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let size: i128 = if digits.is_empty() { 0 } else { digits.get(..digits.len().min(20))?.parse().ok()? };
    i64::try_from(if text.starts_with('-') { -size } else { size }).ok()
}

/// Another body of the same meaning.
fn respelled(shape: &Shape, meaning: &Meaning, random: &mut Rng) -> String {
    let Tree::Object(fields) = &meaning.fields else { unreachable!("fields are an object") };
    let mut members: Vec<String> = Vec::new();
    for (name, value) in fields {
        members.push(format!("{}:{}", json::respelled(name, random), value.respelled(random)));
    }
    for (kind, list) in shape.kinds() {
        let mut keys: Vec<String> = Vec::new();
        for id in meaning.ids.iter().filter(|id| id.kind == kind) {
            let spelling = key(&id.value, random);
            keys.extend(std::iter::repeat_n(spelling, random.usize(1..3)));
            keys.extend(
                random.choice(["null", "\"\"", "\" \\t\"", ""]).filter(|odd| !odd.is_empty()).map(str::to_owned),
            );
        }
        if !keys.is_empty() || random.bool() {
            members.push(format!("{}:[{}]", json::respelled(&list.name, random), keys.join(",")));
        }
    }
    if !fields.iter().any(|(name, _)| name == "absent") {
        members.push("\"absent\":null".to_owned());
    }
    random.shuffle(&mut members);
    format!("{{{}}}", members.join(","))
}

fn key(value: &Value, random: &mut Rng) -> String {
    match value {
        Value::Text(text) => json::respelled(text, random),
        Value::Int(number) if random.bool() => number.to_string(),
        Value::Int(number) => {
            let digits = number.unsigned_abs();
            let sign = if *number < 0 { "-" } else { "" };
            let zeros = random.choice(["", "0", "000"]).unwrap_or_default();
            json::respelled(&format!("{}{sign}{zeros}{digits}{}", json::space(random), json::space(random)), random)
        }
    }
}

/// The same bytes as a purge.
fn purge(body: &[u8]) {
    let shapes = shapes::all();
    let paths: Vec<_> = shapes.iter().map(|(shape, max)| (shape, *max)).collect();
    let decoded = purge::decode(&paths, body);
    let meaning = purged(&paths, body);
    assert_eq!(decoded.is_ok(), meaning.is_some(), "{:?}", decoded.as_ref().err());
    if let (Ok(decoded), Some(meaning)) = (decoded, meaning) {
        assert!(decoded == meaning, "what is purged");
    }
}

fn purged(paths: &[(&Shape, usize)], body: &[u8]) -> Option<Purge> {
    let mut all = false;
    let mut fields = Vec::new();
    let mut lists: Vec<_> = paths.iter().map(|(shape, _)| vec![Vec::new(); shape.lists.len()]).collect();
    for (name, json) in members(body)? {
        if name == "all" && matches!(json.get(), "true" | "false") {
            all = json.get() == "true";
            fields.push((name, json));
            continue;
        }
        let mut is_list = false;
        for ((shape, _), lists) in paths.iter().zip(&mut lists) {
            let Some(place) = shape.lists.iter().position(|list| list.name == name) else { continue };
            is_list = true;
            lists[place] = values(&shape.lists[place], json)?;
        }
        if !is_list {
            fields.push((name, json));
        }
    }
    normal(fields)?;
    let keys: Vec<_> = lists.into_iter().map(ids).collect();
    if keys.iter().zip(paths).any(|(keys, (_, max))| keys.len() > *max) {
        return None;
    }
    if all {
        return Some(Purge::All);
    }
    keys.iter().any(|keys| !keys.is_empty()).then_some(Purge::Keys(keys))
}
