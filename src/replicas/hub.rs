//! The gateway's side of the exchange: one ear for all its domains, and for each the calls that are under way.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use super::{
    Config, WhenDown,
    exchange::{Asked, Exchange, Found, Reply, Sent, Token},
    message::Message,
};
use crate::{
    clock::{Instant, now},
    link::{Clock, Link, Listen, Lost, Proof},
    metrics::ReplicasMetrics,
};

/// Messages that a domain has not taken in yet. There are two for each slot; what is beyond is fetched by who misses it.
const MESSAGES: usize = 256;

/// Something to act on.
pub enum Event {
    /// There is an exchange: the server of this name.
    Up(String),
    /// There is none.
    Down,
    /// What became of a question that was asked at that moment.
    Told(Instant, Result<Reply, Lost>),
    /// What everybody was told.
    Heard(Message),
    /// What is known of a grant.
    Looked(Token, Result<Found, Lost>),
}

/// All domains of one gateway.
pub struct Replicas {
    exchange: Arc<dyn Exchange>,
    /// This gateway's name, new in each process.
    gateway: Box<str>,
    max_replicas: u32,
    when_down: WhenDown,
    /// The server that is asked, if there is one.
    up: watch::Sender<Option<String>>,
    /// What its clock showed last.
    clock: watch::Sender<Option<Clock>>,
    members: Mutex<Vec<(Box<str>, mpsc::Sender<Bytes>)>>,
    proof: Proof,
    metrics: ReplicasMetrics,
}

impl Replicas {
    /// A gateway without an exchange yet.
    #[must_use]
    pub fn new(exchange: Arc<dyn Exchange>, config: &Config, metrics: ReplicasMetrics) -> Self {
        Self {
            exchange,
            gateway: format!("{:016x}", fastrand::u64(..)).into(),
            max_replicas: config.max_replicas,
            when_down: config.when_redis_is_down,
            up: watch::Sender::new(None),
            clock: watch::Sender::new(None),
            members: Mutex::default(),
            proof: super::scripts::proof(&config.prefix),
            metrics,
        }
    }

    /// Keeps the connection, and listens.
    pub async fn run(self: Arc<Self>, link: Arc<Link>, prefix: &str) {
        link.run(super::scripts::channel(prefix), self).await;
    }

    /// Takes part in a domain.
    #[must_use]
    pub fn join(self: &Arc<Self>, domain: String) -> Replica {
        let (sender, messages) = mpsc::channel(MESSAGES);
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|(_, member)| !member.is_closed());
        members.push((domain.clone().into(), sender));
        let mut up = self.up.subscribe();
        up.mark_changed();
        Replica {
            replicas: Arc::clone(self),
            domain: domain.into(),
            up,
            messages,
            outbox: mpsc::channel(MESSAGES),
            calls: JoinSet::new(),
        }
    }

    /// What to do without an exchange.
    #[must_use]
    pub fn when_down(&self) -> WhenDown {
        self.when_down
    }

    /// A moment no later than that at which the clock of the exchange showed so many microseconds.
    #[must_use]
    pub fn moment(&self, micros: u64) -> Option<Instant> {
        let Clock { before, micros: shown, .. } = self.clock.borrow().clone()?;
        if micros >= shown {
            before.checked_add(Duration::from_micros(micros - shown))
        } else {
            before.checked_sub(Duration::from_micros(shown - micros))
        }
    }

    /// What the clock of the exchange shows now; 0 if nobody knows.
    #[must_use]
    pub fn micros(&self, now: Instant) -> u64 {
        let Some(Clock { before, micros, .. }) = self.clock.borrow().clone() else { return 0 };
        let since = now.saturating_duration_since(before).as_micros();
        micros.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// How many gateways there are at most.
    #[must_use]
    pub fn max_replicas(&self) -> u32 {
        self.max_replicas
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &ReplicasMetrics {
        &self.metrics
    }
}

impl Listen for Replicas {
    fn up(&self, clock: Clock) {
        info!("connected to redis");
        self.metrics.connected.set(1);
        let run = clock.run.clone();
        self.clock.send_replace(Some(clock));
        self.up.send_replace(Some(run));
    }

    fn down(&self, why: &Lost) {
        warn!(reason = %why, "not connected to redis");
        self.metrics.connected.set(0);
        self.clock.send_replace(None);
        self.up.send_replace(None);
    }

    fn tick(&self, clock: Clock) {
        self.clock.send_replace(Some(clock));
    }

    fn proof(&self) -> Option<&Proof> {
        Some(&self.proof)
    }

    fn message(&self, message: &[u8]) {
        let Some((domain, text)) = Message::address(message) else { return };
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, member) in members.iter().filter(|(own, _)| **own == *domain) {
            // Who has no room for it looks for it later.
            let _full = member.try_send(text.clone());
        }
    }
}

