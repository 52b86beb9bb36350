//! What the user wrote becomes a [`Probe`], or a line for each thing that is wrong with it.
//!
//! Invariant: no line quotes a key, a token or a body field, nor anything that may be one written in the wrong place.

use std::{fmt::Display, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::{MAX_KEYS, Probe, Target, discretion::Discretion};
use crate::{
    key::{Credential, Id, Kind, Scope, Value},
    shape::{List, Shape, ValueType},
    upstream::credentials::Mode,
};

/// The header that [`Written::token_from_environment`] is for.
const TOKEN: HeaderName = HeaderName::from_static("x-token");

/// The shortest interval that makes a pace.
const LEAST: Duration = Duration::from_millis(1);

/// The arguments as they were written.
#[derive(Default)]
pub struct Written {
    /// `KIND=VALUE`, at least one.
    pub keys: Vec<String>,
    /// `HEADER=VALUE`.
    pub tokens: Vec<String>,
    /// The value of `X-Token`, where no argument gives one.
    pub token_from_environment: Option<String>,
    /// `NAME=JSON`.
    pub body_fields: Vec<String>,
    /// The shortest interval that may be tried.
    pub fastest: Option<String>,
}

/// What is wrong, a line for each.
struct Problems(Vec<String>);

impl Problems {
    /// Notes what is wrong with the argument of that position.
    fn at(&mut self, flag: &str, position: usize, sentence: impl Display) {
        self.0.push(format!("{flag} (number {}): {sentence}", position + 1));
    }
}

impl Probe {
    /// What to ask of a lookup, with the credential in some of these headers.
    ///
    /// # Errors
    /// A line for everything that is wrong.
    pub fn new(target: Target, mode: &Mode, written: &Written) -> Result<Self, Vec<String>> {
        let mut problems = Problems(Vec::new());
        let keys = keys(&target.shape, &written.keys, &mut problems);
        let credential = credential(mode.headers(), written, &mut problems);
        let fields = fields(&target.shape, &written.body_fields, &mut problems);
        let fastest = written.fastest.as_ref().and_then(|text| fastest(text, target.interval, &mut problems));
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        let secrets = secrets(&keys, &credential, &written.body_fields);
        let credential = match mode {
            Mode::Forward(_) => Credential::from(credential),
            Mode::Managed(_) => Credential::Gateway,
        };
        let scope = Arc::new(Scope::new(target.lookup, credential, fields.as_str(), fields.as_str()));
        let made_up = target.shape.kinds().map(|(kind, list)| made_up(kind, list)).collect();
        Ok(Self { target, scope, keys, made_up, fastest, discretion: Discretion::new(secrets) })
    }
}

fn keys(shape: &Shape, written: &[String], problems: &mut Problems) -> Vec<Id> {
    let mut keys: Vec<Id> = Vec::new();
    for (position, text) in written.iter().enumerate() {
        match key(shape, text) {
            Ok(id) if keys.contains(&id) => {}
            Ok(id) => keys.push(id),
            Err(sentence) => problems.at("--key", position, sentence),
        }
    }
    if written.is_empty() {
        problems.0.push("--key KIND=VALUE: at least one key that reaches a customer is needed".to_owned());
    }
    if keys.len() > MAX_KEYS {
        problems.0.push(format!("--key: at most {MAX_KEYS} keys, because each costs a request"));
    }
    keys
}

fn key(shape: &Shape, text: &str) -> Result<Id, String> {
    let (name, value) = text.split_once('=').ok_or("must be KIND=VALUE")?;
    let Some((kind, list)) = shape.kinds().find(|(_, list)| list.kind == name) else {
        let known: Vec<_> = shape.lists.iter().map(|list| list.kind.as_str()).collect();
        // A word can be quoted; anything else may be a key that stands on the wrong side.
        let is_word = name.len() <= 20 && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let quoted = if is_word { format!("`{name}`") } else { "this".to_owned() };
        return Err(format!("{quoted} is no kind of {}, which has {}", shape.path, known.join(", ")));
    };
    if value.trim().is_empty() {
        return Err(format!("{name} has no value"));
    }
    let value = list.value_type.read(value).ok_or_else(|| format!("{name} must be a 64-bit integer"))?;
    Ok(Id { kind, value })
}

fn credential(headers: &[HeaderName], written: &Written, problems: &mut Problems) -> Vec<(HeaderName, HeaderValue)> {
    let mut given: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (position, text) in written.tokens.iter().enumerate() {
        match token(headers, text) {
            Ok((name, _)) if given.iter().any(|(other, _)| *other == name) => {
                problems.at("--token", position, format!("{name} is given twice"));
            }
            Ok(pair) => given.push(pair),
            Err(sentence) => problems.at("--token", position, sentence),
        }
    }
    let missing = !given.iter().any(|(name, _)| *name == TOKEN);
    if let Some(text) = written.token_from_environment.as_ref().filter(|text| missing && !text.trim().is_empty()) {
        match token(headers, &format!("{TOKEN}={}", text.trim())) {
            Ok(pair) => given.push(pair),
            Err(sentence) => problems.0.push(format!("GATEWAY_PROBE_TOKEN: {sentence}")),
        }
    }
    // In the configured order, as the gateway sends them.
    given.sort_by_key(|(name, _)| headers.iter().position(|header| header == name));
    given
}

fn token(headers: &[HeaderName], text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("must be HEADER=VALUE")?;
    let Some(name) = headers.iter().find(|header| header.as_str().eq_ignore_ascii_case(name.trim())) else {
        let known: Vec<_> = headers.iter().map(HeaderName::as_str).collect();
        return Err(format!(
            "this is no header of upstream.credentials.forward_headers ({}), so the gateway would not send it",
            known.join(", ")
        ));
    };
    let unfit = |_unfit| format!("what {name} is given cannot stand in a header");
    let mut value = HeaderValue::from_str(value.trim()).map_err(unfit)?;
    if value.is_empty() {
        return Err(format!("{name} has no value"));
    }
    value.set_sensitive(true);
    Ok((name.clone(), value))
}

/// The body fields as the inside of an object.
fn fields(shape: &Shape, written: &[String], problems: &mut Problems) -> String {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for (position, text) in written.iter().enumerate() {
        match field(shape, text) {
            Ok((name, _)) if fields.iter().any(|(other, _)| *other == name) => {
                problems.at("--body-field", position, "this name is given twice");
            }
            Ok(field) => fields.push(field),
            Err(sentence) => problems.at("--body-field", position, sentence),
        }
    }
    let members = fields.into_iter().map(|(name, json)| format!("{}:{json}", serde_json::Value::from(name)));
    members.collect::<Vec<_>>().join(",")
}

fn field<'a>(shape: &Shape, text: &'a str) -> Result<(&'a str, &'a str), String> {
    let (name, json) = text.split_once('=').ok_or("must be NAME=JSON")?;
    if name.is_empty() {
        return Err("must be NAME=JSON".to_owned());
    }
    if let Some(list) = shape.lists.iter().find(|list| list.name == name) {
        return Err(format!("{name} is a key list: give --key {}=VALUE", list.kind));
    }
    let not_json = |_error| r#"what stands behind the `=` must be JSON, such as 31 or "31" with its quotes"#.to_owned();
    serde_json::from_str::<&RawValue>(json).map_err(not_json)?;
    Ok((name, json.trim()))
}

