//! What the user wrote: the file's TOML and the variables that override it, not yet understood.

use toml::de::{DeTable, Error};

use super::{environment::Variables, problems::Problems};

/// The file's table and the variables, before any key has been read.
pub(super) struct Written {
    /// What the file says.
    pub(super) table: toml::Table,
    /// What the environment says instead.
    pub(super) variables: Variables,
    /// What is wrong already.
    pub(super) problems: Problems,
}

impl Written {
    /// Reads the file's text, called `origin` in problems.
    ///
    /// # Errors
    /// Every place where the text is no TOML, with its line. What the variables say is not judged then: most of it could
    /// not be told from what the file failed to say.
    pub(super) fn new(
        text: &str,
        origin: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let table = table(text).map_err(|errors| syntax(text, origin, &errors))?;
        let mut problems = Problems::default();
        let variables = Variables::new(environment, &mut problems);
        Ok(Self { table, variables, problems })
    }
}

fn table(text: &str) -> Result<toml::Table, Vec<Error>> {
    // The recovering parser finds every mistake; only the plain one makes a table.
    let (_, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() { text.parse().map_err(|error| vec![error]) } else { Err(errors) }
}

/// The parser's own display quotes the line, which may hold a secret, so only its message and the place are kept.
fn syntax(text: &str, origin: &str, errors: &[Error]) -> Problems {
    let mut problems = Problems::default();
    for error in errors {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        problems.add(format!("{origin}, line {line}"), format!("is not TOML: {}", error.message().replace('\n', ", ")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        Written::new(text, "gateway.toml", std::iter::empty()).err().expect("not TOML").to_string()
    }

    #[test]
    fn a_text_that_is_no_toml_is_a_problem_with_its_line() {
        let text = problems("[cache]\nttl = \"1s\"\ncapacity 5\n");
        assert!(text.starts_with("gateway.toml, line 3: is not TOML: "), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let text = problems("[cache]\nttl = 1\nttl = 2\n");
        assert!(text.starts_with("gateway.toml, line 3: is not TOML: "), "{text}");
    }

    #[test]
    fn every_syntax_error_is_found_at_once() {
        let text = problems("[cache]\nttl = \ncapacity = \"1B\"\nnegative_ttl = @\n");
        assert!(text.contains("line 2") && text.contains("line 4"), "{text}");
    }

    #[test]
    fn a_syntax_error_does_not_quote_what_stands_there() {
        for text in ["secret = \"hunter2", "secret = hunter2", "secret = \"hunter2\" x", "secret = \"\\hunter2\""] {
            assert!(!problems(text).contains("hunter2"), "{}", problems(text));
        }
    }
}
