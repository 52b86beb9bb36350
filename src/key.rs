//! What a caller asks for: a [`Key`] is a scope, a kind and a value, compared whole.
//!
//! Invariants:
//! - Two keys are equal exactly when scope, kind and value are equal; no hash or concatenation stands in for them.
//! - Nothing here prints what it holds: `Debug` shows the kind and no value, because values are phone numbers.

use std::{fmt, hash::Hash, sync::Arc};

use http::{HeaderName, HeaderValue};

/// Which of a shape's key lists a value belongs to: the list's position in the shape (at most 255 lists).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// The position as an index into the shape's lists.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One key's value in its canonical form: `747` and `"747"` are the same [`Value::Int`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A number such as a customer id; ids exceed 2^53, so it is never a float.
    Int(i64),
    /// A string such as a phone number, exactly as it was given.
    Text(Arc<str>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[value]")
    }
}

/// A kind and a value: a key without its scope, as it stands in one request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    /// Which list it belongs to.
    pub kind: Kind,
    /// What stands in the list.
    pub value: Value,
}

/// Everything that decides what an upstream answer means apart from the keys: who asks, for which company, on which path.
///
/// Two scopes are equal when path, credential and canonical fields are. The fields as they were given (`sent`) do not
/// count: they are what goes upstream.
pub struct Scope {
    /// Which `[[lookup]]` this belongs to: its position in the configuration.
    pub lookup: u8,
    /// The headers that identify the caller to the upstream, in configured order.
    pub credential: Vec<(HeaderName, HeaderValue)>,
    /// Every body field that is no key list, in canonical JSON.
    pub fields: Box<str>,
    /// The same fields as the first caller wrote them: the inside of a JSON object, without braces.
    pub sent: Box<str>,
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.lookup == other.lookup && self.credential == other.credential && self.fields == other.fields
    }
}

impl Eq for Scope {}

impl Hash for Scope {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.lookup.hash(state);
        self.credential.hash(state);
        self.fields.hash(state);
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope(lookup {}, [credential and fields])", self.lookup)
    }
}

/// The identity of one thing that can be looked up and cached.
#[derive(Clone)]
pub struct Key {
    /// Who asks and for which company.
    pub scope: Arc<Scope>,
    /// Kind and value.
    pub id: Id,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && (Arc::ptr_eq(&self.scope, &other.scope) || self.scope == other.scope)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.scope.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(kind {}, [value])", self.id.kind.0)
    }
}
