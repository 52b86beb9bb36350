//! The next question, from what has been answered: each given key alone, a key that nobody has, several lists together,
//! and then, if the user says so, closer than the interval.
//!
//! A question that was refused by the limit or failed is asked again; one below the interval is not.

use std::time::Duration;

use super::{
    Probe, REQUESTS,
    journal::{Asked, Journal, Question, Said},
    mixed::Evidence,
};

/// Steps from the interval down to the fastest that the user allows: enough to see roughly where it ends.
const STEPS: usize = 4;

/// By how much of a gap an answer may delay the next request for the gap to count as tried.
const LATE: f64 = 0.1;

/// What a scheduler's tick may add to a gap.
const TICK: Duration = Duration::from_millis(4);

/// What to ask next; nothing when all that can be learned has been.
pub(super) fn next(probe: &Probe, journal: &Journal) -> Option<Question> {
    let alone = (0..probe.keys.len()).map(Question::Alone).find(|question| journal.answer(question).is_none());
    alone
        .or_else(|| nobody(probe, journal))
        .or_else(|| Evidence::new(probe, journal).next(is_empty_when_nobody(probe, journal)).map(Question::Mixed))
        .or_else(|| closer(probe, journal))
}

/// The question of what a key is answered that nobody has, unless a given key has answered it already.
fn nobody(probe: &Probe, journal: &Journal) -> Option<Question> {
    let question = Question::Nobody(probe.keys.first()?.kind);
    let known = journal.answer(&question).is_some() || empty_given(probe, journal).is_some();
    (!known).then_some(question)
}

/// The given key, if there is one, that reaches nobody.
pub(super) fn empty_given(probe: &Probe, journal: &Journal) -> Option<usize> {
    (0..probe.keys.len()).find(|key| journal.found(&Question::Alone(*key)).is_some_and(<[_]>::is_empty))
}

fn is_empty_when_nobody(probe: &Probe, journal: &Journal) -> bool {
    let is_empty = |asked: &Asked| matches!((&asked.question, &asked.said), (Question::Nobody(_), Said::Found(records)) if records.is_empty());
    journal.0.iter().any(is_empty) || empty_given(probe, journal).is_some()
}

/// The next step below the interval, as long as every one before it was answered in time. None where the interval itself
/// was refused: closer would only be refused more.
fn closer(probe: &Probe, journal: &Journal) -> Option<Question> {
    let (fastest, interval) = (probe.fastest?, probe.target.interval);
    let key = (0..probe.keys.len()).find(|key| journal.found(&Question::Alone(*key)).is_some())?;
    let tried = journal.closer().count();
    if journal.0.iter().any(|asked| matches!(asked.said, Said::Throttled(_))) {
        return None;
    }
    if journal.closer().any(|(asked, step)| !matches!(asked.said, Said::Found(_)) || is_late(asked.gap, step)) {
        return None;
    }
    let steps = REQUESTS.saturating_sub(journal.0.len() - tried).clamp(1, STEPS);
    (tried < steps).then(|| Question::Closer { key, gap: step(interval, fastest, (tried + 1, steps)) })
}

/// The gap of one step of several, in whole milliseconds; the last one is `fastest`.
fn step(interval: Duration, fastest: Duration, (number, of): (usize, usize)) -> Duration {
    if number == of {
        return fastest;
    }
    let part = number as f64 / of as f64;
    let exact = interval.saturating_sub(interval.saturating_sub(fastest).mul_f64(part));
    Duration::from_millis(u64::try_from(exact.as_millis()).unwrap_or(u64::MAX)).max(fastest)
}

/// Whether the answer before it took so long that a request came much later than the step wanted.
pub(super) fn is_late(gap: Option<Duration>, wanted: Duration) -> bool {
    gap.is_none_or(|gap| gap > wanted.mul_f64(1.0 + LATE) + TICK)
}
