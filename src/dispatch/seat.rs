//! One gateway's seat among several that share a slot: what it has asked, what stands of it, and whom it waits for.
//!
//! The worker decides; this remembers. Rules:
//! - **One question at a time.** The gateway whose turn is next asks when the slot opens; the others give it [`LATER`], and
//!   hear that their keys are taken before they ask themselves.
//! - **An offer stands** until it is renewed, taken or old. It is renewed when the queue has changed, no more often than
//!   each [`RENEW`].
//! - **A late grant is void.** What was granted longer than [`LATE`] ago, as far as this gateway can tell, is given back
//!   unused: nobody can know what has happened since.
//! - **A newcomer listens** for an interval before it uses a slot, so that it has heard of every request that counts;
//!   others take its keys along meanwhile. Together with the clock that each question names, this keeps the pace even if the
//!   clock of the exchange is put forward.
//! - **Nobody's scope yet.** A request for keys of a scope that nobody has asked for here is remembered until it is over:
//!   whoever asks for one of its keys meanwhile waits for it, as everywhere.
//! - **A winner that is silent** for some looks is taken for dead, and its keys go again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    cache::{Cache, Watch},
    clock::Instant,
    key::Scope,
    link::RETRY,
    replicas::{Asked, Done, Grant, Replica, Replicas, Sent, Taken, Token, Turn, scope_name},
};

/// How much later those ask whose turn it is not: a winner's request is on the wire within less.
const LATER: Duration = Duration::from_millis(25);

/// The least time between two questions that only renew an offer.
const RENEW: Duration = Duration::from_millis(20);

/// An offer that has not changed is renewed before it is old.
const AGAIN: Duration = Duration::from_millis(900);

/// How long a question may take whose answer is a grant.
const LATE: Duration = Duration::from_millis(100);

/// Before a question is repeated that had no answer, or whose answer was that somebody holds the slot.
const SOON: Duration = Duration::from_millis(50);

/// How long there may be no exchange before anybody is told.
pub(super) const APART: Duration = Duration::from_secs(1);

/// How often a winner says that it lives, and those who wait for it look.
const LOOK: Duration = Duration::from_millis(500);

/// After how many looks at which nothing is known a winner is taken for dead.
const LOOKS: u8 = 2;

/// Scopes whose names are remembered.
const SCOPES: usize = 256;

/// Requests of unknown scopes that are remembered: more are hardly ever under way.
const UNPLACED: usize = 32;

/// How far back the cache remembers what requests must not bring back that are heard of late.
const WATCHED: Duration = Duration::from_secs(4);

/// What a worker must know to take part.
#[derive(Clone)]
pub struct Sharing {
    /// This gateway's side of the exchange.
    pub replicas: Arc<Replicas>,
    /// Which upstream it is, and as whom it is asked where the gateway has a credential of its own.
    pub upstream: Arc<str>,
    /// How long a request may take to be on the wire; after that it is given up.
    pub hold: Duration,
    /// How long anybody waits for a verdict at most.
    pub lease: Duration,
}

/// Whether there is an exchange.
pub(super) enum Link {
    Up(Box<str>),
    /// Since when there is none, and whether that has been acted on.
    Down(Instant, bool),
}

/// Somebody else's request.
struct Elsewhere {
    told: oneshot::Sender<Done>,
    look_at: Instant,
    /// Looks at which nothing was known of it.
    missed: u8,
}

pub(super) struct Seat {
    pub(super) replica: Replica,
    pub(super) sharing: Sharing,
    pub(super) link: Link,
    /// Whether there was an exchange before: then nobody knows what happened since.
    was_up: bool,
    /// For how long the next question demands silence.
    silent: bool,
    /// Whether a question is under way.
    pub(super) asking: bool,
    asked_at: Option<Instant>,
    /// The state of the queue of which an offer stands.
    pub(super) standing: Option<u64>,
    opens_at: Option<Instant>,
    lead: bool,
    /// A grant that is about to be used.
    pub(super) grant: Option<Grant>,
    /// Whether there was something for an idle slot.
    pub(super) idle: bool,
    /// This gateway's requests, and when to say next that it lives.
    own: HashMap<Token, Instant>,
    elsewhere: HashMap<Token, Elsewhere>,
    scopes: VecDeque<(String, Arc<Scope>)>,
    unplaced: VecDeque<Taken>,
    watches: VecDeque<Watch>,
}

