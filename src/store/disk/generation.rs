//! One file of the store: a redb database, in which the answers of some time stand.
//!
//! redb survives a crash at any point, but trusts what it has written: a page that was changed behind its back may make it
//! panic. So whatever it does is done in [`guarded`], and a panic is what any other error is: the file is damaged.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _, ReadableTableMetadata as _, StorageError,
    TableDefinition,
};

use crate::store::names::Table;

/// Rows that begin alike and are read at once, at most: a phone with more customers is no phone.
const MOST_ALIKE: usize = 10_000;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Failed {
    /// It is not what was written.
    #[error("it is damaged, or no file of this program")]
    Damaged,
    /// It was written with another key.
    #[error("it was written with another key")]
    OtherKey,
    /// The system refuses.
    #[error("{0}")]
    System(io::ErrorKind),
}

impl Failed {
    /// What the system refuses has nothing to do with what is in the file; everything else has.
    fn of(kind: io::ErrorKind) -> Self {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match kind {
            PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull => Self::System(kind),
            _ => Self::Damaged,
        }
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::of(error.kind()),
            _ => Self::Damaged,
        }
    }
}

impl From<DatabaseError> for Failed {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::DatabaseAlreadyOpen => Self::System(io::ErrorKind::ResourceBusy),
            _ => Self::Damaged,
        }
    }
}

/// A name and what stands under it.
type Row = (Vec<u8>, Vec<u8>);

/// A row that is to be written, or to be removed where there is no value.
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) name: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// One file.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    database: Database,
}

/// What a file holds at one moment.
pub(super) struct View {
    tables: [ReadOnlyTable<&'static [u8], &'static [u8]>; Table::ALL.len()],
}

impl Generation {
    /// Opens a file, or makes it where there is none.
    pub(super) fn open(path: &Path, number: u64, memory: usize) -> Result<Self, Failed> {
        guarded(|| {
            let database = Database::builder().set_cache_size(memory).create(path)?;
            Ok(Self { number, path: path.to_owned(), database })
        })
    }

    /// Makes these changes, all of them or none, so that neither a crash nor a loss of power undoes them.
    pub(super) fn commit(&self, changes: &[Change]) -> Result<(), Failed> {
        guarded(|| self.write(changes))
    }

    fn write(&self, changes: &[Change]) -> Result<(), Failed> {
        let mut transaction = self.database.begin_write().map_err(damaged)?;
        // Otherwise the whole file is read after a crash before anything else can be.
        transaction.set_quick_repair(true);
        for table in Table::ALL {
            let mut open = transaction.open_table(definition(table)).map_err(damaged)?;
            for Change { name, value, .. } in changes.iter().filter(|change| change.table == table) {
                match value {
                    Some(value) => open.insert(&**name, &**value)?,
                    None => open.remove(&**name)?,
                };
            }
        }
        transaction.commit().map_err(damaged)
    }

    pub(super) fn view(&self) -> Result<View, Failed> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(damaged)?;
            let open = |table| transaction.open_table(definition(table)).map_err(damaged);
            let [answers, customers, links, about] = Table::ALL.map(open);
            Ok(View { tables: [answers?, customers?, links?, about?] })
        })
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}

impl View {
    pub(super) fn get(&self, table: Table, name: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        guarded(|| Ok(self.tables[table as usize].get(name)?.map(|value| value.value().to_vec())))
    }

    /// Every name that begins so, with its row.
    pub(super) fn alike(&self, table: Table, beginning: &[u8]) -> Result<Vec<Row>, Failed> {
        guarded(|| {
            let mut found = Vec::new();
            for row in self.tables[table as usize].range::<&[u8]>(beginning..)?.take(MOST_ALIKE) {
                let (name, value) = row?;
                if !name.value().starts_with(beginning) {
                    break;
                }
                found.push((name.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// How many rows a table has.
    pub(super) fn count(&self, table: Table) -> Result<u64, Failed> {
        guarded(|| Ok(self.tables[table as usize].len()?))
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.as_str())
}

fn damaged<E: Into<redb::Error>>(error: E) -> Failed {
    match error.into() {
        redb::Error::Io(error) => Failed::of(error.kind()),
        _ => Failed::Damaged,
    }
}

/// Has redb do something; if it panics the file is damaged.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Failed::Damaged))
}
