//! What outlives the process: answers on a disk, written behind and read when the memory does not have them.
//!
//! - **Written behind.** What an upstream request brought is handed over without waiting; a thread of the store's own writes it, in
//!   one transaction or in one with others. When it cannot keep up the oldest is let go and counted.
//! - **Read through.** What the cache does not hold is read before anybody is asked, within [`LONGEST_LOAD`]; after that it is a
//!   miss. A hit never comes here.
//! - **Erased** is erased when it is said so: written through to the disk, in every file.
//!
//! What is kept is independent of the process: times are the wall clock's ([`dating`]), rows are found by keyed hashes ([`names`])
//! and say whole what they are of ([`rows`]), and are [sealed](seal). What may be believed of them is decided when they are [read](load), and
//! nothing that was saved or erased meanwhile is brought back ([`order`]). [`disk`] keeps files, within their bounds.
//!
//! [`Store`] is the seam: a store elsewhere has the same few orders.

mod dating;
mod disk;
mod erase;
mod folder;
mod generation;
mod load;
mod names;
mod order;
mod rows;
mod save;
mod seal;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use self::{
    disk::Disk,
    load::Found,
    order::{Job, Sequence, Since},
};
pub use self::{erase::Erased, seal::StoreKey};
use crate::{
    clock::{self, Instant},
    key::{Credential, Id, Key, Scope},
    metrics::{StoreMetrics, StoreRead},
    record::Record,
    shape::Shape,
};

/// How long a lookup waits for the disk, at most. Who asks the upstream instead waits for a slot: a second, or longer.
pub const LONGEST_LOAD: Duration = Duration::from_millis(250);

/// Loads at once: a disk has no more heads, and a machine rarely more processors.
const LOADS: usize = 8;

/// How long the end of the process waits for what is still to be written.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);

/// Where answers are kept, and how many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The directory.
    pub path: PathBuf,
    /// Bytes on the disk; the oldest answers are removed first.
    pub capacity: u64,
    /// How long an answer is kept.
    pub max_age: Duration,
    /// What rows are encrypted with; without it the key lies in the directory.
    pub key_file: Option<KeyFile>,
}

/// A key and where it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// What was in it.
    pub key: StoreKey,
}

/// A store that is open and not yet used: nothing is loaded or saved.
pub struct Opened(Disk);

impl Opened {
    /// Opens the store of an owner: the upstream, the credentials and the lookup paths whose answers it holds.
    ///
    /// # Errors
    /// A sentence when the directory cannot be used, or is by another process.
    pub fn new(config: &Config, owner: &str) -> Result<Self, String> {
        Disk::open(config, owner).map(Self)
    }
}

/// What one upstream request brought.
pub struct Saving {
    /// Whose keys they are.
    pub scope: Arc<Scope>,
    /// The envelope in which it came.
    pub envelope: Bytes,
    /// The customers, each in the version that every key gives.
    pub records: Vec<Record>,
    /// What each key is answered since when.
    pub answers: Vec<(Id, Instant, Vec<Record>)>,
    /// Keys of which nothing is known any more.
    pub gone: Vec<Id>,
}

impl fmt::Debug for Saving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Saving({} answers)", self.answers.len())
    }
}

/// A store in use.
pub struct Store {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the store's thread and its readers share.
struct Shared {
    disk: Disk,
    shapes: Vec<Arc<Shape>>,
    sequence: Sequence,
    loads: Arc<Semaphore>,
    metrics: StoreMetrics,
}

/// Answers that were read, and are to be [believed](Self::believe).
pub struct Loaded {
    found: Vec<Found>,
    under_way: UnderWay,
}

/// One answer that was read.
pub struct Answered {
    /// The key.
    pub id: Id,
    /// Since when it is the answer.
    pub fetched_at: Instant,
    /// Its customers.
    pub records: Vec<Record>,
}

/// A load that is under way; over when this is dropped.
struct UnderWay(Arc<Shared>, Since);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.sequence.end_load(self.1);
    }
}

/// An erasure that is under way: nothing is loaded.
pub struct Erasing(Arc<Shared>);

impl Drop for Erasing {
    fn drop(&mut self) {
        self.0.sequence.end_erasure();
    }
}

