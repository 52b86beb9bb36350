//! Which way a request goes: one normal form of its path decides, and nothing else does.
//!
//! A path has a thousand spellings, and an upstream may take any of them for the same call. So before anything is
//! decided it is brought into the most lenient form that a server may read it in; lookups, `allow` and whatever else
//! speaks of paths compare that form only.
//!
//! - **One form.** Percent-decoded once, case folded, dot segments resolved, doubled slashes merged, `;parameters` and a
//!   trailing slash dropped, the base URL's path stripped where it is given.
//! - **What goes upstream is the caller's spelling**, but for dot segments, doubled slashes and the base path: of those
//!   nothing is left to be read in another way than here.
//! - **An escaped slash** is compared as a slash and goes upstream as it was given, as Envoy and nginx pass it.
//! - **What two servers may read as two paths is refused**: double encoding, climbing above the root, an escaped slash
//!   beside a dot segment.

use std::fmt;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

#[cfg(test)]
mod tests;

/// A path below the base URL, safe to be compared and to be passed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Path {
    canonical: String,
    forward: String,
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// To the lookup with this position in the configuration.
    Lookup(usize),
    /// The lookup with this position was asked with another method than POST.
    MethodNotAllowed(usize),
    /// To the upstream as it is.
    Passthrough(Path),
    /// Nowhere, for the reason that the sentence says.
    Unsafe(&'static str),
}

/// Knows the lookup paths in all their spellings.
#[derive(Clone, Debug)]
pub struct Router {
    /// The base URL's path in normal form.
    base: Vec<String>,
    /// The lookup paths in normal form, as configured.
    lookups: Vec<String>,
    /// The ordinary spellings and the lookup each means: nearly every lookup is found here, without an allocation.
    spellings: Vec<(String, usize)>,
}

/// One segment of a path.
struct Segment<'a> {
    /// In normal form; empty when the segment is nothing but parameters.
    name: String,
    /// As the caller spelled it.
    raw: &'a str,
}

/// A path whose dot segments are resolved.
struct Segments<'a> {
    kept: Vec<Segment<'a>>,
    trailing_slash: bool,
}

impl Path {
    /// Brings a path, without its query, into its normal form.
    ///
    /// # Errors
    /// A sentence when the path has no form that every server would agree on.
    pub fn normalise(raw_path: &str, base_path: &str) -> Result<Self, &'static str> {
        Self::below(&base_names(base_path)?, raw_path)
    }

    /// The form that decides: `/` and segments, without a trailing slash. Not a spelling: it is decoded.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// What follows the base path upstream: empty, or `/` and segments as the caller spelled them.
    #[must_use]
    pub fn forward(&self) -> &str {
        &self.forward
    }

    /// Whether this path is the other one or below it, by whole segments.
    #[must_use]
    pub fn is_under(&self, other: &Self) -> bool {
        let prefix = other.canonical.trim_end_matches('/');
        self.canonical.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn below(base: &[String], raw_path: &str) -> Result<Self, &'static str> {
        let mut path = Segments::of(raw_path)?;
        path.strip(base);
        let mut canonical: String = path.named().flat_map(|segment| ["/", &segment.name]).collect();
        if canonical.is_empty() {
            canonical.push('/');
        }
        let mut forward: String = path.kept.iter().flat_map(|segment| ["/", segment.raw]).collect();
        if path.trailing_slash {
            forward.push('/');
        }
        Ok(Self { canonical, forward })
    }
}

/// A path may name a customer: nothing of it is shown.
impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Path(..)")
    }
}

impl Router {
    /// A router for the lookup paths, which are given without the base path.
    ///
    /// # Errors
    /// A sentence when one of the paths has no normal form.
    pub fn new(base_path: &str, lookup_paths: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, &'static str> {
        let base = base_names(base_path)?;
        let mut router = Self { base, lookups: Vec::new(), spellings: Vec::new() };
        let mut spellings = Vec::new();
        for path in lookup_paths {
            let path = path.as_ref();
            router.lookups.push(Path::below(&[], path)?.canonical);
            spellings.extend([path.to_owned(), format!("{}{path}", base_path.trim_end_matches('/'))]);
        }
        // A short cut leads where the long way leads: a lookup path that itself begins with the base path may not.
        for spelling in spellings {
            if let Some(lookup) = router.find(&Path::below(&router.base, &spelling)?) {
                router.spellings.push((spelling, lookup));
            }
        }
        Ok(router)
    }

