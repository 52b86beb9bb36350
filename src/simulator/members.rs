//! A JSON object written member by member, as text: some with spaces between tokens, some members written over.

use std::fmt::Display;

/// A JSON object under construction.
pub(super) struct Members<'a> {
    out: String,
    spaced: bool,
    written: &'a [(String, String)],
    used: Vec<&'a str>,
}

impl<'a> Members<'a> {
    /// An object without members; written ones take the place of those of the same name.
    pub(super) fn new(spaced: bool, written: &'a [(String, String)]) -> Self {
        Self { out: String::with_capacity(2048), spaced, written, used: Vec::new() }
    }

    /// A member, or what was written over it.
    pub(super) fn add(&mut self, name: &str, value: impl Display) {
        match self.written.iter().find(|(field, _)| field == name) {
            Some((field, written)) => {
                self.used.push(field);
                self.push(name, written);
            }
            None => self.push(name, &value.to_string()),
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        self.out.push(if self.out.is_empty() { '{' } else { ',' });
        if self.spaced {
            self.out.push(' ');
        }
        self.out.extend(["\"", name, "\"", if self.spaced { " : " } else { ":" }, value]);
    }

    /// What was written and has no place of its own comes last.
    pub(super) fn finish(mut self) -> String {
        for (name, value) in self.written {
            if !self.used.contains(&name.as_str()) {
                self.push(name, value);
            }
        }
        self.out.push('}');
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_member_keeps_its_place_and_a_new_one_comes_last() {
        let written = [("new".to_owned(), "[1.0]".to_owned()), ("a".to_owned(), "2".to_owned())];
        let mut members = Members::new(false, &written);
        members.add("a", 1);
        members.add("b", 1);
        assert_eq!(members.finish(), r#"{"a":2,"b":1,"new":[1.0]}"#);
    }
}