impl Seat {
    pub(super) fn new(sharing: Sharing, replica: Replica, now: Instant) -> Self {
        Self {
            replica,
            sharing,
            link: Link::Down(now, false),
            was_up: false,
            silent: false,
            asking: false,
            asked_at: None,
            standing: None,
            opens_at: None,
            lead: true,
            grant: None,
            idle: false,
            own: HashMap::new(),
            elsewhere: HashMap::new(),
            scopes: VecDeque::new(),
            unplaced: VecDeque::new(),
            watches: VecDeque::new(),
        }
    }

    /// Down => Up
    pub(super) fn up(&mut self, run: String) {
        self.link = Link::Up(run.into());
        self.silent = self.was_up;
        self.was_up = true;
        (self.standing, self.opens_at, self.asked_at) = (None, None, None);
        self.unplaced.clear();
    }

    /// Up => Down
    pub(super) fn down(&mut self, now: Instant) {
        if let Link::Up(_) = self.link {
            self.link = Link::Down(now, false);
        }
    }

    /// Whether nothing may be sent yet.
    pub(super) fn needs_grant(&self) -> bool {
        matches!(self.link, Link::Up(_)) && self.grant.is_none()
    }

    /// When the slot opens, or did.
    pub(super) fn opens_at(&self, now: Instant) -> Instant {
        self.opens_at.map_or(now, |opens_at| opens_at.max(now))
    }

    /// When to ask for the slot, if nothing changes.
    pub(super) fn ask_at(&self, now: Instant) -> Instant {
        let opens_at = self.opens_at.unwrap_or(now);
        if self.lead { opens_at } else { opens_at + LATER }
    }

    /// When to renew the offer, if there is one or ought to be.
    pub(super) fn renew_at(&self, stamp: u64, now: Instant) -> Instant {
        let pause = if self.standing == Some(stamp) { AGAIN } else { RENEW };
        self.asked_at.map_or(now, |asked_at| asked_at + pause)
    }

    pub(super) fn ask(
        &mut self,
        (turns, offer): (Vec<Turn>, Vec<u8>),
        (can, idle): (bool, bool),
        gap: Duration,
        now: Instant,
    ) {
        let Link::Up(run) = &self.link else { return };
        let asked = Asked {
            gateway: self.replica.gateway().into(),
            run: run.clone(),
            gap,
            hold: self.sharing.hold,
            // Others may take a moment longer to find the exchange again.
            silence: if self.silent { gap + RETRY * 2 } else { Duration::ZERO },
            expected: self.replica.replicas().micros(now),
            can,
            idle,
            turns,
            offer,
        };
        self.asking = true;
        self.asked_at = Some(now);
        self.replica.ask(asked);
    }

    /// A question was answered, or not.
    pub(super) fn told(&mut self, wait: Option<(Duration, bool, bool)>, now: Instant) {
        self.asking = false;
        match wait {
            Some((wait, held, lead)) => {
                self.silent = false;
                self.opens_at = Some(now + if held { wait.min(SOON) } else { wait });
                self.lead = lead;
            }
            None => {
                self.standing = None;
                self.opens_at = Some(now + SOON);
            }
        }
    }

    /// Whether an answer that comes now is too late to act on.
    pub(super) fn is_late(asked_at: Instant, gap: Duration, now: Instant) -> bool {
        now.saturating_duration_since(asked_at) > LATE.min(gap / 2)
    }

    /// Somebody's request is on the wire: the slot opens again after this.
    pub(super) fn opens_in(&mut self, gap: Duration, now: Instant) {
        self.opens_at = Some(now + gap);
    }

    /// A grant will not be used.
    pub(super) fn give_back(&mut self, grant: Grant, gap: Duration) {
        self.replica.replicas().metrics().void.inc();
        self.replica.say(Sent { token: grant.token, gap, message: None });
    }

    /// This gateway's request of a grant is under way.
    pub(super) fn start(&mut self, token: Token, now: Instant) {
        self.own.insert(token, now + LOOK);
    }

    /// It is over.
    pub(super) fn end(&mut self, token: &str) {
        self.own.remove(token);
    }

