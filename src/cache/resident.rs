//! What moka decides about: how much each weighs, and what leaves the index with it.

use std::sync::Arc;

use super::{carriers::Carriers, entry::Answer, index::Index};
use crate::{clock::Instant, key::Key, record::Record};

/// Bytes that a resident costs besides its JSON: moka's entry and queues, the record and its reference counts. With
/// [`KEY_OVERHEAD`] measured as the growth of the process over 150,000 of the simulator's customers, three keys each:
/// 3,381 bytes a customer, of which 2,380 are JSON.
const RESIDENT_OVERHEAD: usize = 400;
/// Bytes that each key costs: its place in the index, the answer, and the value itself.
const KEY_OVERHEAD: usize = 200;

/// What moka knows a resident by: a customer and an answer of the same key are two.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum ResidentKey {
    /// The key that identifies the customer.
    Customer(Key),
    /// The key that is answered.
    Answer(Key),
}

impl ResidentKey {
    /// The key.
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Customer(key) | Self::Answer(key) => key,
        }
    }
}

/// One customer, or one answer that has no identified customer.
#[derive(Clone)]
pub(super) enum Resident {
    /// Under the key that identifies it.
    Customer(Arc<Record>),
    /// Under the key that it answers.
    Answer(Arc<Answer>),
}

impl Resident {
    /// The keys that lead to it.
    pub(super) fn keys(&self, own: &Key) -> Vec<Key> {
        match self {
            Self::Customer(record) => record.ids.iter().map(|id| record.key(id)).collect(),
            Self::Answer(_) => vec![own.clone()],
        }
    }

    /// The customers in it.
    pub(super) fn records(&self) -> &[Arc<Record>] {
        match self {
            Self::Customer(record) => std::slice::from_ref(record),
            Self::Answer(answer) => &answer.records,
        }
    }

    /// When it was asked for.
    pub(super) fn fetched_at(&self) -> Instant {
        match self {
            Self::Customer(record) => record.fetched_at,
            Self::Answer(answer) => answer.fetched_at,
        }
    }

    /// Takes everything that leads to it out of the index; what has been replaced meanwhile stays.
    pub(super) fn leave(&self, key: &Key, index: &Index, carriers: &Carriers) {
        let own = |record: &&Arc<Record>| matches!(self, Self::Customer(_)) || record.identity.is_none();
        self.records().iter().filter(own).for_each(|record| carriers.remove(record));
        match self {
            Self::Customer(record) => {
                for id in &record.ids {
                    index
                        .remove_if(&record.key(id), |answer| answer.records.iter().any(|one| Arc::ptr_eq(one, record)));
                }
            }
            Self::Answer(gone) => {
                index.remove_if(key, |answer| Arc::ptr_eq(answer, gone));
            }
        }
    }
}

/// What a resident counts for against the capacity, in bytes.
pub(super) fn weigh(_key: &ResidentKey, resident: &Resident) -> u32 {
    let bytes = match resident {
        Resident::Customer(record) => record_bytes(record),
        Resident::Answer(answer) => {
            // Identified customers beside the others are residents of their own.
            let own = answer.records.iter().filter(|record| record.identity.is_none());
            KEY_OVERHEAD + own.map(|record| record_bytes(record)).sum::<usize>()
        }
    };
    u32::try_from(bytes + RESIDENT_OVERHEAD).unwrap_or(u32::MAX)
}

fn record_bytes(record: &Record) -> usize {
    record.json.len() + record.ids.len() * KEY_OVERHEAD
}
