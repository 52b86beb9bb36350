//! Fetching customers before anybody asks for them: pages through the upstream's list of ids and hands them to the
//! dispatcher, which asks for those that are not cached in slots that nobody wants.
//!
//! - **Whose.** Which companies there are only callers know, and mostly their credential too. So it takes the scope, that is
//!   the credential and the other body fields, of a lookup that the upstream has just answered, and does nothing before there is one. It stays with that
//!   scope until its credential is refused, then waits for the next: with the same scope it goes on where it was, with
//!   another one it starts over, because nothing that was fetched is cached in that one.
//! - **When.** A page is asked for when the keys of the one before have all been taken, nobody waits, the upstream is not
//!   down, and the last page is `page_interval` ago. Each page that does not come doubles the pause, up to
//!   [`LONGEST_PAUSE`]. No lookup waits for a page: the list is a call of its own and takes no slot.
//! - **Where it was.** The last id of the last page is all that is remembered, and so nothing is lost by a pause. After an
//!   empty page the list is through, and so is the warm-up until the next start.
//!
//! Nothing here logs or counts an id.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    cache::Cache,
    clock::{self, Instant},
    dispatch::{Fleet, Handle, Share, Warming},
    key::{Id, Key, Kind, Scope, Value},
    metrics::WarmupMetrics,
    shape::{List, Shape, ValueType},
    upstream::{
        client::{Client, NoAnswer},
        page::{self, Page},
    },
};

/// The call that lists all customers.
pub const ID_LIST: &str = "/api/audience/user/id/list";

/// The longest pause after pages that did not come.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How often it is looked whether a page may be asked for, while the answer is no.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which customers are fetched before anybody asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Whether any are.
    pub enabled: bool,
    /// The path below the base URL that lists their ids.
    pub path: String,
    /// Ids in one page.
    pub page_size: usize,
    /// At most one page in this time.
    pub page_interval: Duration,
    /// Up to which part of its capacity the cache is filled.
    pub capacity_share: Share,
    /// The part of the slots that may be used.
    pub slot_share: Share,
}

/// The list of a shape that the ids belong to: the first that names one customer by a whole number.
#[must_use]
pub fn kind(shape: &Shape) -> Option<Kind> {
    let of_ids = |list: &List| list.unique && list.value_type == ValueType::Int64;
    shape.kinds().find(|(_, list)| of_ids(list)).map(|(kind, _)| kind)
}

/// The warm-up of one lookup path.
pub struct Warmup {
    /// What is configured.
    pub config: Config,
    /// The upstream.
    pub client: Client,
    /// What is cached already; what its store has needs no slot.
    pub cache: Arc<Cache>,
    /// The path's dispatchers.
    pub dispatch: Arc<Fleet>,
    /// The path's lists.
    pub shape: Arc<Shape>,
    /// The list that the ids belong to.
    pub kind: Kind,
    /// Whose lookup the upstream answered last.
    pub served: watch::Receiver<Option<Arc<Scope>>>,
    /// Its counters.
    pub metrics: WarmupMetrics,
}

/// The way through the list on behalf of one scope.
struct Tour {
    scope: Arc<Scope>,
    /// The last id seen.
    cursor: i64,
    /// Whether there is no further page.
    is_through: bool,
    /// When the next page may be asked for.
    next_page: Instant,
    /// Pages in a row that did not come.
    failures: u32,
}

/// Why there is nothing to do for a tour.
enum Halt {
    /// Its credential is refused.
    Refused,
    /// It is over.
    Done,
}

impl Warmup {
    /// Goes through the list once.
    pub async fn run(mut self) {
        let Some(scope) = self.next_scope(None).await else { return };
        let mut tour = Tour::new(scope);
        loop {
            match self.go_on(&mut tour).await {
                Ok(()) => {}
                Err(Halt::Done) => break,
                Err(Halt::Refused) => {
                    info!(lookup = %self.shape.path, "the warm-up's credential is refused: it waits for another");
                    let Some(scope) = self.next_scope(Some(&tour.scope)).await else { return };
                    self.turn_to(scope, &mut tour);
                }
            }
        }
        self.dispatch.say(Warming::Done);
        info!(lookup = %self.shape.path, "the warm-up has gone through the list of ids");
    }