    /// Somebody else's request is under way. Returns where its verdict will come.
    pub(super) fn wait_for(&mut self, token: Token, now: Instant) -> oneshot::Receiver<Done> {
        let (told, verdict) = oneshot::channel();
        self.elsewhere.insert(token, Elsewhere { told, look_at: now + LOOK, missed: 0 });
        verdict
    }

    /// It is over. What nobody waits for is given back.
    pub(super) fn deliver(&mut self, done: Done) -> Option<Done> {
        self.unplaced.retain(|taken| taken.token != done.token);
        match self.elsewhere.remove(&*done.token) {
            Some(elsewhere) => elsewhere.told.send(done).err(),
            None => Some(done),
        }
    }

    /// Nothing is known of it.
    pub(super) fn miss(&mut self, token: &str) {
        let Some(elsewhere) = self.elsewhere.get_mut(token) else { return };
        elsewhere.missed += 1;
        if elsewhere.missed >= LOOKS {
            self.elsewhere.remove(token);
        }
    }

    /// Its winner lives.
    pub(super) fn is_alive(&mut self, token: &str) {
        if let Some(elsewhere) = self.elsewhere.get_mut(token) {
            elsewhere.missed = 0;
        }
    }

    /// Does what is due by the clock. Returns when to come again.
    pub(super) fn tend(&mut self, cache: &Arc<Cache>, now: Instant) -> Instant {
        let due = |at: &mut Instant| {
            let is_due = *at <= now;
            if is_due {
                *at = now + LOOK;
            }
            is_due
        };
        for (token, _) in self.own.iter_mut().filter_map(|(token, at)| due(at).then_some((token, ()))) {
            self.replica.beat(token);
        }
        self.elsewhere.retain(|_, elsewhere| !elsewhere.told.is_closed());
        for (token, elsewhere) in &mut self.elsewhere {
            if due(&mut elsewhere.look_at) {
                self.replica.find(token);
            }
        }
        if self.watches.back().is_none_or(|newest| now.saturating_duration_since(newest.since()) >= WATCHED / 4) {
            self.watches.push_back(cache.watch(now));
        }
        while self.watches.front().is_some_and(|oldest| now.saturating_duration_since(oldest.since()) > WATCHED) {
            self.watches.pop_front();
        }
        let newest = self.watches.back().map_or(now, Watch::since);
        let looks = self.own.values().copied().chain(self.elsewhere.values().map(|elsewhere| elsewhere.look_at));
        looks.fold(newest + WATCHED / 4, Instant::min)
    }

    /// When a request was started at the latest that was granted then, if the cache remembers so far back.
    pub(super) fn started(&self, granted: u64, now: Instant) -> Option<Instant> {
        let started = self.replica.replicas().moment(granted)?.min(now);
        let watched = self.watches.front()?.since();
        (started >= watched).then_some(started)
    }

    /// The name of a scope, which is remembered.
    pub(super) fn name_of(&mut self, scope: &Arc<Scope>) -> String {
        if let Some((name, _)) = self.scopes.iter().find(|(_, known)| known == scope) {
            return name.clone();
        }
        if self.scopes.len() >= SCOPES {
            self.scopes.pop_front();
        }
        let name = scope_name(scope);
        self.scopes.push_back((name.clone(), Arc::clone(scope)));
        name
    }

    /// The scope of that name, if this gateway has asked for keys of it.
    pub(super) fn scope(&self, name: &str) -> Option<Arc<Scope>> {
        self.scopes.iter().find(|(known, _)| known == name).map(|(_, scope)| Arc::clone(scope))
    }

    /// Remembers a request for keys of a scope that nobody has asked for here.
    pub(super) fn remember(&mut self, taken: Taken) {
        if self.unplaced.len() >= UNPLACED {
            self.unplaced.pop_front();
        }
        self.unplaced.push_back(taken);
    }

    /// The remembered requests of this scope, which somebody has asked for now.
    pub(super) fn recall(&mut self, scope: &Arc<Scope>) -> Vec<Taken> {
        if self.unplaced.is_empty() {
            return Vec::new();
        }
        let name = self.name_of(scope);
        let is_its = |taken: &Taken| taken.lane.split_once(':').is_some_and(|(scope, _)| *scope == name);
        let (its, others): (Vec<Taken>, Vec<Taken>) = std::mem::take(&mut self.unplaced).into_iter().partition(is_its);
        self.unplaced = others.into();
        its
    }
}
