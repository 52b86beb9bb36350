//! The directory of a store: nobody else's, and one process's at a time.
//!
//! What is in it and cannot be used is set aside under another name, and only the last of that is kept: it may hold personal
//! data. Files that are not the store's are left alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use crate::store::seal::StoreKey;

/// What the files of the store end with.
const ENDING: &str = ".rows";
/// What is appended to the name of what is set aside, before the time.
const ASIDE: &str = ".set-aside-";
/// Only its owner reads a directory or a file of the store.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The directory, locked for as long as this lives.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the directory if there is none, and takes it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |what: &str, error: io::Error| format!("store.path: {} {what}: {error}", path.display());
        if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
            set_aside(path, "it is no directory").map_err(|error| failed("cannot be set aside", error))?;
        }
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        made.map_err(|error| failed("cannot be made", error))?;
        let mode = fs::metadata(path).map_err(|error| failed("cannot be read", error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let mut others = fs::read_dir(path).map_err(|error| failed("cannot be read", error))?;
            if others.next().is_some() && !path.join("lock").exists() {
                let mode = mode & 0o7777;
                return Err(format!(
                    "store.path: {} must be a directory of its own: it has mode {mode:o} and other files in it",
                    path.display()
                ));
            }
            let tightened = fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE));
            tightened.map_err(|error| failed("cannot be kept from others", error))?;
        }
        let lock = file().create(true).truncate(false).open(path.join("lock"));
        let lock = lock.map_err(|error| failed("cannot be locked", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(format!("store.path: {} is in use by another process", path.display()))
            }
            Err(TryLockError::Error(error)) => Err(failed("cannot be locked", error)),
        }
    }

    /// The key that lies in the directory itself, for who gives none: made anew where there is none that can be read.
    pub(super) fn own_key(&self) -> Result<StoreKey, String> {
        let path = self.path.join("key");
        let failed = |error: io::Error| format!("store.path: {}: {error}", path.display());
        let mut text = String::new();
        if let Ok(mut found) = File::open(&path)
            && found.read_to_string(&mut text).is_ok()
            && let Some(key) = StoreKey::parse(&text)
        {
            return Ok(key);
        }
        let key = StoreKey::generate();
        let mut new = file().create(true).truncate(true).open(&path).map_err(failed)?;
        new.write_all(key.to_hex().as_bytes()).and_then(|()| new.sync_all()).map_err(failed)?;
        self.sync();
        Ok(key)
    }

    /// The numbers of the files that are there, newest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let names = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(ENDING)?.parse().ok();
        let mut numbers: Vec<u64> = names.filter_map(number).collect();
        numbers.sort_unstable_by(|one, two| two.cmp(one));
        numbers
    }

    /// Where the file of a number is.
    pub(super) fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:010}{ENDING}"))
    }

    /// Makes an empty file that only its owner reads.
    pub(super) fn make(&self, number: u64) -> io::Result<PathBuf> {
        let path = self.file(number);
        file().create(true).truncate(true).open(&path)?;
        self.sync();
        Ok(path)
    }

    /// Removes these files for good.
    pub(super) fn remove(&self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            if let Err(error) = fs::remove_file(&path) {
                warn!(%error, "a file of the store cannot be removed");
            }
        }
        self.sync();
    }

    /// Sets every file of the store aside, and lets go of what was set aside before.
    pub(super) fn set_all_aside(&self, reason: &str) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let old = names.filter(|name| name.contains(ENDING) && name.contains(ASIDE)).map(|name| self.path.join(name));
        self.remove(old.collect::<Vec<_>>());
        for number in self.numbers() {
            if let Err(error) = set_aside(&self.file(number), reason) {
                warn!(%error, "a file of the store cannot be set aside");
            }
        }
        self.sync();
    }

    /// What was renamed or removed stays so if the power fails.
    fn sync(&self) {
        // Where a file system has no such thing, nothing can be done about it.
        let _unsupported = File::open(&self.path).and_then(|folder| folder.sync_all());
    }
}

fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).read(true).mode(FILE_MODE);
    options
}

fn set_aside(path: &Path, reason: &str) -> io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!("{ASIDE}{}", since.as_secs()));
    fs::rename(path, &aside)?;
    let aside = Path::new(&aside).display();
    warn!(reason, file = %path.display(), %aside, "a file of the store was set aside: the cache starts without it");
    Ok(())
}
