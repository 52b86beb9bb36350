//! The `[[passthrough.invalidate]]` sections: the paths of writes, and where their bodies name customers.
//!
//! Invariants:
//! - The writes that the platform documents are always there; a section for one of their paths takes its place.
//! - A path is written once, and is no lookup's: a lookup never passes through.

use super::{Lookup, lookups::is_lookup, reader::Section, url, value::string};
use crate::passthrough::Invalidate;

/// Every path whose writes make cached keys old, the built-in ones first.
pub(super) fn invalidate(passthrough: &mut Section<'_>, lookups: &[Lookup], base_path: &str) -> Vec<Invalidate> {
    let is_lookup = |path: &str| is_lookup(path, lookups, base_path);
    let mut names: Vec<(String, String)> = Vec::new();
    let written = passthrough.sections("invalidate", 0, |section| {
        let path = section.required("path", string(url::path));
        let items = section.take("items", Invalidate::ITEMS.to_owned(), string(|name| Ok(name.to_owned())));
        let path = path?;
        let own = path.to_ascii_lowercase();
        if is_lookup(&path) {
            section.problem("path", "is the path of a lookup, which never passes through");
        }
        match names.iter().find(|(_, taken)| *taken == own) {
            Some((other, _)) => section.problem("path", format!("is the path of {other} too")),
            None => names.push((section.name("path"), own)),
        }
        Some(Invalidate { path, items })
    });
    let mut all = Invalidate::built_in();
    all.retain(|built_in| !is_lookup(&built_in.path));
    for one in written.into_iter().flatten() {
        match all.iter_mut().find(|built_in| built_in.path.eq_ignore_ascii_case(&one.path)) {
            Some(built_in) => *built_in = one,
            None => all.push(one),
        }
    }
    all
}
