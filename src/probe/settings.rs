//! The settings that fit what was found, with a sentence for each. Pure.

use std::time::Duration;

use humantime::format_duration;

use super::{
    Findings, Target,
    findings::{Step, StepAnswer},
    mixed::Mixed,
};
use crate::dispatch::MixedLists;

/// A setting and why.
pub struct Advice<T> {
    /// What to configure.
    pub value: T,
    /// The sentence.
    pub why: String,
}

/// What to configure in the `[[lookup]]` of the path.
pub struct Settings {
    /// `interval`.
    pub interval: Advice<Duration>,
    /// `mixed_lists`.
    pub mixed_lists: Advice<MixedLists>,
}

impl Settings {
    /// What fits.
    #[must_use]
    pub fn new(target: &Target, findings: &Findings) -> Self {
        Self { interval: interval(target.interval, findings), mixed_lists: mixed_lists(&findings.mixed) }
    }
}

fn interval(configured: Duration, findings: &Findings) -> Advice<Duration> {
    let refused = findings.refusal.as_ref().map_or(0, |refusal| refusal.at_interval);
    let keep = |why: &str| Advice { value: configured, why: why.to_owned() };
    if refused > 0 {
        let why = format!(
            "The configured interval, though {refused} of {} requests were refused that kept it: somebody else uses this \
             credential, or the limit is longer; try a longer one.",
            findings.requests
        );
        return keep(&why);
    }
    let Some(steps) = &findings.steps else {
        return keep("The configured interval: nothing faster was tried; --fastest DURATION says what may be.");
    };
    let accepted = steps.iter().take_while(|step| step.answer == StepAnswer::Accepted);
    let refused = steps.iter().find(|step| matches!(step.answer, StepAnswer::Refused | StepAnswer::Unrecognised(_)));
    match (accepted.last(), refused) {
        (None, Some(step)) => keep(&format!("The configured interval: a request {} was refused.", after(step))),
        (None, None) => keep("The configured interval: whether a shorter one is taken could not be told."),
        (Some(step), refused) => {
            let beyond = refused.map_or("nothing closer was to be tried".to_owned(), |step| {
                format!("a request {} was refused", after(step))
            });
            let why = format!(
                "A request {} was answered, and the gateway adds a margin; {beyond}. A limit over a longer time does not \
                 show in so few.",
                after(step)
            );
            Advice { value: up(step.gap).min(configured), why }
        }
    }
}

fn after(step: &Step) -> String {
    format!("{} after the one before", format_duration(Duration::from_millis(millis(step.gap))))
}

/// A gap in whole milliseconds, rounded up.
fn up(gap: Duration) -> Duration {
    let whole = Duration::from_millis(millis(gap));
    if whole < gap { whole + Duration::from_millis(1) } else { whole }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn mixed_lists(mixed: &Mixed) -> Advice<MixedLists> {
    let (value, why) = match mixed {
        Mixed::OneList => (MixedLists::Auto, "The path has one list, so it makes no difference.".to_owned()),
        Mixed::Union => (
            MixedLists::Union,
            "Every list's own customers came back in one answer, so what such a request leaves out does not exist."
                .to_owned(),
        ),
        Mixed::First => (
            MixedLists::Never,
            "Only the first list that is not empty counts, so several would be asked in vain.".to_owned(),
        ),
        Mixed::Intersection => (
            MixedLists::Never,
            "Only customers that every list reaches come back, so several would be asked in vain.".to_owned(),
        ),
        Mixed::NoUnion => (
            MixedLists::Never,
            "A customer that a list reaches did not come back when other lists were asked with it.".to_owned(),
        ),
        Mixed::Rejected => (
            MixedLists::Never,
            "A request with several lists was rejected, though each key was answered alone.".to_owned(),
        ),
        Mixed::Partly(kinds) => (
            MixedLists::Auto,
            format!(
                "No list was seen to take the place of another, but only {} to count beside others, and not all lists \
                 in one answer: give one key of each kind, of different customers, to learn more; until then the \
                 gateway finds out as it goes.",
                kinds.join(" and ")
            ),
        ),
        Mixed::Unknown(why) => {
            (MixedLists::Auto, format!("It could not be told, because {why}: the gateway finds out as it goes."))
        }
    };
    Advice { value, why }
}
