//! What is wrong with a configuration: every problem at once, one line each.
//!
//! No problem quotes a value. A secret in the wrong place, or one that merely stands next to a typing error, therefore
//! never reaches a terminal or a log.

use std::{fmt, path::Path};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where it was written: a key such as `lookup[0].interval`, a variable's name, or a file and line.
    pub key: String,
    /// What is wrong with it, as a sentence that follows the key.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.sentence)
    }
}

/// Everything that is wrong, in the order in which it was found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The file could not be read.
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let mut problems = Self::default();
        problems.add(path.display().to_string(), format!("cannot be read: {error}"));
        problems
    }

    /// Notes one more.
    pub(super) fn add(&mut self, key: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(Problem { key: key.into(), sentence: sentence.into() });
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each problem.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate that `written` was probably meant to be, if any is close enough.
pub(super) fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(written, candidate), candidate))
        // A third of the letters may be off: `tll` is `ttl`, `cert` is not `key`.
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(written.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from one word to another.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let changed = usize::from(from[i - 1] != to[j - 1]);
            let mut least = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + changed);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_key_that_was_meant() {
        let known = ["ttl", "negative_ttl", "capacity"];
        assert_eq!(nearest("tll", known.into_iter()), Some("ttl"));
        assert_eq!(nearest("negativ_ttl", known.into_iter()), Some("negative_ttl"));
        assert_eq!(nearest("negative-ttl", known.into_iter()), Some("negative_ttl"));
        assert_eq!(nearest("colour", known.into_iter()), None);
        assert_eq!(nearest("", known.into_iter()), None);
    }

    #[test]
    fn problems_are_printed_one_line_each() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        problems.add("cache.ttl", "is wrong");
        problems.add("lookup[0].path", "is wrong too");
        assert_eq!(problems.to_string(), "cache.ttl: is wrong\nlookup[0].path: is wrong too");
    }
}
