//! A lookup's answer: the upstream's envelope around the records of every key, each customer once.
//!
//! Invariants:
//! 1. A record's bytes are never read: nothing is reordered, renumbered or escaped anew.
//! 2. Records stand in the order in which the answers mention them first. Where two versions of one customer meet, because
//!    one was fetched between two reads of the cache, the newer stands where the older was mentioned first.
//! 3. The body's size is known before its first byte is written. A short one is written into one allocation, and so is one
//!    with packed records; any other [refers](super::chunk) to the records.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::chunk::{Chunk, Records};
use crate::{
    cache::Answer,
    clock::Instant,
    key::{Id, Value, ValueRef},
    record::Record,
    shape::Shape,
};

/// Up to so many customers are searched one by one; hashing each costs more.
const SEARCHED: usize = 128;

/// Up to so many customers need no allocation to be told apart.
const FEW: usize = 4;

/// Up to so many bytes are copied. Copying costs less than a write with several parts: one record and its envelope.
const COPIED: usize = 4 << 10;

/// Keys that are not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// Whose lists they belong to.
    pub shape: &'a Shape,
    /// The keys, in the order of the request.
    pub ids: &'a [Id],
}

/// A lookup's answer.
pub struct Encoded {
    /// The whole body.
    pub body: Chunk,
    /// When the oldest record in it was fetched, or the oldest word that there is none: what `Age` counts from.
    pub oldest: Option<Instant>,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.body.remaining())
    }
}

/// Puts answers into an envelope. `head` is the envelope up to `"data":[`; all answers are of one scope.
#[must_use]
pub fn encode<'a>(head: Bytes, answers: impl Iterator<Item = &'a Answer>, pending: Option<Pending<'_>>) -> Encoded {
    let mut oldest = None;
    let mut customers = Customers::with_capacity(answers.size_hint().1.unwrap_or_default());
    for answer in answers {
        if answer.records().is_empty() {
            oldest = earlier(oldest, answer.said_at());
        }
        answer.records().iter().for_each(|record| customers.add(record));
    }
    let records = customers.records;
    for record in &records {
        oldest = earlier(oldest, record.said_at());
    }
    let tail = match pending.filter(|pending| !pending.ids.is_empty()) {
        Some(pending) => format!("]{}}}", pending.json()).into(),
        None => Bytes::from_static(b"]}"),
    };
    let commas = records.len().saturating_sub(1);
    let json: usize = records.iter().map(|record| record.json_len()).sum();
    let length = head.len() + json + commas + tail.len();
    // What is packed has to be written out.
    if length > COPIED && !records.iter().any(|record| record.is_packed()) {
        let records = records.into_iter().cloned().collect();
        return Encoded { body: Chunk::Records(Records::new(head, records, tail)), oldest };
    }
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(&head);
    for (position, record) in records.into_iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        record.write_json(&mut body);
    }
    body.extend_from_slice(&tail);
    Encoded { body: Chunk::Bytes(body.into()), oldest }
}

fn earlier(oldest: Option<Instant>, fetched_at: Instant) -> Option<Instant> {
    Some(oldest.map_or(fetched_at, |oldest| oldest.min(fetched_at)))
}

