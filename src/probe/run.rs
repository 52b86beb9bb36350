//! The shell: waits for the pace, sends one request at a time, and writes down what came.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::sleep_until;

use super::{
    Findings, Probe, REQUESTS,
    journal::{Asked, End, Journal, Question, Said},
    plan,
};
use crate::{
    clock::{Instant, now},
    dispatch::pacer::Pacer,
    upstream::{
        Spelling,
        client::{Answer, Client, NoAnswer},
        credentials::NoToken,
        verdict::{Ask, Verdict},
        wire,
    },
};

/// Where in the spread of its back-off a pause lies: one client needs no jitter.
const NO_JITTER: f64 = 0.5;

/// Keeps the distance between requests.
struct Pace {
    pacer: Pacer,
    /// Beside the pacer's own reckoning: a gap that is to be tried is kept to the full.
    not_before: Instant,
    /// When the last request met its connection, or was started if it never did.
    last: Option<Instant>,
}

/// Asks until all is known, a limit is reached, or `stop` completes: then what is under way is given up, nothing more is
/// sent, and what was found so far is told.
pub async fn run(probe: &Probe, client: &Client, stop: impl Future<Output = ()>) -> Findings {
    let began = now();
    let mut stop = pin!(stop);
    let mut journal = Journal::default();
    let mut pace = Pace::new(probe.target.interval);
    let end = loop {
        let Some(question) = plan::next(probe, &journal) else { break End::Complete };
        if let Some(end) = journal.end() {
            break end;
        }
        if journal.0.len() >= REQUESTS {
            break End::Budget;
        }
        pace.follow(probe, &question);
        let asked = tokio::select! {
            biased;
            // The user has seen enough.
            () = &mut stop => break End::Interrupted,
            // One request, from the wait for its slot to its answer.
            asked = ask(probe, client, &mut pace, question) => asked,
        };
        journal.0.push(asked);
    };
    Findings::new(probe, &journal, (end, now() - began))
}

async fn ask(probe: &Probe, client: &Client, pace: &mut Pace, question: Question) -> Asked {
    let ask = Ask::new(Arc::clone(&probe.scope), probe.ids(&question));
    let started = pace.slot().await;
    let met = OnceLock::new();
    let on_wire = || {
        // It is called once.
        let _first = met.set(now());
    };
    let answer = match client.credentials().headers(&probe.scope.credential).await {
        Ok(headers) => client.exchange(&probe.target.shape, &ask, headers, on_wire).await,
        Err(NoToken) => Err(NoAnswer::Unavailable("the token could not be had".into())),
    };
    let ended = now();
    let met = met.into_inner().unwrap_or(started);
    let gap = pace.last.map(|last| met - last);
    let (status, spelling) = match &answer {
        Ok(answer) => (Some(answer.status), Spelling::of(&answer.body).map(|spelling| probe.discretion.of(spelling))),
        Err(_) => (None, None),
    };
    let said = said(probe, &ask, answer);
    pace.note(probe, &said, (met, ended));
    Asked { question, gap, took: ended - met, status, spelling, said }
}

fn said(probe: &Probe, ask: &Ask, answer: Result<Answer, NoAnswer>) -> Said {
    let shape = &probe.target.shape;
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::TooLarge) => return Said::Failed("the answer is over upstream.max_response".to_owned()),
        Err(NoAnswer::Unavailable(reason)) => return Said::Failed(reason.into_owned()),
    };
    match answer.verdict(shape, ask) {
        Verdict::Success(_) => wire::carried(shape, answer.status, &answer.body)
            .map_or_else(|| Said::Failed("a record cannot be read".to_owned()), Said::Found),
        Verdict::Throttled(retry_after) => Said::Throttled(retry_after),
        Verdict::Unauthorized(_) => Said::Unauthorized,
        Verdict::Rejected(_) => Said::Rejected,
        other @ (Verdict::Renewed
        | Verdict::Declined(_)
        | Verdict::TooLarge
        | Verdict::Unavailable(..)
        | Verdict::Invalid(_)) => Said::Failed(format!("HTTP {}: {}", answer.status.as_u16(), other.reason())),
    }
}

impl Pace {
    fn new(interval: Duration) -> Self {
        let now = now();
        Self { pacer: Pacer::new(interval, now), not_before: now, last: None }
    }

    /// Keeps the gap that the question wants.
    fn follow(&mut self, probe: &Probe, question: &Question) {
        let Question::Closer { gap, .. } = question else { return };
        let last = self.last.unwrap_or_else(now);
        self.pacer = Pacer::new(interval_of(*gap), last);
        // The gap counts from the request before; a new pacer always grants its first start.
        let _granted = self.pacer.start(last);
        self.pacer.ended();
        self.not_before = last + (*gap).min(probe.target.interval);
    }

    /// Waits for the slot, and takes it.
    async fn slot(&mut self) -> Instant {
        sleep_until(self.not_before).await;
        loop {
            let moment = now();
            match self.pacer.start(moment) {
                Ok(()) => return moment,
                Err(ready_at) => sleep_until(ready_at).await,
            }
        }
    }

    /// What an answer says about the pace.
    fn note(&mut self, probe: &Probe, said: &Said, (met, ended): (Instant, Instant)) {
        self.pacer.on_wire(met);
        self.pacer.ended();
        self.last = Some(met);
        match said {
            Said::Found(_) => self.pacer.succeeded(),
            Said::Rejected | Said::Unauthorized => self.pacer.reached(),
            // A whole interval from the refusal, even if the upstream would have it sooner.
            Said::Throttled(wait) => {
                let whole = probe.target.interval;
                self.pacer.throttled(ended, Some(wait.map_or(whole, |wait| wait.max(whole))));
            }
            Said::Failed(_) => self.pacer.failed(ended, ended, NO_JITTER),
        }
    }
}

/// The interval whose pacer keeps this gap, the margin within it.
fn interval_of(gap: Duration) -> Duration {
    let margin = (Pacer::new(gap, now()).gap() - gap).min(gap / 2);
    gap - margin
}
