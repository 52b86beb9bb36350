//! How many bytes of bodies may be in memory at once, whoever's they are.
//!
//! A limit for each body is none for all of them: ten thousand connections with a MiB each would be ten GiB. So whatever is
//! kept is counted as it comes, in pieces, and for as long as it is kept; what a body says that it will be counts nothing.
//! The bytes counted are those of the body: while it grows, the buffer that holds it may be up to twice as large.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;

/// The budget; its clones are the same one.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: AtomicUsize,
    held: AtomicUsize,
}

/// The budget has no room for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

/// Bytes that are counted for as long as they are kept.
pub struct Kept {
    bytes: Vec<u8>,
    share: Share,
}

/// Bytes with the part of the budget that they take.
struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes)", self.bytes.len())
    }
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Pool { limit: AtomicUsize::new(limit), held: AtomicUsize::new(0) }))
    }

    /// From now on it is so many bytes. What is kept stays, even if it is more.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Relaxed);
    }

    /// Bytes that are counted now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Relaxed)
    }

    /// A part of it, nothing as yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// Nothing, to be added to.
    #[must_use]
    pub fn keep(&self) -> Kept {
        Kept { bytes: Vec::new(), share: self.share() }
    }
}

impl Share {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When there is no room for them; what was taken before stays.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Pool { limit, held } = &*self.budget.0;
        let limit = limit.load(Relaxed);
        let room = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        held.fetch_update(Relaxed, Relaxed, room).or(Err(NoRoom))?;
        self.bytes += bytes;
        Ok(())
    }

    /// These bytes, which hold it for as long as anybody has them.
    #[must_use]
    pub fn with(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Counted { bytes, _share: self })
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        self.budget.0.held.fetch_sub(self.bytes, Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

impl Kept {
    /// Adds a piece.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn extend(&mut self, piece: &[u8]) -> Result<(), NoRoom> {
        self.share.grow(piece.len())?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Kept> for Bytes {
    fn from(kept: Kept) -> Self {
        Self::from_owner(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_counts_until_it_is_dropped() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.keep(), budget.keep());
        assert_eq!((one.extend(b"12345"), two.extend(b"1234"), budget.held()), (Ok(()), Ok(()), 9));
        assert_eq!((one.extend(b"67"), &*one, budget.held()), (Err(NoRoom), &b"12345"[..], 9));
        drop(two);
        assert_eq!((one.extend(b"67890"), budget.held()), (Ok(()), 10));
        let bytes = Bytes::from(one);
        let part = bytes.slice(2..4);
        drop(bytes);
        assert_eq!((&*part, budget.held()), (&b"34"[..], 10));
        drop(part);
        assert_eq!(budget.held(), 0);
        let mut share = budget.share();
        assert_eq!(share.grow(11), Err(NoRoom));
        assert_eq!(share.grow(10), Ok(()));
        let bytes = share.with(Bytes::from_static(b"x"));
        assert_eq!((&*bytes, budget.held()), (&b"x"[..], 10));
        drop(bytes);
        assert_eq!(budget.held(), 0);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn another_limit_counts_for_what_comes() {
        let budget = Budget::new(10);
        let mut kept = budget.keep();
        assert_eq!(kept.extend(b"12345"), Ok(()));
        budget.set_limit(4);
        assert_eq!((kept.extend(b"6"), &*kept, budget.held()), (Err(NoRoom), &b"12345"[..], 5));
        budget.set_limit(6);
        assert_eq!((kept.extend(b"6"), budget.held()), (Ok(()), 6));
    }

    #[test]
    fn no_sum_overflows() {
        let budget = Budget::new(usize::MAX);
        let mut share = budget.share();
        assert_eq!(share.grow(usize::MAX), Ok(()));
        assert_eq!(share.grow(1), Err(NoRoom));
        share.release();
        assert_eq!(budget.held(), 0);
    }
}
