//! How it is told: TOML whose comments are the findings, so that the whole can be pasted, or JSON for a program.

use std::{fmt::Write as _, time::Duration};

use humantime::format_duration;
use serde_json::{Value, json};

use super::{
    Findings, Target,
    findings::{End, Form, KeyAnswer, Nobody, Step, StepAnswer},
    mixed::Mixed,
    settings::{Advice, Settings, millis},
};
use crate::{shape::Shape, upstream::DataForm};

/// The longest line of a comment.
const WIDTH: usize = 118;

/// What was found about a lookup, and what to configure.
pub struct Report<'a> {
    target: &'a Target,
    findings: &'a Findings,
    settings: Settings,
}

impl<'a> Report<'a> {
    /// The report on one lookup.
    #[must_use]
    pub fn new(target: &'a Target, findings: &'a Findings) -> Self {
        Self { target, findings, settings: Settings::new(target, findings) }
    }

    /// For a person, and to be pasted.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let findings = self.findings;
        let mut text = String::new();
        let lasted = findings.lasted.as_secs_f64();
        let asked = format!("{} to {} in {lasted:.1} s.", count(findings.requests, "request"), self.target.shape.path);
        comment(&mut text, "", &asked);
        if let Some(why) = why_it_ended(&findings.end) {
            comment(&mut text, "", &format!("Not everything was asked: {why}."));
        }
        comment(&mut text, "1. ", &format!("Does it answer? {}", answers(findings)));
        comment(&mut text, "2. ", "Is each key known when it is asked alone?");
        for (kind, answer) in &findings.keys {
            comment(&mut text, "   ", &format!("{kind}: {}", key(answer)));
        }
        comment(&mut text, "3. ", &format!("What do several lists in one request mean? {}", mixed(&findings.mixed)));
        comment(&mut text, "4. ", &format!("What is a key answered that nobody has? {}", nobody(&findings.nobody)));
        comment(&mut text, "5. ", &format!("What does a refusal look like? {}", refusal(findings)));
        comment(&mut text, "6. ", &format!("How close may two requests be? {}", closeness(findings)));
        let steps = findings.steps.iter().flatten();
        steps.for_each(|it| comment(&mut text, "   ", &step(it)));
        if Shape::built_in(&self.target.shape.path).is_none_or(|(shape, _)| shape != self.target.shape) {
            comment(&mut text, "", "What follows belongs into the section of this path, beside its [[lookup.key]]s.");
        }
        let _written = write!(text, "\n[[lookup]]\npath = {}\n", toml::Value::from(&*self.target.shape.path));
        setting(&mut text, "interval", &self.settings.interval, |interval| format_duration(interval).to_string());
        setting(&mut text, "mixed_lists", &self.settings.mixed_lists, |lists| lists.as_str().to_owned());
        text
    }

    /// For a program.
    #[must_use]
    pub fn to_json(&self) -> String {
        let findings = self.findings;
        let keys = findings.keys.iter().map(|(kind, answer)| key_json(kind, answer));
        let steps = findings.steps.as_ref().map(|steps| steps.iter().map(step_json).collect::<Vec<_>>());
        let Settings { interval, mixed_lists } = &self.settings;
        let refusal = findings.refusal.as_ref().map(|refusal| {
            json!({
                "form": form(&refusal.form),
                "retry_after_seconds": refusal.retry_after.map(|wait| wait.as_secs()),
                "at_interval": refusal.at_interval,
            })
        });
        let value = json!({
            "path": self.target.shape.path,
            "requests": findings.requests,
            "seconds": findings.lasted.as_secs_f64(),
            "end": findings.end.as_str(),
            "success": findings.success.as_ref().map(|success| {
                json!({"form": form(success), "msg": success.envelope.as_ref().map(|envelope| &envelope.msg)})
            }),
            "took_ms": findings.took.map(|took| took.map(millis)),
            "keys": keys.collect::<Vec<_>>(),
            "nobody": nobody_json(&findings.nobody),
            "several_lists": findings.mixed.as_str(),
            "refusal": refusal,
            "steps": steps,
            "settings": {
                "interval": format_duration(interval.value).to_string(),
                "mixed_lists": mixed_lists.value.as_str(),
            },
            "why": {"interval": interval.why, "mixed_lists": mixed_lists.why},
        });
        format!("{value}\n")
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Appends a comment, broken into lines.
fn comment(text: &mut String, begin: &str, sentence: &str) {
    let indent = " ".repeat(begin.len());
    let mut line = format!("# {begin}");
    let mut is_first = true;
    for word in sentence.split(' ') {
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = format!("# {indent}");
        } else if !is_first {
            line.push(' ');
        }
        line.push_str(word);
        is_first = false;
    }
    text.push_str(&line);
    text.push('\n');
}

