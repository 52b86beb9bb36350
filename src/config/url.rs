//! The spelling of an upstream address and of the paths below it.
//!
//! A path is written in the one form in which requests are compared with it: plain characters, no escapes, no empty or
//! dotted segments. What could be spelled two ways is refused rather than guessed.

use http::Uri;

use super::value::Read;

/// The upstream's address: scheme, host, perhaps a port, perhaps a base path; a trailing slash is dropped.
pub(super) fn base_url(text: &str) -> Read<Uri> {
    let text = text.trim_end_matches('/');
    if text.contains(['?', '#']) {
        return Err("must not carry a query or a fragment".to_owned());
    }
    let shape = r#"must be an address such as "https://host/api/open""#;
    let uri: Uri = text.parse().or(Err(shape))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must start with http:// or https://".to_owned());
    }
    let authority = uri.authority().ok_or(shape)?;
    if authority.as_str().contains('@') {
        return Err("must not carry a user name or a password".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("must name a host".to_owned());
    }
    // Everything after the host is a port, and it must be one.
    let port = authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    if port.is_some_and(|port| port.parse::<u16>().unwrap_or(0) == 0) {
        return Err("must have a port from 1 to 65535, or none".to_owned());
    }
    if uri.path() != "/" {
        prefix(uri.path())?;
    }
    Ok(uri)
}

/// The path of a lookup below the base URL; a trailing slash is dropped.
pub(super) fn path(text: &str) -> Read<String> {
    let text = prefix(text)?;
    match text.trim_end_matches('/') {
        "" => Err("must name a path below the base URL".to_owned()),
        path => Ok(path.to_owned()),
    }
}

/// The beginning of a path: like [`path`], but `/` is one too and a trailing slash counts.
pub(super) fn prefix(text: &str) -> Read<String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("must start with /".to_owned());
    };
    if text.contains(['?', '#']) {
        return Err("must be a path alone, without query or fragment".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\')) {
        return Err("must be plain ASCII without spaces, backslashes or percent-escapes".to_owned());
    }
    let segments = rest.strip_suffix('/').unwrap_or(rest).split('/');
    if !rest.is_empty() && segments.into_iter().any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("must not have an empty, `.` or `..` segment".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_a_scheme_a_host_and_perhaps_a_port_and_a_path() {
        for (text, kept) in [
            ("https://integrate.rabbitpre.com/api/open", "https://integrate.rabbitpre.com/api/open"),
            ("https://integrate.rabbitpre.com/api/open/", "https://integrate.rabbitpre.com/api/open"),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/"),
            ("http://[::1]:8081/", "http://[::1]:8081/"),
            ("http://localhost/", "http://localhost/"),
        ] {
            assert_eq!(base_url(text).expect(text).to_string(), kept);
        }
    }

    #[test]
    fn a_base_url_with_anything_else_is_refused() {
        for text in [
            "integrate.rabbitpre.com",
            "/api/open",
            "ftp://host/",
            "https://",
            "https:///api",
            "https://user:password@host/",
            "https://host/?a=1",
            "https://host/api#part",
            "https://host:0/",
            "https://host:99999/",
            "https://host:/",
            "https://host/a//b",
            "https://host/a/../b",
            "https://host/a b",
            "https://host/a%20b",
        ] {
            let sentence = base_url(text).expect_err(text);
            assert!(!sentence.contains("password@"), "{sentence}");
        }
    }

    #[test]
    fn a_lookup_path_has_one_spelling() {
        assert_eq!(path("/api/audience/detail").as_deref(), Ok("/api/audience/detail"));
        assert_eq!(path("/api/audience/detail/").as_deref(), Ok("/api/audience/detail"));
        for text in ["api/x", "/", "//", "/a?b", "/a#b", "/a//b", "/a/./b", "/../a", "/a%2fb", "/a b", "/a\\b", "/ä"] {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(prefix("/").as_deref(), Ok("/"));
        assert_eq!(prefix("/api/").as_deref(), Ok("/api/"));
    }
}
