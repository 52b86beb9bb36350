//! The status page: one document with its style and its script in it, which asks `/status.json` every second.
//!
//! Invariants: nothing on it comes from another origin, and its policy lets the browser fetch nothing else; what is shown
//! is put there as text, never as markup; with no figure on it, it is the same for everybody and at all times.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use sha2::{Digest as _, Sha256};

use super::{Admin, text};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

const DOCUMENT: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// Three files that are one script, in this order: words, then pictures, then what asks and shows.
const SCRIPT: &str =
    concat!(include_str!("page/words.js"), include_str!("page/charts.js"), include_str!("page/page.js"));

/// The page, put together once.
static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

struct Page {
    document: Bytes,
    policy: HeaderValue,
}

impl Page {
    fn new() -> Self {
        let document = DOCUMENT.replace("/* page.css */", STYLE).replace("/* page.js */", SCRIPT);
        Self { document: document.into(), policy: policy(STYLE, SCRIPT) }
    }
}

/// Only this style, only this script, and only this origin to ask: whatever else got onto the page would do nothing.
fn policy(style: &str, script: &str) -> HeaderValue {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(style),
        hash(script)
    );
    HeaderValue::try_from(policy).expect("this holds because base64 and the words around it are ASCII")
}

impl Admin {
    pub(super) fn page(&self) -> Response<Bytes> {
        let mut response = text(StatusCode::OK, HTML, PAGE.document.clone());
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, PAGE.policy.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_its_style_and_its_script_in_it_and_nothing_of_elsewhere() {
        let page = Page::new();
        let document = std::str::from_utf8(&page.document).expect("text");
        assert!(document.contains(&format!("<style>{STYLE}</style>")));
        assert!(document.contains(&format!("<script>{SCRIPT}</script>")));
        let namespace = "\"http://www.w3.org/2000/svg\"";
        let elsewhere = document.replace(namespace, "");
        for scheme in ["http:", "https:", "ws:", "wss:", "//cdn", "@import", "url(", " style=", "innerHTML", "eval("] {
            assert!(!elsewhere.contains(scheme), "{scheme}");
        }
    }

    #[test]
    fn the_policy_knows_the_hash_of_the_empty_style() {
        // printf '' | openssl dgst -sha256 -binary | base64
        let policy = policy("", "");
        let hash = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert_eq!(policy.to_str().expect("ASCII").matches(hash).count(), 2);
    }
}
