//! What of a success is believed: into the cache, and of each key what follows.

use std::sync::Arc;

use super::{
    batch::{Batch, Settled},
    entry::Need,
    handle::State,
    spare::Spare,
    worker::Worker,
};
use crate::{
    cache::{Fetch, Of, Said, Taken},
    key::Kind,
    record::{Parts, Record},
    upstream::verdict::{self, Success},
};

impl Worker {
    /// Counts what came of those that nobody waited for.
    pub(super) fn count_refreshed(&self, batch: &Batch, spare: Spare, settled: &[Settled]) {
        let riders = settled.iter().skip(settled.len() - batch.riders);
        let refreshed = riders.filter(|settled| matches!(settled, Settled::Answered(_))).count();
        match spare.refresh() {
            Some(how) => self.shared.metrics.refreshed(how, refreshed),
            None if spare == Spare::Warmup => self.shared.metrics.warmup.fetched.inc_by(refreshed as u64),
            None => {}
        }
    }

    /// Writes what the upstream said into the cache, and says of each key what follows.
    pub(super) fn believe(
        &self,
        state: &mut State,
        (batch, kinds): (&Batch, &[Kind]),
        fetch: &Fetch,
        success: Success,
    ) -> Vec<Settled> {
        let ids = &batch.ask.ids;
        if kinds.len() > 1 {
            state.absence.observe_exclusive(&success.exclusive);
        }
        let verdicts = ids.iter().zip(&batch.needs).zip(success.of).map(|((id, need), positions)| {
            let complete = state.absence.is_complete(id.kind, kinds, &success.exclusive);
            match positions.is_empty() {
                true if success.unmatched => return Err(Need::Alone),
                true if !complete => return Err(Need::Missed),
                false if !complete && !self.shape.list(id.kind).unique => return Err(Need::OneList),
                true | false => {}
            }
            if !positions.is_empty() && *need == Need::Missed {
                state.absence.observe_missed(id.kind, fetch.started());
            }
            Ok((id.clone(), positions))
        });
        let verdicts: Vec<_> = verdicts.collect();
        let record = |found: &verdict::Found| {
            Record::new(Parts {
                json: &found.json,
                scope: Arc::clone(fetch.scope()),
                ids: &found.ids,
                carried: found.carried,
                identity: found.identity,
                fetched_at: fetch.started(),
            })
        };
        let records: Vec<_> = success.records.iter().map(record).collect();
        let kept = state.queue.kept(batch.id);
        let answers = verdicts.iter().zip(kept).filter_map(|(verdict, keep)| {
            let (id, records) = verdict.as_ref().ok()?.clone();
            Some(Of { id, records, keep })
        });
        let said = Said { envelope: success.envelope, records: &records, answers: answers.collect() };
        let mut taken = fetch.store(&self.shape, said).into_iter();
        let mut next = || taken.next().expect("this holds because each answer is taken").1;
        let settled = verdicts.into_iter().map(|verdict| match verdict {
            Ok(_) => match next() {
                Taken::Held(answer) => Settled::Answered(answer),
                Taken::Outdated(answer) => Settled::Outdated(answer),
            },
            Err(need) => Settled::Again(need),
        });
        settled.collect()
    }
}
