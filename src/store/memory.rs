//! What a store that several gateways have in common asks of whoever uses it.

use bytes::Bytes;

use crate::key::{Credential, Id};

/// What is in front of a store that others erase from, too, and must forget the same.
pub trait Memory: Send + Sync {
    /// The credentials with which anything was asked of a lookup path.
    fn credentials(&self, lookup: u8) -> Vec<Credential>;

    /// Forgets these ids of a lookup path, everybody's or what was asked for with a credential. After a purge nobody's wish
    /// brings them back.
    fn forget(&self, lookup: u8, whose: Option<&Credential>, ids: &[Id], is_purge: bool);

    /// Forgets everything. Whether there was anything.
    fn forget_all(&self) -> bool;

    /// The envelope of the last success of a lookup path, as another process had it.
    fn learn_envelope(&self, lookup: u8, envelope: Bytes);
}
