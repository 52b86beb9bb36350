//! One lookup on its way to an answer: its keys, and what is known to answer each of them.
//!
//! Invariants: the cache is read once for each key, all of them at one `now`; nothing is noted for a log that nobody reads.

use std::{collections::HashMap, sync::Arc};

use http::StatusCode;
use smallvec::SmallVec;

use super::{
    Lookup, Unanswered,
    directives::{Directives, Use},
    tally::Tally,
};
use crate::{
    cache::{Answer, Found},
    clock::{self, Instant},
    dispatch::Client,
    key::{Id, Key, Kind, Scope},
};

/// One lookup on its way to an answer.
pub(super) struct Inquiry {
    pub(super) scope: Arc<Scope>,
    pub(super) ids: Vec<Id>,
    /// One for each id.
    pub(super) asked: SmallVec<[Asked; 1]>,
    pub(super) tally: Tally,
    pub(super) directives: Directives,
    pub(super) client: Client,
    pub(super) now: Instant,
}

/// One key of a lookup on its way to an answer.
pub(super) struct Asked {
    /// What answers it, once that is known.
    pub(super) answer: Option<Answer>,
    /// What answers it if the upstream does not.
    pub(super) fallback: Option<Answer>,
}

impl Inquiry {
    /// Has what the memory does not hold read from the store.
    pub(super) async fn recall(&mut self, lookup: &Lookup, found: &mut [Option<Answer>]) {
        let missing = self.ids.iter().zip(&*found).filter(|(_, found)| found.is_none());
        let missing: Vec<Id> = missing.map(|(id, _)| id.clone()).collect();
        let recalled = lookup.cache.recall(&self.scope, &lookup.shape, missing).await;
        // It took a while, by which everything is older.
        self.now = clock::now();
        let mut recalled: HashMap<Id, Answer> = recalled.into_iter().collect();
        for (id, found) in self.ids.iter().zip(found).filter(|(_, found)| found.is_none()) {
            *found = recalled.remove(id);
        }
    }

    /// Judges what was found for each key, and asks for what is stale to be refreshed.
    pub(super) fn look(&mut self, lookup: &Lookup, found: Found) {
        let Self { scope, ids, asked, tally, directives, now, .. } = self;
        let lines = lookup.key_log.of(&lookup.shape);
        let policy = lookup.cache.policy();
        let mut stale = Vec::new();
        asked.extend(ids.iter().zip(found).map(|(id, found)| {
            let found = found.map(|answer| {
                let how = directives.cache.judge(&answer, &policy, *now);
                (how, answer)
            });
            let (asked, result) = match found {
                None => (Asked { answer: None, fallback: None }, tally.missed(id.kind, directives.cache.no_cache)),
                Some((Use::Hit, answer)) => {
                    lookup.cache.was_read(scope, id, &answer, *now);
                    let result = tally.hit(id.kind, &answer);
                    (Asked { answer: Some(answer), fallback: None }, result)
                }
                Some((Use::Stale { refresh }, answer)) => {
                    lookup.cache.was_read(scope, id, &answer, *now);
                    if refresh && !directives.cache.no_store {
                        stale.push(Key { scope: Arc::clone(scope), id: id.clone() });
                    }
                    (Asked { answer: Some(answer), fallback: None }, tally.stale(id.kind))
                }
                Some((Use::Miss { fallback }, answer)) => {
                    let asked = Asked { answer: None, fallback: fallback.then_some(answer) };
                    (asked, tally.outdated(id.kind, directives.cache.no_cache))
                }
            };
            if let Some(lines) = lines {
                lines.asked(id, result.as_str());
            }
            asked
        }));
        if !stale.is_empty() {
            lookup.dispatch.refresh(*now, scope, stale);
        }
    }

    /// When it is answered: at once, unless something had to be fetched.
    pub(super) fn answered_at(&self) -> Instant {
        if self.tally.has_waited() { clock::now() } else { self.now }
    }

    /// The positions of the keys that have to be fetched, if the log wants to hear of them.
    pub(super) fn missed(&self, lookup: &Lookup) -> Vec<usize> {
        let positions = 0..lookup.key_log.of(&lookup.shape).map_or(0, |_lines| self.asked.len());
        positions.filter(|&position| self.asked[position].answer.is_none()).collect()
    }

    /// Tells the log what became of those.
    pub(super) fn tell(&self, lookup: &Lookup, missed: &[usize], answered: &Result<(), Unanswered>) {
        let Some(lines) = lookup.key_log.of(&lookup.shape) else { return };
        let status = answered.as_ref().map_or_else(Unanswered::status, |()| StatusCode::OK);
        for &position in missed {
            let answer = self.asked[position].answer.as_ref();
            lines.answered(&self.ids[position], status.as_u16(), answer.map(|answer| answer.records().len()));
        }
    }
}

impl Asked {
    /// The upstream does not answer: what is too old is better than nothing.
    pub(super) fn fall_back(&mut self, tally: &mut Tally, kind: Kind) {
        if let Some(old) = self.fallback.take() {
            tally.fell_back(kind);
            self.answer = Some(old);
        }
    }
}
