//! The dispatchers of one lookup path: one for the whole gateway, or one for each credential.
//!
//! Nobody has written down whether the upstream counts its one request per second for everybody or for each token. With
//! [`LimitPer::Credential`] every credential has a queue, a pace and a worker of its own, which ends once it has been idle
//! for [`IDLE`]. There are at most [`MAX_CREDENTIALS`] at once: beyond that a lookup is told to come back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    Config, Handle, Health, LimitPer, Refused, Status, Warming, Worker,
    handle::{Waiting, Wanted},
    timeline::{Slot, Timeline},
};
use crate::{
    clock::Instant,
    key::{Credential, Key, Scope},
};

/// Credentials with a queue of their own at once. A platform has one token per application, and a handful of
/// applications; a caller that makes tokens up must not make workers without end.
pub const MAX_CREDENTIALS: usize = 64;

/// How long a credential's queue stays once nothing is asked with it: longer than any interval or `Retry-After`, so that
/// what has been learned of its pace is not forgotten while it matters.
pub const IDLE: Duration = Duration::from_secs(600);

/// Makes a worker and its handle.
pub type Recruit = Box<dyn Fn() -> (Worker, Handle) + Send + Sync>;

struct Member {
    handle: Handle,
    used: Instant,
    task: AbortHandle,
}

struct Members {
    by_credential: HashMap<Credential, Member>,
    /// The workers; dropping the fleet ends them.
    tasks: JoinSet<()>,
    drain_at: Option<Instant>,
}

/// All dispatchers of one lookup path.
pub struct Fleet {
    limit_per: LimitPer,
    recruit: Recruit,
    members: Mutex<Members>,
    /// The scope of the last lookup that the upstream answered, if anybody wants to know.
    served: watch::Sender<Option<Arc<Scope>>>,
    /// What the warm-up of this path says that it is doing.
    warming: Mutex<Warming>,
}

impl Fleet {
    /// Starts the one dispatcher, or none until a credential comes.
    #[must_use]
    pub fn new(limit_per: LimitPer, recruit: Recruit, now: Instant) -> Self {
        let members = Members { by_credential: HashMap::new(), tasks: JoinSet::new(), drain_at: None };
        let (served, _) = watch::channel(None);
        let fleet = Self { limit_per, recruit, members: Mutex::new(members), served, warming: Mutex::default() };
        if limit_per == LimitPer::Gateway {
            let _one = fleet.of(Credential::Gateway, now);
        }
        fleet
    }

    /// Asks for the keys of one lookup of this scope.
    ///
    /// # Errors
    /// As [`Handle::submit`]; also when there are too many credentials.
    pub fn submit(&self, now: Instant, scope: &Scope, wanted: Wanted) -> Result<Waiting, Refused> {
        match self.of(self.credential(scope), now) {
            Some(handle) => handle.submit(now, wanted),
            None => Err(Refused::Full(IDLE)),
        }
    }

    /// Queues stale keys of this scope to be refreshed behind the answer that was just given.
    pub fn refresh(&self, now: Instant, scope: &Scope, keys: impl IntoIterator<Item = Key>) {
        if let Some(handle) = self.of(self.credential(scope), now) {
            handle.refresh(now, keys);
        }
    }

    /// Whether the upstream failed or refused when it was last heard of on behalf of this scope.
    #[must_use]
    pub fn is_troubled(&self, now: Instant, scope: &Scope) -> bool {
        self.of(self.credential(scope), now).is_some_and(|handle| handle.is_troubled())
    }

    /// Customers were erased: their keys, those of which `is_gone` is true, are not fetched unless somebody waits.
    pub fn erase(&self, is_gone: impl Fn(&Key) -> bool) {
        self.members().by_credential.values().for_each(|member| member.handle.erase(&is_gone));
    }

    /// Customers have changed, and are reached by the keys `changed`: what was `held` of them is fetched again behind
    /// everything that is waited for, and so is what is under way. Returns whether there is anything of the kind.
    pub fn renew(&self, now: Instant, changed: Vec<Key>, held: Vec<Key>) -> bool {
        let mut parts: HashMap<Credential, (Vec<Key>, Vec<Key>)> = HashMap::new();
        for key in changed {
            parts.entry(self.credential(&key.scope)).or_default().0.push(key);
        }
        for key in held {
            parts.entry(self.credential(&key.scope)).or_default().1.push(key);
        }
        let renew = |(credential, (changed, held)): (Credential, (Vec<Key>, Vec<Key>))| {
            let known = self.members().by_credential.get(&credential).map(|member| member.handle.clone());
            let handle = if held.is_empty() { known } else { self.of(credential, now) };
            handle.is_some_and(|handle| handle.renew(now, &changed, held))
        };
        // Each of them, and not only until the first.
        parts.into_iter().map(renew).fold(false, |any, one| any | one)
    }

