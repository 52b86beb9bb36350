//! What is to be erased, and what was.

use std::{collections::HashSet, sync::Arc};

use super::names::Name;
use crate::key::{Credential, Id, Value};

/// Whose rows are erased, and what leads to them.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) lookup: u8,
    /// Only what was asked for with this credential.
    pub(super) whose: Option<Credential>,
    pub(super) ids: Arc<[Id]>,
    /// Whether nobody's wish may bring them back.
    pub(super) is_purge: bool,
}

/// What was erased.
#[derive(Default)]
pub struct Erased {
    /// The keys that were answered, by name.
    pub(super) keys: HashSet<Name>,
    /// The customers, by name.
    pub(super) customers: HashSet<Name>,
    /// Every id of those customers.
    pub ids: Vec<Id>,
}

impl Erased {
    /// Each id once.
    pub(super) fn tidy(&mut self) {
        self.ids.sort_unstable_by(|one, two| any_order(one).cmp(&any_order(two)));
        self.ids.dedup();
    }
}

/// Any order, to find what stands there twice.
fn any_order(id: &Id) -> (u8, Option<i64>, Option<&str>) {
    match &id.value {
        Value::Int(number) => (id.kind.0, Some(*number), None),
        Value::Text(text) => (id.kind.0, None, Some(text)),
    }
}