    /// Waits for a scope whose credential the upstream takes. None when the gateway ends.
    async fn next_scope(&mut self, refused: Option<&Arc<Scope>>) -> Option<Arc<Scope>> {
        self.dispatch.say(Warming::WaitingForCredential);
        let known = self.served.borrow_and_update().clone();
        // The refused one counts again once it is taken again.
        if let Some(scope) = known.filter(|scope| refused.is_none_or(|refused| refused != scope)) {
            return Some(scope);
        }
        self.served.changed().await.ok()?;
        self.served.borrow_and_update().clone()
    }

    /// Goes on with a scope whose credential is taken: with the one of the tour where it was, with another from the start.
    fn turn_to(&self, scope: Arc<Scope>, tour: &mut Tour) {
        let now = clock::now();
        if scope != tour.scope {
            if let Some(handle) = self.dispatch.handle(now, &tour.scope) {
                handle.end_warming();
            }
            // Pages stay apart, whoever asks for them.
            let next_page = tour.next_page.min(now + self.config.page_interval);
            *tour = Tour { next_page, ..Tour::new(scope) };
        }
        if let Some(handle) = self.dispatch.handle(now, &tour.scope) {
            handle.go_on_warming();
        }
    }

    /// Waits until a page may be asked for, and asks for it.
    async fn go_on(&self, tour: &mut Tour) -> Result<(), Halt> {
        let handle = self.wait(tour).await?;
        let asked_at = clock::now();
        let page = self.page(tour).await;
        tour.next_page = asked_at + self.config.page_interval;
        let failed = match page {
            Ok((Page::Ids(ids), _)) => match tour.advance(ids, self.config.page_size) {
                Some(ids) => {
                    self.metrics.pages.inc();
                    info!(lookup = %self.shape.path, keys = ids.len(), "a page of the id list");
                    let asked = |id: &i64| Id { kind: self.kind, value: Value::Int(*id) };
                    let _held = self.cache.recall(&tour.scope, &self.shape, ids.iter().map(asked).collect()).await;
                    let key =
                        |id| Key { scope: Arc::clone(&tour.scope), id: Id { kind: self.kind, value: Value::Int(id) } };
                    handle.warm(&tour.scope, ids.into_iter().map(key));
                    return Ok(());
                }
                None => ("it brings nothing new".into(), None),
            },
            Ok((Page::Unauthorized, _)) => {
                self.metrics.failed_pages.inc();
                handle.stop_warming();
                // Where lookups are answered and pages are not, each lookup would ask for one.
                tour.fail(self.config.page_interval, None);
                return Err(Halt::Refused);
            }
            Ok((Page::Throttled, retry_after)) => ("asked too often".into(), retry_after),
            Ok((Page::Failed(reason), retry_after)) => (reason.into(), retry_after),
            Err(NoAnswer::TooLarge) => ("the answer is over upstream.max_response".into(), None),
            Err(NoAnswer::Unavailable(reason)) => (reason, None),
        };
        let (reason, retry_after) = failed;
        self.metrics.failed_pages.inc();
        let pause = tour.fail(self.config.page_interval, retry_after);
        warn!(lookup = %self.shape.path, %reason, pause_seconds = pause.as_secs_f64(), "no page of the id list");
        Ok(())
    }

    /// Waits until the next page may be asked for. Returns the dispatcher that its keys are for.
    async fn wait(&self, tour: &Tour) -> Result<Handle, Halt> {
        loop {
            let now = clock::now();
            let Some(handle) = self.dispatch.handle(now, &tour.scope) else {
                // Too many credentials have a dispatcher of their own.
                tokio::time::sleep(self.config.page_interval).await;
                continue;
            };
            let keys = handle.warming_keys();
            if keys.refused {
                return Err(Halt::Refused);
            }
            if keys.queued == 0 {
                if tour.is_through && !keys.under_way {
                    return Err(Halt::Done);
                }
                if !tour.is_through && keys.calm && now >= tour.next_page {
                    return Ok(handle);
                }
            }
            self.dispatch.say(match (keys.full, keys.queued, tour.failures) {
                (true, ..) => Warming::Full,
                (_, 0, _) if tour.is_through => Warming::Fetching,
                (_, 0, 0) => Warming::Paging,
                (_, 0, _) => Warming::Failing,
                (..) => Warming::Fetching,
            });
            let until_page = tour.next_page.saturating_duration_since(now);
            let look_again = now + if keys.queued == 0 { LOOK_AGAIN.max(until_page) } else { LOOK_AGAIN };
            tokio::select! {
                // The last key was taken, or what was under way is over.
                () = handle.hungry() => {}
                // What it waits for besides has no bell.
                () = tokio::time::sleep_until(look_again) => {}
            }
        }
    }

