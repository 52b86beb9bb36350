//! How deeply JSON is nested, counted without reading it.
//!
//! Nothing here recurses into what it reads: serde_json steps over a value with a stack of its own on the heap, and what is
//! read in depth ([`canonical`](super::canonical)) counts its steps. The limit is for everybody else: what the gateway takes
//! for good it passes on, to callers and an upstream whose parsers may recurse.

use super::canonical::MAX_DEPTH;

/// The sentence for whoever sent it.
pub const TOO_DEEP: &str = "the body is nested more than 64 levels deep";

/// Arrays and objects within each other in an answer of the upstream, whose records are given as they are: what common
/// parsers take or nearly, and far above what any of them makes by itself.
pub const MAX_ANSWER_DEPTH: usize = 512;

/// The sentence about such an answer.
pub const ANSWER_TOO_DEEP: &str = "the answer is nested more than 512 levels deep";

/// Whether more than [`MAX_DEPTH`] arrays and objects are open at once.
#[must_use]
pub fn is_too_deep(json: &[u8]) -> bool {
    is_deeper_than(json, MAX_DEPTH)
}

/// Whether more than so many arrays and objects are open at once. Of what is no JSON it may say anything.
#[must_use]
pub fn is_deeper_than(json: &[u8], levels: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                // Whatever is escaped ends nothing.
                bytes.next();
            }
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(open: &str, close: &str, depth: usize) -> String {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    }

    #[test]
    fn arrays_and_objects_count_alike_and_only_while_they_are_open() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), (" [ ", " ] ")] {
            assert!(!is_too_deep(nested(open, close, MAX_DEPTH).as_bytes()), "{open}");
            assert!(is_too_deep(nested(open, close, MAX_DEPTH + 1).as_bytes()), "{open}");
        }
        assert!(!is_too_deep(format!("[{}1]", "[],".repeat(1000)).as_bytes()));
        assert!(is_too_deep(&vec![b'['; 1 << 20]));
    }

    #[test]
    fn what_stands_in_a_string_does_not_count() {
        let brackets = "[".repeat(1000);
        assert!(!is_too_deep(format!(r#"["{brackets}","\"{brackets}","\\"]"#).as_bytes()));
        assert!(is_too_deep(format!(r#"["\\",{brackets}"#).as_bytes()));
    }

    #[test]
    fn rubbish_is_survived() {
        for rubbish in ["", "]", "\"", "\"\\", "]]]]{", "\\\"["] {
            assert!(!is_too_deep(rubbish.as_bytes()), "{rubbish}");
        }
    }
}
