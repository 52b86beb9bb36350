//! What a request may be addressed to: its target, and its host.
//!
//! What is let through here, hyper can read: what it cannot, it would refuse by itself, without the envelope.

/// Whether this may be the target of a request with this method.
pub(super) fn is_target(method: &[u8], target: &[u8]) -> bool {
    match target {
        b"*" => method == b"OPTIONS",
        [b'/', ..] => is_path(target),
        _ => {
            let is_scheme = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
            let Some(scheme) = [&b"http://"[..], b"https://"].into_iter().find(|scheme| is_scheme(scheme)) else {
                return false;
            };
            let rest = &target[scheme.len()..];
            let (authority, path) =
                rest.split_at(rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len()));
            is_authority(authority) && is_path(path)
        }
    }
}

/// Whether these may be a path and a query. More than the RFC allows, and no more than hyper takes: callers do send what
/// should have been escaped, UTF-8 above all, and no server takes that for anything else.
fn is_path(path: &[u8]) -> bool {
    if path.iter().all(|byte| PLAIN[usize::from(*byte)]) {
        return true;
    }
    let mut in_query = false;
    for byte in path {
        match byte {
            b'?' => in_query = true,
            b'"' if in_query => return false,
            b'`' if !in_query => return false,
            0..=b' ' | b'#' | b'<' | b'>' | 0x7f => return false,
            _ => {}
        }
    }
    path.is_ascii() || std::str::from_utf8(path).is_ok()
}

/// Bytes that may stand anywhere in a path and in a query, and that nearly all of them are made of.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte < 0x7f {
        table[byte as usize] = !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?' | b'`');
        byte += 1;
    }
    table
};

/// Whether this is a host and perhaps a port: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (address, port) = (&rest[..end], &rest[end + 1..]);
            let is_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
            if !address.contains(&b':') || !address.iter().all(is_address) {
                return false;
            }
            (address, port)
        }
        _ => value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len())),
    };
    let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:".contains(byte);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host.iter().all(in_host) && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for proper in ["a", "a.b-c_d~", "127.0.0.1", "a:80", "a:", "[::1]", "[::ffff:1.2.3.4]:65535"] {
            assert!(is_authority(proper.as_bytes()), "{proper}");
        }
        for other in
            ["", ":80", "a:b", "a:123456", "a:1:2", "a b", "a,b", "a/b", "a@b", "a%41", "[", "[]", "[a]", "[::1]x", "ä"]
        {
            assert!(!is_authority(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_an_uri_and_a_star_for_options_alone() {
        let proper = ["/", "/a?b=\u{5f20}&c={}", "http://a", "HTTP://a:80/b", "https://a?b", "//a", "/a|\"{}", "/a?`"];
        for target in proper {
            assert!(is_target(b"GET", target.as_bytes()), "{target}");
            // What is let through here, hyper must be able to read, or it would answer for itself.
            assert!(target.parse::<http::Uri>().is_ok(), "{target}");
        }
        for target in
            ["", "*", "a", "a:80", "ftp://a/", "http:/a", "http://", "http:///a", "/a#b", "/a<", "/a`", "/a?\""]
        {
            assert!(!is_target(b"GET", target.as_bytes()), "{target}");
        }
        assert!(!is_target(b"GET", b"/\xff") && !is_target(b"GET", b"/\x7f") && !is_target(b"GET", b"/\t"));
        assert!(is_target(b"OPTIONS", b"*"));
    }

    #[test]
    fn every_byte_that_hyper_takes_in_a_path_is_judged_as_hyper_does() {
        for byte in 0..=u8::MAX {
            for target in [vec![b'/', byte, b'a'], vec![b'/', b'?', byte, b'a']] {
                if byte != b'#' && byte < 0x80 {
                    let taken = http::Uri::try_from(&target[..]).is_ok();
                    assert_eq!(is_path(&target), taken, "{target:?}");
                }
            }
        }
    }
}
