//! What is written to the log: a level, and other levels for single modules, as in `info,audience_gateway::dispatch=debug`.
//!
//! - **Libraries are heard from warnings on**, whatever a filter says: at finer levels they print what passes through them.
//!   A filter may only make them quieter ([`Filter::levels`]).
//! - **What is named nowhere is silent** where a filter has no level of its own, as with `RUST_LOG` everywhere.
//! - **It changes while the gateway runs** ([`Control`]): what it costs is paid by who changes it, not by who logs.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing::level_filters::LevelFilter;

/// The program's own modules are below this name.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Parts of one filter: more than there are modules.
const MOST: usize = 64;

/// What is told who wrote a filter that is none.
const SENTENCE: &str = r#"must be "off", "error", "warn", "info", "debug" or "trace", or a list such as "info,audience_gateway::dispatch=debug""#;

/// Which lines are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The least severe level of what is named by none of `modules`.
    level: LevelFilter,
    /// Beginnings of module paths, and the least severe level of what is below.
    modules: Vec<(String, LevelFilter)>,
}

impl From<LevelFilter> for Filter {
    fn from(level: LevelFilter) -> Self {
        Self { level, modules: Vec::new() }
    }
}

impl FromStr for Filter {
    type Err = String;

    /// The sentence of the error never quotes what was written.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::from(LevelFilter::OFF);
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.len() > MOST {
            return Err(SENTENCE.to_owned());
        }
        for part in parts {
            match part.split_once('=') {
                Some((module, level)) => filter.add(module.trim(), level_of(level.trim()).ok_or(SENTENCE)?)?,
                None => match level_of(part) {
                    Some(level) => filter.level = level,
                    // A module alone: all of it. Only the own ones, or a slip of the finger would silence everything.
                    None if is_own(part) => filter.add(part, LevelFilter::TRACE)?,
                    None => return Err(SENTENCE.to_owned()),
                },
            }
        }
        Ok(filter)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.level.fmt(f)?;
        self.modules.iter().try_for_each(|(module, level)| write!(f, ",{module}={level}"))
    }
}

impl Filter {
    /// The beginnings of module paths, each with the least severe level that is written of it; of several that fit a module
    /// the longest counts, and the empty one fits all.
    pub fn levels(&self) -> impl Iterator<Item = (&str, LevelFilter)> {
        let all = [("", self.level), (OWN, self.level)].into_iter();
        all.chain(self.modules.iter().map(|(module, level)| (&**module, *level)))
            .map(|(module, level)| (module, if is_own(module) { level } else { level.min(LevelFilter::WARN) }))
    }

    fn add(&mut self, module: &str, level: LevelFilter) -> Result<(), String> {
        if !is_module_path(module) {
            return Err(SENTENCE.to_owned());
        }
        self.modules.retain(|(other, _)| other != module);
        self.modules.push((module.to_owned(), level));
        Ok(())
    }
}

fn level_of(word: &str) -> Option<LevelFilter> {
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    levels.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, level)| level)
}

/// Whether it is the program itself or one of its modules.
fn is_own(module: &str) -> bool {
    module.strip_prefix(OWN).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether it looks like `crate::module`: nobody's number is one.
fn is_module_path(path: &str) -> bool {
    let is_name = |name: &str| {
        let begins = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
        begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    path.len() <= 128 && path.split("::").all(is_name)
}

/// Who writes the log, told of each new filter.
type Apply = Box<dyn Fn(&Filter) + Send + Sync>;

/// The filter of a process, and who applies a new one.
pub struct Control {
    now: Mutex<Filter>,
    apply: OnceLock<Apply>,
}

impl Control {
    /// The filter that the log began with.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { now: Mutex::new(filter), apply: OnceLock::new() }
    }

    /// Says who writes the log. Once: later ones are not heard.
    pub fn applied_by(&self, apply: impl Fn(&Filter) + Send + Sync + 'static) {
        let _first = self.apply.set(Box::new(apply));
    }

    /// The filter now.
    #[must_use]
    pub fn now(&self) -> Filter {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another filter from now on. Written down if it is another, by the filter before it or by the new one.
    pub fn set(&self, filter: Filter) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == filter {
            return;
        }
        let said = tracing::enabled!(tracing::Level::WARN);
        let say = || tracing::warn!(before = %now, level = %filter, "the log level was changed");
        if said {
            say();
        }
        self.apply.get().into_iter().for_each(|apply| apply(&filter));
        if !said {
            say();
        }
        *now = filter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str) -> Vec<(String, String)> {
        let filter: Filter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        filter.levels().map(|(module, level)| (module.to_owned(), level.to_string())).collect()
    }

    #[test]
    fn a_level_is_for_the_program_and_libraries_are_heard_from_warnings_on_whatever_is_asked() {
        for (text, expected) in [
            ("debug", &[("", "warn"), (OWN, "debug")][..]),
            ("OFF", &[("", "off"), (OWN, "off")]),
            ("error", &[("", "error"), (OWN, "error")]),
            ("hyper=trace, h2=off,info", &[("", "warn"), (OWN, "info"), ("hyper", "warn"), ("h2", "off")]),
            ("audience=trace,warn", &[("", "warn"), (OWN, "warn"), ("audience", "warn")]),
            ("audience_gateways=trace,warn", &[("", "warn"), (OWN, "warn"), ("audience_gateways", "warn")]),
            ("audience_gateway::dispatch=debug", &[("", "off"), (OWN, "off"), ("audience_gateway::dispatch", "debug")]),
            ("audience_gateway", &[("", "off"), (OWN, "off"), (OWN, "trace")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(levels(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_to_the_same_filter() {
        for text in ["info", "info,audience_gateway::dispatch=debug", "off,hyper=error", "audience_gateway::cache"] {
            let filter: Filter = text.parse().expect("a filter");
            assert_eq!(filter.to_string().parse(), Ok(filter), "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_a_sentence_that_does_not_quote_it() {
        let many = vec!["a=info"; 65].join(",");
        for text in [
            "",
            ",",
            " ",
            "loud",
            "13800000000",
            "13800000000=debug",
            "info,loud",
            "a=loud",
            "=info",
            "a==info",
            "info=",
            "hyper",
            "a::=info",
            "a b=info",
            "audience_gateway[span]=debug",
            "\u{7f}",
            &many,
        ] {
            assert_eq!(text.parse::<Filter>(), Err(SENTENCE.to_owned()), "{text}");
        }
    }

    #[test]
    fn who_writes_the_log_is_told_of_a_change_and_of_no_other() {
        let control = Control::new(Filter::from(LevelFilter::INFO));
        let told = std::sync::Arc::new(Mutex::new(Vec::new()));
        let to = std::sync::Arc::clone(&told);
        control.applied_by(move |filter| to.lock().expect("nobody panics").push(filter.to_string()));
        for text in ["info", "debug", "debug", "off"] {
            control.set(text.parse().expect("a filter"));
            assert_eq!(control.now().to_string(), text);
        }
        assert_eq!(*told.lock().expect("nobody panics"), ["debug", "off"]);
    }
}
