//! What makes rows unreadable for whoever has the disk and not the key, and unmistakable for everybody else.
//!
//! One secret of 32 bytes gives two keys (HMAC-SHA-256, RFC 2104): one names things, one encrypts them (XChaCha20-Poly1305).
//!
//! Invariants:
//! 1. A name is a keyed hash: a disk without the key shows no phone number, and nobody can try all of them. What it names
//!    stands in the row as well, and is compared there.
//! 2. A row is bound to its place: the table and the name are authenticated with it, so that rows can neither be changed nor
//!    exchanged.
//! 3. No nonce comes twice: 16 bytes of each are drawn when the store is opened, the other 8 count.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _, Key, KeyInit as _, Payload},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Bytes of a secret.
pub(super) const SECRET: usize = 32;
/// Bytes of a nonce.
const NONCE: usize = 24;
/// Bytes of a nonce that are drawn once.
const DRAWN: usize = 16;
/// Bytes that a sealed row is longer.
#[cfg(test)]
pub(super) const OVERHEAD: usize = NONCE + 16;

/// The secret of a store. It is printed as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreKey([u8; SECRET]);

impl StoreKey {
    /// Reads 64 hexadecimal digits, or the same 32 bytes in base64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = text.trim();
        let bytes = if text.len() == 2 * SECRET {
            let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
            (0..SECRET).map(|at| digit(2 * at)).collect::<Option<Vec<u8>>>()?
        } else {
            STANDARD.decode(text).ok()?
        };
        bytes.try_into().ok().map(Self)
    }

    /// One that everybody knows who can read this: rows are told apart by it, and not hidden.
    pub(super) fn known(name: &str) -> Self {
        let mut keyed = keyed(b"audience-gateway store 1: no key");
        keyed.update(name.as_bytes());
        Self(keyed.finalize().into_bytes().into())
    }

    /// One that nobody knows.
    pub(super) fn generate() -> Self {
        Self(random())
    }

    /// Its hexadecimal digits, for the one place that keeps it.
    pub(super) fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

/// Names and seals.
pub(super) struct Seal {
    names: Hmac<Sha256>,
    cipher: XChaCha20Poly1305,
    drawn: [u8; DRAWN],
    counted: AtomicU64,
}

impl Seal {
    pub(super) fn new(key: &StoreKey) -> Self {
        let derive = |purpose: &[u8]| -> [u8; 32] {
            let mut keyed = keyed(&key.0);
            keyed.update(purpose);
            keyed.finalize().into_bytes().into()
        };
        let drawn: [u8; SECRET] = random();
        let (drawn, _) = drawn.split_at(DRAWN);
        Self {
            names: keyed(&derive(b"audience-gateway store 1: names")),
            cipher: XChaCha20Poly1305::new(&derive(b"audience-gateway store 1: rows").into()),
            drawn: drawn.try_into().expect("this holds because it was split there"),
            counted: AtomicU64::new(0),
        }
    }

    /// The keyed hash of these parts, each told from the next by its length.
    pub(super) fn name(&self, purpose: u8, parts: &[&[u8]]) -> [u8; 32] {
        let mut keyed = self.names.clone();
        keyed.update(&[purpose]);
        for part in parts {
            keyed.update(&(part.len() as u64).to_le_bytes());
            keyed.update(part);
        }
        keyed.finalize().into_bytes().into()
    }

    /// A row as it is kept at this place.
    pub(super) fn close(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        nonce[..DRAWN].copy_from_slice(&self.drawn);
        nonce[DRAWN..].copy_from_slice(&self.counted.fetch_add(1, Relaxed).to_le_bytes());
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: place });
        let sealed = sealed.expect("this holds because a row is far shorter than the cipher's limit");
        [&nonce[..], &sealed].concat()
    }

    /// What was kept at this place, if it is untouched.
    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place }).ok()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("this holds because HMAC takes a key of any length")
}

/// Bytes from the system's generator.
fn random() -> [u8; SECRET] {
    Key::<XChaCha20Poly1305>::generate().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_hex_and_in_base64_and_in_no_other_form() {
        let key = StoreKey::parse(&"ab".repeat(32)).expect("64 digits");
        assert_eq!(StoreKey::parse("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n"), Some(key.clone()));
        assert_eq!(StoreKey::parse(&key.to_hex()), Some(key.clone()));
        assert!(
            ["", "ab", &"zz".repeat(32), &"ab".repeat(31), "q6s="].iter().all(|text| StoreKey::parse(text).is_none())
        );
        assert_eq!(format!("{key:?}"), "StoreKey(..)");
    }

    #[test]
    fn a_row_opens_at_its_place_with_its_key_and_untouched() {
        let key = StoreKey::generate();
        let seal = Seal::new(&key);
        let sealed = seal.close(b"here", b"13800000000");
        assert_eq!(sealed.len(), 11 + OVERHEAD);
        assert_eq!(Seal::new(&key).open(b"here", &sealed).as_deref(), Some(&b"13800000000"[..]));
        assert!(seal.open(b"there", &sealed).is_none());
        assert!(Seal::new(&StoreKey::generate()).open(b"here", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[at] ^= 1;
            assert!(seal.open(b"here", &touched).is_none() && seal.open(b"here", &sealed[..at]).is_none());
        }
        assert_ne!(sealed, seal.close(b"here", b"13800000000"), "no nonce comes twice");
    }

    #[test]
    fn names_tell_parts_apart_and_keys_too() {
        let (one, two) = (Seal::new(&StoreKey::generate()), Seal::new(&StoreKey::generate()));
        assert_eq!(one.name(1, &[b"ab", b"c"]), one.name(1, &[b"ab", b"c"]));
        assert_ne!(one.name(1, &[b"ab", b"c"]), one.name(1, &[b"a", b"bc"]));
        assert_ne!(one.name(1, &[b"ab"]), one.name(2, &[b"ab"]));
        assert_ne!(one.name(1, &[b"ab"]), two.name(1, &[b"ab"]));
    }
}
