//! A trace of accesses: a key on each line, and its time in seconds before or behind it, or no times at all.
//!
//! Which of two columns is the time is found out: the first in which every line is a number and none is less than the
//! line before. Keys are any words; each is a customer. Empty lines, and lines that begin with `#`, are left out.

use std::{collections::HashMap, fs, io, path::Path};

use crate::load::Customer;

/// One access.
#[derive(Clone)]
pub(crate) struct Access {
    /// Seconds since the trace begins, if it says so.
    pub(crate) at: Option<f64>,
    /// Whom it is about.
    pub(crate) key: Customer,
}

/// Reads a trace.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Access>> {
    let text = fs::read_to_string(path)?;
    parse(&text).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
}

fn parse(text: &str) -> Result<Vec<Access>, String> {
    let lines = text.lines().enumerate().map(|(number, line)| (number, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut columns: [Vec<&str>; 2] = Default::default();
    for (number, line) in lines {
        let words: Vec<_> = line.split([' ', '\t', ',']).filter(|word| !word.is_empty()).collect();
        if words.len() > 2 || words.is_empty() {
            return Err(format!("line {}: a key, and at most a time beside it", number + 1));
        }
        columns.iter_mut().zip(words).for_each(|(column, word)| column.push(word));
        if !columns[1].is_empty() && columns[0].len() != columns[1].len() {
            return Err(format!("line {}: either every line has a time or none", number + 1));
        }
    }
    let [first, second] = columns;
    if second.is_empty() {
        return Ok(join(&first, None));
    }
    if let Some(times) = times(&first) {
        return Ok(join(&second, Some(&times)));
    }
    let times = times(&second).ok_or("in neither column is every line a time that is not before the last one")?;
    Ok(join(&first, Some(&times)))
}

/// A column as seconds since its first line, if it can be that.
fn times(column: &[&str]) -> Option<Vec<f64>> {
    let seconds: Option<Vec<f64>> = column.iter().map(|word| word.parse().ok().filter(|time| *time >= 0.0)).collect();
    let seconds = seconds.filter(|seconds| seconds.is_sorted())?;
    let begin = seconds.first().copied()?;
    Some(seconds.into_iter().map(|time| time - begin).collect())
}

fn join(keys: &[&str], times: Option<&[f64]>) -> Vec<Access> {
    let mut known: HashMap<&str, Customer> = HashMap::new();
    let mut customer = |key| {
        let next = Customer::try_from(known.len()).expect("this holds because the trace is in memory");
        *known.entry(key).or_insert(next)
    };
    let at = |line: usize| times.map(|times| times[line]);
    keys.iter().enumerate().map(|(line, key)| Access { at: at(line), key: customer(*key) }).collect()
}

/// What every smoke test checks of the reading.
pub(crate) fn check() {
    let seconds = |text| -> Vec<_> {
        let trace = parse(text).expect("this holds because the text is a trace");
        trace.into_iter().map(|access| (access.at, access.key)).collect()
    };
    assert_eq!(seconds("# keys\n7\n\n7\nx\n"), [(None, 0), (None, 0), (None, 1)]);
    assert_eq!(seconds("10.5 7\n11 3\n"), [(Some(0.0), 0), (Some(0.5), 1)]);
    assert_eq!(seconds("7,10.5\n3,11\n"), [(Some(0.0), 0), (Some(0.5), 1)]);
    assert!(parse("2 x\n1 y\n").is_err() && parse("1 2 3\n").is_err() && parse("1 2\n3\n").is_err());
}