fn setting<T: Copy>(text: &mut String, name: &str, advice: &Advice<T>, value: impl Fn(T) -> String) {
    comment(text, "", &advice.why);
    let _written = writeln!(text, "{name} = {}", toml::Value::from(value(advice.value)));
}

fn why_it_ended(end: &End) -> Option<String> {
    match end {
        End::Complete => None,
        End::Budget => Some("a dozen requests had been sent".to_owned()),
        End::Refused => Some("the upstream refused twice in a row".to_owned()),
        End::Failed => Some("the upstream failed three times".to_owned()),
        End::Unauthorized => Some("the upstream does not take the credential".to_owned()),
        End::Patience(wait) => Some(format!("the upstream asks to be left alone for {}", format_duration(*wait))),
        End::Interrupted => Some("it was stopped".to_owned()),
    }
}

fn answers(findings: &Findings) -> String {
    let Some(success) = &findings.success else {
        return match &findings.trouble {
            Some(trouble) => format!("Not with a success; the last request ended with {trouble}."),
            None => "Not with a success.".to_owned(),
        };
    };
    let msg = success.envelope.as_ref().map_or(String::new(), |envelope| format!(", msg {:?}", envelope.msg));
    let took = findings.took.map_or(String::new(), |[least, middle, most]| {
        let [least, middle, most] = [least, middle, most].map(millis);
        format!(", after {least} to {most} ms, {middle} in the middle")
    });
    format!("Yes: {success}{msg}{took}.")
}

fn key(answer: &KeyAnswer) -> String {
    match answer {
        KeyAnswer::NotKnown => "this was not answered.".to_owned(),
        KeyAnswer::Nobody => "nobody was found.".to_owned(),
        KeyAnswer::Rejected(form) => format!("rejected with {form}."),
        KeyAnswer::Records { records, carrying } => {
            let count = count(*records, "record");
            match *carrying {
                0 => format!(
                    "{count}, but without the key as it was asked: the upstream spells it in another way, so in company \
                     the gateway cannot tell whose record it is, and asks such a key again by itself, a slot for each."
                ),
                carrying if carrying == *records => format!("{count}, with the key as it was asked."),
                carrying => {
                    format!("{count}, {carrying} of them with the key as it was asked; the gateway gives those.")
                }
            }
        }
    }
}

fn mixed(mixed: &Mixed) -> String {
    match mixed {
        Mixed::OneList => "The path has one list.".to_owned(),
        Mixed::Union => "The customers that any list reaches: a union.".to_owned(),
        Mixed::First => "Only the first list that is not empty counts.".to_owned(),
        Mixed::Intersection => "The customers that every list reaches: an intersection.".to_owned(),
        Mixed::NoUnion => "No union; whether the first list counts or an intersection is not clear.".to_owned(),
        Mixed::Rejected => "They are rejected.".to_owned(),
        Mixed::Partly(kinds) => {
            format!("{}: counted beside other lists. More cannot be told with these keys.", kinds.join(", "))
        }
        Mixed::Unknown(why) => format!("It cannot be told: {why}."),
    }
}

