//! The customers that a write names: the objects of one list of its body.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::request::depth;

/// The objects in a body's list; nothing where it has no list of objects, or is nested too deeply. Where it has several lists
/// of that name, those of all of them: which one the upstream takes is not known.
pub(crate) fn items<'a>(body: &'a [u8], member: &str) -> Option<Vec<&'a RawValue>> {
    if depth::is_too_deep(body) {
        return None;
    }
    let Members(members) = serde_json::from_slice(body).ok()?;
    let lists = members.into_iter().filter(|(name, _)| name == member);
    let lists: Vec<Vec<&RawValue>> =
        lists.map(|(_, list)| serde_json::from_str(list.get()).ok()).collect::<Option<_>>()?;
    if lists.is_empty() {
        return None;
    }
    let mut items = lists.concat();
    let is_empty = items.is_empty();
    items.retain(|item| item.get().starts_with('{'));
    (is_empty || !items.is_empty()).then_some(items)
}

/// An object's members in the order given: no map, which would keep one of each name.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_the_objects_of_a_list() {
        let read = |body: &str| {
            let items = items(body.as_bytes(), "data")?;
            Some(items.into_iter().map(RawValue::get).collect::<Vec<_>>().join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(r#"{"publicParams":{"data":[]},"data":[{"a":1}, 7, null,{ }]}"#), some(r#"{"a":1} { }"#));
        assert_eq!(read(r#"{"\u0064ata":[{"a":"1"}]}"#), some(r#"{"a":"1"}"#));
        assert_eq!(read(r#"{"data":[]}"#), some(""));
        assert_eq!(
            read(r#"{"data":[{"a":1}],"x":1,"d\u0061ta":[{"a":2},{"a":1}]}"#),
            some(r#"{"a":1} {"a":2} {"a":1}"#)
        );
        for body in [
            "",
            "{}",
            "[{}]",
            "data=1",
            r#"{"data":{}}"#,
            r#"{"data":[{}],"data":null}"#,
            r#"{"data":null}"#,
            r#"{"data":[7]}"#,
            r#"{"data":[{"a":1}]"#,
            r#"{"data":[{"a":1}]}}"#,
        ] {
            assert_eq!(read(body), None, "{body}");
        }
        assert!(items(b"{\"data\":[{\"a\":\"\xff\"}]}", "data").is_none());
    }
}
