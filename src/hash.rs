//! `hash`: the name by which the log knows a key, for who has the secret.
//!
//! Invariant: no line quotes what was given; it may be a customer's number in any place.

use std::io::{self, BufRead, IsTerminal as _, Read as _};

use audience_gateway::{
    config::Config,
    key_hash::{KeyHash, KeyHasher},
    shape::List,
};

use crate::{
    Failure,
    commands::{complain, print},
};

/// Bytes on standard input: a key is a line.
const LONGEST: u64 = 64 << 10;

/// Which key to hash. All of it is read as text, so that no message of the argument parser quotes a key.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Hash {
    /// A key by the name of its kind, such as audienceUserId=747, thirdId=… or phone=…. Without a value, as in
    /// `hash phone`, the value is read from standard input, so that no list of processes shows it.
    #[arg(value_name = "KIND[=VALUE]")]
    key: Vec<String>,
}

/// Prints the hash of a key, as the log has it.
pub(crate) fn hash(config: &Config, arguments: &Hash) -> Result<(), Failure> {
    let hashes = hashes(config, &arguments.key, typed).map_err(Failure::Usage)?;
    print(&hashes.concat());
    Ok(())
}

/// A line for each hash that the log may have of a key; `typed` reads a value that was not given.
fn hashes(
    config: &Config,
    given: &[String],
    typed: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<String>, String> {
    let [key] = given else { return Err("hash takes one argument: KIND, or KIND=VALUE".to_owned()) };
    let (kind, value) = key.split_once('=').map_or((&**key, None), |(kind, value)| (kind, Some(value)));
    let lists = lists(config, kind)?;
    let secret = config.log.key_hash_secret.as_ref().ok_or(
        "log.key_hash_secret is set neither in the configuration nor by GATEWAY_LOG__KEY_HASH_SECRET: without it no log \
         names a key",
    )?;
    let value = match value {
        None | Some("-") => typed(kind)?,
        Some(value) => value.to_owned(),
    };
    if value.trim().is_empty() {
        return Err(format!("{kind} has no value"));
    }
    let hasher = KeyHasher::new(secret);
    let mut hashes: Vec<KeyHash<'_>> = Vec::new();
    for value in lists.iter().filter_map(|list| list.value_type.read(&value)) {
        let hash = hasher.hash(kind, &value);
        // Nearly always the only one. `0747` has two where one lookup path takes the kind for a number, another for text.
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    if hashes.is_empty() {
        return Err(format!("{kind} must be a 64-bit integer"));
    }
    Ok(hashes.iter().map(|hash| format!("{hash}\n")).collect())
}

/// The key lists of all lookup paths whose kind has this name.
fn lists<'a>(config: &'a Config, kind: &str) -> Result<Vec<&'a List>, String> {
    let all = || config.lookups.iter().flat_map(|lookup| &lookup.shape.lists);
    let named: Vec<_> = all().filter(|list| list.kind == kind).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let mut known: Vec<&str> = all().map(|list| &*list.kind).collect();
    known.sort_unstable();
    known.dedup();
    Err(format!("the argument begins with no kind of key; there are {}", known.join(", ")))
}

/// The value on standard input.
fn typed(kind: &str) -> Result<String, String> {
    let mut input = io::stdin().lock();
    if io::stdin().is_terminal() {
        complain(&format!("the value of {kind}, and Enter:"));
        let mut line = String::new();
        input.read_line(&mut line).map_err(|error| unreadable(&error))?;
        return Ok(without_end(&line).to_owned());
    }
    only_line(input)
}

/// All of an input, which must be one line.
fn only_line(input: impl BufRead) -> Result<String, String> {
    let mut text = String::new();
    input.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    let line = without_end(&text);
    if line.contains('\n') || text.len() as u64 > LONGEST {
        return Err("standard input must hold the value on one line, and nothing else".to_owned());
    }
    Ok(line.to_owned())
}

/// The kind of the error only: its sentence is not ours.
fn unreadable(error: &io::Error) -> String {
    format!("standard input cannot be read: {}", error.kind())
}

fn without_end(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn config(more: &str) -> Config {
        let text = format!("upstream.base_url = \"http://x\"\nlog.key_hash_secret = {SECRET:?}\n{more}");
        Config::parse(&text, std::iter::empty()).expect("a configuration")
    }

    fn run(config: &Config, given: &[&str], input: &str) -> Result<String, String> {
        let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
        hashes(config, &given, |_kind| only_line(input.as_bytes())).map(|lines| lines.concat())
    }

    #[test]
    fn every_spelling_of_a_key_has_one_hash_however_it_is_given() {
        let config = config("");
        let id = run(&config, &["audienceUserId=747"], "").expect("a key");
        for (given, input) in [
            ("audienceUserId=0747", ""),
            ("audienceUserId= 747 ", ""),
            ("audienceUserId", "747\n"),
            ("audienceUserId=-", "747"),
            ("audienceUserId", " 747\r\n"),
        ] {
            assert_eq!(run(&config, &[given], input).as_deref(), Ok(&*id), "{given:?} {input:?}");
        }
        assert!(id.starts_with("audienceUserId:") && id.len() == "audienceUserId:".len() + 17, "{id:?}");
        assert_ne!(run(&config, &["audienceUserId=-747"], ""), Ok(id));
        assert_eq!(run(&config, &["thirdId=a=b"], ""), run(&config, &["thirdId"], "a=b\n"));
        assert_ne!(run(&config, &["thirdId= a"], ""), run(&config, &["thirdId=a"], ""), "blanks belong to a text");
    }

    #[test]
    fn kinds_are_those_of_every_configured_lookup() {
        let own = "[[lookup]]\n[[lookup]]\npath = \"/own\"\n\
                   key = [{ list = \"phones\", type = \"int64\", record = [\"phone\"] }, \
                          { list = \"cards\", record = [\"card\"] }]\n";
        let own = config(own);
        assert_eq!(run(&own, &["card=1"], "").map(|text| text.lines().count()), Ok(1));
        let standard = run(&config(""), &["phone=138"], "");
        assert_eq!(run(&own, &["phone=138"], ""), standard, "a number and a text of the same digits are one");
        assert_eq!(run(&own, &["phone=0138"], "").map(|text| text.lines().count()), Ok(2), "there they are two");
    }

    #[test]
    fn what_is_wrong_is_one_line_that_quotes_nothing() {
        let config = config("");
        let rows: [(&[&str], &str); 9] = [
            (&[], ""),
            (&["phone=13800canary", "x"], ""),
            (&["13800canary"], ""),
            (&["13800canary=phone"], ""),
            (&["Phone=13800canary"], ""),
            (&["audienceUserId=13800canary"], ""),
            (&["audienceUserId"], "13800canary"),
            (&["phone="], ""),
            (&["phone"], "13800canary\n13900canary\n"),
        ];
        for (given, input) in rows {
            let sentence = run(&config, given, input).expect_err("it is wrong");
            assert!(!sentence.contains("canary") && sentence.lines().count() == 1, "{sentence}");
        }
        let without = Config::parse("upstream.base_url = \"http://x\"", std::iter::empty()).expect("a configuration");
        let sentence = run(&without, &["phone=13800canary"], "").expect_err("there is no secret");
        assert!(sentence.starts_with("log.key_hash_secret ") && !sentence.contains("canary"), "{sentence}");
    }
}