    async fn page(&self, tour: &Tour) -> Result<(Page, Option<Duration>), NoAnswer> {
        let list = self.shape.list(self.kind);
        let query = format!("{}?{}={}&size={}", self.config.path, list.kind, tour.cursor, self.config.page_size);
        let none = |_none| NoAnswer::Unavailable("there is no token to ask with".into());
        let credential = self.client.credentials().headers(&tour.scope.credential).await.map_err(none)?;
        let answer = self.client.get(&query, &credential).await?;
        Ok((page::read(list, answer.status, &answer.body), answer.retry_after()))
    }
}

impl Tour {
    fn new(scope: Arc<Scope>) -> Self {
        Self { scope, cursor: 0, is_through: false, next_page: clock::now(), failures: 0 }
    }

    /// Takes a page, and returns its ids; none when they are all behind the cursor, so that a list that turns in a circle
    /// is not followed.
    fn advance(&mut self, mut ids: Vec<i64>, size: usize) -> Option<Vec<i64>> {
        self.is_through = ids.is_empty();
        if !self.is_through {
            // Ascending, as documented; if not, what is cut off would be passed over.
            ids.sort_unstable();
            ids.retain(|id| *id > self.cursor);
            ids.dedup();
            ids.truncate(size);
            self.cursor = *ids.last()?;
        }
        self.failures = 0;
        Some(ids)
    }

    /// A page did not come. Returns the pause that follows.
    fn fail(&mut self, interval: Duration, retry_after: Option<Duration>) -> Duration {
        let pause = interval.saturating_mul(1 << self.failures.min(16)).max(retry_after.unwrap_or_default());
        // An interval that is longer than the longest pause is kept all the same.
        let pause = pause.min(LONGEST_PAUSE.max(interval));
        self.failures += 1;
        self.next_page = clock::now() + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tour() -> Tour {
        Tour::new(Arc::new(Scope::new(0, vec![], "", "")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_followed_upwards_to_its_end() {
        let mut tour = tour();
        assert_eq!(tour.advance(vec![3, 5, 9], 3), Some(vec![3, 5, 9]));
        assert_eq!(tour.advance(vec![9, 11, 10, 10, 12, 14], 3), Some(vec![10, 11, 12]), "no more than was asked for");
        assert_eq!(tour.advance(vec![3, 12], 3), None, "a circle");
        assert_eq!((tour.cursor, tour.is_through), (12, false));
        assert_eq!(tour.advance(vec![14], 3), Some(vec![14]), "a short page is not the last");
        assert_eq!(tour.advance(vec![], 3), Some(vec![]));
        assert_eq!((tour.cursor, tour.is_through), (14, true));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_a_page_ends_them() {
        let (mut tour, interval) = (tour(), Duration::from_secs(10));
        let pauses =
            |tour: &mut Tour, asked: Option<u64>| tour.fail(interval, asked.map(Duration::from_secs)).as_secs();
        assert_eq!([(); 8].map(|()| pauses(&mut tour, None)), [10, 20, 40, 80, 160, 320, 600, 600]);
        tour.advance(vec![1], 1);
        assert_eq!(pauses(&mut tour, Some(45)), 45);
        assert_eq!(pauses(&mut tour, Some(1_000_000)), 600, "a typing error must not stop it for a day");
        assert_eq!(tour.next_page, clock::now() + LONGEST_PAUSE);
        assert_eq!(tour.fail(LONGEST_PAUSE * 2, None), LONGEST_PAUSE * 2);
    }
}
