//! Canonical JSON: one text for every way of writing the same value, so that scopes are compared as text.
//!
//! Invariants:
//! 1. Members are sorted by their decoded names (in code point order) and there is no whitespace.
//! 2. Strings are escaped only where JSON demands it.
//! 3. An integer is its digits, and `-0` is `0`. Any other number is kept as it was written. RFC 8785 would send every
//!    number through a double, where 9007199254740993 and 9007199254740992 are one: two companies must never be. That
//!    `1.0`, `1` and `1e0` are three scopes costs a slot at most.
//! 4. The text is itself JSON for the value, so two values with the same text are the same value.
//! 5. What has no single meaning has no canonical text: a name that is given twice, half of a surrogate pair.

use std::{borrow::Cow, ops::Range};

use serde_json::value::RawValue;

use super::wire::scan::{Scanner, text};

/// Arrays and objects within each other: far more than any request has, and few enough for the stack of a worker thread.
pub const MAX_DEPTH: usize = 64;

/// Bytes of all fields of a body that are no keys: they are kept as long as a key waits or is cached, and are a company's and
/// an application's name.
pub const MAX_FIELDS: usize = 16 << 10;

/// Why a value has no canonical text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// An object has two members of one name.
    Duplicate,
    /// More than [`MAX_DEPTH`] arrays and objects within each other.
    TooDeep,
    /// A string with half of a surrogate pair.
    NoText,
    /// More than [`MAX_FIELDS`] bytes of fields.
    TooLong,
}

impl Unfit {
    /// The sentence for the caller; it quotes nothing.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "a field is given twice",
            Self::TooDeep => "a field is nested more than 64 levels deep",
            Self::TooLong => "the fields besides the keys are longer than 16 KiB",
            Self::NoText => "a string holds half of a surrogate pair",
        }
    }
}

/// The canonical text of a value.
///
/// # Errors
/// When it has none.
pub fn canonical(json: &RawValue) -> Result<String, Unfit> {
    let mut out = String::with_capacity(json.get().len());
    write(&mut Scanner::new(json), MAX_DEPTH, &mut out)?;
    Ok(out)
}

/// Steps over a value and appends its canonical text. `depth` is how many arrays and objects may still be entered.
pub(super) fn write(scanner: &mut Scanner<'_>, depth: usize, out: &mut String) -> Result<(), Unfit> {
    match scanner.peek() {
        Some(b'{') => {
            let depth = depth.checked_sub(1).ok_or(Unfit::TooDeep)?;
            scanner.take(b'{');
            let mut members = Members::open(out);
            while scanner.more(b'}') {
                let name = text(scanner.scalar())?;
                scanner.take(b':');
                members.add(name, scanner, depth, out)?;
            }
            members.close(out)
        }
        Some(b'[') => {
            let depth = depth.checked_sub(1).ok_or(Unfit::TooDeep)?;
            scanner.take(b'[');
            out.push('[');
            let first = out.len();
            while scanner.more(b']') {
                if out.len() > first {
                    out.push(',');
                }
                write(scanner, depth, out)?;
            }
            out.push(']');
            Ok(())
        }
        Some(b'"') => {
            quote(&text(scanner.scalar())?, out);
            Ok(())
        }
        _ => {
            let literal = scanner.scalar();
            out.push_str(if literal == "-0" { "0" } else { literal });
            Ok(())
        }
    }
}

/// An object whose members are written in the order in which they come, and sorted at the end if they have to be.
pub(super) struct Members<'a> {
    /// Where the first member begins.
    start: usize,
    /// Each name and where its member is written; an empty range is a member that counts as absent.
    written: Vec<(Cow<'a, str>, Range<usize>)>,
}

impl<'a> Members<'a> {
    pub(super) fn open(out: &mut String) -> Self {
        out.push('{');
        Self { start: out.len(), written: Vec::new() }
    }

    /// Appends a member whose value comes next in `scanner`.
    pub(super) fn add(
        &mut self,
        name: Cow<'a, str>,
        scanner: &mut Scanner<'_>,
        depth: usize,
        out: &mut String,
    ) -> Result<(), Unfit> {
        if out.len() > self.start {
            out.push(',');
        }
        let begin = out.len();
        quote(&name, out);
        out.push(':');
        write(scanner, depth, out)?;
        self.written.push((name, begin..out.len()));
        Ok(())
    }

    /// Takes note of a member that counts as absent, so that its name is not given again.
    pub(super) fn absent(&mut self, name: Cow<'a, str>) {
        self.written.push((name, 0..0));
    }

    pub(super) fn close(mut self, out: &mut String) -> Result<(), Unfit> {
        if !self.written.is_sorted_by(|(one, _), (next, _)| one < next) {
            // Sorted first and compared next to each other, so that a body full of names costs no quadratic search.
            self.written.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            if self.written.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(Unfit::Duplicate);
            }
            let mut sorted = String::with_capacity(out.len() - self.start);
            for (_, range) in self.written.iter().filter(|(_, range)| !range.is_empty()) {
                if !sorted.is_empty() {
                    sorted.push(',');
                }
                sorted.push_str(&out[range.clone()]);
            }
            out.truncate(self.start);
            out.push_str(&sorted);
        }
        out.push('}');
        Ok(())
    }
}

