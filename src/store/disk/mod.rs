//! The store on a disk: a few files, each with the answers of some time, the newest of which is written to.
//!
//! - **Bounded.** A file is closed when it holds its share of the capacity or of the time; the oldest is removed when all of them
//!   take more than the capacity, or when nothing in it may be given any more. Nothing is moved and nothing has to be searched for.
//! - **The newest counts.** A row in a newer file takes the place of that of the same name in an older one.
//! - **All or nothing.** A file that is not what was written is set aside, and so are the others: they might give what the missing
//!   one had made old.
//! - **Times.** Each commit notes when it was made. Where the wall clock says less when the store is opened, it went back, and
//!   nobody knows how old anything is: everything is removed.

mod erase;
mod folder;
mod generation;
mod read;
pub(super) mod writer;

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tracing::{info, warn};

use self::{
    folder::Folder,
    generation::{Change, Failed, Generation, View},
};
use super::{
    OnDisk,
    dating::{Dating, Moment},
    names::{Name, Table},
    save::Row,
    seal::Seal,
};
use crate::{
    clock,
    codec::{Dictionary, DictionaryId},
};

/// Files that the capacity and the time are shared by: what is removed at once is an eighth.
const FILES: u64 = 8;
/// Bytes of memory that each file may use to keep what was read; the system keeps more.
const MEMORY: usize = 8 << 20;
/// The wall clock may go back by so much without harm: no answer is good for so short a time.
const TOLERANCE: Duration = Duration::from_secs(1);

/// What is known of a file, by name.
const KEY: &[u8] = b"key";
const OWNER: &[u8] = b"owner";
const SEEN: &[u8] = b"seen";
const DICTIONARY: &[u8] = b"dictionary";

/// A store that is open.
pub(super) struct Disk {
    folder: Folder,
    pub(super) seal: Seal,
    dating: Dating,
    capacity: u64,
    max_age: Duration,
    owner: Name,
    files: RwLock<Arc<[Arc<File>]>>,
    dictionaries: Mutex<HashMap<[u8; 16], Arc<Dictionary>>>,
}

/// One of its files.
struct File {
    generation: Generation,
    /// When it was written to last.
    seen: AtomicU64,
    /// When it was opened or made.
    since: Moment,
    /// Bytes that were written to it, or may have been.
    written: AtomicU64,
}

impl Disk {
    /// Opens the store of an owner: the upstream and the lookup paths whose answers it holds.
    pub(super) fn open(config: &OnDisk, owner: &str) -> Result<Self, String> {
        Self::open_at(config, owner, SystemTime::now())
    }

    /// The same when the wall clock says `wall`.
    pub(super) fn open_at(config: &OnDisk, owner: &str, wall: SystemTime) -> Result<Self, String> {
        let folder = Folder::open(&config.path)?;
        let key = match &config.key_file {
            Some(file) => file.key.clone(),
            None => folder.own_key()?,
        };
        let seal = Seal::new(&key);
        let disk = Self {
            owner: seal.name(b'o', &[owner.as_bytes()]),
            folder,
            seal,
            dating: Dating::new(clock::now(), wall),
            capacity: config.capacity,
            max_age: config.max_age,
            files: RwLock::new(Arc::from([])),
            dictionaries: Mutex::default(),
        };
        let opened = disk.open_files();
        match opened {
            Ok(files) => disk.set_files(files),
            Err(Failed::System(kind)) => return Err(format!("store.path: {}: {kind}", config.path.display())),
            Err(reason) => disk.folder.set_all_aside(&reason.to_string()),
        }
        disk.check_clock();
        if disk.files().is_empty() {
            disk.add_file().map_err(|error| format!("store.path: {}: {error}", config.path.display()))?;
        }
        Ok(disk)
    }

