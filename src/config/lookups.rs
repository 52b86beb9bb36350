//! The `[[lookup]]` sections: each path with its shape, its limits and its queue.
//!
//! Invariants:
//! - There is at least one lookup; a file without any means the customer-detail call.
//! - No request belongs to two lookups, however its path is spelled.
//! - A path that is not built in spells out its lists; `[[lookup.key]]` on a built-in path takes the place of its lists.

use std::time::Duration;

use super::{
    Lookup,
    reader::Section,
    sections::{AT_LEAST_ONE, TIMEOUT, WAIT},
    url,
    value::{Read, choice, count, duration, flag, string},
};
use crate::{
    dispatch::{self, LimitPer, MixedLists, Share},
    lookup,
    shape::{AUDIENCE_DETAIL, FieldPath, List, Shape, ValueType},
    upstream::{self, Kind},
};

/// A lookup's number and a list's kind are one byte each.
const MOST_IN_ONE_BYTE: usize = 255;

/// What a path waits between requests if its own limit is not documented: the slowest that is.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(1);

/// Requests under way at once to another gateway, which holds each until it is answered: as many as one pod's callers may
/// well have, and few beside the 10,000 connections of that one.
const RELAYED: usize = 64;

/// Every lookup of the file.
pub(super) fn lookups(root: &mut Section<'_>, upstream: &upstream::Config) -> Vec<Lookup> {
    let base_path = upstream.base_url.path();
    let mut spellings: Vec<(String, [String; 2])> = Vec::new();
    let mut positions = 0..=u8::MAX;
    let lookups = root.sections("lookup", 1, |section| {
        // One beyond the last is refused below.
        let lookup = lookup(section, positions.next().unwrap_or(u8::MAX), upstream.kind);
        if section.is_sound("path") {
            let own = spellings_of(&lookup.shape.path, base_path);
            match spellings.iter().find(|(_, taken)| taken.iter().any(|spelling| own.contains(spelling))) {
                Some((other, _)) => {
                    let sentence = format!("answers the same requests as {other}");
                    section.problem("path", sentence);
                }
                None => spellings.push((section.name("path"), own)),
            }
        }
        lookup
    });
    if lookups.is_empty() && root.is_sound("lookup") {
        root.problem("lookup", "must have an element; leave it out for the customer-detail call");
    }
    if lookups.len() > MOST_IN_ONE_BYTE {
        root.problem("lookup", format!("must have at most {MOST_IN_ONE_BYTE} elements"));
    }
    lookups
}

/// The two ways in which a caller may write a path, with and without the base path, letter case aside.
fn spellings_of(path: &str, base_path: &str) -> [String; 2] {
    let long = format!("{}{path}", base_path.trim_end_matches('/'));
    [path.to_ascii_lowercase(), long.to_ascii_lowercase()]
}

/// Whether a path, in whatever letter case and with or without the base path, is a lookup's.
pub(super) fn is_lookup(path: &str, lookups: &[Lookup], base_path: &str) -> bool {
    let own = spellings_of(path, base_path);
    lookups.iter().any(|lookup| spellings_of(&lookup.shape.path, base_path).iter().any(|taken| own.contains(taken)))
}