    /// Where a request goes. `*` and a CONNECT's authority are no paths, and so [`Route::Unsafe`].
    #[must_use]
    pub fn route(&self, method: &Method, uri: &Uri) -> Route {
        let raw = uri.path();
        if let Some((_, lookup)) = self.spellings.iter().find(|(spelling, _)| spelling == raw) {
            return Self::lookup(method, *lookup);
        }
        match Path::below(&self.base, raw) {
            Ok(path) => match self.find(&path) {
                Some(lookup) => Self::lookup(method, lookup),
                None => Route::Passthrough(path),
            },
            Err(sentence) => Route::Unsafe(sentence),
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        self.lookups.iter().position(|canonical| *canonical == path.canonical)
    }

    fn lookup(method: &Method, lookup: usize) -> Route {
        if method == Method::POST { Route::Lookup(lookup) } else { Route::MethodNotAllowed(lookup) }
    }
}

impl<'a> Segments<'a> {
    fn of(raw_path: &'a str) -> Result<Self, &'static str> {
        if raw_path.is_empty() {
            return Err("the path is missing");
        }
        let rest = raw_path.strip_prefix('/').ok_or("the path must start with /")?;
        let mut path = Self { kept: Vec::new(), trailing_slash: false };
        for raw in rest.split('/') {
            let name = normal_form(raw)?;
            path.trailing_slash = raw.is_empty() || matches!(&*name, "." | "..");
            match &*name {
                _ if raw.is_empty() => {}
                "." => {}
                ".." => path.climb()?,
                _ => path.kept.push(Segment { name, raw }),
            }
        }
        Ok(path)
    }

    /// Drops the last segment that has a name, and what follows it.
    fn climb(&mut self) -> Result<(), &'static str> {
        let last = self.kept.iter().rposition(|segment| !segment.name.is_empty());
        self.kept.truncate(last.ok_or("the path climbs above the root")?);
        Ok(())
    }

    /// Drops the base path from the front, if all of it is there.
    fn strip(&mut self, base: &[String]) {
        let given = self.named().map(|segment| &segment.name);
        if base.is_empty() || !given.take(base.len()).eq(base) {
            return;
        }
        let places = self.kept.iter().enumerate().filter(|(_, segment)| !segment.name.is_empty());
        let last = places.map(|(place, _)| place).nth(base.len() - 1);
        self.kept.drain(..=last.expect("this holds because so many segments were just compared"));
    }

    fn named(&self) -> impl Iterator<Item = &Segment<'a>> {
        self.kept.iter().filter(|segment| !segment.name.is_empty())
    }
}

/// The segments of a base path in normal form; an empty path and `/` are none.
fn base_names(base_path: &str) -> Result<Vec<String>, &'static str> {
    let base = Segments::of(if base_path.is_empty() { "/" } else { base_path })?;
    Ok(base.named().map(|segment| segment.name.clone()).collect())
}

/// A segment decoded once, its parameters dropped, its case folded.
fn normal_form(raw: &str) -> Result<String, &'static str> {
    if !escapes_are_whole(raw) {
        return Err("the path has a broken percent-escape");
    }
    let decoded = percent_decode_str(raw).decode_utf8().or(Err("the path is not UTF-8 once decoded"))?;
    if decoded.contains('\\') {
        return Err("the path has a backslash");
    }
    // To compare, an escaped slash is a slash; where the two readings would differ in more than that, neither is safe.
    let pieces = || decoded.split('/');
    if decoded.contains('/') && (decoded.contains(';') || pieces().any(|piece| matches!(piece, "" | "." | ".."))) {
        return Err("the path has an escaped slash beside parameters or a dot segment");
    }
    if decoded.contains(char::is_control) {
        return Err("the path has a control character");
    }
    if decoded.as_bytes().windows(3).any(is_escape) {
        return Err("the path is encoded twice");
    }
    let name = decoded.split(';').next().unwrap_or_default();
    if name.is_ascii() {
        return Ok(name.to_ascii_lowercase());
    }
    // By way of upper case: servers that ignore case take the long s and the Kelvin sign for the letters s and k. And
    // from lower case, because the capital sharp s is its own upper case, and the small one is not.
    let small = name.chars().flat_map(char::to_lowercase);
    Ok(small.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect())
}

fn escapes_are_whole(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    starts.map(|(start, _)| bytes.get(start..start + 3)).all(|escape| escape.is_some_and(is_escape))
}

fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}
