//! Ids one after the other in bytes: a kind, a length, a value.
//!
//! A number has the length zero and eight bytes, a text its length and one, seven bits to a byte (LEB128), and its UTF-8.
//! Invariant: what is read is what was written, at the places that writing it has given.

use crate::key::{Id, IdRef, Kind, ValueRef};

/// Where an id stands among the bytes of its record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place(u32);

impl Place {
    /// In bytes.
    pub(super) fn offset(self) -> usize {
        self.0 as usize
    }

    /// The place in two bytes, unless it is further off.
    pub(crate) fn near(self) -> Option<u16> {
        self.0.try_into().ok()
    }
}

impl From<u16> for Place {
    fn from(near: u16) -> Self {
        Self(near.into())
    }
}

/// Where the next id will stand.
pub(super) fn place(out: &[u8]) -> Place {
    Place(u32::try_from(out.len()).expect("this holds because an answer with all its records is shorter"))
}

/// About so many bytes hold them.
pub(super) fn capacity(ids: &[Id]) -> usize {
    let bytes = |id: &Id| match id.borrowed().value {
        ValueRef::Int(_) => 10,
        ValueRef::Text(text) => text.len() + 4,
    };
    ids.iter().map(bytes).sum()
}

/// Appends an id, and says where it stands.
pub(super) fn write(id: IdRef<'_>, out: &mut Vec<u8>) -> Place {
    let place = place(out);
    out.push(id.kind.0);
    match id.value {
        ValueRef::Int(number) => {
            out.push(0);
            out.extend_from_slice(&number.to_le_bytes());
        }
        ValueRef::Text(text) => {
            let mut length = text.len() + 1;
            while length > 0x7f {
                out.push(0x80 | (length & 0x7f) as u8);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend_from_slice(text);
        }
    }
    place
}

/// The id that stands there, and where the next one does.
pub(super) fn read(bytes: &[u8], place: Place) -> (IdRef<'_>, Place) {
    let mut at = place.offset();
    let kind = Kind(bytes[at]);
    at += 1;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = bytes[at];
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (value, end) = match length.checked_sub(1) {
        Some(length) => (ValueRef::Text(&bytes[at..at + length]), at + length),
        None => {
            let number = bytes[at..at + 8].try_into().expect("this holds because eight bytes were written");
            (ValueRef::Int(i64::from_le_bytes(number)), at + 8)
        }
    };
    (IdRef { kind, value }, Place(end as u32))
}

/// Ids, in the order in which they were written.
#[derive(Clone)]
pub struct Ids<'a> {
    bytes: &'a [u8],
    next: Place,
}

impl<'a> Ids<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, next: Place(0) }
    }

    /// Each with where it stands.
    pub(crate) fn places(mut self) -> impl Iterator<Item = (Place, IdRef<'a>)> {
        std::iter::from_fn(move || {
            let place = self.next;
            self.next().map(|id| (place, id))
        })
    }
}

impl<'a> Iterator for Ids<'a> {
    type Item = IdRef<'a>;

    fn next(&mut self) -> Option<IdRef<'a>> {
        if self.next.offset() >= self.bytes.len() {
            return None;
        }
        let (id, next) = read(self.bytes, self.next);
        self.next = next;
        Some(id)
    }
}
