//! What must hold of the upstream's answer.
//!
//! The first line is the status and the body of the lookup that is asked, the rest is the answer to it. It is a success
//! exactly where a second reading takes it for one, and then:
//! - each record is the upstream's text, in its order, and none is given twice;
//! - a key has exactly the records whose own fields carry it; only a key that was asked alone, and that no record carries,
//!   has what came;
//! - where a record came that nobody asked for, nothing is said to be absent; a kind is said to be answered for itself
//!   only where a record is there that no other kind explains;
//! - the envelope is what callers can read, with the upstream's own code and words.

use std::collections::HashMap;

use http::StatusCode;
use serde_json::value::RawValue;

use super::{
    json::{self, Tree},
    request::integer,
    shapes,
};
use crate::{
    key::{Id, Kind, Scope, Value},
    request::{depth, wire::decode},
    shape::{FieldPath, List, Shape, ValueType},
    upstream::{
        Spelling, is_throttled, page,
        verdict::{Ask, Success},
        wire::{self, Meaning},
    },
};

/// Deeper than anything that matters here.
const LEVELS: usize = 600;

/// What a second reading makes of an envelope.
struct Envelope<'a> {
    members: Vec<(String, &'a RawValue)>,
    data: Vec<&'a RawValue>,
}

/// A record, and what its own fields carry.
struct Carrying<'a> {
    text: &'a str,
    ids: Vec<Id>,
    identity: Option<Id>,
}

/// Reads bytes as a question and the answer to it.
pub fn upstream(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (question, answer) = (&data[..line], data.get(line + 1..).unwrap_or_default());
    let space = question.iter().position(|byte| *byte == b' ').unwrap_or(question.len());
    let status = StatusCode::from_bytes(&question[..space]).unwrap_or(StatusCode::OK);
    for (shape, max) in shapes::all() {
        let ask = match decode(&shape, 0, vec![], max, &question[space..]) {
            Ok(lookup) => Ask::new(lookup.scope, lookup.ids),
            Err(_) => usual(&shape),
        };
        judge(&shape, &ask, status, answer);
    }
}

/// What is asked where the first line asks for nothing.
fn usual(shape: &Shape) -> Ask {
    let id = |(kind, list): (Kind, &List)| match list.value_type {
        ValueType::Int64 => Id { kind, value: Value::Int(1) },
        ValueType::Text => Id { kind, value: Value::Text("1".into()) },
    };
    Ask::new(Scope::new(0, vec![], "{}", "").into(), shape.kinds().map(id).collect())
}

fn judge(shape: &Shape, ask: &Ask, status: StatusCode, answer: &[u8]) {
    let meaning = wire::read(shape, ask, status, answer);
    assert_eq!(is_throttled(status, answer), matches!(meaning, Meaning::Throttled));
    assert_eq!(wire::carried(shape, status, answer).is_some(), matches!(meaning, Meaning::Success(_)));
    let _ids = page::read(&shape.lists[0], status, answer);
    let _spelling = Spelling::of(answer);
    if let Meaning::Success(success) = &meaning {
        success.records.iter().for_each(|record| assert!(is_within(&record.json, answer), "a record is verbatim"));
    }
    // Beside the members that count there may be what is no text; then only what is given out is looked at.
    if std::str::from_utf8(answer).is_err() {
        return;
    }
    let is_too_deep = depth::is_deeper_than(answer, depth::MAX_ANSWER_DEPTH);
    let envelope = Envelope::of(answer).filter(|envelope| envelope.is_success(status) && !is_too_deep);
    let records = envelope.as_ref().and_then(|envelope| {
        let records = envelope.data.iter().map(|json| Carrying::of(shape, json));
        records.collect::<Option<Vec<_>>>()
    });
    match (meaning, envelope, records) {
        (Meaning::Success(success), Some(envelope), Some(records)) => {
            envelope.is_told(&success);
            attribution(shape, &ask.ids, records, &success);
        }
        (Meaning::Success(_), ..) => panic!("a success out of nothing"),
        (meaning, Some(_), Some(_)) => panic!("a success was taken for {meaning:?}"),
        _ => {}
    }
}

