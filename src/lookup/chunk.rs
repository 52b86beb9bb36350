//! The bytes of an answer, as they go out: in one piece, or the records where they lie in the cache.
//!
//! Invariant: whatever way they are read in, the bytes are those of the head, the records with a comma between two of them, and
//! the tail.

use std::{fmt, io::IoSlice};

use bytes::{Buf, Bytes};

use crate::{record::Record, request::budget::Share};

/// A piece of an answer.
pub enum Chunk {
    /// In one piece.
    Bytes(Bytes),
    /// Records of the cache, which are read by whoever writes them to a socket and by nobody before. Boxed, because what is
    /// nearly always small is moved through every layer.
    Records(Box<Records>),
}

/// An envelope with records in it.
pub struct Records {
    head: Bytes,
    records: Vec<Record>,
    tail: Bytes,
    /// The piece that is read next: the head, a record, the tail.
    piece: usize,
    /// How much of it has been read.
    read: usize,
    remaining: usize,
    /// Its part of the budget of bodies: a reader may be so slow that the cache lets go of the records long before.
    _share: Option<Share>,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.remaining())
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl Records {
    /// These records between a head and a tail. None of them is packed.
    pub(super) fn new(head: Bytes, records: Vec<Record>, tail: Bytes) -> Box<Self> {
        let mut all = Box::new(Self { head, records, tail, piece: 0, read: 0, remaining: 0, _share: None });
        all.remaining = (0..all.pieces()).map(|piece| all.bytes(piece).len()).sum();
        all
    }

    fn pieces(&self) -> usize {
        self.records.len() + 2
    }

    fn bytes(&self, piece: usize) -> &[u8] {
        match piece {
            0 => &self.head,
            1 if !self.records.is_empty() => member(&self.records[0]).get(1..).unwrap_or_default(),
            piece => self.records.get(piece - 1).map_or(&*self.tail, member),
        }
    }

    /// What is left of the pieces.
    fn rest(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = (self.piece..self.pieces()).map(|piece| self.bytes(piece));
        pieces.enumerate().map(|(position, bytes)| if position == 0 { &bytes[self.read..] } else { bytes })
    }
}

/// A record as it lies in the cache, with a comma before it.
fn member(record: &Record) -> &[u8] {
    record.next_member().unwrap_or_default()
}

impl Chunk {
    /// Counts as this part of the budget for as long as it is kept.
    #[must_use]
    pub fn counted(self, share: Share) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(share.with(bytes)),
            Self::Records(mut records) => {
                records._share = Some(share);
                Self::Records(records)
            }
        }
    }
}

impl Buf for Records {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.rest().find(|piece| !piece.is_empty()).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.rest().filter(|piece| !piece.is_empty());
        let filled = to.iter_mut().zip(pieces).map(|(to, piece)| *to = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "there are {} bytes left, not {count}", self.remaining);
        self.remaining -= count;
        self.read += count;
        while self.piece < self.pieces() && self.read >= self.bytes(self.piece).len() {
            self.read -= self.bytes(self.piece).len();
            self.piece += 1;
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Records(records) => records.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Records(records) => records.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.chunks_vectored(to),
            Self::Records(records) => records.chunks_vectored(to),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Records(records) => records.advance(count),
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.copy_to_bytes(count),
            Self::Records(records) => records.copy_to_bytes(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{key::Scope, record::Parts};

    fn records(texts: &[&str]) -> Box<Records> {
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        let fetched_at = crate::clock::now();
        let record = |text: &&str| {
            let (json, scope) = (text.as_bytes(), Arc::clone(&scope));
            Record::new(Parts { json, scope, ids: &[], carried: 0, identity: None, fetched_at })
        };
        Records::new(Bytes::from_static(b"["), texts.iter().map(record).collect(), Bytes::from_static(b"]"))
    }

    #[test]
    fn all_pieces_are_there_at_once_for_a_vectored_write() {
        let mut records = records(&["one", "two", "three"]);
        let mut slices = [IoSlice::new(&[]); 9];
        assert_eq!(records.chunks_vectored(&mut slices), 5);
        assert_eq!(slices[..5].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>(), b"[one,two,three]");
        records.advance(2);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(records.chunks_vectored(&mut slices), 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"ne"[..], &b",two"[..]));
    }

    proptest! {
        #[test]
        fn however_it_is_read_the_bytes_are_the_same(
            texts in proptest::collection::vec("[a-z]{1,9}", 0..6),
            steps in proptest::collection::vec(1..12usize, 1..60),
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let expected = format!("[{}]", texts.join(","));
            let mut chunk = Chunk::Records(records(&texts));
            prop_assert_eq!(chunk.remaining(), expected.len());
            let mut read = Vec::new();
            for step in steps {
                let some = step.min(chunk.chunk().len());
                read.extend_from_slice(&chunk.chunk()[..some]);
                chunk.advance(some);
                prop_assert_eq!(chunk.remaining(), expected.len() - read.len());
            }
            let rest = chunk.remaining();
            read.extend(chunk.copy_to_bytes(rest));
            prop_assert_eq!(String::from_utf8(read), Ok(expected));
        }
    }
}
