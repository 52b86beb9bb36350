//! What the cache notes on what it holds: how often it was read, when it was used last, where it stays.
//!
//! It stands in the line of memory that whoever reads the answer changes anyway, because it counts its readers, so that noting
//! costs no other.

use std::{
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// The cache's notes on one record or one list of them.
pub(crate) struct Marks {
    reads: AtomicU32,
    /// The turn of the cache in which it was used last.
    used_in: AtomicU32,
    /// The page that it is on; zero where it is on none.
    page: AtomicU32,
    note: AtomicU8,
    /// Which part of its lifetime is taken off.
    spread: u8,
    /// Seconds, and no more than fit, that it was old already when it came.
    age: AtomicU16,
}

/// Whether it is noted as worth to be asked again before it expires.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Note {
    No,
    Yes,
    /// It was noted and given away, so that its next read notes it again if nothing came of that.
    Again,
}

impl Marks {
    /// Nothing is noted; its lifetime is shortened by chance.
    pub(crate) fn new() -> Self {
        Self::with_spread(fastrand::u8(..))
    }

    pub(crate) fn with_spread(spread: u8) -> Self {
        Self {
            reads: AtomicU32::new(0),
            used_in: AtomicU32::new(0),
            page: AtomicU32::new(0),
            note: AtomicU8::new(Note::No as u8),
            spread,
            age: AtomicU16::new(0),
        }
    }

    /// The notes of what takes this one's place for some of its keys: it is on no page yet.
    pub(crate) fn successor(&self) -> Self {
        let (reads, note) = (self.reads.load(Relaxed), self.note.load(Relaxed));
        let age = AtomicU16::new(self.age.load(Relaxed));
        Self { reads: AtomicU32::new(reads), note: AtomicU8::new(note), age, ..Self::with_spread(self.spread) }
    }

    /// It was so old already when it came: some cache had it before. More than 18 hours count as 18.
    pub(crate) fn came_aged(&self, age: Duration) {
        self.age.store(u16::try_from(age.as_secs()).unwrap_or(u16::MAX), Relaxed);
    }

    /// How old it was already when it came.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_secs(self.age.load(Relaxed).into())
    }

    /// Which part of the spread of lifetimes its own is shortened by, in 255ths.
    pub(crate) fn spread(&self) -> u8 {
        self.spread
    }

    /// Counts a read. Whether it should be noted now: each time the number has doubled, until it is. Of two reads at the
    /// same moment one may go uncounted: that costs less than counting it.
    pub(crate) fn count_read(&self) -> bool {
        let before = self.reads.load(Relaxed);
        self.reads.store(before.wrapping_add(1), Relaxed);
        let note = self.note.load(Relaxed);
        note != Note::Yes as u8 && (note == Note::Again as u8 || before.wrapping_add(1).is_power_of_two())
    }

    /// It is noted from now on; whether it was not before.
    pub(crate) fn set_noted(&self) -> bool {
        self.note.swap(Note::Yes as u8, Relaxed) != Note::Yes as u8
    }

    /// It is not noted any more: it is asked for.
    pub(crate) fn forget_noted(&self) {
        self.note.store(Note::Again as u8, Relaxed);
    }

    /// How often it was read since it was fetched, if that is noted.
    pub(crate) fn noted_reads(&self) -> Option<u32> {
        (self.note.load(Relaxed) == Note::Yes as u8).then(|| self.reads.load(Relaxed))
    }

    /// It is used in this turn of the cache.
    pub(crate) fn used(&self, turn: u32) {
        if self.used_in.load(Relaxed) != turn {
            self.used_in.store(turn, Relaxed);
        }
    }

    /// In which turn of the cache it was used last.
    pub(crate) fn used_in(&self) -> u32 {
        self.used_in.load(Relaxed)
    }

    /// The page that it is on, if the cache holds it.
    pub(crate) fn page(&self) -> Option<u32> {
        Some(self.page.load(Relaxed)).filter(|page| *page > 0)
    }

    /// It is on this page from now on; zero: on none.
    pub(crate) fn move_to(&self, page: u32) {
        self.page.store(page, Relaxed);
    }
}