fn is_within(part: &[u8], whole: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

impl<'a> Envelope<'a> {
    fn of(answer: &'a [u8]) -> Option<Self> {
        let members = json::members(answer)?;
        let known = |name: &str| members.iter().filter(|(given, _)| given == name).count();
        if ["code", "errorCode", "msg", "data"].into_iter().any(|name| known(name) > 1) {
            return None;
        }
        let data = members.iter().find(|(name, json)| name == "data" && json.get() != "null");
        let data = data.map_or(Some(Vec::new()), |(_, json)| json::elements(json))?;
        data.iter().all(|json| json.get().starts_with('{')).then_some(Self { members, data })
    }

    /// A member's text: a string's content, or anything else as it stands.
    fn text(&self, name: &str) -> String {
        let Some((_, json)) = self.members.iter().find(|(given, _)| given == name) else { return String::new() };
        match Tree::of(json, LEVELS) {
            Tree::Text(text) => text,
            Tree::Null => String::new(),
            Tree::Unfit if json.get().starts_with('"') => String::new(),
            _ => json.get().to_owned(),
        }
    }

    fn is_success(&self, status: StatusCode) -> bool {
        let (code, error) = (self.text("code"), self.text("errorCode"));
        if matches!(status.as_u16(), 408 | 429 | 500..=599) {
            return false;
        }
        if !self.data.is_empty() {
            return true;
        }
        let is_refusal = self.text("msg").contains("操作频繁");
        status.is_success() && code == "200" && ["", "SUCCESS", "0", "200"].contains(&&*error) && !is_refusal
    }

    /// Callers get an envelope of their own, with the same words.
    fn is_told(&self, success: &Success) {
        let whole = [&success.envelope[..], b"]}"].concat();
        let told = json::members(&whole).expect("an object");
        let (data, words) = told.split_last().expect("this holds because `data` is always there");
        assert_eq!((&*data.0, data.1.get()), ("data", "[]"));
        let mut kept: Vec<_> = ["code", "errorCode", "msg"].into_iter().collect();
        kept.retain(|name| self.members.iter().any(|(given, _)| given == name));
        assert_eq!(words.len(), kept.len());
        for ((name, json), kept) in words.iter().zip(kept) {
            let before = self.members.iter().find(|(given, _)| given == kept).map(|(_, json)| json.get());
            assert_eq!((&**name, Some(json.get())), (kept, before));
        }
    }
}

impl<'a> Carrying<'a> {
    fn of(shape: &Shape, json: &'a RawValue) -> Option<Self> {
        let ids = carried(shape, json)?;
        let identity = ids.iter().find(|id| shape.list(id.kind).unique).cloned();
        Some(Self { text: json.get(), ids, identity })
    }
}

/// The distinct ids that an object's own fields carry; nothing where it is none.
pub(super) fn carried(shape: &Shape, json: &RawValue) -> Option<Vec<Id>> {
    let members = json::members(json.get().as_bytes())?;
    let mut ids: Vec<Id> = Vec::new();
    for (kind, list) in shape.kinds() {
        let places = list.record.iter().flat_map(|path| match path {
            FieldPath::Member(name) => last(&members, name).into_iter().collect(),
            FieldPath::EachMember { list, member } => {
                let objects = last(&members, list).and_then(json::elements).unwrap_or_default();
                objects.into_iter().filter_map(|json| member_of(json, member)).collect::<Vec<_>>()
            }
        });
        for value in places.filter_map(|json| value(list.value_type, json)) {
            let id = Id { kind, value };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Some(ids)
}

fn member_of<'a>(json: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    last(&json::members(json.get().as_bytes())?, name)
}

/// Of a name that is given twice the last one counts, as nearly everywhere.
fn last<'a>(members: &[(String, &'a RawValue)], name: &str) -> Option<&'a RawValue> {
    members.iter().rfind(|(given, _)| given == name).map(|(_, json)| *json)
}

fn value(value_type: ValueType, json: &RawValue) -> Option<Value> {
    let (Tree::Text(text) | Tree::Number(text)) = Tree::of(json, 0) else { return None };
    match value_type {
        ValueType::Int64 => integer(text.trim()).map(Value::Int),
        ValueType::Text => (!text.trim().is_empty()).then(|| Value::Text(text.into())),
    }
}

fn attribution(shape: &Shape, asked: &[Id], records: Vec<Carrying<'_>>, success: &Success) {
    let mut seen: HashMap<Id, Vec<&str>> = HashMap::new();
    let (mut matched, mut strangers) = (Vec::new(), Vec::new());
    for record in records {
        let mut is_first = true;
        if let Some(identity) = &record.identity {
            let before = seen.entry(identity.clone()).or_default();
            if before.contains(&record.text) {
                continue;
            }
            is_first = before.is_empty();
            before.push(record.text);
        }
        let is_asked = record.ids.iter().any(|id| asked.contains(id));
        if is_asked { &mut matched } else { &mut strangers }.push((record, is_first));
    }
    let is_guess = matched.is_empty() && asked.len() == 1;
    assert_eq!(success.unmatched, !strangers.is_empty() && !is_guess, "a stranger is told of");
    exclusive(shape, asked, &matched, success);
    let given = if is_guess { &strangers } else { &matched };
    assert_eq!(success.records.len(), given.len(), "no record too many or too few");
    for (found, (record, is_first)) in success.records.iter().zip(given) {
        assert_eq!(&*found.json, record.text.as_bytes());
        assert_eq!(found.carried, record.ids.len());
        assert!(found.ids.starts_with(&record.ids) && found.ids[found.carried..] == asked[..usize::from(is_guess)]);
        let identity = found.identity.map(|position| &found.ids[position]);
        assert_eq!(identity, record.identity.as_ref().filter(|_| *is_first));
    }
    assert_eq!(success.of.len(), asked.len());
    for (id, of) in asked.iter().zip(&success.of) {
        let places = given.iter().enumerate().filter(|(_, (record, _))| is_guess || record.ids.contains(id));
        assert_eq!(*of, places.map(|(place, _)| place).collect::<Vec<_>>(), "a key has what carries it");
    }
}

/// A kind is answered for itself where a record carries a key of it, none of another kind, and nothing that another
/// kind's key without a record might be another spelling of.
fn exclusive(shape: &Shape, asked: &[Id], matched: &[(Carrying<'_>, bool)], success: &Success) {
    let is_found = |id: &Id| matched.iter().any(|(record, _)| record.ids.contains(id));
    let is_open = |kind: Kind| {
        let is_text = shape.list(kind).value_type == ValueType::Text;
        is_text && asked.iter().any(|id| id.kind == kind && !is_found(id))
    };
    for (kind, _) in shape.kinds() {
        let shows = |record: &Carrying<'_>| {
            let mut others = record.ids.iter().filter(|id| id.kind != kind);
            record.ids.iter().any(|id| id.kind == kind && asked.contains(id))
                && others.all(|id| !asked.contains(id) && !is_open(id.kind))
        };
        let is_shown = matched.iter().any(|(record, _)| shows(record));
        assert_eq!(success.exclusive[kind.index()], is_shown, "the evidence for a kind");
    }
}