    fn open_files(&self) -> Result<Vec<Arc<File>>, Failed> {
        let mut files = Vec::new();
        for number in self.folder.numbers() {
            let path = self.folder.file(number);
            if fs::metadata(&path).is_ok_and(|found| found.len() == 0) {
                // It was about to be made when the process ended.
                self.folder.remove([path]);
                continue;
            }
            let generation = Generation::open(&path, number, MEMORY)?;
            let about = generation.view()?;
            match about.get(Table::About, KEY)? {
                Some(key) if *key == self.key_mark() => {}
                Some(_) => return Err(Failed::OtherKey),
                None => return Err(Failed::Damaged),
            }
            if about.get(Table::About, OWNER)?.as_deref() != Some(&self.owner) {
                info!("the store holds answers of another upstream or of other lookup paths: it starts empty");
                files.clear();
                let all = self.folder.numbers().into_iter().map(|number| self.folder.file(number));
                drop((about, generation));
                self.folder.remove(all.collect::<Vec<_>>());
                return Ok(files);
            }
            let seen = moment(about.get(Table::About, SEEN)?);
            files.push(Arc::new(File {
                seen: AtomicU64::new(seen.0),
                since: self.now(),
                // About half of a file is what was written to it.
                written: AtomicU64::new(generation.bytes() / 2),
                generation,
            }));
        }
        Ok(files)
    }

    /// Removes everything if the wall clock went back since it was written.
    fn check_clock(&self) {
        let seen = self.files().iter().map(|file| file.seen.load(Relaxed)).max().unwrap_or_default();
        let ahead = Duration::from_nanos(seen.saturating_sub(self.now().0));
        if ahead > TOLERANCE {
            let seconds = ahead.as_secs();
            warn!(seconds, "the clock went back: nobody knows how old the stored answers are, and they are removed");
            self.remove(|_| true);
        }
    }

    /// The mark of the key and of the format.
    fn key_mark(&self) -> Name {
        self.seal.name(b'k', &[b"format 1"])
    }

    fn now(&self) -> Moment {
        self.dating.moment(clock::now())
    }

    fn files(&self) -> Arc<[Arc<File>]> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_files(&self, files: Vec<Arc<File>>) {
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = files.into();
    }

    /// What every file holds now, newest first.
    fn views(&self) -> Result<Vec<View>, Failed> {
        self.files().iter().map(|file| file.generation.view()).collect()
    }

    /// Begins a file, to which is written from now on.
    fn add_file(&self) -> Result<Arc<File>, Failed> {
        let files = self.files();
        let number = files.first().map_or(1, |file| file.generation.number + 1);
        let path = self.folder.make(number).map_err(|error| Failed::System(error.kind()))?;
        let generation = Generation::open(&path, number, MEMORY)?;
        let now = self.now();
        let about = [(KEY, self.key_mark().to_vec()), (OWNER, self.owner.to_vec()), (SEEN, now.0.to_le_bytes().into())];
        let about = about.map(|(name, value)| Change { table: Table::About, name: name.into(), value: Some(value) });
        generation.commit(&about)?;
        let file = Arc::new(File { seen: AtomicU64::new(now.0), since: now, written: AtomicU64::new(0), generation });
        self.set_files(std::iter::once(Arc::clone(&file)).chain(files.iter().cloned()).collect());
        Ok(file)
    }

    /// The file that is written to, closed and followed by another if it holds its share.
    fn current(&self) -> Result<Arc<File>, Failed> {
        let newest = self.files().first().cloned();
        let Some(newest) = newest else { return self.add_file() };
        let is_full = newest.written.load(Relaxed) >= self.capacity / FILES / 2;
        let is_old = newest.since.age(self.now()).is_some_and(|age| age > self.max_age / (FILES as u32 / 2));
        if is_full || is_old { self.add_file() } else { Ok(newest) }
    }

    /// Makes these changes in a file.
    fn commit(&self, file: &File, mut changes: Vec<Change>) -> Result<(), Failed> {
        let now = self.now();
        let bytes: usize =
            changes.iter().map(|change| change.name.len() + change.value.as_ref().map_or(0, Vec::len)).sum();
        changes.push(Change { table: Table::About, name: SEEN.into(), value: Some(now.0.to_le_bytes().into()) });
        file.generation.commit(&changes)?;
        file.seen.store(now.0, Relaxed);
        file.written.fetch_add(bytes as u64, Relaxed);
        Ok(())
    }

