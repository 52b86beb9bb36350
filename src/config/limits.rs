//! The `[[passthrough.limit]]` sections: the paths that are paced, and how long their callers wait.
//!
//! A path is written once, and is no lookup's: a lookup never passes through, and has its own interval.

use std::time::Duration;

use super::{
    Lookup,
    lookups::is_lookup,
    reader::Section,
    sections::{AT_LEAST_ONE, TIMEOUT, WAIT},
    url,
    value::{count, duration, string},
};
use crate::{passthrough::Limit, route::Path};

/// How long a caller waits if nothing is said: about as long as ordinary HTTP libraries do.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// How many wait if nothing is said: more than are served in `max_wait` where the interval is 100 ms or more.
const MAX_WAITING: usize = 100;

/// Every path that is paced.
pub(super) fn limits(passthrough: &mut Section<'_>, lookups: &[Lookup], base_path: &str) -> Vec<Limit> {
    let mut names: Vec<(String, String)> = Vec::new();
    let written = passthrough.sections("limit", 0, |section| {
        let path = section.required("path", string(url::prefix));
        let interval = section.required("interval", duration(TIMEOUT));
        let max_wait = section.take("max_wait", MAX_WAIT, duration(WAIT));
        let max_waiting = section.take("max_waiting", MAX_WAITING, count(AT_LEAST_ONE));
        let path = path?;
        // Requests are compared in this form.
        let own = Path::normalise(&path, "").map_or_else(|_| path.clone(), |path| path.canonical().to_owned());
        if is_lookup(&own, lookups, base_path) {
            section.problem("path", "is the path of a lookup, which has its own interval");
        }
        match names.iter().find(|(_, taken)| *taken == own) {
            Some((other, _)) => section.problem("path", format!("is the path of {other} too")),
            None => names.push((section.name("path"), own)),
        }
        Some(Limit { path, interval: interval?, max_wait, max_waiting })
    });
    written.into_iter().flatten().collect()
}
