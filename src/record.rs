//! One customer's JSON, byte for byte as the upstream sent it, and the ids that it carries.
//!
//! A record is immutable, shared, and one allocation: what is known of it, its [ids], and its JSON lie one after the other,
//! so that a key that leads to it leads to all of it with one step through memory. Only what the cache [marks] on it
//! changes. The JSON may be [packed]; then it is written out anew for whoever asks for it.

mod ids;
pub(crate) mod marks;
mod packed;

use std::{borrow::Cow, fmt, sync::Arc};

use triomphe::ThinArc;

pub use self::ids::Ids;
use self::{ids::Place, marks::Marks};
use crate::{
    clock::Instant,
    codec::Dictionary,
    key::{Id, IdRef, Key, Scope},
};

/// One customer as the upstream sent it. A clone is the same record.
#[derive(Clone)]
pub struct Record(ThinArc<Head, u8>);

/// What a record is made of.
#[derive(Clone)]
pub struct Parts<'a> {
    /// The JSON text of the object, untouched.
    pub json: &'a [u8],
    /// Whose customer it is.
    pub scope: Arc<Scope>,
    /// Every id that reaches it: what its own fields carry, then what it was asked under where the fields do not say so.
    pub ids: &'a [Id],
    /// How many of `ids` its own fields carry.
    pub carried: usize,
    /// Position in `ids` of the id that names this customer and no other, if its shape has a unique kind and it carries one.
    pub identity: Option<usize>,
    /// When the request that brought it was started: the data is at least this new.
    pub fetched_at: Instant,
}

/// What stands before the ids and the JSON.
struct Head {
    scope: Arc<Scope>,
    fetched_at: Instant,
    marks: Marks,
    /// Where the ids end that its own fields carry.
    carried: Place,
    /// Where the ids end. A comma stands there, and then the JSON; or what it was packed into.
    ids: Place,
    /// Where the id stands that names this customer.
    identity: Option<Place>,
    /// What the JSON was packed with, if it is.
    dictionary: Option<Arc<Dictionary>>,
}

/// Bytes of a record besides its ids and its JSON: its count, its length, [`Head`] and the comma.
pub(crate) const OVERHEAD: usize = 2 * size_of::<usize>() + size_of::<Head>() + 1;

