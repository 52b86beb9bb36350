//! The scripts: each one step for everybody.

use super::Rows;
use crate::link::Script;

/// All of them.
pub(super) struct Scripts {
    pub(super) join: Script,
    pub(super) read: Script,
    pub(super) save: Script,
    pub(super) erase: Script,
    pub(super) sweep: Script,
}

/// A script that does nothing for who does not know the present epoch.
macro_rules! checked {
    ($file:literal) => {
        Script::new(concat!(include_str!("check.lua"), include_str!($file)))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            join: Script::new(include_str!("join.lua")),
            read: checked!("read.lua"),
            save: checked!("save.lua"),
            erase: checked!("erase.lua"),
            sweep: checked!("sweep.lua"),
        }
    }
}

/// What was read: for each shelf how many rows there are, then place and row of each.
pub(super) fn rows(answer: Vec<Vec<u8>>) -> Option<Vec<Rows>> {
    let mut all = Vec::new();
    let mut words = answer.into_iter();
    while let Some(count) = words.next() {
        let count = number(&count)?;
        let row = |_| Some((words.next()?, words.next()?));
        all.push((0..count).map(row).collect::<Option<Rows>>()?);
    }
    Some(all)
}

pub(super) fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_rubbish_is_none() {
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let read = rows(words(&["1", "a", "b", "0"])).expect("two shelves");
        assert_eq!(read, vec![vec![(b"a".to_vec(), b"b".to_vec())], vec![]]);
        assert!(rows(words(&["2", "a", "b"])).is_none() && rows(words(&["x"])).is_none());
    }
}
