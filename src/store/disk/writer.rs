//! The store's own thread: it writes, erases, and removes what is old.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tracing::warn;

use super::{Disk, generation::Failed};
use crate::{
    codec::Codec,
    metrics::StoreSave,
    store::{Erased, Saving, Shared, order::Job, save::Writing},
};

/// How often it is looked for what is too old, at least.
const LOOK: Duration = Duration::from_secs(60);

/// Works until the store is closed and everything is done. If that fails in a way that nobody thought of, there is no
/// store any more: what it held could not be erased.
pub(in crate::store) fn run(shared: &Shared, disk: &Disk) {
    if catch_unwind(AssertUnwindSafe(|| work(shared, disk))).is_err() {
        warn!("the store has failed: what it held is removed, and nothing is stored any more");
        disk.remove(|_| true);
    }
    shared.sequence.end();
}

fn work(shared: &Shared, disk: &Disk) {
    let mut codec = disk.last_dictionary().map_or_else(Codec::new, Codec::knowing);
    while let Some(jobs) = shared.sequence.next(LOOK) {
        if shared.sequence.take_alarm() {
            disk.set_aside(&Failed::Damaged);
        }
        let mut saves = Vec::new();
        for job in jobs {
            match job {
                Job::Save(saving, number, _) => saves.push((saving, number)),
                // What was saved before is written before, so that it is erased as well.
                other => {
                    write((shared, disk), &codec, &std::mem::take(&mut saves));
                    obey(disk, &mut codec, other);
                }
            }
        }
        write((shared, disk), &codec, &saves);
        disk.trim();
        shared.metrics.bytes.set(i64::try_from(disk.bytes()).unwrap_or(i64::MAX));
        codec.learn();
    }
}

/// Writes what some upstream requests brought, in one transaction.
fn write((shared, disk): (&Shared, &Disk), codec: &Codec, saves: &[(Saving, u64)]) {
    if saves.is_empty() {
        return;
    }
    let written = transaction((shared, disk), codec, saves);
    let outcome = if written.is_ok() { StoreSave::Saved } else { StoreSave::Failed };
    shared.metrics.save(outcome, saves.len());
    if let Err(error) = written {
        warn!(%error, "answers cannot be stored");
        match error {
            // What they have made old must not be believed.
            Failed::System(_) => disk.remove(|_| true),
            Failed::Damaged | Failed::OtherKey => disk.set_aside(&error),
        }
    }
    saves.iter().for_each(|(_, number)| shared.sequence.written(*number));
}

fn transaction((shared, disk): (&Shared, &Disk), codec: &Codec, saves: &[(Saving, u64)]) -> Result<(), Failed> {
    let file = disk.current()?;
    let mut writing = Writing::new(&disk.seal, disk.dating, &shared.shapes, codec);
    saves.iter().for_each(|(saving, _)| writing.save(saving));
    let mut changes = Vec::new();
    for dictionary in writing.dictionaries.values() {
        changes.extend(disk.learn(&file, dictionary)?);
    }
    changes.extend(writing.rows.into_iter().map(|row| disk.change(row)));
    disk.commit(&file, changes)
}

/// Does what is not saving.
fn obey(disk: &Disk, codec: &mut Codec, job: Job) {
    // Who asked may have gone meanwhile.
    match job {
        Job::Save(..) => {}
        Job::Erase(order, erasing, tell) => {
            let erased = disk.erase(&order).unwrap_or_else(|error| {
                warn!(%error, "stored answers cannot be erased one by one: all of them are removed");
                disk.remove(|_| true);
                Erased::default()
            });
            drop(erasing);
            let _gone = tell.send(erased);
        }
        Job::EraseAll(erasing, tell) => {
            let erased = disk.erase_all();
            // A dictionary is made of pieces of records.
            *codec = Codec::new();
            drop(erasing);
            let _gone = tell.send(erased);
        }
        Job::Flush(tell) => {
            let _gone = tell.send(());
        }
    }
}
