//! The store's own thread: it writes, erases, and removes what is old.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tracing::warn;

use super::{Saving, Shared, generation::Failed, order::Job, save::Writing};
use crate::{codec::Codec, metrics::StoreSave};

/// How often it is looked for what is too old, at least.
const LOOK: Duration = Duration::from_secs(60);

/// Works until the store is closed and everything is done. If that fails in a way that nobody thought of, there is no
/// store any more: what it held could not be erased.
pub(super) fn run(shared: &Shared) {
    if catch_unwind(AssertUnwindSafe(|| work(shared))).is_err() {
        warn!("the store has failed: what it held is removed, and nothing is stored any more");
        shared.disk.remove(|_| true);
    }
    shared.sequence.end();
}

fn work(shared: &Shared) {
    let mut codec = shared.disk.last_dictionary().map_or_else(Codec::new, Codec::knowing);
    while let Some(jobs) = shared.sequence.next(LOOK) {
        if shared.sequence.take_damaged() {
            shared.disk.set_aside(&Failed::Damaged);
        }
        let mut saves = Vec::new();
        for job in jobs {
            match job {
                Job::Save(saving, number) => saves.push((saving, number)),
                // What was saved before is written before, so that it is erased as well.
                other => {
                    write(shared, &codec, &std::mem::take(&mut saves));
                    obey(shared, &mut codec, other);
                }
            }
        }
        write(shared, &codec, &saves);
        shared.disk.trim();
        shared.metrics.bytes.set(i64::try_from(shared.disk.bytes()).unwrap_or(i64::MAX));
        codec.learn();
    }
}

/// Writes what some upstream requests brought, in one transaction.
fn write(shared: &Shared, codec: &Codec, saves: &[(Saving, u64)]) {
    if saves.is_empty() {
        return;
    }
    let written = transaction(shared, codec, saves);
    let outcome = if written.is_ok() { StoreSave::Saved } else { StoreSave::Failed };
    shared.metrics.save(outcome, saves.len());
    if let Err(error) = written {
        warn!(%error, "answers cannot be stored");
        match error {
            // What they have made old must not be believed.
            Failed::System(_) => shared.disk.remove(|_| true),
            Failed::Damaged | Failed::OtherKey => shared.disk.set_aside(&error),
        }
    }
    saves.iter().for_each(|(_, number)| shared.sequence.written(*number));
}

fn transaction(shared: &Shared, codec: &Codec, saves: &[(Saving, u64)]) -> Result<(), Failed> {
    let file = shared.disk.current()?;
    let mut writing = Writing {
        disk: &shared.disk,
        shapes: &shared.shapes,
        codec,
        file: &file,
        changes: Vec::new(),
        known: HashSet::new(),
    };
    for (saving, _) in saves {
        writing.save(saving)?;
    }
    let changes = writing.changes;
    shared.disk.commit(&file, changes)
}

/// Does what is not saving.
fn obey(shared: &Shared, codec: &mut Codec, job: Job) {
    // Who asked may have gone meanwhile.
    match job {
        Job::Save(..) => {}
        Job::Erase(order, erasing, tell) => {
            let erased = shared.disk.erase(&order).unwrap_or_else(|error| {
                warn!(%error, "stored answers cannot be erased one by one: all of them are removed");
                shared.disk.remove(|_| true);
                super::Erased::default()
            });
            drop(erasing);
            let _gone = tell.send(erased);
        }
        Job::EraseAll(erasing, tell) => {
            let erased = shared.disk.erase_all();
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
