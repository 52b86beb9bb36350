//! What outlives the process: answers on a disk or in Redis, written behind and read when the memory does not have them.
//!
//! - **Written behind.** What an upstream request brought is handed over without waiting; a thread of the store's own writes it, in
//!   one transaction or in one with others. When it cannot keep up the oldest is let go and counted.
//! - **Read through.** What the cache does not hold is read before anybody is asked, within a [bound](Store::load); after that it is a
//!   miss. A hit never comes here.
//! - **Erased** is erased when it is said so: written through to the disk, in every file; or gone from Redis, and told to all.
//!
//! What is kept is independent of the process: times are the wall clock's ([`dating`]), rows are found by keyed hashes ([`names`])
//! and say whole what they are of ([`rows`]), and are [sealed](seal). What may be believed of them is decided when they are [read](load), and
//! nothing that was saved or erased meanwhile is brought back ([`order`]). [`disk`] keeps files, within their bounds; [`remote`]
//! keeps the same rows where several gateways have them in common.

mod config;
mod dating;
mod disk;
mod erased;
mod load;
mod memory;
mod names;
mod order;
mod reading;
mod remote;
mod rows;
mod save;
mod seal;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};

pub use self::{
    config::{Config, InRedis, KeyFile, OnDisk},
    erased::Erased,
    memory::Memory,
    reading::{Answered, LONGEST_LOAD, LONGEST_REMOTE_LOAD, Loaded},
    seal::StoreKey,
};
use self::{
    disk::Disk,
    erased::Order,
    order::{Job, Sequence},
    remote::{Ear, Remote},
    seal::Seal,
};
use crate::{
    clock::Instant,
    key::{Credential, Id, Key, Scope},
    metrics::StoreMetrics,
    record::Record,
    shape::Shape,
};

/// Loads at once: a disk has no more heads, and a machine rarely more processors.
const LOADS: usize = 8;

/// Loads at once from Redis, all over one connection.
const REMOTE_LOADS: usize = 64;

/// How long whoever erases waits for Redis to say that it is done.
const LONGEST_ERASURE: Duration = Duration::from_secs(1);

/// How long the end of the process waits for what is still to be written.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);

/// A store that is open and not yet used: nothing is loaded or saved.
pub struct Opened(Place);

impl Opened {
    /// Opens the store of an owner: the upstream, the credentials and the lookup paths whose answers it holds.
    ///
    /// # Errors
    /// A sentence when the directory cannot be used, or is by another process; when the server cannot be one.
    pub fn new(config: &Config, owner: &str) -> Result<Self, String> {
        match config {
            Config::Disk(config) => Self::on_disk(config, owner),
            Config::Redis(config) => Remote::new(config, owner).map(|remote| Self(Place::Redis(Arc::new(remote)))),
        }
    }

    /// The same on a disk.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_disk(config: &OnDisk, owner: &str) -> Result<Self, String> {
        Disk::open(config, owner).map(|disk| Self(Place::Disk(Box::new(disk))))
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

/// Where it is.
enum Place {
    Disk(Box<Disk>),
    Redis(Arc<Remote>),
}

/// It cannot be said yet that something is erased. It will be, unless the process ends before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Late;

/// What the store's thread and its readers share.
struct Shared {
    place: Place,
    shapes: Vec<Arc<Shape>>,
    sequence: Sequence,
    loads: Arc<Semaphore>,
    metrics: StoreMetrics,
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
            loads: Arc::new(Semaphore::new(if matches!(opened.0, Place::Disk(_)) { LOADS } else { REMOTE_LOADS })),
            place: opened.0,
            shapes,
            sequence: Sequence::default(),
            metrics,
        });
        let work: Box<dyn FnOnce() + Send> = match &shared.place {
            Place::Disk(_) => {
                let shared = Arc::clone(&shared);
                Box::new(move || {
                    if let Place::Disk(disk) = &shared.place {
                        disk::writer::run(&shared, disk);
                    }
                })
            }
            Place::Redis(remote) => {
                let (shared, remote, runtime) = (Arc::clone(&shared), Arc::clone(remote), Handle::current());
                Box::new(move || remote::worker::run(&shared, &remote, &runtime))
            }
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(work);
        let thread = thread.expect("this holds because the process has just begun and has few threads");
        Self { shared, thread: Mutex::new(Some(thread)) }
    }

    /// Whether others use it, too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.shared.place, Place::Redis(_))
    }

    /// From now on this is told what others erase.
    pub fn attach(&self, memory: Weak<dyn Memory>) {
        if let Place::Redis(remote) = &self.shared.place {
            remote.attach(memory);
        }
    }

    /// What keeps the connection, where there is one.
    #[must_use]
    pub fn connection(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Place::Redis(remote) = &self.shared.place else { return None };
        Some(Ear { shared: Arc::clone(&self.shared), remote: Arc::clone(remote) }.listen())
    }

    /// The envelope of the last success of a lookup path, if that is known without asking anybody.
    #[must_use]
    pub fn envelope(&self, lookup: u8) -> Option<Bytes> {
        match &self.shared.place {
            Place::Disk(disk) => disk.envelope(lookup).map(Bytes::from),
            Place::Redis(_) => None,
        }
    }

    /// Takes what an upstream request brought. Nobody waits.
    pub fn save(&self, saving: Saving) {
        let heard = match &self.shared.place {
            Place::Disk(_) => 0,
            Place::Redis(remote) => remote.heard(),
        };
        if self.shared.sequence.save(saving, heard) {
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
        (ids, is_purge): (&[Id], bool),
    ) -> oneshot::Receiver<Erased> {
        let (tell, told) = oneshot::channel();
        let order = Order { lookup, whose: whose.cloned(), ids: ids.into(), is_purge };
        self.shared.sequence.add(Job::Erase(order, erasing, tell));
        told
    }

    /// Erases everything. Returns how many keys and customers that were; Redis does not count.
    ///
    /// # Errors
    /// As [`erased`](Self::erased).
    pub async fn erase_all(&self, erasing: Erasing) -> Result<(u64, u64), Late> {
        let (tell, told) = oneshot::channel();
        self.shared.sequence.add(Job::EraseAll(erasing, tell));
        self.erased(told).await
    }

    /// Waits until it is said that something is erased.
    ///
    /// # Errors
    /// When Redis cannot be asked now, or is slow. It is erased as soon as that is possible.
    pub async fn erased<T: Default>(&self, told: oneshot::Receiver<T>) -> Result<T, Late> {
        match &self.shared.place {
            // Nothing is left of a store whose thread has ended.
            Place::Disk(_) => Ok(told.await.unwrap_or_default()),
            Place::Redis(remote) => {
                let erased =
                    async { if remote.settled().await { told.await.map_err(|_replaced| Late) } else { Err(Late) } };
                tokio::time::timeout(LONGEST_ERASURE, erased).await.unwrap_or(Err(Late))
            }
        }
    }

    /// Of these keys and customers, by their identity, how many more were erased here.
    #[must_use]
    pub fn more(&self, erased: &Erased, keys: &[Key], customers: &[Key]) -> (usize, usize) {
        let name = |key: &Key| {
            let seal = self.shared.seal();
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

impl Shared {
    fn seal(&self) -> &Seal {
        match &self.place {
            Place::Disk(disk) => &disk.seal,
            Place::Redis(remote) => &remote.seal,
        }
    }
}
