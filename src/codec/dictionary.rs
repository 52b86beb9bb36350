//! A zstd dictionary: what records have in common, so that each is stored as what is its own.
//!
//! Invariants:
//! 1. A dictionary never changes; its [id](DictionaryId) is a digest of it, the same on every machine and for ever. A store
//!    that keeps packed records keeps [`Dictionary::as_bytes`] under that id, once, and the id beside each record.
//! 2. Packed bytes are whole zstd frames that say how long they will be. Whatever they are, reading them neither panics nor
//!    takes more memory than was allowed.
//!
//! A dictionary is made of pieces of records. It is no more for other eyes than they are.

use std::{cell::RefCell, fmt};

use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{DCtx, DDict, get_frame_content_size};

thread_local! {
    /// What a thread unpacks with: made at its first record, and used for all.
    static READER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// What names a dictionary: the first half of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DictionaryId(pub [u8; 16]);

/// A dictionary, ready to unpack with.
pub struct Dictionary {
    id: DictionaryId,
    bytes: Box<[u8]>,
    /// The same, digested once for all records.
    prepared: DDict<'static>,
}

/// The bytes are none that were packed with this dictionary, or more than was allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a packed record cannot be read")]
pub struct Corrupt;

impl fmt::Debug for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DictionaryId(..)")
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary({} bytes)", self.bytes.len())
    }
}

impl Dictionary {
    /// A dictionary that was trained here, or kept somewhere.
    ///
    /// # Errors
    /// When these bytes are no dictionary.
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Result<Self, Corrupt> {
        let bytes = bytes.into();
        // Without a number of its own, anything would do as one.
        zstd::zstd_safe::get_dict_id_from_dict(&bytes).ok_or(Corrupt)?;
        let prepared = DDict::try_create(&bytes).ok_or(Corrupt)?;
        let whole: [u8; 32] = Sha256::digest(&bytes).into();
        let (halves, _) = whole.as_chunks::<16>();
        Ok(Self { id: DictionaryId(halves[0]), bytes, prepared })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> DictionaryId {
        self.id
    }

    /// All of it, to be kept with what was packed with it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds what was packed with this dictionary to `into`, if it is at most `most` bytes long.
    ///
    /// # Errors
    /// When it was not packed with this dictionary, or is longer; `into` is then as it was.
    pub fn unpack(&self, packed: &[u8], most: usize, into: &mut Vec<u8>) -> Result<(), Corrupt> {
        let length = length(packed).filter(|length| *length <= most).ok_or(Corrupt)?;
        let start = into.len();
        into.resize(start + length, 0);
        let read =
            READER.with_borrow_mut(|reader| reader.decompress_using_ddict(&mut into[start..], packed, &self.prepared));
        if read == Ok(length) {
            return Ok(());
        }
        into.truncate(start);
        Err(Corrupt)
    }
}

/// How long packed bytes say that they will be.
#[must_use]
pub fn length(packed: &[u8]) -> Option<usize> {
    let length = get_frame_content_size(packed).ok().flatten()?;
    usize::try_from(length).ok()
}
