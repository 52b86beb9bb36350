//! The shapes that the properties are asked about: the two that are built in, and one that uses what those do not.

use crate::shape::{FieldPath, List, Shape, ValueType};

/// Each shape, with a limit of keys: one that is often reached, one that seldom is.
pub(super) fn all() -> [(Shape, usize); 3] {
    [(Shape::audience_detail(), 100), (Shape::tag_batchlist(), 4), (made_up(), 40)]
}

/// Names that need escapes or mean something elsewhere, several places for one kind, and no unique kind in front.
fn made_up() -> Shape {
    let list = |name: &str, value_type, unique, record: &[&str]| List {
        name: name.to_owned(),
        kind: name.to_owned(),
        value_type,
        record: record.iter().map(|path| FieldPath::parse(path).expect("a record path")).collect(),
        unique,
    };
    Shape {
        path: "/made/up".to_owned(),
        lists: vec![
            list("all", ValueType::Text, false, &["name", "\"名\"", "others[].name"]),
            list("\"编号\"", ValueType::Int64, true, &["others[].number", "number"]),
        ],
    }
}
