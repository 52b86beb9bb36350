//! The lookup whose keys the memory does not all hold: what the store has is read there, and the rest is fetched.

use std::sync::Arc;

use http::{HeaderMap, Response};

use super::{
    Lookup, Noted, Unanswered,
    chunk::Chunk,
    inquiry::{Asked, Inquiry},
    refusal, traced,
};
use crate::{
    cache::Found,
    dispatch::{Failure, Outcome, Wanted},
    error::Refusal,
    key::Key,
    trace::Waiting,
};

/// A lookup that the memory could not answer.
pub(super) struct Missed {
    /// Of the request.
    pub(super) headers: HeaderMap,
    pub(super) inquiry: Inquiry,
    /// What the memory holds, where the store is to be asked for the rest before it is judged.
    pub(super) found: Option<Found>,
}

impl Lookup {
    /// Answers it with what the store holds and the upstream says.
    pub(super) async fn fill(
        &self,
        missed: Missed,
        (traced, account): Noted<'_>,
    ) -> Result<Response<Chunk>, Unanswered> {
        let Missed { headers, mut inquiry, found } = missed;
        if let Some(mut found) = found {
            inquiry.recall(self, &mut found).await;
            inquiry.look(self, found);
        }
        if let Some(account) = account {
            *account = Some(inquiry.tally.account());
        }
        let answered = if inquiry.tally.to_fetch() > 0 {
            let missed = inquiry.missed(self);
            let waiting = traced::waiting(traced, &headers);
            let answered = self.fetch(&mut inquiry, waiting).await;
            inquiry.tell(self, &missed, &answered);
            answered
        } else {
            Ok(())
        };
        inquiry.tally.count(&self.metrics);
        answered?;
        Ok(self.respond(&inquiry, headers)?)
    }

    /// Has the keys without an answer fetched, and waits for them.
    async fn fetch(&self, inquiry: &mut Inquiry, trace: Option<Arc<Waiting>>) -> Result<(), Unanswered> {
        if inquiry.directives.cache.only_if_cached {
            return Err(Refusal::NotCached.into());
        }
        self.fall_back_at_once(inquiry);
        let Inquiry { scope, ids, asked, tally, directives, client, now } = inquiry;
        let missing: Vec<usize> = (0..asked.len()).filter(|&position| asked[position].answer.is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let keys = missing.iter().map(|&position| Key { scope: Arc::clone(scope), id: ids[position].clone() });
        let timeout = self.bounds.timeout.now();
        let wait = directives.wait.map_or(timeout, |wait| wait.min(timeout));
        let deadline = *now + wait;
        let wanted = Wanted {
            client: *client,
            keys: keys.collect(),
            fallback: missing.iter().map(|&position| asked[position].fallback.is_some()).collect(),
            fresh: directives.cache.no_cache,
            max_age: directives.cache.max_age,
            no_store: directives.cache.no_store,
            deadline,
            partial: directives.partial,
            trace: trace.clone(),
        };
        let waiting = match self.dispatch.submit(*now, scope, wanted) {
            Ok(waiting) => waiting,
            Err(refused) => {
                for position in missing {
                    asked[position].fall_back(tally, ids[position].kind);
                }
                let answered = asked.iter().all(|asked| asked.answer.is_some());
                return if answered { Ok(()) } else { Err(refusal(refused).into()) };
            }
        };
        tally.collapsed = waiting.is_collapsed();
        let retry_after = waiting.promise();
        let outcomes = waiting.outcomes(deadline).await;
        trace.iter().for_each(|trace| traced::waited(self, trace, *now, missing.len()));
        let mut outcomes = outcomes.into_iter();
        let mut served = false;
        for position in missing {
            let asked = &mut asked[position];
            match outcomes.next().flatten() {
                Some(Outcome::Answer(answer)) => {
                    asked.answer = Some(answer);
                    served = true;
                }
                Some(Outcome::Failed(Failure::Refused(refusal) | Failure::Unauthorized(refusal))) => {
                    return Err(Unanswered::PassedOn(refusal));
                }
                Some(Outcome::Failed(Failure::Declined(refusal))) => {
                    asked.fall_back(tally, ids[position].kind);
                    // Who takes what is ready is told that this is not.
                    if asked.answer.is_none() && !directives.partial {
                        return Err(Unanswered::PassedOn(refusal));
                    }
                }
                Some(Outcome::Failed(Failure::ShuttingDown)) => return Err(Refusal::ShuttingDown.into()),
                Some(Outcome::Failed(Failure::Unavailable(wait))) => {
                    asked.fall_back(tally, ids[position].kind);
                    if asked.answer.is_none() {
                        return Err(Refusal::UpstreamUnavailable(wait).into());
                    }
                }
                Some(Outcome::Failed(Failure::Unshared(wait))) => {
                    asked.fall_back(tally, ids[position].kind);
                    if asked.answer.is_none() {
                        return Err(Refusal::ReplicasUnavailable(wait).into());
                    }
                }
                None => asked.fall_back(tally, ids[position].kind),
            }
        }
        if served && !directives.cache.no_store {
            self.dispatch.serve(scope);
        }
        let pending = asked.iter().any(|asked| asked.answer.is_none());
        if pending && !directives.partial { Err(Refusal::LookupTimeout(retry_after).into()) } else { Ok(()) }
    }

    /// While the upstream fails or refuses, what may stand in for its answer is given without waiting for the next failure,
    /// and queued to be refreshed.
    fn fall_back_at_once(&self, inquiry: &mut Inquiry) {
        let Inquiry { scope, ids, asked, tally, now, directives, .. } = inquiry;
        let has_fallback = |asked: &Asked| asked.answer.is_none() && asked.fallback.is_some();
        // Who wants nothing kept asks for itself: otherwise nobody might ever ask again.
        let alone = directives.cache.no_store;
        if alone || !asked.iter().any(has_fallback) || !self.dispatch.is_troubled(*now, scope) {
            return;
        }
        let mut stale = Vec::new();
        for (id, asked) in ids.iter().zip(asked).filter(|(_, asked)| has_fallback(asked)) {
            asked.fall_back(tally, id.kind);
            stale.push(Key { scope: Arc::clone(scope), id: id.clone() });
        }
        self.dispatch.refresh(*now, scope, stale);
    }
}
