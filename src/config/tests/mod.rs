//! The configuration as a whole: what it says by default, what it refuses, what the environment changes.

mod defaults;
mod overrides;
mod refusals;

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

fn lines(problems: &Problems) -> Vec<String> {
    problems.to_string().lines().map(str::to_owned).collect()
}