    /// The upstream answered a lookup of this scope. Nothing is remembered unless somebody [wants to know](Self::served).
    pub fn serve(&self, scope: &Arc<Scope>) {
        if self.served.receiver_count() > 0 {
            self.served.send_replace(Some(Arc::clone(scope)));
        }
    }

    /// Whose lookup the upstream answered last, from now on.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Option<Arc<Scope>>> {
        self.served.subscribe()
    }

    /// The limits of every dispatcher are these from now on. Those that are started later are the recruiter's affair.
    pub fn reconfigure(&self, config: &Config) {
        self.members().by_credential.values().for_each(|member| member.handle.reconfigure(config));
    }

    /// The dispatcher that asks for keys of this scope; none when there are too many credentials.
    #[must_use]
    pub fn handle(&self, now: Instant, scope: &Scope) -> Option<Handle> {
        self.of(self.credential(scope), now)
    }

    /// What the warm-up is doing now.
    pub fn say(&self, warming: Warming) {
        *self.warming.lock().unwrap_or_else(PoisonError::into_inner) = warming;
    }

    /// What the warm-up of this path is doing, as it said last.
    #[must_use]
    pub fn warming(&self) -> Warming {
        *self.warming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `at` on nobody is waited for any more.
    pub fn drain(&self, at: Instant) {
        let mut members = self.members();
        members.drain_at = Some(at);
        members.by_credential.values().for_each(|member| member.handle.drain(at));
    }

    /// What the dispatchers look like now, taken together: sums, and the worst of each.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let all: Vec<Status> = self.members().by_credential.values().map(|member| member.handle.status(now)).collect();
        let worst = |health: Health| all.iter().any(|status| status.health == health);
        let mut whole = Status {
            health: [Health::Down, Health::Failing].into_iter().find(|health| worst(*health)).unwrap_or(Health::Up),
            ..Status::default()
        };
        for Status { queue, promised_wait, in_flight, max_batch_keys, cold_keys, .. } in all {
            whole.cold_keys += cold_keys;
            whole.queue.waiting += queue.waiting;
            whole.queue.refresh += queue.refresh;
            whole.queue.abandoned += queue.abandoned;
            whole.queue.oldest = whole.queue.oldest.max(queue.oldest);
            whole.queue.gap = whole.queue.gap.max(queue.gap);
            whole.queue.down |= queue.down;
            whole.promised_wait = whole.promised_wait.max(promised_wait);
            whole.in_flight += in_flight;
            whole.max_batch_keys = whole.max_batch_keys.max(max_batch_keys);
        }
        whole
    }

    /// What became of the slots of the last two minutes, those of all dispatchers together, oldest first.
    #[must_use]
    pub fn slots(&self, now: Instant) -> Vec<Slot> {
        let mut all: Vec<Vec<Slot>> =
            self.members().by_credential.values().map(|member| member.handle.slots(now)).collect();
        match all.len() {
            1 => all.remove(0),
            _ => Timeline::of(all.concat()).slots(now).collect(),
        }
    }

    fn credential(&self, scope: &Scope) -> Credential {
        match self.limit_per {
            LimitPer::Gateway => Credential::Gateway,
            LimitPer::Credential => scope.credential.clone(),
        }
    }

    /// The dispatcher of a credential; it is started if there is none and there may be one.
    fn of(&self, credential: Credential, now: Instant) -> Option<Handle> {
        let mut members = self.members();
        if let Some(member) = members.by_credential.get_mut(&credential) {
            member.used = now;
            return Some(member.handle.clone());
        }
        members.dismiss_idle(now);
        if members.by_credential.len() >= MAX_CREDENTIALS {
            return None;
        }
        let (worker, handle) = (self.recruit)();
        if let Some(at) = members.drain_at {
            handle.drain(at);
        }
        let task = members.tasks.spawn(worker.of(credential.clone()).run());
        members.by_credential.insert(credential, Member { handle: handle.clone(), used: now, task });
        Some(handle)
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn dismiss_idle(&mut self, now: Instant) {
        self.by_credential.retain(|_, member| {
            let keep = now.saturating_duration_since(member.used) < IDLE || !member.handle.is_idle();
            if !keep {
                member.task.abort();
            }
            keep
        });
        while self.tasks.try_join_next().is_some() {}
    }
}
