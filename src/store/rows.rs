//! What stands in a row: format 1.
//!
//! Every row begins with the whole key that it is of (lookup path, who asks, the other body fields, kind and value), because its
//! name is only a hash of that. Numbers are little-endian; what has no fixed length has its length before it.
//!
//! | row | then |
//! |---|---|
//! | customer | when it was asked for, its ids and which of them is its identity, its JSON, or that packed by a dictionary |
//! | answer | when it was asked for, and of each of its customers the name; or the customer itself, if nothing names it |
//! | link | when the customer was asked for who carries an id that others may carry too |

use std::sync::Arc;

use super::{dating::Moment, names::IdName};
use crate::{
    clock::Instant,
    codec::{self, Dictionary, DictionaryId},
    key::{Id, Kind, Scope, Value},
    record::{Parts, Record},
};

/// The longest JSON that is unpacked: an upstream answer is not longer.
const LONGEST: usize = 1 << 30;

/// A customer as a row holds it.
pub(super) struct Customer {
    pub(super) fetched_at: Moment,
    pub(super) ids: Vec<Id>,
    carried: usize,
    identity: Option<usize>,
    dictionary: Option<DictionaryId>,
    body: Vec<u8>,
}

/// One of an answer's customers.
pub(super) enum Member {
    /// Who has a row.
    Named(IdName),
    /// Whom nothing names.
    Whole(Customer),
}

/// An answer as a row holds it.
pub(super) struct Answer {
    pub(super) fetched_at: Moment,
    pub(super) members: Vec<Member>,
}

impl Customer {
    /// A record as it is kept, packed if that is possible.
    pub(super) fn of(record: &Record, fetched_at: Moment, packed: Option<codec::Packed>) -> Self {
        let ids: Vec<Id> = record.ids().map(crate::key::IdRef::to_owned).collect();
        let identity = record.identity();
        let (dictionary, body) = match packed {
            Some(packed) => (Some(packed.dictionary.id()), packed.bytes),
            None => (None, record.json().into_owned()),
        };
        Self {
            fetched_at,
            carried: ids.iter().take_while(|id| record.carries(id)).count(),
            identity: ids.iter().position(|id| Some(id.borrowed()) == identity),
            ids,
            dictionary,
            body,
        }
    }

    /// The record that was kept; `dictionary` is what it was packed with.
    pub(super) fn record(
        &self,
        scope: &Arc<Scope>,
        fetched_at: Instant,
        dictionary: Option<&Dictionary>,
    ) -> Option<Record> {
        let mut unpacked = Vec::new();
        let json = match self.dictionary {
            None => &self.body,
            Some(_) => {
                dictionary?.unpack(&self.body, LONGEST, &mut unpacked).ok()?;
                &unpacked
            }
        };
        Some(Record::new(Parts {
            json,
            scope: Arc::clone(scope),
            ids: &self.ids,
            carried: self.carried,
            identity: self.identity,
            fetched_at,
        }))
    }

    /// The id that names it.
    pub(super) fn identity(&self) -> Option<&Id> {
        self.identity.map(|identity| &self.ids[identity])
    }

    /// What it is packed with, if it is.
    pub(super) fn dictionary(&self) -> Option<DictionaryId> {
        self.dictionary
    }

    pub(super) fn has(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        number(out, self.fetched_at.0);
        number(out, self.ids.len() as u64);
        self.ids.iter().for_each(|id| write_id(out, id));
        number(out, self.carried as u64);
        number(out, self.identity.map_or(0, |identity| identity as u64 + 1));
        match self.dictionary {
            None => out.push(0),
            Some(id) => {
                out.push(1);
                out.extend_from_slice(&id.0);
            }
        }
        bytes(out, &self.body);
    }

    pub(super) fn read(input: &mut Input<'_>) -> Option<Self> {
        let fetched_at = Moment(input.number()?);
        let count = input.count()?;
        let ids = (0..count).map(|_| input.id()).collect::<Option<Vec<_>>>()?;
        let carried = input.count()?.min(ids.len());
        let identity = input.number()?.checked_sub(1).and_then(|identity| usize::try_from(identity).ok());
        let dictionary = match input.byte()? {
            0 => None,
            _ => Some(DictionaryId(*input.array()?)),
        };
        let body = input.bytes()?.to_vec();
        if identity.is_some_and(|identity| identity >= ids.len()) {
            return None;
        }
        Some(Self { fetched_at, ids, carried, identity, dictionary, body })
    }
}

impl Answer {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        number(out, self.fetched_at.0);
        number(out, self.members.len() as u64);
        for member in &self.members {
            match member {
                Member::Named(name) => {
                    out.push(0);
                    out.extend_from_slice(name);
                }
                Member::Whole(customer) => {
                    out.push(1);
                    customer.write(out);
                }
            }
        }
    }

    pub(super) fn read(input: &mut Input<'_>) -> Option<Self> {
        let fetched_at = Moment(input.number()?);
        let count = input.count()?;
        let member = |input: &mut Input<'_>| {
            Some(match input.byte()? {
                0 => Member::Named(*input.array()?),
                _ => Member::Whole(Customer::read(input)?),
            })
        };
        Some(Self { fetched_at, members: (0..count).map(|_| member(input)).collect::<Option<_>>()? })
    }

    /// Whether this customer is one of those behind the key.
    pub(super) fn names(&self, customer: &IdName) -> bool {
        self.members.iter().any(|member| matches!(member, Member::Named(name) if name == customer))
    }
}

/// What has not been read yet of a row.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// A number of things, each of which takes a byte at least.
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len())
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn id(&mut self) -> Option<Id> {
        let kind = Kind(self.byte()?);
        let value = match self.byte()? {
            0 => Value::Int(i64::from_le_bytes(*self.array()?)),
            _ => Value::Text(std::str::from_utf8(self.bytes()?).ok()?.into()),
        };
        Some(Id { kind, value })
    }
}

pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn write_id(out: &mut Vec<u8>, id: &Id) {
    out.push(id.kind.0);
    match &id.value {
        Value::Int(value) => {
            out.push(0);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Text(text) => {
            out.push(1);
            bytes(out, text.as_bytes());
        }
    }
}
