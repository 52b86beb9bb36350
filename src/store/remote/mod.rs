//! The store in Redis or Valkey, which several gateways have in common.
//!
//! - **Shelves.** What is known of an id stands together, as a hash: for each scope its answer, the customer whom it names, and
//!   who carries it. Rows are sealed and named as on a disk; beside each stands its time, so that of two the later one stays.
//! - **Erasures** are numbered. Whoever erases takes the rows away, counts on and tells everybody, in one step; everybody else
//!   forgets, too. A row is only written by who has heard of every erasure: what it is made of cannot be older than one of them.
//!   Who was away hears what was missed when it is back, or forgets everything.
//! - **An epoch** is what has been written since everything was erased for the last time. Where the server does not know an
//!   erasure that a gateway knows (it was emptied, or has lost its last seconds), or its clock went back, another one begins.
//! - **Times** are the server's: no gateway's wall clock counts.
//! - **Bounded.** Every call ends after [`CALL`]; what is not needed for [`max_age`](Remote::max_age) expires; how much
//!   there may be is the server's `maxmemory`.

mod erase;
mod fetched;
mod peers;
mod said;
mod save;
mod scripts;
pub(super) mod worker;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::watch;

pub(super) use self::peers::Ear;
use self::{peers::Known, scripts::Scripts};
use super::{
    InRedis, Memory,
    dating::{Dating, Moment},
    names::{IdName, Table},
    seal::{Seal, StoreKey},
};
use crate::{
    codec::{Dictionary, DictionaryId},
    link::{Connector, Link, Lost},
    metrics::StoreMetrics,
};

/// How long a call may take.
const CALL: Duration = Duration::from_millis(100);

/// Shelves that one call reads or writes, at most: a millisecond or so of the server's time.
const SHELVES: usize = 512;

/// Erasures that are kept for who is away.
const LOG: usize = 1024;

/// Dictionaries that are kept in memory: one for each gateway, and for each time that it learned another.
const DICTIONARIES: usize = 64;

/// A store at a server.
pub(super) struct Remote {
    link: Arc<Link>,
    scripts: Scripts,
    /// What all names begin with.
    base: String,
    /// Where erasures are told.
    channel: String,
    /// This process, among those that tell.
    origin: String,
    /// How much it has told.
    told: AtomicU64,
    pub(super) seal: Seal,
    max_age: Duration,
    known: Mutex<Known>,
    tie: watch::Sender<Tie>,
    dictionaries: Mutex<HashMap<[u8; 16], Arc<Dictionary>>>,
    memory: OnceLock<Weak<dyn Memory>>,
}

/// How the process stands with the server.
#[derive(Clone, PartialEq, Eq)]
enum Tie {
    /// It is about to be known.
    Open,
    /// It has heard of every erasure; this is the epoch.
    Joined(Arc<str>),
    /// There is no connection, or no use of it.
    Away,
}

/// A row's place on a shelf: the table's letter, then what is left of its name.
type Place = Vec<u8>;

/// What stands on a shelf.
type Rows = Vec<(Place, Vec<u8>)>;

