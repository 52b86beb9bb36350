//! JSON read a second time, for what it means: slowly, one level at a time, and with serde_json alone.

use std::fmt;

use fastrand::Rng;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A value; numbers are kept as they are written.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    /// Members in the order given, doubled ones too.
    Object(Vec<(String, Self)>),
    /// A string or a name that is no text, or arrays and objects within each other beyond the limit.
    Unfit,
}

/// The members of an object, in order, doubled ones too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The members of an object whose names are all text; nothing where this is no such object.
pub(super) fn members(json: &[u8]) -> Option<Vec<(String, &RawValue)>> {
    let Members(members) = serde_json::from_str(std::str::from_utf8(json).ok()?).ok()?;
    Some(members)
}

/// The members of an array; nothing where this is none.
pub(super) fn elements(json: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json.get()).ok()
}

impl Tree {
    /// Reads a value in which so many arrays and objects may be entered.
    pub(super) fn of(json: &RawValue, levels: usize) -> Self {
        let text = json.get();
        match text.as_bytes()[0] {
            b'{' | b'[' if levels == 0 => Self::Unfit,
            b'{' => members(text.as_bytes()).map_or(Self::Unfit, |members| {
                let read = |(name, json)| (name, Self::of(json, levels - 1));
                Self::Object(members.into_iter().map(read).collect())
            }),
            b'[' => {
                let elements = elements(json).expect("this holds because it is valid JSON");
                Self::List(elements.into_iter().map(|json| Self::of(json, levels - 1)).collect())
            }
            b'"' => serde_json::from_str(text).map_or(Self::Unfit, Self::Text),
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            _ => Self::Number(text.to_owned()),
        }
    }

    /// The one form of everything that means the same: members in the order of their names, and 0 without a sign.
    /// Nothing where it has none, because a name is given twice or something is unfit.
    pub(super) fn normal(self) -> Option<Self> {
        Some(match self {
            Self::Unfit => return None,
            Self::Number(number) if number == "-0" => Self::Number("0".to_owned()),
            Self::List(members) => Self::List(members.into_iter().map(Self::normal).collect::<Option<_>>()?),
            Self::Object(members) => {
                let normal = |(name, value): (String, Self)| Some((name, value.normal()?));
                let mut members: Vec<_> = members.into_iter().map(normal).collect::<Option<_>>()?;
                members.sort_by(|(one, _), (other, _)| one.cmp(other));
                if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                    return None;
                }
                Self::Object(members)
            }
            other => other,
        })
    }

    /// The text without whitespace, escaped only where it must be.
    pub(super) fn plain(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Null | Self::Unfit => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.clone(),
            Self::Text(text) => quoted(text),
            Self::List(members) => format!("[{}]", joined(members.iter().map(Self::plain).collect())),
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| format!("{}:{}", quoted(name), value.plain());
                format!("{{{}}}", joined(members.iter().map(member).collect()))
            }
        }
    }

    /// Another text of the same meaning: members in any order, whitespace and escapes anywhere.
    pub(super) fn respelled(&self, random: &mut Rng) -> String {
        let text = match self {
            Self::Text(text) => respelled(text, random),
            Self::Number(number) if number == "0" && random.bool() => "-0".to_owned(),
            Self::List(members) => {
                let members: Vec<_> = members.iter().map(|member| member.respelled(random)).collect();
                format!("[{}{}]", space(random), members.join(","))
            }
            Self::Object(members) => {
                let member =
                    |(name, value): &(String, Self)| format!("{}:{}", respelled(name, random), value.respelled(random));
                let mut members: Vec<_> = members.iter().map(member).collect();
                random.shuffle(&mut members);
                format!("{{{}{}}}", space(random), members.join(","))
            }
            other => other.plain(),
        };
        format!("{}{text}{}", space(random), space(random))
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("this holds because a string always serialises")
}

/// A string with some characters escaped that need not be, and whitespace around it.
pub(super) fn respelled(text: &str, random: &mut Rng) -> String {
    let mut out = space(random).to_owned() + "\"";
    for letter in text.chars() {
        if matches!(letter, '"' | '\\' | '\0'..='\x1f') || random.u8(..4) == 0 {
            letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(letter);
        }
    }
    out + "\"" + space(random)
}

pub(super) fn space(random: &mut Rng) -> &'static str {
    random.choice(["", "", " ", "\n\t\r"]).unwrap_or_default()
}
