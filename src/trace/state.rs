//! `tracestate`: what the systems on the way have to say of a trace, passed on as it came or not at all.

use http::{HeaderValue, header::GetAll};

/// Members of one list (W3C Trace Context, section 3.3.1.1).
const MOST_MEMBERS: usize = 32;
/// Bytes that are passed on: 512 are to be, and this is far more than anybody sends.
const MOST_BYTES: usize = 4096;

/// All lines as one, if they are well-formed; nothing if they say nothing.
pub(super) fn read(lines: GetAll<'_, HeaderValue>) -> Option<HeaderValue> {
    let mut whole = String::new();
    for line in lines {
        let line = line.to_str().ok()?;
        if whole.len() + line.len() > MOST_BYTES {
            return None;
        }
        if !whole.is_empty() {
            whole.push(',');
        }
        whole.push_str(line);
    }
    let members: Vec<&str> = whole.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let mut keys: Vec<&str> = Vec::new();
    for member in members.iter().filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    if keys.is_empty() || keys.len() > MOST_MEMBERS {
        return None;
    }
    HeaderValue::try_from(whole).ok()
}

/// `vendor` or `tenant@vendor`: the strict form of the recommendation's first level, with the digits of its second.
fn is_key(key: &str) -> bool {
    let begins = |part: &str| part.starts_with(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    let goes_on =
        |part: &str| part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
    match key.split_once('@') {
        None => key.len() <= 256 && begins(key) && goes_on(key),
        Some((tenant, system)) => {
            let lengths = tenant.len() <= 241 && system.len() <= 14;
            lengths && [tenant, system].iter().all(|part| begins(part) && goes_on(part))
        }
    }
}

/// Printable, without the signs of the list, and with no space at its end.
fn is_value(value: &str) -> bool {
    let printable = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'=');
    (1..=256).contains(&value.len()) && printable
}
