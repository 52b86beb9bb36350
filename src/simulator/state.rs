//! Everything the simulator knows, behind one lock, and how it judges a request.
//!
//! # In this order
//! The limiter sees every arrival at a limited path, whatever its method or token. Then the method, the token, and what the
//! body asks. Then, for lookups, a fault may strike. The answer is made at that moment, so a write that happens while it is
//! on its way is not in it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::request::Parts;

use super::{
    arrivals::{Arrival, Log, Outcome},
    call::Call,
    config::{Config, LimitPer},
    customers::Population,
    envelope::Answer,
    faults::Fault,
    limiter::{Decision, Limit, Limiter},
    lookup::{Answering, Asked},
    record::Viewer,
    siblings::header,
    tokens::Tokens,
    writes::{Changes, Directory},
};
use crate::clock::{self, Instant};

/// Where a request came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Which connection, counted from 1.
    pub(super) connection: u64,
    /// The client's address; the connection's number where there is none.
    pub(super) address: String,
}

/// A request that is all there, or whose body never came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit<'a> {
    /// When its head had arrived.
    pub(super) moment: Instant,
    /// Where it came from.
    pub(super) origin: &'a Origin,
    /// Its head.
    pub(super) head: &'a Parts,
    /// Its body.
    pub(super) body: Option<&'a Bytes>,
}

/// What is to be sent, and when.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The honest answer.
    pub(super) answer: Answer,
    /// What is to go wrong with it.
    pub(super) fault: Fault,
    /// How long it takes.
    pub(super) wait: Duration,
    /// The switches at that moment.
    pub(super) config: Arc<Config>,
}

/// Everything the simulator knows.
#[derive(Debug)]
pub(super) struct State {
    /// The switches.
    pub(super) config: Arc<Config>,
    /// The limit.
    limiter: Limiter,
    /// What arrived.
    pub(super) log: Log,
    /// Who may ask.
    pub(super) tokens: Tokens,
    /// What was written, by company.
    pub(super) changes: HashMap<String, Changes>,
    /// Versions by customer that changed in every company.
    pub(super) touched: HashMap<u64, u64>,
    /// All chance, from the seed.
    chance: fastrand::Rng,
    /// Connections so far.
    pub(super) connections: u64,
    /// Lookups under way.
    pub(super) in_flight: usize,
}

impl State {
    /// A simulator that nobody has asked yet.
    pub(super) fn new(config: Config, now: Instant) -> Self {
        Self {
            limiter: Limiter::new(now),
            log: Log::default(),
            tokens: Tokens::default(),
            changes: HashMap::new(),
            touched: HashMap::new(),
            chance: fastrand::Rng::with_seed(config.seed),
            connections: 0,
            in_flight: 0,
            config: Arc::new(config),
        }
    }

    /// How much later than it arrived a request is judged.
    pub(super) fn delay_of_arrival(&mut self) -> Duration {
        self.up_to(self.config.arrival_jitter)
    }

