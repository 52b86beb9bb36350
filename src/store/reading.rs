//! Reading keys that the memory does not have, within a bound, and what may be believed of it when it is there.

use std::{sync::Arc, time::Duration};

use super::{Place, Shared, Store, load::Found, order::Since, remote::Remote};
use crate::{
    clock::{self, Instant},
    key::{Id, Scope},
    metrics::StoreRead,
    record::Record,
    shape::Shape,
};

/// How long a lookup waits for the disk, at most. Who asks the upstream instead waits for a slot: a second, or longer.
pub const LONGEST_LOAD: Duration = Duration::from_millis(250);

/// The same for Redis, which a network may part from us.
pub const LONGEST_REMOTE_LOAD: Duration = Duration::from_millis(100);

/// Answers that were read, and are to be [believed](Self::believe).
pub struct Loaded {
    found: Vec<Found>,
    under_way: UnderWay,
}

/// One answer that was read.
pub struct Answered {
    /// The key.
    pub id: Id,
    /// Since when it is the answer.
    pub fetched_at: Instant,
    /// Its customers.
    pub records: Vec<Record>,
}

/// A load that is under way; over when this is dropped.
struct UnderWay(Arc<Shared>, Since);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.sequence.end_load(self.1);
    }
}

impl Store {
    /// Reads these keys of a scope, within [`LONGEST_LOAD`] or [`LONGEST_REMOTE_LOAD`]. None where nothing can be read now.
    pub async fn load(&self, scope: &Arc<Scope>, shape: &Arc<Shape>, ids: Vec<Id>) -> Option<Loaded> {
        let (began, asked) = (clock::now(), ids.len());
        let metrics = &self.shared.metrics;
        let loading = async {
            match &self.shared.place {
                Place::Disk(_) => self.read(Arc::clone(scope), Arc::clone(shape), ids, began).await,
                Place::Redis(remote) => self.ask(remote, (scope, shape), ids, began).await,
            }
        };
        let longest = if self.is_shared() { LONGEST_REMOTE_LOAD } else { LONGEST_LOAD };
        let Ok(loaded) = tokio::time::timeout(longest, loading).await else {
            metrics.read(StoreRead::Late, asked);
            return None;
        };
        metrics.read_seconds.observe(clock::now().saturating_duration_since(began).as_secs_f64());
        let Some(loaded) = loaded else {
            metrics.read(StoreRead::Failed, asked);
            return None;
        };
        metrics.read(StoreRead::Found, loaded.found.len());
        metrics.read(StoreRead::Absent, asked - loaded.found.len());
        Some(loaded)
    }

    async fn ask(
        &self,
        remote: &Remote,
        whose: (&Arc<Scope>, &Arc<Shape>),
        ids: Vec<Id>,
        now: Instant,
    ) -> Option<Loaded> {
        if !remote.settled().await {
            return None;
        }
        let _permit = self.shared.loads.acquire().await.ok()?;
        let shared = Arc::clone(&self.shared);
        let since = shared.sequence.begin_load()?;
        let under_way = UnderWay(shared, since);
        // Why it cannot be read is said by whoever keeps the connection.
        let found = remote.load((whose.0, whose.1), ids, now).await.ok()?;
        Some(Loaded { found, under_way })
    }

    async fn read(&self, scope: Arc<Scope>, shape: Arc<Shape>, ids: Vec<Id>, now: Instant) -> Option<Loaded> {
        let permit = Arc::clone(&self.shared.loads).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.shared);
        let since = shared.sequence.begin_load()?;
        let under_way = UnderWay(shared, since);
        // Whoever stops waiting leaves it to itself; its place is taken until it is over.
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let Place::Disk(disk) = &under_way.0.place else { return None };
            match disk.load((&scope, &shape), &ids, now) {
                Ok(found) => Some(Loaded { found, under_way }),
                Err(error) => {
                    tracing::warn!(%error, "stored answers cannot be read");
                    under_way.0.sequence.alarm();
                    None
                }
            }
        });
        reading.await.ok().flatten()
    }
}

impl Loaded {
    /// What can be believed of it now: what was saved or erased since it was begun is left out.
    #[must_use]
    pub fn believe(self, scope: &Scope) -> Vec<Answered> {
        let Self { mut found, under_way } = self;
        let believed = under_way.0.sequence.believe(under_way.1, |recent| {
            let is_recent = |id: crate::key::IdRef<'_>| recent.contains(&id.digest(scope));
            found.retain(|found| {
                let mut ids = found.records.iter().flat_map(Record::ids);
                !is_recent(found.id.borrowed()) && !ids.any(is_recent)
            });
        });
        if !believed {
            return Vec::new();
        }
        let answered = |Found { id, fetched_at, records }| Answered { id, fetched_at, records };
        found.into_iter().map(answered).collect()
    }
}
