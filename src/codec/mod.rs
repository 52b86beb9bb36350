//! Packs records with zstd, by dictionaries that it trains on them.
//!
//! A record by itself gets hardly smaller; with a dictionary of what all of them have in common it is a seventh. Nobody can
//! know that dictionary beforehand, so:
//!
//! - **Learning.** The records that come by are [sampled](sample). After [`LESSON`] of them a dictionary is trained, by
//!   [`Codec::trained_next`] or whoever calls [`Codec::learn`], off the threads that serve. Until the first one is there, nothing is
//!   packed.
//! - **Knowing.** Every record is packed with the newest dictionary, and nothing is sampled. The ratio of each [`WINDOW`] of
//!   records is compared with what the dictionary achieved, in training, on records that it was not trained on.
//! - **Learning again**, once a window is [clearly worse](Knowledge::is_outdated) and the dictionary has served for
//!   [`LEAST_SERVICE`] records. A new dictionary is taken only if it is better than the old one on what came by; otherwise
//!   the old one goes on, and is held to what it can do now.
//!
//! Invariants:
//! 1. A packed record has its dictionary with it: whatever is learned later, it is read with that one. A dictionary lives as
//!    long as somebody has a record of it.
//! 2. There are at most [`MOST_ALIVE`] dictionaries: while so many are in use, the newest goes on.
//! 3. A record is packed only where that saves something.
//! 4. Samples are records: they are seen by nobody, and dropped when the dictionary is there.

mod dictionary;
mod encoder;
mod sample;

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;
use tracing::info;

pub use self::dictionary::{Corrupt, Dictionary, DictionaryId, length};
use self::{encoder::Encoder, sample::Sample};

/// Records that come by before a dictionary is trained: half a minute of a busy gateway.
const LESSON: usize = 2048;
/// Bytes of a dictionary. Half as many make records a fiftieth larger, twice as many no smaller.
const DICTIONARY: usize = 32 << 10;
/// Records whose ratio is judged together.
const WINDOW: u64 = 2048;
/// Records that a dictionary packs before another is trained: what training costs is then little beside packing them.
const LEAST_SERVICE: u64 = 16 * WINDOW;
/// Dictionaries in use at once. Each takes 100 KiB.
const MOST_ALIVE: usize = 8;
/// One record in so many is kept out of training, to judge by.
const HELD_BACK: usize = 8;

/// Packs records; shared by all threads.
pub struct Codec {
    state: Mutex<State>,
    /// A sample is complete.
    due: Notify,
}

/// A record packed, and what it takes to read it.
pub struct Packed {
    /// What it was packed with.
    pub dictionary: Arc<Dictionary>,
    /// A zstd frame.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.bytes.len())
    }
}

#[derive(Default)]
struct State {
    /// What is being learned from, if it is.
    sample: Option<Sample>,
    known: Option<Knowledge>,
    /// Every dictionary that may be in use.
    alive: Vec<Weak<Dictionary>>,
    trained: u64,
    /// How often everything was forgotten.
    forgotten: u64,
}

/// The newest dictionary, and how well it fits.
struct Knowledge {
    encoder: Arc<Encoder>,
    /// What part of records is left of them, when it was judged last.
    expected: f64,
    /// Records that it has packed.
    served: u64,
    window: Tally,
}

/// Bytes before and after.
#[derive(Clone, Copy, Default)]
struct Tally {
    records: u64,
    plain: usize,
    packed: usize,
}

impl Tally {
    fn add(&mut self, plain: usize, packed: usize) {
        self.records += 1;
        self.plain += plain;
        self.packed += packed;
    }

    fn ratio(self) -> f64 {
        self.packed as f64 / self.plain.max(1) as f64
    }
}

impl Knowledge {
    fn new(encoder: Arc<Encoder>, expected: f64) -> Self {
        Self { encoder, expected, served: 0, window: Tally::default() }
    }

    /// A record was packed. Whether the dictionary has stopped fitting.
    fn count(&mut self, plain: usize, packed: usize) -> bool {
        self.served += 1;
        self.window.add(plain, packed);
        if self.window.records < WINDOW {
            return false;
        }
        let ratio = mem::take(&mut self.window).ratio();
        self.served >= LEAST_SERVICE && self.is_outdated(ratio)
    }

    /// Clearly worse than it was: by a quarter, and by more than one window differs from the next.
    fn is_outdated(&self, ratio: f64) -> bool {
        ratio > self.expected * 1.25 && ratio > self.expected + 0.02
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec(..)")
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        // Nothing => Learning
        let state = State { sample: Some(Sample::default()), ..State::default() };
        Self { state: Mutex::new(state), due: Notify::new() }
    }

