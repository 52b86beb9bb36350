//! Takes the keys of a configuration one by one, and notices everything that is wrong on the way.
//!
//! Invariants:
//! - A variable wins over the file, and the file over the default.
//! - A bad value is a problem and reading goes on with the default, so that one run finds every problem.
//! - Whatever nobody took is a problem: an unknown key. A section cannot be left without
//!   this check, because it is only lent for the length of a closure.

use std::collections::BTreeSet;

use super::{
    environment::{Variables, generic, variable_name},
    file::Written,
    problems::{Problems, nearest},
    value::{Given, Read},
};

/// The state that all sections of one configuration share.
pub(super) struct Reader {
    variables: Variables,
    /// Every key that was asked for, with indices left out: `lookup[].interval`.
    known: BTreeSet<String>,
    problems: Problems,
}

impl Reader {
    /// Reads the whole of it: the sections inside `read`, then what is left over.
    pub(super) fn read<T>(written: Written, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Self) {
        let Written { table, variables, problems } = written;
        let mut reader = Self { variables, known: BTreeSet::new(), problems };
        let mut root = Section { reader: &mut reader, path: String::new(), table };
        let value = read(&mut root);
        root.leftovers();
        reader.unused_variables();
        (value, reader)
    }

    /// Everything that was wrong.
    pub(super) fn into_problems(self) -> Problems {
        self.problems
    }

    /// Every key that was asked for.
    #[cfg(test)]
    pub(super) fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    fn unused_variables(&mut self) {
        for (path, name) in self.variables.unused() {
            let (key, indices) = generic(path);
            let sentence = self.unknown_variable(&key, &indices);
            self.problems.add(name, sentence);
        }
    }

    fn unknown_variable(&self, key: &str, indices: &[&str]) -> String {
        let below = |known: &String| known.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        if self.known.contains(key.strip_suffix("[]").unwrap_or(key)) {
            return "has an index too far: the elements of an array are numbered from 0 without a gap".to_owned();
        }
        if self.known.iter().any(below) {
            return "is a section, not a key".to_owned();
        }
        nearest(key, self.known.iter().map(String::as_str)).map_or_else(
            || "is not a configuration key".to_owned(),
            |meant| format!("is not a configuration key; did you mean {}?", variable_name(meant, indices)),
        )
    }
}

/// One table of the configuration, while its keys are being taken.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    /// Where it stands: `lookup[0]`, or nothing for the whole file.
    path: String,
    table: toml::Table,
}

