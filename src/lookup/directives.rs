//! What a caller's headers say about the cache and about waiting: `Cache-Control` and `Pragma` (RFC 9111, sections 5.2.1
//! and 5.4), `Prefer` (RFC 7240).
//!
//! # Reading
//! Directives that are not known, and preferences that make no sense, are ignored. Where a known directive is given twice
//! its first value counts. An age that cannot be read is 0: who tried to set a limit gets the strictest.
//!
//! # Judging
//! [`CacheDirectives::judge`] is pure and is asked once per key:
//! - without directives the answer's own [`Freshness`] decides;
//! - `no-cache`: never from cache, not even while the upstream fails (RFC 5861 leaves `stale-if-error` to the cache; a
//!   caller who says `no-cache` would take the old answer for a new one);
//! - `max-age=N`: what is older than N is not a hit, and nothing stale is unless `max-stale` is there too. N = 0 is a
//!   demand for a new answer, as everywhere on the web, even in the instant of the fetch;
//! - `min-fresh=N`: what will not be fresh for N more is not a hit;
//! - `max-stale` and `max-stale=N`: what is stale (by at most N) is answered and refreshed behind, past
//!   `stale_while_revalidate` and `stale_if_error` too; with N, what is staler is not, within them neither.
//!
//! Except under `no-cache`, what is not a hit may still be answered while the upstream fails, as the policy says.
//! `no-store` and `only-if-cached` decide what happens to a whole lookup; they are read here and obeyed by the handler.

use std::{borrow::Cow, time::Duration};

use http::{
    HeaderMap, HeaderName,
    header::{CACHE_CONTROL, PRAGMA},
};

use crate::{
    cache::{Answer, Freshness, Policy},
    clock::Instant,
};

/// RFC 7240's header, which the `http` crate has no constant for.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What seconds are cut down to, as RFC 9111 (section 1.2.2) has it: 68 years.
const MAX_SECONDS: u64 = 1 << 31;

/// Everything that the headers of a lookup say about answering it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Directives {
    /// What may come from the cache.
    pub cache: CacheDirectives,
    /// `Prefer: wait=N`: how long the caller wants to wait at most.
    pub wait: Option<Duration>,
    /// `Prefer: partial-results`: at the deadline what is ready is enough.
    pub partial: bool,
}

/// What the caller says may come from the cache.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CacheDirectives {
    /// Do not answer from the cache.
    pub no_cache: bool,
    /// Do not keep what is fetched for this lookup.
    pub no_store: bool,
    /// Answer from the cache or not at all.
    pub only_if_cached: bool,
    /// The oldest answer that is wanted.
    pub max_age: Option<Duration>,
    /// How long an answer still has to be fresh.
    pub min_fresh: Option<Duration>,
    /// How stale an answer may be.
    pub max_stale: Option<MaxStale>,
}

/// How stale an answer the caller takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxStale {
    /// Any.
    Any,
    /// Past its lifetime by at most this.
    By(Duration),
}

/// What a cached answer is good for in one lookup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It is the answer.
    Hit,
    /// It is the answer, though a stale one.
    Stale {
        /// Whether to fetch a newer one behind it; so far always.
        refresh: bool,
    },
    /// The key has to be fetched.
    Miss {
        /// Whether it may be answered all the same if that fails.
        fallback: bool,
    },
}

impl Directives {
    /// Reads the headers. Where none of them says anything, as nearly always, that costs a comparison of the names.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        if !headers.keys().any(|name| *name == CACHE_CONTROL || *name == PRAGMA || *name == PREFER) {
            return Self::default();
        }
        let mut directives = Self { cache: CacheDirectives::read(headers), ..Self::default() };
        let (mut wait, mut partial) = (None, None);
        for line in lines(headers, &PREFER) {
            for preference in elements(&line, b',') {
                // Parameters of a preference follow it; none is known.
                let (name, value) = argument(elements(preference, b';').next().unwrap_or(""));
                if name.eq_ignore_ascii_case("wait") {
                    wait.get_or_insert_with(|| value.and_then(|value| seconds(&value)));
                } else if name.eq_ignore_ascii_case("partial-results") {
                    // An empty value is the same as none (RFC 7240, section 2); another one is something not known.
                    partial.get_or_insert_with(|| value.is_none_or(|value| value.is_empty()));
                }
            }
        }
        directives.wait = wait.flatten();
        directives.partial = partial.unwrap_or(false);
        directives
    }

    /// Whether the caller says nothing, as nearly all do: then the handler can leave every other question out.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.cache.is_default() && self.wait.is_none() && !self.partial
    }
}

