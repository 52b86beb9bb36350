//! The configuration as a whole: what it says by default, what it refuses, what the environment changes.

mod changes;
mod defaults;
mod log;
mod overrides;
mod refusals;
mod replicas;
mod store;
mod tls;

use std::io::Write as _;

use super::{Config, Problems};

/// The least that a configuration says.
const MINIMAL: &str = "[upstream]\nbase_url = \"https://integrate.rabbitpre.com/api/open\"\n";

fn pairs(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<Vec<_>>().into_iter()
}

/// What `text`, put before the minimal configuration, means.
fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, Problems> {
    Config::parse(&format!("{text}\n{MINIMAL}"), pairs(env))
}

#[track_caller]
fn accepted(text: &str, env: &[(&str, &str)]) -> Config {
    parse(text, env).unwrap_or_else(|problems| panic!("refused: {problems}"))
}

/// Each problem of `text`, put before the minimal configuration, as a line.
#[track_caller]
fn refused(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    lines(&parse(text, env).expect_err("it must be refused"))
}

/// A file of tokens with these lines.
fn tokens_file(lines: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(lines.as_bytes()).expect("room for some lines");
    file
}

/// The path of a file as TOML.
fn quoted(file: &tempfile::NamedTempFile) -> String {
    toml::Value::from(file.path().to_str().expect("a path is text")).to_string()
}

/// One good line.
const CRM: &str = "crm:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";

fn lines(problems: &Problems) -> Vec<String> {
    problems.to_string().lines().map(str::to_owned).collect()
}
