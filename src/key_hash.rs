//! How a key is named where it must not be seen: by a hash that only who has the secret can compute.
//!
//! HMAC-SHA-256 (RFC 2104) over the kind's name and the value. A plain hash would be no disguise: there are few enough
//! phone numbers to hash them all.
//!
//! Invariants:
//! 1. What is hashed tells every pair of kind and value from every other: the kind stands in front with its length.
//! 2. A value is hashed as its canonical text. However a caller spells an id (`747`, `"747"`, `"0747"`), and whatever type
//!    a lookup path gives to a kind of that name, it has one hash.
//! 3. The scope is no part of it: who looks for a customer in a log knows neither the token nor the company that
//!    somebody else asked with. Keys of several scopes share their hash.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{key::Value, secret::Secret};

/// Computes the hashes of keys with one secret.
pub struct KeyHasher {
    /// The secret is taken in once, for all keys.
    keyed: Hmac<Sha256>,
}

/// A key's hash, which prints as `phone:0123456789abcdef`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash<'a> {
    kind: &'a str,
    /// The first 64 bits: among a million customers, two have the same once in thirty million logs.
    first: u64,
}

impl KeyHasher {
    /// A hasher with this secret.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let keyed = Hmac::new_from_slice(secret.reveal().as_bytes());
        Self { keyed: keyed.expect("this holds because HMAC takes a key of any length") }
    }

    /// The hash of a value of a kind.
    #[must_use]
    pub fn hash<'a>(&self, kind: &'a str, value: &Value) -> KeyHash<'a> {
        let mut keyed = self.keyed.clone();
        encode(kind, value, |bytes| keyed.update(bytes));
        let whole: [u8; 32] = keyed.finalize().into_bytes().into();
        let (words, _) = whole.as_chunks::<8>();
        KeyHash { kind, first: u64::from_be_bytes(words[0]) }
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(..)")
    }
}

impl fmt::Display for KeyHash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.kind, self.first)
    }
}

/// What is hashed, piece by piece.
fn encode(kind: &str, value: &Value, mut write: impl FnMut(&[u8])) {
    write(&(kind.len() as u64).to_be_bytes());
    write(kind.as_bytes());
    match value {
        Value::Int(number) => write(number.to_string().as_bytes()),
        Value::Text(text) => write(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn hash(secret: &str, kind: &str, value: &Value) -> String {
        KeyHasher::new(&Secret::new(secret)).hash(kind, value).to_string()
    }

    fn encoded(kind: &str, value: &Value) -> Vec<u8> {
        let mut all = Vec::new();
        encode(kind, value, |bytes| all.extend_from_slice(bytes));
        all
    }

    proptest! {
        #[test]
        fn what_is_hashed_tells_every_kind_and_value_from_every_other(
            (one, other) in (("[\\x00ab]{0,3}", "[\\x00ab]{0,3}"), ("[\\x00ab]{0,3}", "[\\x00ab]{0,3}"))
        ) {
            let [a, b] = [&one, &other].map(|(kind, value)| encoded(kind, &text(value)));
            prop_assert_eq!(a == b, one == other);
        }

        #[test]
        fn what_is_hashed_can_be_read_back(kind: String, value: String) {
            let all = encoded(&kind, &text(&value));
            let (length, rest) = all.split_at(8);
            let length = u64::from_be_bytes(length.try_into().expect("eight bytes"));
            let (read, rest) = rest.split_at(usize::try_from(length).expect("it is in memory"));
            prop_assert_eq!((read, rest), (kind.as_bytes(), value.as_bytes()));
        }
    }

    #[test]
    fn it_is_hmac_sha_256_as_any_other_program_computes_it() {
        // printf '\0\0\0\0\0\0\0\5phone13800000000' | openssl dgst -sha256 -hmac secret
        assert_eq!(hash("secret", "phone", &text("13800000000")), "phone:0a7f84f1162d3c69");
    }

    #[test]
    fn a_hash_depends_on_the_secret_the_kind_and_the_value_and_on_nothing_else() {
        let one = hash("secret", "id", &Value::Int(747));
        assert_eq!(one, hash("secret", "id", &text("747")));
        for other in [
            hash("another", "id", &Value::Int(747)),
            hash("secret", "di", &Value::Int(747)),
            hash("secret", "id", &Value::Int(-747)),
        ] {
            assert_ne!(one.split(':').nth(1), other.split(':').nth(1));
        }
    }

    #[test]
    fn a_hasher_prints_nothing_of_its_secret() {
        assert_eq!(format!("{:?}", KeyHasher::new(&Secret::new("canary"))), "KeyHasher(..)");
    }
}
