//! Settings that may change while the program runs: a number or a time that many read and one replaces.
//!
//! A clone is the same setting. Reading one is an ordinary load, so that what is read for every key of every lookup costs
//! nothing more than a constant field would; several of them are replaced one after another, not at once.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A number.
#[derive(Clone)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// A setting that begins with this.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// What it is now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// What it is from now on.
    pub fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

/// A time, up to five centuries.
#[derive(Clone)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// A setting that begins with this.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(nanoseconds(time))))
    }

    /// What it is now.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// What it is from now on.
    pub fn set(&self, time: Duration) {
        self.0.store(nanoseconds(time), Ordering::Relaxed);
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Something larger, replaced whole: for what is read seldom, since it takes a lock for as long as a pointer is copied.
pub struct Whole<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Whole<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Whole<T> {
    /// A setting that begins with this.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// What it is now.
    #[must_use]
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it is from now on.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T: fmt::Debug> fmt::Debug for Whole<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}