impl Record {
    /// Puts a record together.
    #[must_use]
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { json, scope, ids, carried, identity, fetched_at } = parts;
        let mut text = Vec::with_capacity(ids::capacity(ids) + 1 + json.len());
        let places: Vec<Place> = ids.iter().map(|id| ids::write(id.borrowed(), &mut text)).collect();
        let end = ids::place(&text);
        let head = Head {
            scope,
            fetched_at,
            marks: Marks::new(),
            carried: places.get(carried).copied().unwrap_or(end),
            ids: end,
            identity: identity.map(|position| places[position]),
            dictionary: None,
        };
        // With the comma that stands before every member but the first, so that many go out without being copied.
        text.push(b',');
        text.extend_from_slice(json);
        Self(ThinArc::from_header_and_slice(head, &text))
    }

    /// The JSON text of the object, untouched.
    #[must_use]
    pub fn json(&self) -> Cow<'_, [u8]> {
        match self.next_member() {
            Some(member) => Cow::Borrowed(&member[1..]),
            None => {
                let mut json = Vec::with_capacity(self.json_len());
                self.write_json(&mut json);
                Cow::Owned(json)
            }
        }
    }

    /// The same with a comma before it, if it is not packed.
    #[must_use]
    pub fn next_member(&self) -> Option<&[u8]> {
        self.head().dictionary.is_none().then(|| self.held())
    }

    /// Whose customer it is.
    #[must_use]
    pub fn scope(&self) -> &Arc<Scope> {
        &self.head().scope
    }

    /// When the request that brought it was started: the data is at least this new.
    #[must_use]
    pub fn fetched_at(&self) -> Instant {
        self.head().fetched_at
    }

    /// When the upstream said it: before that by what it was old when it came.
    #[must_use]
    pub fn said_at(&self) -> Instant {
        let fetched_at = self.fetched_at();
        fetched_at.checked_sub(self.marks().age()).unwrap_or(fetched_at)
    }

    /// Every id that reaches it.
    #[must_use]
    pub fn ids(&self) -> Ids<'_> {
        Ids::of(&self.0.slice[..self.head().ids.offset()])
    }

    /// The key that names this customer and no other.
    #[must_use]
    pub fn identity(&self) -> Option<IdRef<'_>> {
        self.head().identity.map(|place| self.at(place))
    }

    /// Whether an id reaches it.
    #[must_use]
    pub fn has(&self, id: &Id) -> bool {
        self.find(id.borrowed()).is_some()
    }

    /// Whether one of its own fields carries this id, so that it is recognised in any company.
    #[must_use]
    pub fn carries(&self, id: &Id) -> bool {
        self.find(id.borrowed()).is_some_and(|place| place < self.head().carried)
    }

    /// Where an id stands that reaches it.
    pub(crate) fn find(&self, id: IdRef<'_>) -> Option<Place> {
        self.ids().places().find(|(_, own)| *own == id).map(|(place, _)| place)
    }

    /// The id that stands there.
    pub(crate) fn at(&self, place: Place) -> IdRef<'_> {
        ids::read(&self.0.slice, place).0
    }

    /// One of the record's ids as a key of its scope.
    #[must_use]
    pub fn key(&self, id: IdRef<'_>) -> Key {
        Key { scope: Arc::clone(self.scope()), id: id.to_owned() }
    }

    /// Whether both are one record, and not only equal.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.as_ptr(), other.0.as_ptr())
    }

    /// Tells it from every other record that is there at the same time.
    #[must_use]
    pub fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// Whether both are versions of one customer: the same record, or two with the same identity.
    #[must_use]
    pub fn same_customer(&self, other: &Self) -> bool {
        self.is(other)
            || matches!((self.identity(), other.identity()), (Some(one), Some(two)) if one == two)
                && (Arc::ptr_eq(self.scope(), other.scope()) || self.scope() == other.scope())
    }

    /// What the cache notes on it.
    pub(crate) fn marks(&self) -> &Marks {
        &self.head().marks
    }

    /// Bytes of it, all together.
    pub(crate) fn bytes(&self) -> usize {
        OVERHEAD - 1 + self.0.slice.len()
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} bytes, [values])", self.json_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Value};

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        let text = |kind, text: &str| Id { kind: Kind(kind), value: Value::Text(text.into()) };
        let ids =
            [Id { kind: Kind(0), value: Value::Int(-747) }, text(1, ""), text(2, &"电".repeat(100)), text(2, "x")];
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        let parts = Parts {
            json: b"{ }",
            scope: Arc::clone(&scope),
            ids: &ids,
            carried: 3,
            identity: Some(1),
            fetched_at: crate::clock::now(),
        };
        let record = Record::new(parts.clone());
        assert_eq!((&*record.json(), record.next_member()), (&b"{ }"[..], Some(&b",{ }"[..])));
        assert_eq!(record.ids().map(IdRef::to_owned).collect::<Vec<_>>(), ids);
        assert_eq!(record.identity().map(IdRef::to_owned).as_ref(), Some(&ids[1]));
        assert!(ids[..3].iter().all(|id| record.carries(id)) && !record.carries(&ids[3]));
        assert!(record.has(&ids[3]) && !record.has(&text(1, "x")));
        assert!(record.is(&record.clone()) && !record.is(&Record::new(parts.clone())));
        assert!(record.same_customer(&Record::new(parts.clone())), "they have one identity");
        let nobody = Record::new(Parts { identity: None, ids: &[], carried: 0, ..parts });
        assert!(nobody.identity().is_none() && nobody.ids().next().is_none() && !nobody.same_customer(&record));
        assert!(!format!("{record:?}").contains('电'));
    }

    #[test]
    fn what_is_known_of_a_record_fits_a_line_of_the_processors_cache_and_two_words() {
        assert_eq!(OVERHEAD, 81);
    }
}