/// Says that the request of a grant is on the wire, from wherever that is noticed.
#[derive(Clone)]
pub struct Post(mpsc::Sender<Sent>);

impl Post {
    /// Sends it off.
    pub fn send(&self, sent: Sent) {
        // Beyond what fits, the slot is held a little longer.
        let _full = self.0.try_send(sent);
    }
}

/// One domain, as the worker of its queue takes part in it. Its calls end with it.
pub struct Replica {
    replicas: Arc<Replicas>,
    domain: Box<str>,
    up: watch::Receiver<Option<String>>,
    messages: mpsc::Receiver<Bytes>,
    outbox: (mpsc::Sender<Sent>, mpsc::Receiver<Sent>),
    calls: JoinSet<Option<Event>>,
}

impl Replica {
    /// The next thing to act on. What was said before a question was answered comes before the answer.
    pub async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                // What everybody is told.
                Some(text) = self.messages.recv() => {
                    if let Some(message) = Message::read(&text) {
                        return Event::Heard(message);
                    }
                }
                // The exchange comes and goes.
                Ok(()) = self.up.changed() => {
                    let run = self.up.borrow_and_update().clone();
                    return run.map_or(Event::Down, Event::Up);
                }
                // What was noticed elsewhere.
                Some(sent) = self.outbox.1.recv() => self.say(sent),
                // What became of a call.
                Some(ended) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok(Some(event)) = ended {
                        return event;
                    }
                }
            }
        }
    }

    /// Offers, and asks for the slot.
    pub fn ask(&mut self, asked: Asked) {
        let (at, asking) = (now(), self.replicas.exchange.ask(&self.domain, asked));
        self.calls.spawn(async move { Some(Event::Told(at, asking.await)) });
    }

    /// Says that a request is on the wire, or will never be.
    pub fn say(&mut self, sent: Sent) {
        let saying = self.replicas.exchange.sent(&self.domain, sent);
        self.calls.spawn(async move {
            // Otherwise the slot is held until it is clear that nobody will.
            let _lost = saying.await;
            None
        });
    }

    /// Says what became of a request; several times, where that is lost.
    pub fn publish(&mut self, sent: Sent, delay: Duration) {
        const ATTEMPTS: u32 = 4;
        let (exchange, domain) = (Arc::clone(&self.replicas.exchange), self.domain.clone());
        self.calls.spawn(async move {
            for attempt in 1..=ATTEMPTS {
                if exchange.publish(&domain, sent.clone(), delay).await.is_ok() {
                    break;
                }
                tokio::time::sleep(crate::link::RETRY * 2 * attempt).await;
            }
            None
        });
    }

    /// Looks for what became of a grant.
    pub fn find(&mut self, token: &str) {
        let (token, finding) = (token.to_owned(), self.replicas.exchange.find(&self.domain, token));
        self.calls.spawn(async move { Some(Event::Looked(token, finding.await)) });
    }

    /// Says that this gateway still waits for the answer to its request.
    pub fn beat(&mut self, token: &str) {
        let beating = self.replicas.exchange.beat(&self.domain, token);
        self.calls.spawn(async move {
            // Others may take it for dead, and ask again.
            let _lost = beating.await;
            None
        });
    }

    /// Where to say that a request is on the wire.
    #[must_use]
    pub fn post(&self) -> Post {
        Post(self.outbox.0.clone())
    }

    /// The name of the domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name of this gateway.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.replicas.gateway
    }

    /// What all domains have in common.
    #[must_use]
    pub fn replicas(&self) -> &Arc<Replicas> {
        &self.replicas
    }
}