impl Store {
    /// Starts to use a store that is open, for lookup paths of these shapes, in their order.
    #[must_use]
    pub fn start(opened: Opened, shapes: Vec<Arc<Shape>>, metrics: StoreMetrics) -> Self {
        let shared = Arc::new(Shared {
            disk: opened.0,
            shapes,
            sequence: Sequence::default(),
            loads: Arc::new(Semaphore::new(LOADS)),
            metrics,
        });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer::run(&writer));
        let thread = thread.expect("this holds because the process has just begun and has few threads");
        Self { shared, thread: Mutex::new(Some(thread)) }
    }

    /// The envelope of the last success of a lookup path.
    #[must_use]
    pub fn envelope(&self, lookup: u8) -> Option<Bytes> {
        self.shared.disk.envelope(lookup).map(Bytes::from)
    }

    /// Reads these keys of a scope, within [`LONGEST_LOAD`]. None where nothing can be read now.
    pub async fn load(&self, scope: &Arc<Scope>, shape: &Arc<Shape>, ids: Vec<Id>) -> Option<Loaded> {
        let (began, asked) = (clock::now(), ids.len());
        let metrics = &self.shared.metrics;
        let loading = self.read(Arc::clone(scope), Arc::clone(shape), ids, began);
        let Ok(loaded) = tokio::time::timeout(LONGEST_LOAD, loading).await else {
            metrics.read(StoreRead::Late, asked);
            return None;
        };
        metrics.read_seconds.observe(clock::now().saturating_duration_since(began).as_secs_f64());
        let Some(loaded) = loaded else {
            metrics.read(StoreRead::Failed, asked);
            return None;
        };
        metrics.read(StoreRead::Found, loaded.found.len());
        metrics.read(StoreRead::Absent, asked - loaded.found.len());
        Some(loaded)
    }

    async fn read(&self, scope: Arc<Scope>, shape: Arc<Shape>, ids: Vec<Id>, now: Instant) -> Option<Loaded> {
        let permit = Arc::clone(&self.shared.loads).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.shared);
        let since = shared.sequence.begin_load()?;
        let under_way = UnderWay(shared, since);
        // Whoever stops waiting leaves it to itself; its place is taken until it is over.
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            match under_way.0.disk.load((&scope, &shape), &ids, now) {
                Ok(found) => Some(Loaded { found, under_way }),
                Err(error) => {
                    tracing::warn!(%error, "stored answers cannot be read");
                    under_way.0.sequence.damaged();
                    None
                }
            }
        });
        reading.await.ok().flatten()
    }

    /// Takes what an upstream request brought. Nobody waits.
    pub fn save(&self, saving: Saving) {
        if self.shared.sequence.save(saving) {
            self.shared.metrics.dropped.inc();
        }
    }

    /// From now on until it is dropped nothing is loaded, and what is being loaded is not believed.
    #[must_use]
    pub fn begin_erasure(&self) -> Erasing {
        self.shared.sequence.begin_erasure();
        Erasing(Arc::clone(&self.shared))
    }

    /// Erases what these ids of a lookup path lead to, of everybody's or of what was asked for with a credential. It is done
    /// when it is said so.
    #[must_use]
    pub fn erase(
        &self,
        erasing: Erasing,
        lookup: u8,
        whose: Option<&Credential>,
        ids: &[Id],
    ) -> oneshot::Receiver<Erased> {
        let (tell, told) = oneshot::channel();
        let order = erase::Order { lookup, whose: whose.cloned(), ids: ids.to_vec() };
        self.shared.sequence.add(Job::Erase(order, erasing, tell));
        told
    }

    /// Erases everything. Returns how many keys and customers that were.
    pub async fn erase_all(&self, erasing: Erasing) -> (u64, u64) {
        let (tell, told) = oneshot::channel();
        self.shared.sequence.add(Job::EraseAll(erasing, tell));
        told.await.unwrap_or_default()
    }

    /// Of these keys and customers, by their identity, how many more were erased here.
    #[must_use]
    pub fn more(&self, erased: &Erased, keys: &[Key], customers: &[Key]) -> (usize, usize) {
        let name = |key: &Key| {
            let seal = &self.shared.disk.seal;
            let scope = names::Named::new(seal, &key.scope);
            names::name(&names::id_name(seal, key.scope.lookup, &key.id), &scope.name)
        };
        let (keys, customers): (HashSet<_>, HashSet<_>) =
            (keys.iter().map(name).collect(), customers.iter().map(name).collect());
        (erased.keys.difference(&keys).count(), erased.customers.difference(&customers).count())
    }

    /// Waits until everything is written that was saved before, if that does not take too long.
    pub async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        self.shared.sequence.add(Job::Flush(tell));
        let _late = tokio::time::timeout(LONGEST_FLUSH, told).await;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.sequence.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic in it has been printed by the hook.
        let _ended = thread.map(JoinHandle::join);
    }
}

impl Loaded {
    /// What can be believed of it now: what was saved or erased since it was begun is left out.
    #[must_use]
    pub fn believe(self, scope: &Scope) -> Vec<Answered> {
        let Self { mut found, under_way } = self;
        let believed = under_way.0.sequence.believe(under_way.1, |recent| {
            let is_recent = |id: crate::key::IdRef<'_>| recent.contains(&id.digest(scope));
            found.retain(|found| {
                let mut ids = found.records.iter().flat_map(Record::ids);
                !is_recent(found.id.borrowed()) && !ids.any(is_recent)
            });
        });
        if !believed {
            return Vec::new();
        }
        let answered = |Found { id, fetched_at, records }| Answered { id, fetched_at, records };
        found.into_iter().map(answered).collect()
    }
}