impl Pending<'_> {
    /// `,"pending":{"phoneList":["…"]}`, with the lists that have some.
    fn json(self) -> String {
        let mut json = String::from(r#","pending":{"#);
        let mut lists = 0;
        for (kind, list) in self.shape.kinds() {
            let mut members = self.ids.iter().filter(|id| id.kind == kind).peekable();
            if members.peek().is_none() {
                continue;
            }
            json.push_str(if lists > 0 { "," } else { "" });
            lists += 1;
            json.push_str(&quoted(&list.name));
            for (position, id) in members.enumerate() {
                json.push_str(if position > 0 { "," } else { ":[" });
                match &id.value {
                    Value::Int(number) => json.push_str(&number.to_string()),
                    Value::Text(text) => json.push_str(&quoted(text)),
                }
            }
            json.push(']');
        }
        json.push('}');
        json
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("this holds because a string always serialises")
}

/// The customers met so far, in the order of their first mention.
struct Customers<'a> {
    records: SmallVec<[&'a Record; FEW]>,
    /// A number of each that all versions of a customer share, and few others.
    marks: SmallVec<[u64; FEW]>,
    /// Where each customer stands; filled once there are more than [`SEARCHED`].
    places: HashMap<Customer<'a>, usize>,
}

impl<'a> Customers<'a> {
    fn with_capacity(records: usize) -> Self {
        let (records, marks) = (SmallVec::with_capacity(records), SmallVec::with_capacity(records.min(SEARCHED)));
        Self { records, marks, places: HashMap::new() }
    }

    fn add(&mut self, record: &'a Record) {
        match self.place(record) {
            Some(place) if self.records[place].fetched_at() < record.fetched_at() => self.records[place] = record,
            Some(_) => {}
            None => self.records.push(record),
        }
    }

    /// Where its customer stands, if it was met before.
    fn place(&mut self, record: &'a Record) -> Option<usize> {
        let next = self.records.len();
        if next < SEARCHED {
            let mark = mark(record);
            let mut alike = self.marks.iter().enumerate().filter(|(_, known)| **known == mark);
            let place = alike.find(|(place, _)| self.records[*place].same_customer(record)).map(|(place, _)| place);
            if place.is_none() {
                self.marks.push(mark);
            }
            return place;
        }
        if self.places.is_empty() {
            self.places.extend(self.records.iter().enumerate().map(|(place, &known)| (Customer(known), place)));
        }
        let place = *self.places.entry(Customer(record)).or_insert(next);
        (place < next).then_some(place)
    }
}

/// See [`Customers::marks`].
fn mark(record: &Record) -> u64 {
    match record.identity().map(|identity| identity.value) {
        Some(ValueRef::Int(number)) => number as u64,
        // FNV-1a.
        Some(ValueRef::Text(text)) => text
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |mark, byte| (mark ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)),
        None => record.address() as u64,
    }
}

/// A record that is equal to every version of its customer.
struct Customer<'a>(&'a Record);

impl PartialEq for Customer<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_customer(other.0)
    }
}

impl Eq for Customer<'_> {}

