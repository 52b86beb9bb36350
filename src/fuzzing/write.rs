//! What must hold of the body of a write that passes through.
//!
//! What makes cached customers old is every object of its list, whoever reads it; and of each object every id that a
//! lookup could ask for.

use serde_json::value::RawValue;

use super::{json, shapes, upstream::carried};
use crate::{passthrough::items::items, request::depth, upstream::wire::carried_by};

/// Reads bytes as a write's body.
pub fn write(data: &[u8]) {
    for member in ["data", "\"名\""] {
        let found = items(data, member);
        let expected = expected(data, member);
        let text = |items: &[&RawValue]| items.iter().map(|item| item.get().to_owned()).collect::<Vec<_>>();
        assert_eq!(found.as_deref().map(text), expected.as_deref().map(text));
        for item in found.unwrap_or_default() {
            for (shape, _) in shapes::all() {
                assert!(carried_by(&shape, item) == carried(&shape, item), "the ids of an item");
            }
        }
    }
}

/// The objects of every list of that name; nothing where there is no list, or a list only of what is no object.
fn expected<'a>(data: &'a [u8], member: &str) -> Option<Vec<&'a RawValue>> {
    if depth::is_too_deep(data) {
        return None;
    }
    let members = json::members(data)?;
    let lists: Vec<_> = members.into_iter().filter(|(name, _)| name == member).collect();
    let lists: Option<Vec<_>> = lists.into_iter().map(|(_, json)| json::elements(json)).collect();
    let all = lists.filter(|lists| !lists.is_empty())?.concat();
    let objects: Vec<_> = all.iter().copied().filter(|json| json.get().starts_with('{')).collect();
    (all.is_empty() || !objects.is_empty()).then_some(objects)
}