/// Appends a string; one that is borrowed was written without an escape and needs none.
#[expect(clippy::ptr_arg, reason = "that the text is borrowed says that it was written without an escape")]
fn quote(text: &Cow<'_, str>, out: &mut String) {
    match text {
        Cow::Borrowed(text) => out.extend(["\"", text, "\""]),
        Cow::Owned(text) => {
            out.push_str(&serde_json::to_string(text).expect("this holds because a string always serialises"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn of(json: &str) -> Result<String, Unfit> {
        canonical(serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn members_are_sorted_by_their_decoded_names_and_whitespace_goes() {
        assert_eq!(of(r#" { "b" : [ 1 , { } ] , "\u0061" : "x" } "#).as_deref(), Ok(r#"{"a":"x","b":[1,{}]}"#));
        assert_eq!(of(r#"[{"z":1,"a":{"c":[],"b":null}}]"#).as_deref(), Ok(r#"[{"a":{"b":null,"c":[]},"z":1}]"#));
    }

    #[test]
    fn strings_are_escaped_only_where_they_have_to_be() {
        let expected = r#""é电😀/\"\\\n\u001f""#;
        assert_eq!(of(r#""\u00e9\u7535\uD83D\uDE00\/\u0022\u005C\u000a\u001F""#).as_deref(), Ok(expected));
        assert_eq!(of(expected).as_deref(), Ok(expected));
    }

    #[test]
    fn integers_beyond_a_double_stay_apart_and_other_numbers_are_kept_as_written() {
        for number in ["9007199254740993", "9007199254740992", "-1", "1.0", "1e0", "1E0", "-0.0", "1e999"] {
            assert_eq!(of(number).as_deref(), Ok(number));
        }
        assert_eq!(of("-0").as_deref(), Ok("0"));
    }

    #[test]
    fn what_has_no_single_meaning_has_no_canonical_text() {
        assert_eq!(of(r#"[{"a":1,"b":2,"\u0061":1}]"#), Err(Unfit::Duplicate));
        assert_eq!(of(r#"{"a":1,"a":1}"#), Err(Unfit::Duplicate));
        assert_eq!(of(r#"["\ud800"]"#), Err(Unfit::NoText));
    }

    #[test]
    fn nesting_has_a_limit_that_no_depth_overflows() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(of(&nested(MAX_DEPTH)), Ok(nested(MAX_DEPTH)));
        assert_eq!(of(&nested(MAX_DEPTH + 1)), Err(Unfit::TooDeep));
        assert_eq!(of(&nested(200_000)), Err(Unfit::TooDeep));
        assert!(Unfit::TooDeep.as_str().contains(&MAX_DEPTH.to_string()));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            prop_oneof![-1..2i64, any::<i64>()].prop_map(Value::from),
            prop_oneof!["[a,:{}\\[\\]\"\\\\ ]{0,3}".boxed(), "[^\0]{0,6}".boxed()].prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[ab\"\\\\é]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Writes a value with its members in any order, whitespace anywhere and escapes where none are needed.
    fn spell(value: &Value, random: &mut fastrand::Rng, out: &mut String) {
        let mut space = |out: &mut String| out.push_str(random.choice(["", "", " ", "\n\t\r"]).unwrap_or(""));
        space(out);
        match value {
            Value::Array(members) => {
                out.push('[');
                for (position, member) in members.iter().enumerate() {
                    out.push_str(if position > 0 { "," } else { "" });
                    spell(member, random, out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                random.shuffle(&mut members);
                out.push('{');
                for (position, (name, member)) in members.into_iter().enumerate() {
                    out.push_str(if position > 0 { "," } else { "" });
                    spell(&Value::from(name.as_str()), random, out);
                    out.push(':');
                    spell(member, random, out);
                }
                out.push('}');
            }
            Value::String(text) => {
                out.push('"');
                for unit in text.chars() {
                    let must = matches!(unit, '"' | '\\' | '\0'..='\x1f');
                    if must || random.u8(..4) == 0 {
                        unit.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                    } else {
                        out.push(unit);
                    }
                }
                out.push('"');
            }
            other => out.push_str(&other.to_string()),
        }
        out.push_str(random.choice(["", " "]).unwrap_or(""));
    }

    proptest! {
        #[test]
        fn two_texts_have_one_canonical_form_exactly_when_they_mean_the_same_value(
            values in proptest::collection::vec(any_value(), 2..6),
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut forms = Vec::new();
            for value in values.iter().chain(&values) {
                let mut spelled = String::new();
                spell(value, &mut random, &mut spelled);
                let form = of(&spelled).expect("a canonical form");
                prop_assert_eq!(&serde_json::from_str::<Value>(&form).expect("JSON"), value);
                prop_assert_eq!(&of(&form).expect("a canonical form"), &form);
                forms.push((value, form));
            }
            for (one, form) in &forms {
                for (other, other_form) in &forms {
                    prop_assert_eq!(one == other, form == other_form);
                }
            }
        }
    }
}
