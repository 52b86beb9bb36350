//! A record's JSON, packed and written out again.
//!
//! Invariants: what is written out is the upstream's, byte for byte; a record and its twin are told apart by nothing but what
//! they weigh and how long they take to read.

use std::sync::Arc;

use triomphe::ThinArc;

use super::{Head, Record};
use crate::codec::{self, Codec, Dictionary, Packed};

impl Record {
    /// How long the JSON is.
    #[must_use]
    pub fn json_len(&self) -> usize {
        match self.next_member() {
            Some(member) => member.len() - 1,
            None => codec::length(self.held()).unwrap_or_default(),
        }
    }

    /// Adds the JSON to what is there.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        match &self.head().dictionary {
            None => into.extend_from_slice(&self.held()[1..]),
            Some(dictionary) => {
                let unpacked = dictionary.unpack(self.held(), self.json_len(), into);
                unpacked.expect("this holds because a record goes with the dictionary that it was packed with");
            }
        }
    }

    /// Whether the JSON is packed.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.head().dictionary.is_some()
    }

    /// The same record, packed, with the cache's notes on it; nothing if that saves nothing, or it is packed already.
    #[must_use]
    pub fn packed(&self, codec: &Codec) -> Option<Self> {
        let member = self.next_member()?;
        let Packed { dictionary, bytes } = codec.pack(&member[1..])?;
        Some(self.twin(Some(dictionary), &bytes))
    }

    /// The same record, not packed any more, with the cache's notes on it; nothing if it is not packed.
    #[must_use]
    pub fn unpacked(&self) -> Option<Self> {
        self.is_packed().then(|| {
            let mut member = Vec::with_capacity(1 + self.json_len());
            member.push(b',');
            self.write_json(&mut member);
            self.twin(None, &member)
        })
    }

    fn twin(&self, dictionary: Option<Arc<Dictionary>>, held: &[u8]) -> Self {
        let Head { scope, fetched_at, marks, carried, ids, identity, .. } = self.head();
        let text = [&self.0.slice[..ids.offset()], held].concat();
        let head = Head {
            scope: Arc::clone(scope),
            fetched_at: *fetched_at,
            marks: marks.successor(),
            carried: *carried,
            ids: *ids,
            identity: *identity,
            dictionary,
        };
        Self(ThinArc::from_header_and_slice(head, &text))
    }

    /// What stands behind the ids.
    pub(super) fn held(&self) -> &[u8] {
        &self.0.slice[self.head().ids.offset()..]
    }
}
