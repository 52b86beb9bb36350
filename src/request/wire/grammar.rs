//! The grammar of JSON (RFC 8259), case by case, as a value in a body: what every parser must take, what none may, and what
//! is left to it. The classes are those of the public test suites; the cases are written here.

use super::*;
use crate::shape::Shape;

/// What must be taken.
const VALID: &[&str] = &[
    "[]",
    "[[]   ]",
    r#"[""]"#,
    "[null, 1, \"1\", {}]",
    "[ 1]",
    "[1\n]",
    "[true]",
    "{}",
    r#"{"a":[]}"#,
    r#"{"":0}"#,
    r#"{"a":{"b":{"c":1}}}"#,
    " \t\r\n1 ",
    "0",
    "-0",
    "-1",
    "1E22",
    "1E-2",
    "1E+2",
    "123e45",
    "0e+1",
    "0e1",
    "-0.0e-0",
    "123.456e78",
    "0.1",
    "20e1",
    "123123123123123123123123123123",
    "0.000000000000000000000000000000000000000000001",
    r#""asd ""#,
    r#""\u0060\u012a\u12AB""#,
    r#""\uD801\udc37""#,
    r#""\"\\\/\b\f\n\r\t""#,
    r#""\\u0000""#,
    r#""\"""#,
    r#""a/*b*/c/*d//e""#,
    "\"\u{7f}\"",
    "\"\u{10ffff}\"",
    "\"\u{fffe}\"",
    r#""\u0000""#,
    "\"€𝄞\"",
    r#""\u0022""#,
    "\"\u{2028}\u{2029}\"",
    r#""\ud83d\ude39\ud83d\udc8d""#,
    "\"new\u{a0}line\"",
    "false",
    "null",
    "true",
    r#""""#,
    r#"{"a":"b","c":"d"}"#,
    "{\"a\\u0000b\":1}",
];

/// What must be refused.
const INVALID: &[&str] = &[
    "",
    " ",
    "[1 true]",
    "[1,,2]",
    "[,1]",
    "[1,]",
    "[,]",
    "[1",
    "[",
    "[\"",
    "[1:2]",
    "[\"a\":1]",
    "[*]",
    "[1]]",
    "]",
    "{]",
    "{",
    "}",
    "{1:1}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a" "b"}"#,
    r#"{"a":"b",}"#,
    r#"{"a":1,,"b":2}"#,
    r#"{,"a":1}"#,
    "{a:1}",
    "{'a':1}",
    r#"{"a":1 "b":2}"#,
    r#"{"a":1}#"#,
    r#"{"a":1}//"#,
    r#"{"a":/*c*/1}"#,
    "{null:null}",
    "+1",
    "++1",
    "- 1",
    "-",
    "-01",
    "-1x",
    "-.1",
    ".1",
    "1.",
    "1.e1",
    "0.3e",
    "0.3e+",
    "0e",
    "0e+",
    "1e",
    "1eE2",
    "1e+",
    "2.e3",
    "9.e+",
    "012",
    "0x1",
    "0x",
    "1 000",
    "1_000",
    "Inf",
    "-Infinity",
    "NaN",
    "nan",
    "\u{ff11}",
    "1a",
    "True",
    "TRUE",
    "nul",
    "fals",
    "tru",
    "truth",
    "undefined",
    "'a'",
    "\"\\x00\"",
    "\"\\a\"",
    r#""\"#,
    r#""\\\""#,
    r#""\u""#,
    r#""\u00A""#,
    r#""\u00G0""#,
    r#""\uD834\uDd""#,
    "\"\t\"",
    "\"\n\"",
    "\"\u{0}\"",
    "\"\u{1f}\"",
    "\"a",
    "a\"",
    "\"a\" 1",
    "1 2",
    "\u{feff}1",
    "<null>",
    "[1\u{c}]",
    "\u{a0}1",
    "\u{2060}1",
    "*",
    ";",
    "@",
    "`a`",
    "\"\\🌀\"",
    "\u{0}",
    "[\u{b}1]",
    "1,",
    ",",
    ":",
    "{\"a\":1,\"a\"}",
    "[[1]",
    "{\"a\":[1}",
    "[{\"a\":1]",
];

/// What RFC 8259 leaves open, and what becomes of it here: a text that is none, and what would be read in two ways, is
/// refused; a number may be as large as it likes, because it is never computed with.
const OPEN: &[(&str, bool)] = &[
    (r#""\ud800""#, false),
    (r#""\udc00""#, false),
    (r#""\ud800\ud800""#, false),
    (r#""\ud800a""#, false),
    (r#""\uDd1ea""#, false),
    ("123123e100000", true),
    ("-123123e100000", true),
    ("0.4e00669999999999999999999999999999999999999999999999999", true),
    ("-237462374673276894279832749832423479823246327846", true),
    (r#"{"a":1,"a":1}"#, false),
    (r#"{"a":1,"\u0061":2}"#, false),
    (r#"{"a":null,"a":1}"#, false),
];

fn taken(value: &str) -> bool {
    let body = format!(r#"{{"audienceUserIdList":[1],"field":{value}}}"#);
    decode(&Shape::audience_detail(), 0, vec![], 10, body.as_bytes()).is_ok()
}

#[test]
fn every_value_that_is_json_is_taken_and_no_other() {
    for value in VALID {
        assert!(taken(value), "{value:?} is JSON");
    }
    for value in INVALID {
        assert!(!taken(value), "{value:?} is no JSON");
    }
    for (value, expected) in OPEN {
        assert_eq!(taken(value), *expected, "{value:?}");
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_no_json() {
    let cases: [&[u8]; 9] = [
        b"\xff",
        b"\xe9",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
        b"\x81",
        b"\xe0\xff",
        b"\xf0\x9f\x8c",
    ];
    for bytes in cases {
        let body = [br#"{"audienceUserIdList":[1],"field":""#, bytes, br#""}"#].concat();
        assert!(decode(&Shape::audience_detail(), 0, vec![], 10, &body).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_body_as_a_whole_is_one_object() {
    for body in [
        "",
        " ",
        "[]",
        "1",
        "null",
        "\"a\"",
        "{} {}",
        "{}x",
        "\u{feff}{}",
        "[{\"audienceUserIdList\":[1]}]",
        "{\"audienceUserIdList\":[1]}]",
    ] {
        assert!(decode(&Shape::audience_detail(), 0, vec![], 10, body.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn nesting_without_end_is_refused_and_breaks_nothing() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for depth in [200, 2_000, 200_000] {
            let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(!taken(&value), "{depth} times {open}");
        }
        assert!(!taken(&open.repeat(100_000)), "and it need not end");
    }
}