impl Remote {
    /// The store of an owner, not connected yet.
    pub(super) fn new(config: &InRedis, owner: &str) -> Result<Self, String> {
        let key = match &config.key_file {
            Some(file) => file.key.clone(),
            None => StoreKey::known(&config.prefix),
        };
        let seal = Seal::new(&key);
        // Who has another key, upstream or format has nothing in common.
        let own = seal.name(b'o', &[b"format 1", owner.as_bytes()]);
        let own: String = own[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let base = format!("{}:s1:{{{own}}}:", config.prefix);
        Ok(Self {
            link: Arc::new(Link::new(Connector::new(config.link.clone(), "store")?, CALL)),
            scripts: Scripts::new(),
            channel: format!("{base}erased"),
            base,
            origin: format!("{:016x}", fastrand::u64(..)),
            told: AtomicU64::new(0),
            seal,
            max_age: config.max_age,
            known: Mutex::default(),
            tie: watch::Sender::new(Tie::Open),
            dictionaries: Mutex::default(),
            memory: OnceLock::new(),
        })
    }

    /// From now on this is what has to forget.
    pub(super) fn attach(&self, memory: Weak<dyn Memory>) {
        // There is one for as long as the process lives.
        let _attached = self.memory.set(memory);
    }

    /// The last erasure by anybody of which has been heard.
    pub(super) fn heard(&self) -> u64 {
        self.known().generation()
    }

    fn epoch(&self) -> Result<Arc<str>, Lost> {
        match &*self.tie.borrow() {
            Tie::Joined(epoch) => Ok(Arc::clone(epoch)),
            Tie::Open | Tie::Away => Err(Lost("there is no connection".to_owned())),
        }
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        self.memory.get()?.upgrade()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moments that are read: what is kept is older, if anything.
    fn reading(&self) -> Option<Dating> {
        let clock = self.known().clock()?;
        Some(Dating::of(clock.before, moment(clock.micros)))
    }

    /// Moments that are written: what is kept is older, if anything.
    fn writing(&self) -> Option<Dating> {
        let clock = self.known().clock()?;
        Some(Dating::of(clock.after, moment(clock.micros)))
    }

    fn state(&self) -> Vec<u8> {
        format!("{}state", self.base).into_bytes()
    }

    fn log(&self) -> Vec<u8> {
        format!("{}log", self.base).into_bytes()
    }

    fn shelf(&self, epoch: &str, id: &IdName) -> Vec<u8> {
        [self.base.as_bytes(), b"r:", epoch.as_bytes(), b":", id].concat()
    }

    /// Where a dictionary stands.
    fn dictionary_shelf(&self, epoch: &str, id: DictionaryId) -> Vec<u8> {
        [self.base.as_bytes(), b"r:", epoch.as_bytes(), b":d", &id.0].concat()
    }

    /// Where it stands what is known of the whole.
    fn about(&self, epoch: &str) -> Vec<u8> {
        [self.base.as_bytes(), b"r:", epoch.as_bytes(), b":about"].concat()
    }

    /// What stands on these shelves at places that begin so.
    async fn read(&self, epoch: &str, shelves: &[Vec<u8>], beginning: &[u8]) -> Result<Vec<Rows>, Lost> {
        let mut all = Vec::with_capacity(shelves.len());
        for shelves in shelves.chunks(SHELVES) {
            let mut keys = vec![self.state()];
            keys.extend_from_slice(shelves);
            let answer = self.link.call(&self.scripts.read, &keys, &[epoch.as_bytes(), beginning]).await?;
            let read = scripts::rows(self.checked(answer)?);
            all.extend(read.filter(|read| read.len() == shelves.len()).ok_or_else(not_understood)?);
        }
        Ok(all)
    }

    /// An answer, without the word in front that says that all is well.
    fn checked(&self, mut answer: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Lost> {
        match answer.first().map(Vec::as_slice) {
            Some(b"ok") => {
                answer.remove(0);
                Ok(answer)
            }
            Some(b"lost") => {
                self.leave();
                Err(Lost("the server has begun anew".to_owned()))
            }
            _ => Err(not_understood()),
        }
    }

    /// What this process knows of the server does not count any more: it joins again.
    fn leave(&self) {
        self.tie.send_if_modified(|tie| {
            let was_joined = matches!(tie, Tie::Joined(_));
            if was_joined {
                // Joined => Open
                *tie = Tie::Open;
            }
            was_joined
        });
        self.known().must_join = true;
    }

    fn keep_dictionary(&self, dictionary: &Arc<Dictionary>) {
        let mut known = self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DICTIONARIES {
            known.clear();
        }
        known.insert(dictionary.id().0, Arc::clone(dictionary));
    }

    fn kept_dictionary(&self, id: DictionaryId) -> Option<Arc<Dictionary>> {
        self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner).get(&id.0).cloned()
    }

    /// A row as it is kept: its time, then what it says, sealed.
    fn sealed(&self, place: &[u8], moment: Moment, plain: &[u8]) -> Vec<u8> {
        let micros = moment.0 / 1000;
        [format!("{micros:016}").as_bytes(), &self.seal.close(place, plain)].concat()
    }

    fn unsealed(&self, place: &[u8], row: &[u8]) -> Option<Vec<u8>> {
        self.seal.open(place, row.get(16..)?)
    }
}

/// What is counted of the connection.
pub(super) fn connected(metrics: &StoreMetrics, is_connected: bool) {
    metrics.connected.set(i64::from(is_connected));
}

/// With what a row is sealed, so that it cannot be exchanged with another.
fn bound(id: &IdName, place: &[u8]) -> Vec<u8> {
    [&id[..], place].concat()
}

/// A row's place: its shelf, and where on it.
fn place(table: Table, name: &[u8]) -> Option<(IdName, Place)> {
    let (id, rest) = name.split_first_chunk()?;
    Some((*id, [&[letter(table)], rest].concat()))
}

const fn letter(table: Table) -> u8 {
    match table {
        Table::Answers => b'a',
        Table::Customers => b'c',
        Table::Links => b'l',
        Table::About => b'b',
    }
}

fn moment(micros: u64) -> Moment {
    Moment(micros.saturating_mul(1000))
}

fn not_understood() -> Lost {
    Lost("its answer cannot be understood".to_owned())
}