impl CacheDirectives {
    fn read(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in lines(headers, &CACHE_CONTROL) {
            elements(&line, b',').for_each(|element| directives.take(element));
        }
        if !headers.contains_key(CACHE_CONTROL) {
            let mut pragmas = lines(headers, &PRAGMA);
            directives.no_cache = pragmas
                .any(|line| elements(&line, b',').any(|pragma| argument(pragma).0.eq_ignore_ascii_case("no-cache")));
        }
        directives
    }

    fn take(&mut self, element: &str) {
        let (name, value) = argument(element);
        let limit = || value.as_deref().and_then(seconds).unwrap_or(Duration::ZERO);
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age.get_or_insert_with(limit);
        } else if is("min-fresh") {
            // One that cannot be read still asks for an answer that is fresh: 0 does.
            self.min_fresh.get_or_insert_with(limit);
        } else if is("max-stale") {
            let stale = if value.is_none() { MaxStale::Any } else { MaxStale::By(limit()) };
            self.max_stale.get_or_insert(stale);
        }
    }

    /// Whether nothing is said: a few comparisons, so that who sends no such header pays for none of the rules.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What a cached answer is good for at `now`.
    #[must_use]
    pub fn judge(&self, answer: &Answer, policy: &Policy, now: Instant) -> Use {
        let freshness = answer.freshness(policy, now);
        let allowed = if self.is_default() {
            matches!(freshness, Freshness::Fresh | Freshness::Revalidate)
        } else if self.no_cache {
            return Use::Miss { fallback: false };
        } else {
            self.allows(freshness, answer.age(now), answer.lifetime(policy))
        };
        match freshness {
            Freshness::Fresh if allowed => Use::Hit,
            Freshness::Revalidate | Freshness::IfError | Freshness::Expired if allowed => Use::Stale { refresh: true },
            _ => Use::Miss { fallback: answer.usable_if_error(policy, now) },
        }
    }

    fn allows(&self, freshness: Freshness, age: Duration, lifetime: Duration) -> bool {
        let young = self.max_age.is_none_or(|max_age| !max_age.is_zero() && age <= max_age);
        let fresh_enough = self.min_fresh.is_none_or(|min_fresh| age + min_fresh <= lifetime);
        let not_too_stale = match (freshness, self.max_stale) {
            (Freshness::Fresh, _) => true,
            // What the caller takes is not limited by how long the gateway would give it to others.
            (_, Some(MaxStale::Any)) => true,
            (_, Some(MaxStale::By(most))) => age.saturating_sub(lifetime) <= most,
            (Freshness::Revalidate, None) => self.max_age.is_none(),
            (Freshness::IfError | Freshness::Expired, None) => false,
        };
        young && fresh_enough && not_too_stale
    }
}

/// A header's lines. Bytes that are no text stand in no name or number, so what becomes of them does not matter.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Cow<'a, str>> {
    headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()))
}

/// The elements between separators that stand outside of quoted strings, trimmed; without the empty ones.
fn elements(line: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let outside = move |char: char| {
        let splits = !quoted && char == char::from(separator);
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        splits
    };
    line.split(outside).map(str::trim).filter(|element| !element.is_empty())
}

/// A name, and what stands after `=`: a token, or the content of a quoted string.
fn argument(element: &str) -> (&str, Option<Cow<'_, str>>) {
    let Some((name, value)) = element.split_once('=') else { return (element, None) };
    let value = value.trim();
    let inside = value.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest));
    let value = match inside {
        Some(inside) if inside.contains('\\') => Cow::Owned(unescaped(inside)),
        Some(inside) => Cow::Borrowed(inside),
        None => Cow::Borrowed(value),
    };
    (name.trim(), Some(value))
}

/// A quoted string's content without the backslashes that escape.
fn unescaped(inside: &str) -> String {
    let mut escaped = false;
    inside
        .chars()
        .filter(|char| {
            escaped = !escaped && *char == '\\';
            !escaped
        })
        .collect()
}

/// `delta-seconds`: digits and nothing else; too many of them are [`MAX_SECONDS`].
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS)))
}

#[cfg(test)]
mod tests;