    /// Removes the files for which there is no room any more, and those of which nothing may be given.
    fn trim(&self) {
        let now = self.now();
        self.remove(|file| {
            Moment(file.seen.load(Relaxed)).age(now).is_some_and(|age| age > self.max_age) && file.is_used()
        });
        loop {
            let files = self.files();
            let (Some(newest), Some(oldest)) = (files.first(), files.last()) else { return };
            // The newest one doubles when it grows.
            let most = self.capacity.saturating_sub(newest.generation.bytes());
            if files.len() == 1 || self.bytes() <= most {
                return;
            }
            let number = oldest.generation.number;
            self.remove(|file| file.generation.number == number);
        }
    }

    /// Removes files, the oldest first: what one had made old must not be there without it.
    fn remove(&self, which: impl Fn(&File) -> bool) {
        let (gone, kept): (Vec<_>, Vec<_>) = self.files().iter().cloned().partition(|file| which(file));
        if gone.is_empty() {
            return;
        }
        self.set_files(kept);
        self.folder.remove(gone.iter().rev().map(|file| file.generation.path.clone()));
    }

    /// Something is not what was written: sets everything aside.
    fn set_aside(&self, reason: &Failed) {
        self.set_files(Vec::new());
        self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.folder.set_all_aside(&reason.to_string());
    }

    /// Bytes on the disk.
    fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.generation.bytes()).sum()
    }

    /// What stands under a name in the newest file that has it.
    fn row(&self, views: &[View], table: Table, name: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        for view in views {
            if let Some(sealed) = view.get(table, name)? {
                return self.unseal(table, name, &sealed).map(Some);
            }
        }
        Ok(None)
    }

    /// The change that writes a row. What nothing is known of may stand in an older file: an empty row says so.
    fn change(&self, Row { table, name, plain, .. }: Row) -> Change {
        let value = self.sealed(table, &name, &plain.unwrap_or_default());
        Change { table, name, value: Some(value) }
    }

    /// A row as it is kept.
    fn sealed(&self, table: Table, name: &[u8], plain: &[u8]) -> Vec<u8> {
        self.seal.close(&place(table, name), plain)
    }

    fn unseal(&self, table: Table, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Failed> {
        self.seal.open(&place(table, name), sealed).ok_or(Failed::Damaged)
    }

    /// The dictionary of this id.
    fn dictionary(&self, views: &[View], id: DictionaryId) -> Option<Arc<Dictionary>> {
        let lock = || self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&id.0).cloned() {
            return Some(found);
        }
        let bytes = self.row(views, Table::About, &dictionary_name(id)).ok()??;
        let found = Arc::new(Dictionary::from_bytes(bytes).ok()?);
        lock().insert(id.0, Arc::clone(&found));
        Some(found)
    }

    /// The dictionary that was used last.
    fn last_dictionary(&self) -> Option<Arc<Dictionary>> {
        let views = self.views().ok()?;
        let id = views.iter().find_map(|view| view.get(Table::About, DICTIONARY).ok()?)?;
        self.dictionary(&views, DictionaryId(id.try_into().ok()?))
    }

    /// The changes by which a file knows a dictionary; none if it knows it already.
    fn learn(&self, file: &File, dictionary: &Arc<Dictionary>) -> Result<Vec<Change>, Failed> {
        let name = dictionary_name(dictionary.id());
        if file.generation.view()?.get(Table::About, &name)?.is_some() {
            return Ok(Vec::new());
        }
        self.dictionaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(dictionary.id().0, Arc::clone(dictionary));
        let value = self.sealed(Table::About, &name, dictionary.as_bytes());
        let id = dictionary.id().0.to_vec();
        Ok(vec![
            Change { table: Table::About, name, value: Some(value) },
            Change { table: Table::About, name: DICTIONARY.into(), value: Some(id) },
        ])
    }
}

impl File {
    /// Whether anything was written to it.
    fn is_used(&self) -> bool {
        self.written.load(Relaxed) > 0
    }
}

/// Where a row stands, which is sealed with it.
fn place(table: Table, name: &[u8]) -> Vec<u8> {
    [table.as_str().as_bytes(), b"/", name].concat()
}

fn dictionary_name(id: DictionaryId) -> Vec<u8> {
    [b"d/", &id.0[..]].concat()
}

fn moment(value: Option<Vec<u8>>) -> Moment {
    Moment(value.and_then(|value| value.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes))
}
