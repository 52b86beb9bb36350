//! A model of what gateways meet in: the scripts' meaning in Rust, in virtual time, with delays, losses and a clock that may
//! jump.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use audience_gateway::{
    link::{Clock, Listen as _, Lost},
    replicas::{ALIVE, Asked, Calling, Exchange, Found, Grant, OFFER_STANDS, Replicas, Reply, Sent},
};
use fastrand::Rng;
use tokio::time::{Instant, sleep};

/// For how long the gateway whose turn it is may be waited for, in microseconds.
const GRACE: i64 = 50_000;

/// How long a grant may be late, and by how much a clock may be wrong that has not jumped.
const MOMENT: i64 = 150_000;
const STEP: i64 = 400_000;

struct Slot {
    next: i64,
    limit: i64,
    run: String,
    held: bool,
    token: String,
    gap: i64,
}

/// A lane's turn: since when it has waited, after those that somebody waits in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Since(bool, i64, String);

struct Standing {
    until: i64,
    can: bool,
    turns: Vec<Since>,
    offer: Vec<u8>,
}

/// What Redis knows.
struct Known {
    rng: Rng,
    slot: Option<Slot>,
    offers: BTreeMap<String, Standing>,
    verdicts: HashMap<String, Vec<u8>>,
    alive: HashMap<String, i64>,
    ears: Vec<Arc<Replicas>>,
    run: String,
    began: Instant,
    /// By how much its clock has jumped.
    jumped: i64,
    /// The share of calls that are lost, before they are made or after, and of messages.
    lost: f64,
}

/// The place where they meet.
#[derive(Clone)]
pub struct Meeting(Arc<Mutex<Known>>);

impl Meeting {
    pub fn new(seed: u64, lost: f64) -> Self {
        Self(Arc::new(Mutex::new(Known {
            rng: Rng::with_seed(seed),
            slot: None,
            offers: BTreeMap::new(),
            verdicts: HashMap::new(),
            alive: HashMap::new(),
            ears: Vec::new(),
            run: "first".to_owned(),
            began: Instant::now(),
            jumped: 0,
            lost,
        })))
    }

    /// A gateway comes.
    pub fn meet(&self, replicas: &Arc<Replicas>) {
        let mut known = self.0.lock().unwrap();
        known.ears.push(Arc::clone(replicas));
        replicas.up(known.clock());
    }

    /// Everybody's look at the clock, from time to time.
    pub async fn tick(self) {
        loop {
            sleep(Duration::from_millis(500)).await;
            let known = self.0.lock().unwrap();
            known.ears.iter().for_each(|ear| ear.tick(known.clock()));
        }
    }

    /// It forgets everything.
    pub fn forget(&self) {
        let mut known = self.0.lock().unwrap();
        known.slot = None;
        known.offers.clear();
        known.verdicts.clear();
        known.alive.clear();
    }

    /// Another one takes its place, which knows nothing, or what the first one knew.
    pub fn replace(&self, name: &str, knows_nothing: bool) {
        if knows_nothing {
            self.forget();
        }
        let mut known = self.0.lock().unwrap();
        known.run = name.to_owned();
        known.ears.iter().for_each(|ear| ear.down(&Lost("it was replaced".to_owned())));
        known.ears.iter().for_each(|ear| ear.up(known.clock()));
    }

    /// Its clock jumps.
    pub fn jump(&self, seconds: i64) {
        self.0.lock().unwrap().jumped += seconds * 1_000_000;
    }

    /// A call takes its time on both ways, and may be lost on either.
    fn call<T: Send + 'static>(&self, step: impl FnOnce(&mut Known, i64) -> T + Send + 'static) -> Calling<T> {
        let meeting = self.clone();
        Box::pin(async move {
            sleep(meeting.way()).await;
            let answer = {
                let mut known = meeting.0.lock().unwrap();
                known.lose()?;
                let now = known.now();
                step(&mut known, now)
            };
            sleep(meeting.way()).await;
            meeting.0.lock().unwrap().lose()?;
            Ok(answer)
        })
    }

    fn way(&self) -> Duration {
        let rng = &mut self.0.lock().unwrap().rng;
        Duration::from_micros(if rng.f64() < 0.02 { rng.u64(0..150_000) } else { rng.u64(50..1000) })
    }
}

impl Known {
    fn now(&self) -> i64 {
        1_700_000_000_000_000 + i64::try_from(self.began.elapsed().as_micros()).unwrap() + self.jumped
    }

    fn clock(&self) -> Clock {
        let now = Instant::now();
        Clock { run: self.run.clone(), before: now, after: now, micros: u64::try_from(self.now()).unwrap() }
    }

    fn lose(&mut self) -> Result<(), Lost> {
        if self.rng.f64() < self.lost { Err(Lost("the test says so".to_owned())) } else { Ok(()) }
    }

    fn say(&mut self, message: &[u8]) {
        for at in 0..self.ears.len() {
            if self.lose().is_ok() {
                self.ears[at].message(message);
            }
        }
    }

