//! What a gateway would like to have asked, as the others read it.
//!
//! An offer is what the gateway's own next batches would be, a lane at a time: who waits for which keys, in the order in
//! which they would be served, and what may fill the rest. No more than a batch of it: a grant takes no more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::{Id, Kind, Value};

/// A key that somebody would like to have asked, and whether its answer may be kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Row", from = "Row")]
pub struct Wish {
    /// The key, in the scope of the offer.
    pub id: Id,
    /// Whether somebody who asked did not say `no-store`.
    pub keep: bool,
}

/// One client's wishes, by lookup. Times are those of the exchange, in microseconds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Demand {
    /// The client, by a name that is the same everywhere.
    pub client: String,
    /// When the oldest of its lookups came.
    pub arrived: u64,
    /// When it last had places in a batch; 0: never.
    pub served: u64,
    /// How many keys it waits for, offered or not.
    pub size: usize,
    /// Its lookups, in their order.
    pub tickets: Vec<Lookup>,
}

/// One lookup's wishes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Lookup {
    /// How many keys it waits for, offered or not.
    pub size: usize,
    /// The first of them.
    pub wishes: Vec<Wish>,
}

/// What a gateway offers of one lane.
#[derive(Clone, Serialize, Deserialize)]
pub struct LaneOffer {
    /// The lane's name.
    pub lane: String,
    /// How many keys may ride together, as far as this gateway knows.
    pub room: usize,
    /// What is waited for.
    pub demands: Vec<Demand>,
    /// What nobody waits for.
    pub behind: Vec<Wish>,
}

/// A wish as it is written.
#[derive(Serialize, Deserialize)]
struct Row(u8, Written, u8);

/// A value as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Int(i64),
    Text(Box<str>),
}

impl From<Wish> for Row {
    fn from(wish: Wish) -> Self {
        let value = match wish.id.value {
            Value::Int(number) => Written::Int(number),
            Value::Text(text) => Written::Text((*text).into()),
        };
        Self(wish.id.kind.0, value, wish.keep.into())
    }
}

impl From<Row> for Wish {
    fn from(Row(kind, value, keep): Row) -> Self {
        let value = match value {
            Written::Int(number) => Value::Int(number),
            Written::Text(text) => Value::Text(text.into()),
        };
        Self { id: Id { kind: Kind(kind), value }, keep: keep != 0 }
    }
}

impl fmt::Debug for LaneOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneOffer({} clients)", self.demands.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_as_it_was_written_and_a_number_is_no_text() {
        let values = [Value::Int(7), Value::Text("7".into()), Value::Int(i64::MIN), Value::Text("\"é\n".into())];
        let wishes = values.map(|value| Wish { id: Id { kind: Kind(2), value }, keep: true });
        let written = serde_json::to_vec(&wishes).expect("it is plain");
        let read: [Wish; 4] = serde_json::from_slice(&written).expect("it was written so");
        assert!(read == wishes);
    }
}
