//! Which of the requests that pass through are writes, and whose cached answers they make old.
//!
//! - **Whose.** Everything that was cached for the writer's credential, on every lookup path and whatever else makes up the
//!   scope: what a write says of its company cannot be told from what a lookup says, and a fetch too many is cheaper than
//!   a stale customer. Another credential's answers stay.
//! - **Which.** A path is compared in its normal form, as everything that passes is; any method may write but those that
//!   are safe by definition (RFC 9110, section 9.2.1).

use std::sync::Arc;

use http::{HeaderMap, header::CONTENT_ENCODING, request};

use super::{tee::Transcript, write::Write};
use crate::{
    cache::Cache, clock, key_log::KeyLog, live::Count, metrics::InvalidationMetrics, request::budget::Budget,
    route::Path, shape::Shape, upstream::credentials::Credentials,
};

/// A path whose writes make cached keys old.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalidate {
    /// The path below the base URL, in any of its spellings.
    pub path: String,
    /// The member of the request body that holds the list of customers.
    pub items: String,
}

/// What writes make old, and how their bodies are read.
pub struct Cached {
    /// The answers of all lookup paths.
    pub cache: Arc<Cache>,
    /// The shape of each lookup path, by its position in the configuration.
    pub shapes: Vec<Arc<Shape>>,
    /// Who callers are.
    pub credentials: Arc<Credentials>,
    /// Bytes of a write's body that are read.
    pub max_body: Count,
    /// What all that is kept of bodies may hold.
    pub budget: Budget,
    /// Counts writes, and what they make old.
    pub metrics: InvalidationMetrics,
    /// Where it is said which keys they are.
    pub key_log: KeyLog,
}

/// Knows the writes among what passes through.
pub(super) struct Writes {
    /// Each path in its normal form, and the member that holds the items.
    paths: Vec<(Path, Arc<str>)>,
    cached: Arc<Cached>,
}

impl Invalidate {
    /// The member that holds the customers of a documented write.
    pub const ITEMS: &str = "data";

    /// The writes that the platform documents.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let paths = ["/audience/info/batchAdd", "/api/integrate/audience/info/batchAdd"];
        paths.map(|path| Self { path: path.to_owned(), items: Self::ITEMS.to_owned() }).into()
    }
}

impl Writes {
    /// A path that has no normal form is no request's.
    pub(super) fn new(config: &[Invalidate], cached: Cached) -> Self {
        let path = |one: &Invalidate| Some((Path::normalise(&one.path, "").ok()?, Arc::from(&*one.items)));
        Self { paths: config.iter().filter_map(path).collect(), cached: Arc::new(cached) }
    }

    /// The write that a request is, if it is one; its head is as it goes upstream.
    pub(super) fn watch(&self, parts: &request::Parts, path: &Path) -> Option<Write> {
        let (_, items) = self.paths.iter().find(|(write, _)| write.canonical() == path.canonical())?;
        if parts.method.is_safe() {
            return None;
        }
        Some(Write::new(
            Arc::clone(&self.cached),
            self.cached.credentials.identify(&parts.headers, clock::now()),
            Arc::clone(items),
            is_plain(&parts.headers).then(|| Transcript::new(self.cached.max_body.now(), &self.cached.budget)),
        ))
    }
}

/// Whether a body is what it says, and not a compressed form of it.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