fn nobody(nobody: &Nobody) -> String {
    match nobody {
        Nobody::NotKnown => "This was not answered.".to_owned(),
        Nobody::Empty(DataForm::EmptyArray) => "A success with an empty list.".to_owned(),
        Nobody::Empty(DataForm::Null) => "A success whose data is null.".to_owned(),
        Nobody::Empty(DataForm::LeftOut) => "A success without data.".to_owned(),
        Nobody::Empty(DataForm::Objects | DataForm::Other) => "A success with something else.".to_owned(),
        Nobody::Rejected(form) => {
            format!("An error, {form}: callers are told so, and such a key is asked alone for a minute.")
        }
        Nobody::Somebody => "Records came even for a made-up key, so it cannot be told.".to_owned(),
    }
}

fn refusal(findings: &Findings) -> String {
    let unrecognised = findings.steps.iter().flatten().find_map(|step| match &step.answer {
        StepAnswer::Unrecognised(form) => Some(form),
        _ => None,
    });
    if let Some(form) = unrecognised {
        return format!("Perhaps like this, {form}: the gateway takes that for a rejection of the key.");
    }
    let Some(refusal) = &findings.refusal else { return "None was seen.".to_owned() };
    let wait = match refusal.retry_after {
        Some(wait) => format!("Retry-After {}", format_duration(wait)),
        None => "no Retry-After".to_owned(),
    };
    format!("{}, {wait}; the gateway takes it for a refusal by the limit.", refusal.form)
}

fn closeness(findings: &Findings) -> &'static str {
    match findings.steps.as_deref() {
        None => "Not tried: --fastest DURATION says what may be.",
        Some([]) => "Not tried: it did not come to that.",
        Some(_) => "From start to start, one after another:",
    }
}

fn step(Step { wanted, gap, answer }: &Step) -> String {
    let answer = match answer {
        StepAnswer::Accepted => "answered".to_owned(),
        StepAnswer::Refused => "refused".to_owned(),
        StepAnswer::Unrecognised(form) => format!("rejected with {form}, though the key had been answered before"),
        StepAnswer::NotTold(why) => (*why).to_owned(),
    };
    let gap = format_duration(Duration::from_millis(millis(*gap)));
    format!("{gap} apart ({} wanted): {answer}.", format_duration(*wanted))
}

fn form(form: &Form) -> Value {
    let envelope = form.envelope.as_ref();
    json!({
        "status": form.status,
        "code": envelope.map(|envelope| &envelope.code),
        "errorCode": envelope.map(|envelope| &envelope.error_code),
    })
}

fn key_json(kind: &str, answer: &KeyAnswer) -> Value {
    match answer {
        KeyAnswer::NotKnown => json!({"kind": kind, "answer": "unknown"}),
        KeyAnswer::Nobody => json!({"kind": kind, "answer": "nobody", "records": 0}),
        KeyAnswer::Rejected(rejected) => json!({"kind": kind, "answer": "rejected", "form": form(rejected)}),
        KeyAnswer::Records { records, carrying } => {
            json!({"kind": kind, "answer": "records", "records": records, "carrying_the_key": carrying})
        }
    }
}

fn nobody_json(nobody: &Nobody) -> Value {
    match nobody {
        Nobody::NotKnown => json!({"answer": "unknown"}),
        Nobody::Empty(DataForm::EmptyArray) => json!({"answer": "empty", "data": "array"}),
        Nobody::Empty(DataForm::Null) => json!({"answer": "empty", "data": "null"}),
        Nobody::Empty(DataForm::LeftOut) => json!({"answer": "empty", "data": "left out"}),
        Nobody::Empty(DataForm::Objects | DataForm::Other) => json!({"answer": "empty", "data": "other"}),
        Nobody::Rejected(rejected) => json!({"answer": "rejected", "form": form(rejected)}),
        Nobody::Somebody => json!({"answer": "records"}),
    }
}

fn step_json(Step { wanted, gap, answer }: &Step) -> Value {
    let (name, rejected) = match answer {
        StepAnswer::Accepted => ("accepted", None),
        StepAnswer::Refused => ("refused", None),
        StepAnswer::Unrecognised(rejected) => ("unrecognised", Some(form(rejected))),
        StepAnswer::NotTold(_) => ("unknown", None),
    };
    json!({"wanted_ms": millis(*wanted), "gap_ms": millis(*gap), "answer": name, "form": rejected})
}