    /// One company's customers as the viewer sees them.
    pub(super) fn answering<'a>(&'a self, config: &'a Config, viewer: &'a Viewer) -> Answering<'a> {
        let born = Population { seed: config.seed, size: config.customers };
        let directory = Directory { born, changes: self.changes.get(&viewer.org), touched: &self.touched };
        Answering { config, directory, viewer }
    }

    /// Judges one request, makes its answer and logs it.
    pub(super) fn judge(&mut self, call: Call, visit: Visit<'_>) -> Reply {
        let now = clock::now();
        let config = Arc::clone(&self.config);
        let body = visit.body.map_or(&[][..], |body| body);
        let asked =
            if call.is_lookup() { Asked::read(call, body) } else { Asked { rest: "{}".into(), ..Asked::default() } };
        let (outcome, answer) = match visit.body {
            Some(_) => self.decide(call, visit, &asked, now),
            None => (Outcome::Incomplete, Answer::failure(400, "400", "请求体不完整")),
        };
        self.record_arrival(call, visit, asked, (now, outcome));
        let fault = if let Outcome::Faulted(fault) = outcome { fault } else { Fault::None };
        let spread = self.up_to(config.jitter * 2);
        let wait = (config.latency + spread).saturating_sub(config.jitter);
        Reply { answer, fault, wait, config }
    }

    /// Logs one that is answered without a judgement.
    pub(super) fn record_arrival(&mut self, call: Call, visit: Visit<'_>, asked: Asked, judged: (Instant, Outcome)) {
        let (uri, headers) = (&visit.head.uri, &visit.head.headers);
        self.log.push(Arrival {
            moment: visit.moment,
            judged: judged.0,
            connection: visit.origin.connection,
            method: visit.head.method.clone(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            call,
            limited: call.is_limited(),
            token: header(headers, "x-token"),
            authorization: header(headers, "authorization"),
            traceparent: header(headers, "traceparent"),
            key_count: asked.key_count(),
            company: asked.company,
            instance: asked.instance,
            rest: asked.rest,
            keys: asked.keys,
            in_flight: if call.is_lookup() { self.in_flight } else { 0 },
            outcome: judged.1,
        });
    }

    fn decide(&mut self, call: Call, visit: Visit<'_>, asked: &Asked, now: Instant) -> (Outcome, Answer) {
        let config = Arc::clone(&self.config);
        let token = header(&visit.head.headers, "x-token");
        if let Some(limit) = limit(call, &config) {
            let subject = match config.limit_per {
                LimitPer::All => String::new(),
                LimitPer::Token => self.tokens.principal(token.as_deref().unwrap_or_default()),
                LimitPer::Company => self.viewer(token.as_deref(), asked).org,
                LimitPer::Address => visit.origin.address.clone(),
            };
            if self.limiter.judge((call, subject), limit, config.limit_counts, now) == Decision::Refused {
                return (Outcome::Throttled, Answer::too_frequent(&config));
            }
        }
        if call.method().is_some_and(|method| method != visit.head.method) {
            return (Outcome::Rejected, Answer::failure(405, "405", "请求方法不支持"));
        }
        if call == Call::Token {
            return self.issue_token(&visit.head.uri, now);
        }
        let good = match &token {
            None => !config.require_token,
            Some(token) => self.tokens.is_good(token, config.accept_any_token, now),
        };
        if !good {
            return (Outcome::Unauthorized, Answer::failure(config.rejection_status, "100200", "token无效或已过期"));
        }
        if !call.is_lookup() {
            let body = visit.body.map_or(&[][..], |body| body);
            return self.sibling(call, &visit.head.uri, token.as_deref().unwrap_or_default(), body);
        }
        if let Some(rejection) = asked.rejection(&config) {
            return (Outcome::Rejected, rejection);
        }
        let mut chance = self.chance.fork();
        let viewer = self.viewer(token.as_deref(), asked);
        let answer = self.answering(&config, &viewer).answer(call, asked, &mut chance);
        match self.strike() {
            Fault::None => (Outcome::Accepted, answer),
            fault => (Outcome::Faulted(fault), answer),
        }
    }

    fn viewer(&self, token: Option<&str>, asked: &Asked) -> Viewer {
        let principal = self.tokens.principal(token.unwrap_or_default());
        let (company, instance) = (asked.company.as_deref(), asked.instance.as_deref());
        Viewer::new(&principal, company.unwrap_or_default(), instance.unwrap_or_default())
    }

    /// What goes wrong with the lookup at hand.
    fn strike(&mut self) -> Fault {
        if self.config.fault_count > 0 {
            Arc::make_mut(&mut self.config).fault_count -= 1;
            return self.config.fault;
        }
        if self.chance.f64() < self.config.fault_rate { self.config.fault } else { Fault::None }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.chance.f64())
    }
}

fn limit(call: Call, config: &Config) -> Option<Limit> {
    match call {
        Call::Detail => Some(Limit { requests: 1, per: config.interval }),
        Call::Tags => Some(Limit { requests: 10, per: config.tags_window }),
        Call::TagList => Some(Limit { requests: 1, per: config.tag_list_interval }),
        _ => None,
    }
}
