//! Settings that may change while the program runs: a number or a time that many read and one replaces.
//!
//! A clone is the same setting. Reading one is an ordinary load, so that what is read for every key of every lookup costs
//! nothing more than a constant field would; several of them are replaced one after another, not at once.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

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

/// How many may be at work at once.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>, Arc<Mutex<usize>>);

impl Places {
    /// A setting that begins with this.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)), Arc::new(Mutex::new(count)))
    }

    /// Where a place is taken by who is at work.
    #[must_use]
    pub fn semaphore(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0)
    }

    /// How many there are from now on. A place that is taken stays: where there are to be fewer than that, there are so many.
    pub fn set(&self, count: usize) {
        let mut now = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if count > *now {
            self.0.add_permits(count - *now);
            *now = count;
        } else {
            *now -= self.0.forget_permits(*now - count);
        }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).fmt(f)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_and_go_but_for_those_that_are_taken() {
        let places = Places::new(3);
        let semaphore = places.semaphore();
        let taken = semaphore.try_acquire_many(2).expect("there are three");
        places.set(5);
        assert_eq!(semaphore.available_permits(), 3);
        places.set(1);
        assert_eq!((semaphore.available_permits(), format!("{places:?}")), (0, "2".to_owned()));
        drop(taken);
        places.set(1);
        assert_eq!(semaphore.available_permits(), 1);
        places.set(4);
        assert_eq!(semaphore.available_permits(), 4);
    }
}
