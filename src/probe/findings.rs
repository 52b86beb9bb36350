//! What the answers come to: everything that may be told, and nothing that may not.

use std::time::Duration;

use super::{
    Probe, REQUESTS,
    journal::{Asked, Journal, Question, Said},
    mixed::{Evidence, Mixed},
    plan,
};
use crate::upstream::{DataForm, Spelling};

pub use super::journal::End;

/// How an answer is spelled.
#[derive(Clone, PartialEq, Eq)]
pub struct Form {
    /// The HTTP status.
    pub status: u16,
    /// The envelope, fit to be shown; none if the body is not one.
    pub envelope: Option<Spelling>,
}

/// What a given key is answered when it is asked alone.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyAnswer {
    /// Its request was not answered.
    NotKnown,
    /// Records, and how many of them carry the key as it was asked.
    Records {
        /// How many records.
        records: usize,
        /// How many carry the key.
        carrying: usize,
    },
    /// Nobody was found.
    Nobody,
    /// The upstream rejects it.
    Rejected(Form),
}

/// What a key is answered that nobody has.
#[derive(Clone, PartialEq, Eq)]
pub enum Nobody {
    /// No such request was answered.
    NotKnown,
    /// A success without records.
    Empty(DataForm),
    /// An error.
    Rejected(Form),
    /// Records: the made-up key was somebody's.
    Somebody,
}

/// What came of a request closer than the interval.
#[derive(Clone, PartialEq, Eq)]
pub enum StepAnswer {
    /// It was answered.
    Accepted,
    /// It was refused, in a way that the gateway takes for a refusal by the limit.
    Refused,
    /// It was rejected, though the same key had been answered: a refusal that the gateway does not recognise.
    Unrecognised(Form),
    /// It failed, or the answer before took too long for it.
    NotTold(&'static str),
}

/// A request closer than the interval.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    /// How close it was meant to be to the request before.
    pub wanted: Duration,
    /// How close it was, from start to start.
    pub gap: Duration,
    /// What came of it.
    pub answer: StepAnswer,
}

/// A refusal by the limit, as the last one was.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How it is spelled.
    pub form: Form,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    /// How many there were although the configured interval was kept.
    pub at_interval: usize,
}

/// Everything that was found.
pub struct Findings {
    /// How many requests were sent.
    pub requests: usize,
    /// How long it all took.
    pub lasted: Duration,
    /// Why nothing more was asked.
    pub end: End,
    /// How a success with records is spelled; without any, one without.
    pub success: Option<Form>,
    /// The shortest, the middle and the longest time of an answer.
    pub took: Option<[Duration; 3]>,
    /// The given keys, by the name of their kind.
    pub keys: Vec<(String, KeyAnswer)>,
    /// A key that nobody has.
    pub nobody: Nobody,
    /// Several lists in one request.
    pub mixed: Mixed,
    /// The limiter's refusal, if there was one.
    pub refusal: Option<Refusal>,
    /// The steps below the interval; none if the user did not ask for them.
    pub steps: Option<Vec<Step>>,
    /// Why the last request did not answer its question, if it did not: for a person.
    pub trouble: Option<String>,
}

impl Findings {
    pub(super) fn new(probe: &Probe, journal: &Journal, (end, lasted): (End, Duration)) -> Self {
        debug_assert!(journal.0.len() <= REQUESTS);
        let keys = probe
            .keys
            .iter()
            .enumerate()
            .map(|(position, id)| (probe.kind_name(id.kind).to_owned(), key_answer(probe, journal, position)));
        Self {
            requests: journal.0.len(),
            lasted,
            end,
            success: success(journal),
            took: took(journal),
            keys: keys.collect(),
            nobody: nobody(probe, journal),
            mixed: Evidence::new(probe, journal).verdict(),
            refusal: refusal(journal),
            steps: probe.fastest.map(|_| steps(journal)),
            trouble: trouble(journal),
        }
    }

    /// Whether the upstream gave any HTTP answer at all: without one there is nothing to tell.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.took.is_some()
    }

    /// Why the run was in vain, if it was.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let answered = self.keys.iter().any(|(_, answer)| *answer != KeyAnswer::NotKnown);
        let trouble = || self.trouble.clone().unwrap_or_else(|| "no request was sent".to_owned());
        match self.end {
            End::Unauthorized => Some(format!("the upstream does not take the credential ({})", trouble())),
            _ if answered => None,
            End::Interrupted => Some("stopped before the upstream had answered".to_owned()),
            _ if self.is_reached() => Some(format!("the upstream answered no question: {}", trouble())),
            _ => Some(format!("the upstream cannot be reached: {}", trouble())),
        }
    }
}

