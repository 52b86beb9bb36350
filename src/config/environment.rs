//! The environment variables that override keys: `GATEWAY_CACHE__TTL` is `cache.ttl`, `GATEWAY_LOOKUP__0__INTERVAL` is
//! `lookup[0].interval`.
//!
//! `RUST_LOG` is `log.level` where no variable of that name says otherwise: it is what people try first.
//!
//! A double underscore stands for every step down. Names without one are not ours to judge: `GATEWAY_CONFIG` names the
//! file, and Kubernetes sets `GATEWAY_PORT_8080_TCP` for a service called gateway.

use std::collections::BTreeMap;

use super::problems::Problems;

const PREFIX: &str = "GATEWAY_";
const STEP: &str = "__";

/// What programs in Rust commonly take for the level of their log, and the key that it is here.
const RUST_LOG: (&str, &str) = ("RUST_LOG", "log.level");

/// One variable that names a key.
struct Variable {
    name: String,
    text: String,
    used: bool,
}

/// The variables, by the key they name: `lookup.0.interval`.
#[derive(Default)]
pub(super) struct Variables(BTreeMap<String, Variable>);

impl Variables {
    /// Picks those that name a key; two spellings of one key are a problem.
    pub(super) fn new(environment: impl Iterator<Item = (String, String)>, problems: &mut Problems) -> Self {
        let mut variables = BTreeMap::new();
        let mut rust_log = None;
        for (name, text) in environment {
            if name == RUST_LOG.0 && !text.trim().is_empty() {
                rust_log = Some(Variable { name, text, used: false });
                continue;
            }
            let Some(rest) = name.strip_prefix(PREFIX).filter(|_| name.contains(STEP)) else {
                continue;
            };
            let path = rest.split(STEP).map(str::to_ascii_lowercase).collect::<Vec<_>>().join(".");
            let variable = Variable { name: name.clone(), text, used: false };
            if let Some(other) = variables.insert(path, variable) {
                problems.add(name, format!("names the same key as {}", other.name));
            }
        }
        if let Some(variable) = rust_log {
            variables.entry(RUST_LOG.1.to_owned()).or_insert(variable);
        }
        Self(variables)
    }

    /// The name and text of the variable for a key (`lookup[0].interval`), which from then on counts as used.
    pub(super) fn take(&mut self, key: &str) -> Option<(String, String)> {
        let variable = self.0.get_mut(&dotted(key))?;
        variable.used = true;
        Some((variable.name.clone(), variable.text.clone()))
    }

    /// The name of the variable for a key.
    pub(super) fn name(&self, key: &str) -> Option<&str> {
        self.0.get(&dotted(key)).map(|variable| variable.name.as_str())
    }

    /// Whether some variable names something below a key.
    pub(super) fn any_below(&self, key: &str) -> bool {
        let below = dotted(key) + ".";
        self.0.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// The paths and names of the variables that no key took.
    pub(super) fn unused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(_, variable)| !variable.used).map(|(path, variable)| (path.as_str(), &*variable.name))
    }
}

/// `lookup[0].interval` as `lookup.0.interval`.
fn dotted(key: &str) -> String {
    key.replace('[', ".").replace(']', "")
}

/// `lookup.0.interval` as `lookup[].interval`, and the indices that were left out.
pub(super) fn generic(path: &str) -> (String, Vec<&str>) {
    let mut indices = Vec::new();
    let mut generic = String::new();
    for step in path.split('.') {
        if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) {
            indices.push(step);
            generic.push_str("[]");
        } else {
            let separator = if generic.is_empty() { "" } else { "." };
            generic = generic + separator + step;
        }
    }
    (generic, indices)
}

/// The variable that overrides a key given as `lookup[].interval` with its indices; `N` stands for a missing one.
pub(super) fn variable_name(generic: &str, indices: &[&str]) -> String {
    let mut indices = indices.iter();
    let mut name = PREFIX.to_owned();
    for (position, part) in generic.split("[]").enumerate() {
        if position > 0 {
            name = name + STEP + indices.next().unwrap_or(&"N");
        }
        name.push_str(&part.replace('.', STEP).to_ascii_uppercase());
    }
    name
}

/// The process's environment, as far as it is text.
///
/// `std::env::vars` panics over a variable that is not Unicode, whoever set it. A value of ours that is not is read with
/// replacement characters, which no key accepts.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> (Variables, Problems) {
        let mut problems = Problems::default();
        let pairs = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        (Variables::new(pairs, &mut problems), problems)
    }

    #[test]
    fn a_variable_names_a_key_by_its_steps() {
        let (mut variables, _) = variables(&[("GATEWAY_LOOKUP__0__INTERVAL", "2s"), ("GATEWAY_CACHE__TTL", "5m")]);
        assert!(variables.any_below("lookup[0]"));
        assert!(!variables.any_below("lookup[1]"));
        let taken = variables.take("lookup[0].interval").expect("it is set");
        assert_eq!(taken, ("GATEWAY_LOOKUP__0__INTERVAL".to_owned(), "2s".to_owned()));
        assert_eq!(variables.unused().collect::<Vec<_>>(), [("cache.ttl", "GATEWAY_CACHE__TTL")]);
    }

    #[test]
    fn a_variable_without_a_double_underscore_is_nobodys_key() {
        let names = ["GATEWAY_CONFIG", "GATEWAY_PORT_8080_TCP", "GATEWAY_SERVICE_HOST", "PATH", "OTHER__KEY"];
        let (variables, problems) = variables(&names.map(|name| (name, "x")));
        assert_eq!(variables.unused().count(), 0);
        assert!(problems.is_empty());
    }

    #[test]
    fn two_spellings_of_one_variable_are_a_problem() {
        let (_, problems) = variables(&[("GATEWAY_CACHE__TTL", "1s"), ("GATEWAY_cache__ttl", "2s")]);
        assert_eq!(problems.to_string(), "GATEWAY_cache__ttl: names the same key as GATEWAY_CACHE__TTL");
    }

    #[test]
    fn a_path_and_its_variable_translate_both_ways() {
        let (path, indices) = generic("lookup.0.key.12.list");
        assert_eq!((path.as_str(), &*indices), ("lookup[].key[].list", &["0", "12"][..]));
        assert_eq!(variable_name(&path, &indices), "GATEWAY_LOOKUP__0__KEY__12__LIST");
        assert_eq!(variable_name("cache.ttl", &[]), "GATEWAY_CACHE__TTL");
        assert_eq!(generic("passthrough.allow.0").0, "passthrough.allow[]");
    }
}