fn lookup(section: &mut Section<'_>, position: u8, kind: Kind) -> Lookup {
    let path = section.take("path", AUDIENCE_DETAIL.to_owned(), string(url::path));
    let built_in = Shape::built_in(&path);
    // Another gateway keeps the pace and waits for company; it answers several lists with the customers of each.
    let relays = kind == Kind::Gateway;
    let paced = built_in.as_ref().map_or(UNKNOWN_INTERVAL, |(_, interval)| *interval);
    let (interval, intervals) = if relays { (Duration::ZERO, WAIT) } else { (paced, TIMEOUT) };
    let linger = if relays { Duration::ZERO } else { Duration::from_millis(5) };
    let mixed = if relays { MixedLists::Union } else { MixedLists::Auto };
    let lists = section.sections("key", 0, list);
    check_lists(section, &lists, built_in.is_some());
    let shape = match built_in {
        Some((shape, _)) if lists.is_empty() => shape,
        _ => Shape { path, lists: lists.into_iter().flatten().collect() },
    };
    let mixed_lists = [MixedLists::Auto, MixedLists::Union, MixedLists::Never].map(|lists| (lists.as_str(), lists));
    let limit_per = [LimitPer::Gateway, LimitPer::Credential].map(|per| (per.as_str(), per));
    let dispatch = dispatch::Config {
        kind,
        lookup: position,
        interval: section.take("interval", interval, duration(intervals)),
        max_batch_keys: section.take("max_batch_keys", 100, count(AT_LEAST_ONE)),
        max_pending_keys: section.take("max_pending_keys", 10_000, count(AT_LEAST_ONE)),
        max_in_flight: section.take("max_in_flight", if relays { RELAYED } else { 4 }, count(AT_LEAST_ONE)),
        linger: section.take("linger", linger, duration(WAIT)),
        mixed_lists: section.take("mixed_lists", mixed, choice(&mixed_lists)),
        limit_per: section.take("limit_per", LimitPer::Gateway, choice(&limit_per)),
        idle_refresh: Share::NONE,
        warmup: Share::NONE,
        warmup_bytes: 0,
    };
    let lookup = lookup::Config {
        max_keys_per_request: section.take("max_keys_per_request", 1000, count(AT_LEAST_ONE)),
        timeout: section.take("timeout", Duration::from_secs(30), duration(TIMEOUT)),
    };
    if dispatch.linger >= lookup.timeout && section.is_sound("linger") && section.is_sound("timeout") {
        let timeout = section.name("timeout");
        section.problem("linger", format!("must be shorter than {timeout}, or nobody waits long enough"));
    }
    Lookup { shape, lookup, dispatch }
}

fn check_lists(section: &mut Section<'_>, lists: &[Option<List>], built_in: bool) {
    if lists.len() > MOST_IN_ONE_BYTE {
        section.problem("key", format!("must have at most {MOST_IN_ONE_BYTE} elements"));
    }
    if lists.is_empty() && !built_in && section.is_sound("path") && section.is_sound("key") {
        let sentence = "has no built-in shape: say with [[lookup.key]] which lists it takes";
        section.problem("path", sentence);
    }
    for (index, list) in lists.iter().enumerate() {
        let name = list.as_ref().map(|list| &list.name);
        let first = lists[..index].iter().position(|other| name.is_some() && other.as_ref().map(|l| &l.name) == name);
        if let Some(first) = first {
            let other = section.name(&format!("key[{first}].list"));
            section.problem(&format!("key[{index}].list"), format!("names the same list as {other}"));
        }
    }
}

/// One `[[lookup.key]]`; nothing if it cannot be told what it means, which is a problem already.
fn list(section: &mut Section<'_>) -> Option<List> {
    let types = [ValueType::Int64, ValueType::Text].map(|value_type| (value_type.as_str(), value_type));
    let name = section.required("list", string(|name| Ok(name.to_owned())));
    let value_type = section.take("type", ValueType::Text, choice(&types));
    let record = section.list("record", &[], string(field_path));
    let unique = section.take("unique", false, flag);
    if record.is_empty() && section.is_sound("record") {
        section.problem("record", "is required: where does a record carry the key?");
    }
    let kind = match record.first()? {
        FieldPath::Member(member) | FieldPath::EachMember { member, .. } => member.clone(),
    };
    Some(List { name: name?, kind, value_type, record, unique })
}

fn field_path(text: &str) -> Read<FieldPath> {
    // The shape's own sentence is made for an answer to a caller; here it follows a key.
    FieldPath::parse(text).or(Err("must be a record path: `field` or `list[].field`".to_owned()))
}