impl Form {
    fn of(asked: &Asked) -> Option<Self> {
        Some(Self { status: asked.status?.as_u16(), envelope: asked.spelling.clone() })
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        let Some(envelope) = &self.envelope else { return f.write_str(", no envelope") };
        write!(f, ", code {:?}, errorCode {:?}", envelope.code, envelope.error_code)
    }
}

fn success(journal: &Journal) -> Option<Form> {
    let with_records = |asked: &&Asked| matches!(&asked.said, Said::Found(records) if !records.is_empty());
    let any = |asked: &&Asked| matches!(asked.said, Said::Found(_));
    journal.0.iter().find(with_records).or_else(|| journal.0.iter().find(any)).and_then(Form::of)
}

fn took(journal: &Journal) -> Option<[Duration; 3]> {
    let mut took: Vec<_> = journal.0.iter().filter(|asked| asked.status.is_some()).map(|asked| asked.took).collect();
    took.sort_unstable();
    Some([*took.first()?, took[took.len() / 2], *took.last()?])
}

fn key_answer(probe: &Probe, journal: &Journal, position: usize) -> KeyAnswer {
    let Some(asked) = journal.answer(&Question::Alone(position)) else { return KeyAnswer::NotKnown };
    match &asked.said {
        Said::Found(records) if records.is_empty() => KeyAnswer::Nobody,
        Said::Found(records) => {
            let carrying = records.iter().filter(|record| record.ids.contains(&probe.keys[position])).count();
            KeyAnswer::Records { records: records.len(), carrying }
        }
        _ => Form::of(asked).map_or(KeyAnswer::NotKnown, KeyAnswer::Rejected),
    }
}

fn nobody(probe: &Probe, journal: &Journal) -> Nobody {
    let made_up = journal.0.iter().find(|asked| {
        matches!(asked.question, Question::Nobody(_)) && matches!(asked.said, Said::Found(_) | Said::Rejected)
    });
    let given = || plan::empty_given(probe, journal).and_then(|key| journal.answer(&Question::Alone(key)));
    let Some(asked) = made_up.or_else(given) else { return Nobody::NotKnown };
    match (&asked.said, &asked.spelling) {
        (Said::Found(records), _) if !records.is_empty() => Nobody::Somebody,
        (Said::Found(_), Some(spelling)) => Nobody::Empty(spelling.data),
        _ => Form::of(asked).map_or(Nobody::NotKnown, Nobody::Rejected),
    }
}

fn refusal(journal: &Journal) -> Option<Refusal> {
    let refused: Vec<&Asked> = journal.0.iter().filter(|asked| matches!(asked.said, Said::Throttled(_))).collect();
    let last = refused.last()?;
    let Said::Throttled(retry_after) = last.said else { return None };
    let at_interval = refused.iter().filter(|asked| !matches!(asked.question, Question::Closer { .. })).count();
    Some(Refusal { form: Form::of(last)?, retry_after, at_interval })
}

fn steps(journal: &Journal) -> Vec<Step> {
    let step = |(asked, wanted): (&Asked, Duration)| {
        let answer = match &asked.said {
            Said::Throttled(_) => StepAnswer::Refused,
            Said::Rejected => Form::of(asked).map_or(StepAnswer::NotTold("it failed"), StepAnswer::Unrecognised),
            Said::Found(_) if plan::is_late(asked.gap, wanted) => {
                StepAnswer::NotTold("answers take longer than that, so it could not be tried")
            }
            Said::Found(_) => StepAnswer::Accepted,
            Said::Failed(_) | Said::Unauthorized => StepAnswer::NotTold("it failed"),
        };
        Step { wanted, gap: asked.gap.unwrap_or_default(), answer }
    };
    journal.closer().map(step).collect()
}

fn trouble(journal: &Journal) -> Option<String> {
    let last = journal.0.last()?;
    match &last.said {
        Said::Found(_) => None,
        Said::Failed(reason) => Some(reason.clone()),
        _ => Form::of(last).map(|form| form.to_string()),
    }
}