    /// A record comes by, to be learned from while that is needed.
    pub fn see(&self, record: &[u8]) {
        let mut state = self.lock();
        if let Some(sample) = &mut state.sample {
            sample.see(record);
            if sample.seen() == LESSON {
                self.due.notify_one();
            }
        }
    }

    /// A record packed by the newest dictionary; nothing where there is none yet, or where it would save nothing.
    #[must_use]
    pub fn pack(&self, record: &[u8]) -> Option<Packed> {
        let encoder = self.lock().known.as_ref().map(|known| Arc::clone(&known.encoder))?;
        let packed = encoder.pack(record);
        let mut state = self.lock();
        if let Some(known) = state.known.as_mut().filter(|known| Arc::ptr_eq(&known.encoder, &encoder)) {
            let left = packed.as_ref().map_or(record.len(), |packed| packed.bytes.len());
            let is_outdated = known.count(record.len(), left);
            if is_outdated && state.sample.is_none() && state.has_room() {
                // Knowing => Learning again
                state.sample = Some(Sample::default());
            }
        }
        packed
    }

    /// Waits until it is time to train, and trains; over when there is a new dictionary.
    pub async fn trained_next(self: Arc<Self>) {
        let mut is_new = false;
        while !is_new {
            self.due.notified().await;
            let codec = Arc::clone(&self);
            // Some hundred milliseconds of computing: callers have the other threads meanwhile.
            is_new = tokio::task::spawn_blocking(move || codec.learn()).await.unwrap_or_default();
        }
    }

    /// Forgets everything that was learned: what comes is learned from anew. What is packed can still be read.
    pub fn forget(&self) {
        let mut state = self.lock();
        // Knowing => Learning
        state.known = None;
        state.sample = Some(Sample::default());
        state.forgotten += 1;
    }

    /// Trains a dictionary if enough records have come by. Whether there is a new one.
    pub fn learn(&self) -> bool {
        let (sample, old, forgotten) = {
            let mut state = self.lock();
            let Some(sample) = state.sample.take_if(|sample| sample.seen() >= LESSON) else { return false };
            (sample, state.known.as_ref().map(|known| Arc::clone(&known.encoder)), state.forgotten)
        };
        let records = sample.into_records();
        let (judged, studied) = records.split_at(records.len() / HELD_BACK);
        let before = old.map_or(1.0, |old| ratio(&old, judged));
        let new = train(studied).map(|dictionary| Encoder::new(Arc::new(dictionary)));
        let new = new.map(|new| (ratio(&new, judged), new)).filter(|(after, _)| *after < before);
        let mut state = self.lock();
        if state.forgotten != forgotten {
            return false; // It is made of what must not be known any more.
        }
        let Some((after, encoder)) = new else {
            match &mut state.known {
                // Learning again => Knowing: nothing better is to be had.
                Some(known) => *known = Knowledge::new(Arc::clone(&known.encoder), before),
                // Learning => Learning: perhaps from what comes next.
                None => state.sample = Some(Sample::default()),
            }
            return false;
        };
        state.trained += 1;
        state.alive.push(Arc::downgrade(&encoder.dictionary));
        let bytes = encoder.dictionary.as_bytes().len();
        info!(records = studied.len(), dictionary_bytes = bytes, ratio = after, "dictionary trained");
        // Learning => Knowing
        state.known = Some(Knowledge::new(Arc::new(encoder), after));
        true
    }

    /// How many dictionaries were trained.
    #[must_use]
    pub fn trained(&self) -> u64 {
        self.lock().trained
    }

    /// One that knows this dictionary already.
    pub(crate) fn knowing(dictionary: Arc<Dictionary>) -> Self {
        let codec = Self::new();
        let known = Knowledge::new(Arc::new(Encoder::new(dictionary)), 0.5);
        *codec.lock() = State { known: Some(known), ..State::default() };
        codec
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there may be another dictionary.
    fn has_room(&mut self) -> bool {
        self.alive.retain(|dictionary| dictionary.strong_count() > 0);
        self.alive.len() < MOST_ALIVE
    }
}

/// What part of these records is left of them.
fn ratio(encoder: &Encoder, records: &[Box<[u8]>]) -> f64 {
    let mut tally = Tally::default();
    for record in records {
        tally.add(record.len(), encoder.pack(record).map_or(record.len(), |packed| packed.bytes.len()));
    }
    tally.ratio()
}

/// A dictionary of what these records have in common, if they have enough of it.
fn train(records: &[Box<[u8]>]) -> Option<Dictionary> {
    let bytes = zstd::dict::from_samples(records, DICTIONARY).ok()?;
    Dictionary::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests;
