//! The exchange in Redis or Valkey: some scripts, each one step for everybody.
//!
//! Names: `<prefix>:v1:{<domain>}:slot`, `:turns`, `:offers`, and for each grant `:verdict:<token>` and `:alive:<token>`. The
//! braces keep the names of a domain on one node of a cluster. All of them expire.

use std::{sync::Arc, time::Duration};

use super::{
    ALIVE, FORMAT, OFFER_STANDS, VERDICT_KEPT,
    exchange::{Asked, Calling, Exchange, Found, Grant, Reply, Sent},
};
use crate::{
    clock::now,
    link::{Link, Lost, Proof, Script},
    metrics::ReplicasMetrics,
};

/// The exchange behind a link.
pub struct Redis {
    link: Arc<Link>,
    prefix: Box<str>,
    channel: String,
    scripts: Arc<Scripts>,
    metrics: ReplicasMetrics,
}

struct Scripts {
    ask: Script,
    sent: Script,
    find: Script,
    beat: Script,
}

impl Redis {
    /// The exchange of all gateways that use this prefix.
    #[must_use]
    pub fn new(link: Arc<Link>, prefix: &str, metrics: ReplicasMetrics) -> Self {
        let scripts = Scripts {
            ask: Script::new(include_str!("ask.lua")),
            sent: Script::new(include_str!("sent.lua")),
            find: Script::new("return {redis.call('GET', KEYS[1]) or '', tostring(redis.call('EXISTS', KEYS[2]))}"),
            beat: Script::new("redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) return {}"),
        };
        Self { link, prefix: prefix.into(), channel: channel(prefix), scripts: Arc::new(scripts), metrics }
    }

    fn name(&self, domain: &str, what: &str) -> String {
        format!("{}:{FORMAT}:{{{domain}}}:{what}", self.prefix)
    }

    fn run<T: Send + 'static>(
        &self,
        script: fn(&Scripts) -> &Script,
        keys: Vec<String>,
        args: Vec<Vec<u8>>,
        read: impl FnOnce(Vec<Vec<u8>>) -> Option<T> + Send + 'static,
    ) -> Calling<T> {
        let (link, scripts, metrics) = (Arc::clone(&self.link), Arc::clone(&self.scripts), self.metrics.clone());
        Box::pin(async move {
            let began = now();
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let answer = link.call(script(&scripts), &keys, &args).await;
            metrics.operation.observe(now().saturating_duration_since(began).as_secs_f64());
            read(answer?).ok_or_else(|| Lost("its answer cannot be understood".to_owned()))
        })
    }

    fn say(&self, domain: &str, sent: Sent, [delay, keep, alive]: [u128; 3]) -> Calling<()> {
        let keys = vec![
            self.name(domain, "slot"),
            self.name(domain, &format!("verdict:{}", sent.token)),
            self.name(domain, &format!("alive:{}", sent.token)),
        ];
        let args = vec![
            sent.token.into_bytes(),
            number(micros(sent.gap)),
            self.channel.clone().into_bytes(),
            sent.message.unwrap_or_default(),
            number(delay),
            number(keep),
            number(alive),
        ];
        self.run(|scripts| &scripts.sent, keys, args, |_nothing| Some(()))
    }
}

/// Where everybody of a prefix listens.
#[must_use]
pub(super) fn channel(prefix: &str) -> String {
    format!("{prefix}:{FORMAT}:said")
}

/// All that the scripts do, under names of which nobody reads anything.
pub(super) fn proof(prefix: &str) -> Proof {
    let keys = ["hash", "text"].map(|what| format!("{prefix}:{FORMAT}:{{proof}}:{what}")).to_vec();
    Proof { script: Script::new(include_str!("proof.lua")), keys }
}

impl Exchange for Redis {
    fn ask(&self, domain: &str, asked: Asked) -> Calling<Reply> {
        let keys = ["slot", "turns", "offers"].map(|what| self.name(domain, what)).to_vec();
        let turn =
            |turn: &super::Turn| format!("{} {} {}", turn.lane, u8::from(turn.background), turn.waited.as_micros());
        let turns: Vec<_> = asked.turns.iter().map(turn).collect();
        let args = vec![
            asked.gateway.as_bytes().to_vec(),
            asked.run.as_bytes().to_vec(),
            number(micros(asked.gap)),
            number(micros(asked.hold)),
            number(micros(asked.silence)),
            number(u128::from(asked.can)),
            number(u128::from(asked.idle)),
            number(micros(OFFER_STANDS)),
            turns.join(" ").into_bytes(),
            asked.offer,
            number(asked.expected.into()),
        ];
        self.run(|scripts| &scripts.ask, keys, args, |answer| reply(&answer))
    }

    fn sent(&self, domain: &str, sent: Sent) -> Calling<()> {
        let alive = if sent.message.is_some() { ALIVE.as_millis() } else { 0 };
        self.say(domain, sent, [0, 0, alive])
    }

    fn publish(&self, domain: &str, sent: Sent, delay: Duration) -> Calling<()> {
        self.say(domain, sent, [micros(delay), VERDICT_KEPT.as_millis(), 0])
    }

    fn find(&self, domain: &str, token: &str) -> Calling<Found> {
        let keys = ["verdict", "alive"].map(|what| self.name(domain, &format!("{what}:{token}"))).to_vec();
        self.run(
            |scripts| &scripts.find,
            keys,
            Vec::new(),
            |answer| match &answer[..] {
                [verdict, _] if !verdict.is_empty() => Some(Found::Verdict(verdict.clone())),
                [_, alive] if alive == b"1" => Some(Found::Alive),
                [_, _] => Some(Found::Nothing),
                _ => None,
            },
        )
    }

    fn beat(&self, domain: &str, token: &str) -> Calling<()> {
        let keys = vec![self.name(domain, &format!("alive:{token}"))];
        self.run(|scripts| &scripts.beat, keys, vec![number(ALIVE.as_millis())], |_nothing| Some(()))
    }
}

fn reply(answer: &[Vec<u8>]) -> Option<Reply> {
    let text = |at: usize| std::str::from_utf8(answer.get(at)?).ok();
    match text(0)? {
        "wait" => Some(Reply::Wait {
            wait: Duration::from_micros(text(1)?.parse().ok()?),
            held: text(2)? == "1",
            lead: text(3)? == "1",
        }),
        "granted" => Some(Reply::Granted(Grant {
            token: text(1)?.to_owned(),
            micros: text(2)?.parse().ok()?,
            lane: Some(text(3)?.to_owned()).filter(|lane| !lane.is_empty()),
            offers: answer.get(4..)?.to_vec(),
        })),
        _ => None,
    }
}

fn micros(time: Duration) -> u128 {
    time.as_micros()
}

fn number(number: u128) -> Vec<u8> {
    number.to_string().into_bytes()
}
