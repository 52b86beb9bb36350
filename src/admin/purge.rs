//! `POST /purge`: customers are erased for good, or everything is.
//!
//! The keys that the body names, every record that they reach or that carries them, and every other key of those records
//! are forgotten, for every credential and every company: who asks for an erasure does not know under which token a
//! customer was cached, and to forget too much costs a fetch.
//!
//! - **What is under way does not bring them back**: the cache keeps nothing of requests that were started before, and
//!   who asks for the customer from now on waits for one that starts later.
//! - **Nobody's wish fetches them again**: their refreshes, and keys whose callers gave up, leave the queue.
//! - **A store that others use, too, forgets first**: where it cannot be asked, that is said, and done when it can.
//! - **What is answered is a count**, and so is what is logged.

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::Body;
use serde_json::json;
use tower::BoxError;
use tracing::info;

use super::{Admin, forget::Named, success};
use crate::{
    clock::{self, Instant},
    error::Refusal,
    key::Id,
    key_log::Cause,
    request::{
        body,
        purge::{self, Purge},
    },
    shape::Shape,
};

/// How much was forgotten.
#[derive(Clone, Copy, Default)]
struct Erased {
    keys: usize,
    records: usize,
}

impl Admin {
    pub(super) async fn purge<B>(&self, headers: &HeaderMap, body: B) -> Result<Response<Bytes>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        body::check_headers(headers)?;
        let (body, _waited) = body::read(body, &self.limits).await?;
        let paths: Vec<(&Shape, usize)> = self.paths.iter().map(|path| (&*path.shape, path.max_keys.now())).collect();
        let purge = purge::decode(&paths, &body)?;
        let now = clock::now();
        let all = purge == Purge::All;
        let Erased { keys, records } = match purge {
            Purge::All => self.erase_all(now).await?,
            Purge::Keys(named) => self.erase(named, now).await?,
        };
        self.counters.purged_keys.inc_by(keys as u64);
        info!(all, keys, records, "purged");
        Ok(success(&json!({ "keys": keys, "records": records })))
    }

    async fn erase_all(&self, now: Instant) -> Result<Erased, Refusal> {
        let forgotten = self.cache.forget_all_for_good(now).await;
        for path in &self.paths {
            path.dispatch.erase(|_key| true);
        }
        let forgotten = forgotten.map_err(|_late| Refusal::StoreUnavailable)?;
        Ok(Erased { keys: forgotten.keys, records: forgotten.records })
    }

    async fn erase(&self, named: Named, now: Instant) -> Result<Erased, Refusal> {
        let mut erased = Erased::default();
        let mut gone: Vec<HashSet<Id>> = named.iter().map(|ids| ids.iter().cloned().collect()).collect();
        let (forgotten, stored) = self.forget(named, Cause::Purge, now).await;
        for ((path, gone), forgotten) in self.paths.iter().zip(&mut gone).zip(forgotten) {
            erased.keys += forgotten.keys;
            erased.records += forgotten.records;
            self.cancel(path, gone, forgotten);
        }
        stored.map_err(|_late| Refusal::StoreUnavailable)?;
        Ok(erased)
    }
}