impl Hash for Customer<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A record without an identity is equal to itself only.
        match self.0.identity() {
            Some(identity) => identity.hash(state),
            None => self.0.address().hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        key::{Kind, Scope},
        record::Parts,
    };

    const HEAD: Bytes = Bytes::from_static(br#"{"code":"200","data":["#);

    struct Bench {
        scope: Arc<Scope>,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { scope: Arc::new(Scope::new(0, vec![], "{}", "")), start: crate::clock::now() }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn record(&self, customer: Option<i64>, second: u64, json: &str) -> Record {
            let ids = customer.map(|number| Id { kind: Kind(0), value: Value::Int(number) });
            let identity = ids.as_ref().map(|_| 0);
            let (scope, fetched_at) = (Arc::clone(&self.scope), self.at(second));
            let ids: Vec<Id> = ids.into_iter().collect();
            Record::new(Parts { json: json.as_bytes(), scope, carried: 0, ids: &ids, identity, fetched_at })
        }

        fn answer(&self, second: u64, records: &[&Record]) -> Answer {
            let records: Vec<_> = records.iter().map(|&record| record.clone()).collect();
            Answer::new(records, self.at(second), 0)
        }
    }

    fn text(encoded: Encoded) -> String {
        let mut body = encoded.body;
        String::from_utf8(body.copy_to_bytes(body.remaining()).into()).expect("text")
    }

    fn data(answers: &[Answer]) -> String {
        let text = text(encode(HEAD, answers.iter(), None));
        let inside = text.strip_prefix(r#"{"code":"200","data":["#).and_then(|rest| rest.strip_suffix("]}"));
        inside.expect("an envelope").to_owned()
    }

    #[test]
    fn records_stand_verbatim_in_the_order_of_the_answers() {
        let bench = Bench::new();
        let one = bench.record(Some(1), 0, "{ \"n\":1.0e+3, \"s\":\"\\u4e2d\\/\" }");
        let two = bench.record(Some(2), 0, "{}");
        let answers = [bench.answer(0, &[&two, &one]), bench.answer(0, &[])];
        assert_eq!(data(&answers), "{},{ \"n\":1.0e+3, \"s\":\"\\u4e2d\\/\" }");
        assert_eq!(data(&[]), "");
    }

    #[test]
    fn a_customer_that_several_keys_reach_is_given_once() {
        let bench = Bench::new();
        let one = bench.record(Some(1), 0, "one");
        let two = bench.record(Some(2), 0, "two");
        let answers = [bench.answer(0, &[&one]), bench.answer(0, &[&two, &one]), bench.answer(0, &[&two])];
        assert_eq!(data(&answers), "one,two");
    }

    #[test]
    fn of_two_versions_the_newer_takes_the_place_of_the_first_mention() {
        let bench = Bench::new();
        let (old, new) = (bench.record(Some(1), 0, "old"), bench.record(Some(1), 5, "new"));
        let two = bench.record(Some(2), 0, "two");
        let (with_old, with_new) = (bench.answer(0, &[&old, &two]), bench.answer(5, &[&new]));
        assert_eq!(data(&[with_old.clone(), with_new.clone()]), "new,two");
        assert_eq!(data(&[with_new, with_old]), "new,two");
    }

    #[test]
    fn records_without_an_identity_are_told_apart_and_each_given_once() {
        let bench = Bench::new();
        let (one, two) = (bench.record(None, 0, "same"), bench.record(None, 0, "same"));
        assert_eq!(data(&[bench.answer(0, &[&one, &two]), bench.answer(0, &[&two])]), "same,same");
    }

    #[test]
    fn the_age_counts_from_the_oldest_record_that_is_given() {
        let bench = Bench::new();
        let (old, new) = (bench.record(Some(1), 1, "old"), bench.record(Some(1), 5, "new"));
        let two = bench.record(Some(2), 3, "two");
        let answers = [bench.answer(1, &[&old]), bench.answer(5, &[&new]), bench.answer(3, &[&two])];
        assert_eq!(encode(HEAD, answers.iter(), None).oldest, Some(bench.at(3)));
        let absent = bench.answer(2, &[]);
        assert_eq!(encode(HEAD, [absent].iter(), None).oldest, Some(bench.at(2)));
        assert_eq!(encode(HEAD, [].iter(), None).oldest, None);
    }

    #[test]
    fn what_is_pending_is_named_by_its_lists() {
        let shape = Shape::audience_detail();
        let id = |kind, text: &str| Id { kind: Kind(kind), value: Value::Text(text.into()) };
        let int = |number| Id { kind: Kind(0), value: Value::Int(number) };
        let ids = [int(9_007_199_254_740_993), int(-1), id(2, "1\"3"), id(2, "电")];
        let pending =
            |ids| text(encode(Bytes::from_static(b"{\"data\":["), [].iter(), Some(Pending { shape: &shape, ids })));
        let both = r#"{"data":[],"pending":{"audienceUserIdList":[9007199254740993,-1],"phoneList":["1\"3","电"]}}"#;
        assert_eq!(pending(&ids), both);
        assert_eq!(pending(&ids[2..]), r#"{"data":[],"pending":{"phoneList":["1\"3","电"]}}"#);
        assert_eq!(pending(&[]), r#"{"data":[]}"#);
    }

    proptest! {
        #[test]
        fn each_customer_is_given_once_at_its_first_mention_in_its_newest_version(
            mentions in proptest::collection::vec((0..60i64, 0..4u64), 0..150),
            per_answer in 1..4usize,
        ) {
            let bench = Bench::new();
            let json = |customer: i64, second: u64| format!("{{\"c\":{customer},\"v\":{second}}}");
            let records: Vec<_> = mentions.iter().map(|&(customer, second)| {
                bench.record(Some(customer), second, &json(customer, second))
            }).collect();
            let answers: Vec<_> = records.chunks(per_answer).map(|some| {
                bench.answer(0, &some.iter().collect::<Vec<_>>())
            }).collect();
            let mut expected: Vec<(i64, u64)> = Vec::new();
            for &(customer, second) in &mentions {
                match expected.iter_mut().find(|(known, _)| *known == customer) {
                    Some((_, newest)) => *newest = second.max(*newest),
                    None => expected.push((customer, second)),
                }
            }
            let expected: Vec<_> = expected.iter().map(|&(customer, second)| json(customer, second)).collect();
            prop_assert_eq!(data(&answers), expected.join(","));
        }
    }
}
