//! What must hold of a path.
//!
//! - It has one form, of which nothing is left to be resolved; what is passed on has the same one.
//! - The form decides, by whichever way it was found: a lookup is a lookup in every spelling, with every method.
//! - No server that reads what is passed on in a way of its own, before or after decoding, with or without parameters,
//!   doubled slashes or the difference of cases, finds another path than the one that was decided by. So none finds a
//!   lookup.

use std::sync::LazyLock;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use crate::route::{Path, Route, Router};

/// Base paths: the usual one, none, the beginning of a lookup path, and one that is spelled oddly.
const BASES: [&str; 4] = ["/api/open", "", "/api", "/A%20b;c/d"];

/// Lookup paths; one is configured in a spelling that is not its normal form.
const LOOKUPS: [&str; 3] = ["/api/audience/detail", "/api/audience/user/tag/batchList", "/Straße/%7Ex/"];

/// A way of reading a path.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// Escapes are decoded before the path is taken apart, so that an escaped slash separates.
    decodes_first: bool,
    /// Parameters go before dot segments are resolved.
    drops_parameters: bool,
    /// Doubled slashes are one before dot segments are resolved.
    merges: bool,
    /// A backslash is a slash.
    takes_backslashes: bool,
    /// Escapes are decoded once more than they should be.
    decodes_twice: bool,
}

/// One configuration.
struct Setting {
    base: &'static str,
    /// The base path in normal form; empty where there is none.
    base_form: String,
    router: Router,
}

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let setting = |base: &'static str| {
        let router = Router::new(base, LOOKUPS).expect("the paths have a normal form");
        let base_form = format!("{base}/");
        Setting { base, base_form: form(&base_form).canonical().trim_end_matches('/').to_owned(), router }
    };
    BASES.map(setting).into()
});

static LOOKUP_FORMS: LazyLock<[Path; 3]> = LazyLock::new(|| LOOKUPS.map(form));

fn form(path: &str) -> Path {
    Path::normalise(path, "").expect("the path has a normal form")
}

/// Reads bytes as a request's target.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for setting in &*SETTINGS {
        if let Ok(path) = Path::normalise(text, setting.base) {
            one_form(&path, setting);
        }
        if let Ok(uri) = text.parse::<Uri>() {
            decides(&uri, setting);
        }
    }
}

fn one_form(path: &Path, setting: &Setting) {
    let upstream = format!("{}{}", setting.base, path.forward());
    let again = Path::normalise(&upstream, setting.base);
    assert!(again.is_ok_and(|again| again == *path), "what is passed on has the same form");
    assert!(path.forward().is_empty() || path.forward().starts_with('/'));
    assert!(path.is_under(path) && path.is_under(&form("/")));
    if !path.canonical().contains('%') {
        assert_eq!(form(path.canonical()).canonical(), path.canonical(), "a normal form is its own");
    }
    let decided = format!("{}{}", setting.base_form, path.canonical());
    for reader in readers(path.forward()) {
        assert_eq!(reader.read(&upstream), decided.trim_end_matches('/'), "{reader:?}");
    }
}

fn decides(uri: &Uri, setting: &Setting) {
    let lookup = |path: &Path| LOOKUP_FORMS.iter().position(|lookup| lookup.canonical() == path.canonical());
    let (post, get) = (setting.router.route(&Method::POST, uri), setting.router.route(&Method::GET, uri));
    let expected = match Path::normalise(uri.path(), setting.base) {
        Ok(path) => match lookup(&path) {
            Some(lookup) => Route::Lookup(lookup),
            None => Route::Passthrough(path),
        },
        Err(sentence) => Route::Unsafe(sentence),
    };
    assert_eq!(post, expected, "the normal form decides");
    match post {
        Route::Lookup(lookup) => assert_eq!(get, Route::MethodNotAllowed(lookup)),
        other => assert_eq!(get, other),
    }
}

/// Every way of reading that there is for what was passed on.
fn readers(forward: &str) -> impl Iterator<Item = Reader> {
    // Where nothing is escaped, it does not matter when or how often it is decoded.
    let ways = if forward.contains('%') { 32 } else { 8 };
    (0..ways).map(|bits: u8| Reader {
        drops_parameters: bits & 1 > 0,
        merges: bits & 2 > 0,
        takes_backslashes: bits & 4 > 0,
        decodes_first: bits & 8 > 0,
        decodes_twice: bits & 16 > 0,
    })
}

impl Reader {
    /// The path that it finds: without a trailing slash, and case and parameters of no account.
    fn read(self, path: &str) -> String {
        let mut path = if self.decodes_first { self.decoded(path) } else { path.to_owned() };
        if self.takes_backslashes {
            path = path.replace('\\', "/");
        }
        let mut names: Vec<String> = Vec::new();
        for segment in path.split('/') {
            let mut name = if self.decodes_first { segment.to_owned() } else { self.decoded(segment) };
            if self.drops_parameters {
                name.truncate(name.find(';').unwrap_or(name.len()));
            }
            match &*name {
                "" if self.merges => {}
                "." => {}
                ".." => drop(names.pop()),
                _ => names.push(name),
            }
        }
        let plain = |name: &String| folded(name.split(';').next().unwrap_or_default());
        let names = names.iter().map(plain).filter(|name| !name.is_empty());
        names.flat_map(|name| ["/".to_owned(), name]).collect()
    }

    fn decoded(self, text: &str) -> String {
        let once = percent_decode_str(text).decode_utf8_lossy().into_owned();
        if self.decodes_twice { percent_decode_str(&once).decode_utf8_lossy().into_owned() } else { once }
    }
}

/// Without the difference of cases, however a server takes it away.
fn folded(text: &str) -> String {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
    let upper: String = lower(text).chars().flat_map(char::to_uppercase).collect();
    lower(&upper)
}
