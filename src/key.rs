//! What a caller asks for: a [`Key`] is a scope, a kind and a value, compared whole.
//!
//! Invariants:
//! - Two keys are equal exactly when scope, kind and value are equal; no hash or concatenation stands in for them.
//! - Nothing here prints what it holds: `Debug` shows the kind and no value, because values are phone numbers.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

use http::{HeaderMap, HeaderName, HeaderValue};

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

/// An [`Id`] that stands somewhere else: in a record, or in a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRef<'a> {
    /// Which list it belongs to.
    pub kind: Kind,
    /// What stands in the list.
    pub value: ValueRef<'a>,
}

/// A [`Value`] that stands somewhere else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueRef<'a> {
    /// A number.
    Int(i64),
    /// A string, in UTF-8.
    Text(&'a [u8]),
}

impl Id {
    /// The same without a share in it.
    #[must_use]
    pub fn borrowed(&self) -> IdRef<'_> {
        let value = match &self.value {
            Value::Int(number) => ValueRef::Int(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        IdRef { kind: self.kind, value }
    }
}

impl IdRef<'_> {
    /// The same by itself.
    #[must_use]
    pub fn to_owned(self) -> Id {
        let value = match self.value {
            ValueRef::Int(number) => Value::Int(number),
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text).expect("this holds because it was taken from a string");
                Value::Text(text.into())
            }
        };
        Id { kind: self.kind, value }
    }

    /// A hash of it in its scope, keyed anew in each process: callers choose keys and must not be able to choose their hash.
    #[must_use]
    pub fn digest(self, scope: &Scope) -> u64 {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = HASHER.build_hasher();
        hasher.write_u64(scope.digest);
        hasher.write_u8(self.kind.0);
        match self.value {
            ValueRef::Int(number) => hasher.write_i64(number),
            ValueRef::Text(text) => hasher.write(text),
        }
        hasher.finish()
    }
}

impl fmt::Debug for IdRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdRef(kind {}, [value])", self.kind.0)
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[value]")
    }
}

/// Headers by which the upstream knows who asks, in configured order.
pub type CredentialHeaders = Vec<(HeaderName, HeaderValue)>;

/// Who asks, as far as the upstream tells callers apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Whoever has these headers. They go upstream as they came.
    Headers(CredentialHeaders),
    /// An application, by whichever of its tokens it asks, and whoever has these other headers.
    Application(Box<str>, CredentialHeaders),
    /// The gateway, on behalf of everybody.
    Gateway,
}

impl From<CredentialHeaders> for Credential {
    fn from(headers: CredentialHeaders) -> Self {
        Self::Headers(headers)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Headers(_) => "Credential::Headers(..)",
            Self::Application(..) => "Credential::Application(..)",
            Self::Gateway => "Credential::Gateway",
        })
    }
}

/// Everything that decides what an upstream answer means apart from the keys: who asks, for which company, on which path.
///
/// Two scopes are equal when path, credential and canonical fields are. The fields as they were given (`sent`) do not
/// count: they are what goes upstream.
pub struct Scope {
    /// Which `[[lookup]]` this belongs to: its position in the configuration.
    pub lookup: u8,
    /// Who asks.
    pub credential: Credential,
    /// Every body field that is no key list, in canonical JSON.
    pub fields: Box<str>,
    /// The same fields as the first caller wrote them: the inside of a JSON object, without braces.
    pub sent: Box<str>,
    /// A keyed hash of the compared parts, made once so that a map of keys does not read the credential for each.
    digest: u64,
}

impl Scope {
    /// Joins the parts that make up a scope.
    #[must_use]
    pub fn new(
        lookup: u8,
        credential: impl Into<Credential>,
        fields: impl Into<Box<str>>,
        sent: impl Into<Box<str>>,
    ) -> Self {
        // Keyed anew in each process: callers choose the fields and must not be able to choose the hash.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let (credential, fields) = (credential.into(), fields.into());
        let digest = HASHER.hash_one((lookup, &credential, &fields));
        Self { lookup, credential, fields, sent: sent.into(), digest }
    }

    /// What the log calls it: a keyed hash, by a key of its own that nobody knows and that is another one in each process.
    /// It tells scopes apart and says nothing of what is in them.
    #[must_use]
    pub fn name(&self) -> ScopeName {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        ScopeName(HASHER.hash_one((self.lookup, &self.credential, &self.fields)))
    }
}

/// A scope's name in the log: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScopeName(u64);

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.lookup == other.lookup
            && self.credential == other.credential
            && self.fields == other.fields
    }
}

impl Eq for Scope {}

impl Hash for Scope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
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
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.scope.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(kind {}, [value])", self.id.kind.0)
    }
}

/// The headers that identify a caller to the upstream, in the order of `names`, as they came but for a mark that keeps
/// their values from being printed.
#[must_use]
pub fn credential(names: &[HeaderName], headers: &HeaderMap) -> CredentialHeaders {
    let hidden = |value: &HeaderValue| {
        let mut value = value.clone();
        value.set_sensitive(true);
        value
    };
    let values =
        |name: &HeaderName| headers.get_all(name).iter().map(|value| (name.clone(), hidden(value))).collect::<Vec<_>>();
    names.iter().flat_map(values).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Two parts of a scope that differ, and keys that a concatenation would confuse.
    fn any_key() -> impl Strategy<Value = (u8, String, String, u8, Result<i64, String>)> {
        let value = prop_oneof![(0..30i64).prop_map(Ok), "[0-9,]{0,3}".prop_map(Err)];
        (0..2u8, "[ab]{0,2}", "[ab]{0,2}", 0..3u8, value)
    }

    fn key((lookup, token, fields, kind, value): &(u8, String, String, u8, Result<i64, String>)) -> Key {
        let header = HeaderValue::from_str(token).expect("letters");
        let credential = vec![(HeaderName::from_static("x-token"), header)];
        let value = match value {
            Ok(number) => Value::Int(*number),
            Err(text) => Value::Text(text.as_str().into()),
        };
        let scope = Arc::new(Scope::new(*lookup, credential, fields.as_str(), ""));
        Key { scope, id: Id { kind: Kind(*kind), value } }
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_every_part_is(parts in proptest::collection::vec(any_key(), 1..40)) {
            let mut by_key = HashMap::new();
            for part in &parts {
                let before = by_key.insert(key(part), part);
                prop_assert!(before.is_none_or(|before| before == part));
            }
            let distinct: std::collections::HashSet<_> = parts.iter().collect();
            prop_assert_eq!(by_key.len(), distinct.len());
        }
    }

    #[test]
    fn what_a_key_holds_is_not_printed() {
        let printed = format!("{:?}", key(&(0, "secret".into(), "company".into(), 2, Err("13800000000".into()))));
        assert!(!printed.contains("138") && !printed.contains("secret") && !printed.contains("company"), "{printed}");
    }
}
