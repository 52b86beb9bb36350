//! The store's own thread: it joins, writes, erases and sweeps.
//!
//! What cannot be written is let go. What is to be erased is owed: it is tried until it is done, and until then nothing is read.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tokio::runtime::Handle;
use tracing::warn;

use super::{Remote, Tie};
use crate::{
    codec::Codec,
    link::{Lost, RETRY},
    metrics::StoreSave,
    store::{Saving, Shared, order::Job},
};

/// How long nothing need be done.
const IDLE: Duration = Duration::from_secs(60);

/// Between two steps of a sweep.
const BREATH: Duration = Duration::from_millis(1);

struct Worker<'a> {
    shared: &'a Shared,
    remote: &'a Remote,
    runtime: &'a Handle,
    codec: Codec,
    /// Where the sweep goes on, while there is one.
    sweeping: Option<Vec<u8>>,
    /// Why something could not be written, until it is again.
    trouble: Option<Lost>,
}

/// Works until the store is closed and everything is done that can be.
pub(in crate::store) fn run(shared: &Shared, remote: &Remote, runtime: &Handle) {
    let (codec, sweeping) = (Codec::new(), None);
    let mut worker = Worker { shared, remote, runtime, codec, sweeping, trouble: None };
    if catch_unwind(AssertUnwindSafe(|| worker.work())).is_err() {
        warn!("the store has failed: nothing is stored or read any more");
    }
    shared.sequence.end();
}

impl Worker<'_> {
    fn work(&mut self) {
        let mut jobs: VecDeque<Job> = VecDeque::new();
        loop {
            self.shared.sequence.take_alarm();
            self.join();
            let patience = match (&self.sweeping, self.remote.known().must_join) {
                // Others have their turn in between.
                (Some(_), _) => BREATH,
                (None, true) => RETRY,
                (None, false) => IDLE,
            };
            if jobs.is_empty() {
                let Some(next) = self.shared.sequence.next(patience) else { return };
                jobs.extend(next);
            } else if !self.shared.sequence.pause(RETRY) {
                let erasures = jobs.iter().filter(|job| matches!(job, Job::Erase(..) | Job::EraseAll(..))).count();
                if erasures > 0 {
                    warn!(erasures, "the process ends before the store could be told what to erase");
                }
                return;
            }
            while let Some(job) = jobs.pop_front() {
                if let Some(undone) = self.obey(job) {
                    jobs.push_front(undone);
                    break;
                }
            }
            self.sweep();
            self.codec.learn();
        }
    }

    /// Joins, if that is due and there is a connection.
    fn join(&mut self) {
        let is_due = self.remote.known().must_join && self.remote.link.is_up();
        if !is_due {
            return;
        }
        let joined = self.runtime.block_on(async {
            let must_sweep = self.remote.join(self.shared).await?;
            Ok((must_sweep, self.remote.about_all().await?))
        });
        match joined {
            Ok((must_sweep, (envelopes, dictionary))) => {
                self.sweeping = must_sweep.then(|| b"0".to_vec());
                if let (Some(dictionary), 0) = (dictionary, self.codec.trained()) {
                    self.codec = Codec::knowing(dictionary);
                }
                let memory = self.remote.memory();
                for (lookup, envelope) in envelopes {
                    memory.iter().for_each(|memory| memory.learn_envelope(lookup, envelope.clone().into()));
                }
            }
            Err(error) => self.complain(error),
        }
    }

    /// Does what is to be done; returns it if it has to be done later.
    fn obey(&mut self, job: Job) -> Option<Job> {
        match job {
            Job::Save(saving, number, heard) => {
                if *self.remote.tie.borrow() == Tie::Open {
                    return Some(Job::Save(saving, number, heard));
                }
                self.save(saving, heard);
                self.shared.sequence.written(number);
            }
            Job::Erase(order, erasing, tell) => match self.runtime.block_on(self.remote.erase(&order)) {
                Ok(erased) => {
                    drop(erasing);
                    // Who asked may have gone meanwhile.
                    let _gone = tell.send(erased);
                }
                Err(error) => {
                    self.complain(error);
                    return Some(Job::Erase(order, erasing, tell));
                }
            },
            Job::EraseAll(erasing, tell) => {
                if let Err(error) = self.runtime.block_on(self.remote.erase_all()) {
                    self.complain(error);
                    return Some(Job::EraseAll(erasing, tell));
                }
                self.codec = Codec::new();
                self.remote.forget_dictionaries();
                drop(erasing);
                let _gone = tell.send((0, 0));
            }
            Job::Flush(tell) => {
                let _gone = tell.send(());
            }
        }
        None
    }

    fn save(&mut self, saving: Saving, heard: u64) {
        let saving = self.remote.save((&self.shared.shapes, &self.codec), saving, heard);
        match self.runtime.block_on(saving) {
            Ok(()) => {
                self.trouble = None;
                self.shared.metrics.save(StoreSave::Saved, 1);
            }
            Err(error) => {
                self.shared.metrics.save(StoreSave::Failed, 1);
                self.complain(error);
            }
        }
    }

    /// Says once what is wrong.
    fn complain(&mut self, error: Lost) {
        if self.trouble.as_ref() != Some(&error) && self.remote.link.is_up() {
            warn!(reason = %error, "the store cannot be written to");
        }
        self.trouble = Some(error);
    }

    /// Sweeps a few names of older epochs away.
    fn sweep(&mut self) {
        let Some(cursor) = self.sweeping.take() else { return };
        match self.runtime.block_on(self.remote.sweep(&cursor)) {
            Ok(next) => self.sweeping = next,
            // Whoever joins next begins again.
            Err(error) => self.complain(error),
        }
    }
}

impl Remote {
    /// Goes on to sweep; returns where it stopped, if it did.
    async fn sweep(&self, cursor: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let epoch = self.epoch()?;
        let (pattern, kept) = (format!("{}r:*", self.base), format!("{}r:{epoch}:", self.base));
        let args = [epoch.as_bytes(), cursor, pattern.as_bytes(), kept.as_bytes()];
        let answer = self.link.call(&self.scripts.sweep, &[self.state()], &args).await?;
        let cursor = self.checked(answer)?.pop().ok_or_else(super::not_understood)?;
        Ok((cursor != b"0").then_some(cursor))
    }
}