impl Section<'_> {
    /// The value of a key, or its default.
    pub(super) fn take<T>(&mut self, key: &str, default: T, rule: impl Fn(Given<'_>) -> Read<T>) -> T {
        self.optional(key, rule).unwrap_or(default)
    }

    /// The value of a key that must be given; nothing only if that is a problem already.
    pub(super) fn required<T>(&mut self, key: &str, rule: impl Fn(Given<'_>) -> Read<T>) -> Option<T> {
        let value = self.optional(key, rule);
        if value.is_none() && self.is_sound(key) {
            self.problem(key, "is required");
        }
        value
    }

    /// The value of a key that may be left out.
    pub(super) fn optional<T>(&mut self, key: &str, rule: impl Fn(Given<'_>) -> Read<T>) -> Option<T> {
        self.know(key);
        let in_file = self.table.remove(key);
        let variable = self.reader.variables.take(&self.at(key));
        let read = match (&variable, &in_file) {
            (Some((_, text)), _) => rule(Given::Variable(text)),
            (None, Some(value)) => rule(Given::File(value)),
            (None, None) => return None,
        };
        read.map_err(|sentence| self.problem(key, sentence)).ok()
    }

    /// An array of strings, each of which some rule accepts. A variable may also name one element by its index.
    pub(super) fn list<T>(&mut self, key: &str, default: &[&str], rule: impl Fn(Given<'_>) -> Read<T>) -> Vec<T> {
        let array = |given: Given<'_>| given.members().ok_or_else(|| "must be an array of strings".to_owned());
        let default = default.iter().copied().map(toml::Value::from).collect();
        let mut members: Vec<toml::Value> = self.take(key, default, array);
        let mut index = 0;
        while index <= members.len() {
            if let Some((_, text)) = self.reader.variables.take(&format!("{}[{index}]", self.at(key))) {
                members.splice(index..members.len().min(index + 1), [text.into()]);
            }
            index += 1;
        }
        let mut values = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            match rule(Given::File(member)) {
                Ok(value) => values.push(value),
                Err(sentence) => self.problem_at_element(key, index, sentence),
            }
        }
        values
    }

    /// Lends a table below this one.
    pub(super) fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let table = match self.table.remove(key) {
            None => toml::Table::new(),
            Some(toml::Value::Table(table)) => table,
            Some(_) => {
                let sentence = format!("must be a table: write [{}]", self.at(key));
                self.reader.problems.add(self.at(key), sentence);
                toml::Table::new()
            }
        };
        let path = self.at(key);
        self.lend(path, table, read)
    }

    /// Lends each table of an array below this one, `least` of them even if none is written.
    pub(super) fn sections<T>(
        &mut self,
        key: &str,
        least: usize,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let at = self.at(key);
        let mut tables = Vec::new();
        match self.table.remove(key) {
            None => tables.resize(least, toml::Table::new()),
            Some(toml::Value::Array(array)) if array.iter().all(toml::Value::is_table) => {
                tables.extend(array.into_iter().filter_map(|value| value.try_into().ok()));
            }
            Some(_) => {
                let header = without_indices(&at).replace("[]", "");
                self.reader.problems.add(&at, format!("must be an array of tables: write [[{header}]]"));
                tables.resize(least, toml::Table::new());
            }
        }
        while self.reader.variables.any_below(&format!("{at}[{}]", tables.len())) {
            tables.push(toml::Table::new());
        }
        let numbered = tables.into_iter().enumerate();
        numbered.map(|(index, table)| self.lend(format!("{at}[{index}]"), table, &mut read)).collect()
    }

    /// Notes a problem with a key of this section, under the name by which it was given.
    pub(super) fn problem(&mut self, key: &str, sentence: impl Into<String>) {
        let name = self.name(key);
        self.reader.problems.add(name, sentence);
    }

    /// Whether nothing is wrong with a key, or with an element of it, so far.
    pub(super) fn is_sound(&self, key: &str) -> bool {
        let name = self.name(key);
        let about_it =
            |key: &str| key.strip_prefix(&*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('['));
        !self.reader.problems.iter().any(|problem| about_it(&problem.key))
    }

    /// The name by which a key was given: the variable's, or the key itself.
    pub(super) fn name(&self, key: &str) -> String {
        let at = self.at(key);
        self.reader.variables.name(&at).map_or(at, str::to_owned)
    }

    fn problem_at_element(&mut self, key: &str, index: usize, sentence: String) {
        let element = format!("{key}[{index}]");
        let by_index = self.reader.variables.name(&self.at(&element)).is_some();
        match self.reader.variables.name(&self.at(key)).map(str::to_owned) {
            Some(name) if !by_index => self.reader.problems.add(name, format!("element {index} {sentence}")),
            _ => self.problem(&element, sentence),
        }
    }

    fn lend<T>(&mut self, path: String, table: toml::Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let mut section = Section { reader: &mut *self.reader, path, table };
        let value = read(&mut section);
        section.leftovers();
        value
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn know(&mut self, key: &str) {
        let generic = without_indices(&self.at(key));
        self.reader.known.insert(generic);
    }

    /// Whatever was not taken by now is nobody's.
    fn leftovers(&mut self) {
        for (key, _) in std::mem::take(&mut self.table) {
            let at = self.at(&quoted(&key));
            let sentence = self.unknown(&key);
            self.reader.problems.add(at, sentence);
        }
    }

    fn unknown(&self, key: &str) -> String {
        let mut here = without_indices(&self.path);
        if !here.is_empty() {
            here.push('.');
        }
        let siblings = self.reader.known.iter().filter_map(|known| known.strip_prefix(&here));
        let names = siblings.filter_map(|rest| rest.split(['.', '[']).next());
        nearest(key, names).map_or_else(
            || "is not a configuration key".to_owned(),
            |meant| format!("is not a configuration key; did you mean {meant}?"),
        )
    }
}

/// A user's own key as it would have to be written: one in quotes may hold anything, line breaks included.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// `lookup[0].interval` as `lookup[].interval`.
pub(super) fn without_indices(path: &str) -> String {
    let mut generic = String::with_capacity(path.len());
    for (position, part) in path.split('[').enumerate() {
        if position == 0 {
            generic.push_str(part);
        } else {
            generic.push('[');
            generic.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    generic
}