fn fastest(text: &str, interval: Duration, problems: &mut Problems) -> Option<Duration> {
    let sentence = match humantime::parse_duration(text) {
        Ok(fastest) if fastest < LEAST => "must be at least 1ms".to_owned(),
        Ok(fastest) if fastest < interval => return Some(fastest),
        Ok(_) => {
            let interval = humantime::format_duration(interval);
            format!("must be shorter than the configured interval of {interval}, or there is nothing to try")
        }
        Err(_) => r#"must be a duration such as "900ms""#.to_owned(),
    };
    problems.0.push(format!("--fastest: {sentence}"));
    None
}

/// What must not be shown.
fn secrets(keys: &[Id], credential: &[(HeaderName, HeaderValue)], body_fields: &[String]) -> Vec<String> {
    let keys = keys.iter().map(|id| match &id.value {
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.to_string(),
    });
    let tokens = credential.iter().filter_map(|(_, value)| value.to_str().ok().map(str::to_owned));
    let fields = body_fields.iter().filter_map(|text| Some(text.split_once('=')?.1.trim_matches('"').to_owned()));
    keys.chain(tokens).chain(fields).filter(|secret| !secret.is_empty()).collect()
}

/// A key that nobody should have, and that looks like one.
fn made_up(kind: Kind, list: &List) -> Id {
    let value = match list.value_type {
        // Generated ids of 64 bits count milliseconds in their upper part, and reach this in 2040.
        ValueType::Int64 => Value::Int(4_000_000_000_000_000_000 + fastrand::i64(0..1_000_000_000_000_000)),
        // Eleven digits are taken for a phone, and none begins with 100; elsewhere it is a text like any other.
        ValueType::Text => Value::Text(format!("100{:08}", fastrand::u32(0..100_000_000)).into()),
    };
    Id { kind, value }
}
