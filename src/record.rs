//! One customer's JSON, byte for byte as the upstream sent it, and the ids that it carries.
//!
//! A record is immutable and shared: every key that it answers points at the same one.

use std::{fmt, sync::Arc};

use crate::{
    clock::Instant,
    key::{Id, Key, Scope},
};

/// One customer as the upstream sent it.
pub struct Record {
    /// The JSON text of the object, untouched.
    pub json: Box<[u8]>,
    /// Whose customer it is.
    pub scope: Arc<Scope>,
    /// Every id that reaches it: what its own fields carry, then what it was asked under where the fields do not say so.
    pub ids: Box<[Id]>,
    /// How many of `ids` its own fields carry.
    pub carried: usize,
    /// Position in `ids` of the id that names this customer and no other, if its shape has a unique kind and it carries one.
    pub identity: Option<usize>,
    /// When the request that brought it was started: the data is at least this new.
    pub fetched_at: Instant,
}

impl Record {
    /// The key that names this customer and no other.
    #[must_use]
    pub fn identity(&self) -> Option<&Id> {
        self.identity.map(|position| &self.ids[position])
    }

    /// Whether one of its own fields carries this id, so that it is recognised in any company.
    #[must_use]
    pub fn carries(&self, id: &Id) -> bool {
        self.ids[..self.carried].contains(id)
    }

    /// One of the record's ids as a key of its scope.
    #[must_use]
    pub fn key(&self, id: &Id) -> Key {
        Key { scope: Arc::clone(&self.scope), id: id.clone() }
    }

    /// Whether both are versions of one customer: the same record, or two with the same identity.
    #[must_use]
    pub fn same_customer(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
            || matches!((self.identity(), other.identity()), (Some(one), Some(two)) if one == two)
                && self.scope == other.scope
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} bytes, [values])", self.json.len())
    }
}