    fn ask(&mut self, asked: &Asked, now: i64) -> Reply {
        let (gap, gateway) = (micros(asked.gap), asked.gateway.to_string());
        let mut silence = micros(asked.silence);
        let slot = self.slot.get_or_insert_with(|| Slot {
            next: now,
            limit: i64::MAX,
            run: String::new(),
            held: false,
            token: String::new(),
            gap: 0,
        });
        let expected = i64::try_from(asked.expected).unwrap();
        if *slot.run != *asked.run || (expected > 0 && (now - expected).abs() > STEP) {
            silence = silence.max(gap + MOMENT);
            slot.run = asked.run.to_string();
        }
        let before = slot.next;
        slot.next = slot.next.min(now.saturating_add(slot.limit));
        if silence > 0 {
            slot.next = slot.next.max(now + silence);
        }
        if slot.next != before {
            slot.limit = (slot.next - now).max(0);
        }
        self.offers.remove(&gateway);
        if !asked.turns.is_empty() {
            let turn = |turn: &audience_gateway::replicas::Turn| {
                Since(turn.background, now - micros(turn.waited), turn.lane.clone())
            };
            let turns = asked.turns.iter().map(turn).collect();
            let standing =
                Standing { until: now + micros(OFFER_STANDS), can: asked.can, turns, offer: asked.offer.clone() };
            self.offers.insert(gateway.clone(), standing);
        }
        self.offers.retain(|_, offer| offer.until >= now && offer.until <= now + 60_000_000);
        let able = || self.offers.iter().filter(|(_, offer)| offer.can);
        let best = able().flat_map(|(_, offer)| &offer.turns).min().cloned();
        let has = |offer: &Standing| offer.turns.iter().any(|turn| best.as_ref().is_some_and(|best| turn.2 == best.2));
        let lead = able().find(|(_, offer)| has(offer)).is_some_and(|(name, _)| *name == gateway);
        let wait = |until: i64, held| {
            let wait = Duration::from_micros(u64::try_from((until - now).max(0)).unwrap());
            Reply::Wait { wait, held, lead }
        };
        if now < slot.next || !asked.can {
            return wait(slot.next, slot.held);
        }
        let mine = self.offers.get(&gateway);
        let lane = match (&best, mine) {
            (Some(best), Some(mine)) if has(mine) => Some(best.2.clone()),
            (Some(_), _) if now - slot.next < GRACE => return wait(slot.next + GRACE, false),
            (_, Some(mine)) => mine.turns.iter().min().map(|turn| turn.2.clone()),
            (None, None) if asked.idle => None,
            (_, None) => return wait(slot.next + gap, false),
        };
        let token = format!("{now}-{gateway}");
        let ahead = micros(asked.hold) + gap.max(slot.gap.min(gap * 2));
        (slot.next, slot.limit, slot.held, slot.token) = (now + ahead, ahead, true, token.clone());
        let mut takers: Vec<(Since, String)> = Vec::new();
        for (name, offer) in &self.offers {
            let turn = offer.turns.iter().find(|turn| Some(&turn.2) == lane.as_ref());
            takers.extend(turn.map(|turn| (turn.clone(), name.clone())));
        }
        takers.sort();
        let offers = takers.iter().filter_map(|(_, name)| Some(self.offers.remove(name)?.offer)).collect();
        Reply::Granted(Grant { token, micros: u64::try_from(now).unwrap(), lane, offers })
    }

    fn sent(&mut self, sent: &Sent, delay: Duration, now: i64) {
        let (mut gap, delay) = (micros(sent.gap), micros(delay));
        if let Some(slot) = &mut self.slot {
            let before = slot.next;
            if slot.held && slot.token == sent.token {
                if slot.gap > gap && slot.gap <= gap * 2 {
                    gap = slot.gap - (slot.gap - gap) / 64;
                }
                (slot.next, slot.held, slot.gap) = (now + gap, false, gap);
            }
            if delay > 0 {
                slot.next = slot.next.max(now + delay);
            }
            if slot.next != before {
                slot.limit = (slot.next - now).max(0);
            }
        }
        if let Some(message) = &sent.message {
            self.say(message);
        }
    }
}

impl Exchange for Meeting {
    fn ask(&self, _domain: &str, asked: Asked) -> Calling<Reply> {
        self.call(move |known, now| known.ask(&asked, now))
    }

    fn sent(&self, _domain: &str, sent: Sent) -> Calling<()> {
        self.call(move |known, now| {
            if sent.message.is_some() {
                known.alive.insert(sent.token.clone(), now + micros(ALIVE));
            }
            known.sent(&sent, Duration::ZERO, now);
        })
    }

    fn publish(&self, _domain: &str, sent: Sent, delay: Duration) -> Calling<()> {
        self.call(move |known, now| {
            known.verdicts.extend(sent.message.clone().map(|message| (sent.token.clone(), message)));
            known.sent(&sent, delay, now);
        })
    }

    fn find(&self, _domain: &str, token: &str) -> Calling<Found> {
        let token = token.to_owned();
        self.call(move |known, now| match known.verdicts.get(&token) {
            Some(verdict) => Found::Verdict(verdict.clone()),
            None if known.alive.get(&token).is_some_and(|until| *until > now) => Found::Alive,
            None => Found::Nothing,
        })
    }

    fn beat(&self, _domain: &str, token: &str) -> Calling<()> {
        let token = token.to_owned();
        self.call(move |known, now| {
            known.alive.insert(token, now + micros(ALIVE));
        })
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}
