//! The description of a lookup path: its lists, their kinds, and where a record carries their values.
//!
//! Two shapes are built in, [`Shape::audience_detail`] and [`Shape::tag_batchlist`]; any other path spells its own out in
//! `[[lookup.key]]`. Everything that reads a body, a record or an upstream answer is driven by a shape, so no module knows
//! a field name of its own.

use std::time::Duration;

use crate::key::{Kind, Value};

/// The customer-detail call.
pub const AUDIENCE_DETAIL: &str = "/api/audience/detail";
/// The customer-tags call.
pub const TAG_BATCHLIST: &str = "/api/audience/user/tag/batchlist";

/// What a list's members are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueType {
    /// A signed 64-bit integer; callers may write it as a number or as a string of digits.
    Int64,
    /// A string.
    Text,
}

impl ValueType {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Text => "string",
        }
    }

    /// The value that a text stands for, if it stands for one: an integer is an optional `-` and ASCII digits, whatever
    /// blanks are around it.
    #[must_use]
    pub fn read(self, text: &str) -> Option<Value> {
        let trimmed = text.trim();
        match self {
            _ if trimmed.is_empty() => None,
            // The standard library would also take a `+`.
            Self::Int64 if trimmed.starts_with('+') => None,
            Self::Int64 => trimmed.parse().ok().map(Value::Int),
            Self::Text => Some(Value::Text(text.into())),
        }
    }
}

/// Where a record carries a value of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FieldPath {
    /// `phone`: a member of the record.
    Member(String),
    /// `phoneList[].phone`: a member of each object in a list of the record.
    EachMember {
        /// The list's name in the record.
        list: String,
        /// The member's name in each object of it.
        member: String,
    },
}

impl FieldPath {
    /// Reads `phone` or `phoneList[].phone`.
    ///
    /// # Errors
    /// A sentence when the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |name: &str| !name.is_empty() && !name.contains(['[', ']', '.']);
        match text.split_once("[].") {
            None if plain(text) => Ok(Self::Member(text.to_owned())),
            Some((list, member)) if plain(list) && plain(member) => {
                Ok(Self::EachMember { list: list.to_owned(), member: member.to_owned() })
            }
            _ => Err("a record path is `field` or `list[].field`".to_owned()),
        }
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Member(name) => f.write_str(name),
            Self::EachMember { list, member } => write!(f, "{list}[].{member}"),
        }
    }
}

/// One key list of a lookup path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// The list's name in the request body, such as `phoneList`.
    pub name: String,
    /// The kind's name in metrics and documents, such as `phone`: the first record path's last member.
    pub kind: String,
    /// What its members are.
    pub value_type: ValueType,
    /// Where a record carries values of this kind.
    pub record: Vec<FieldPath>,
    /// Whether at most one customer has a given value, so that a record fetched under any key also answers this one.
    pub unique: bool,
}

/// A lookup path and its lists, in the order in which their records are answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The path below the base URL, such as `/api/audience/detail`.
    pub path: String,
    /// The key lists; a list's position is its [`Kind`].
    pub lists: Vec<List>,
}

impl Shape {
    /// The shape of `/api/audience/detail`.
    #[must_use]
    pub fn audience_detail() -> Self {
        Self {
            path: AUDIENCE_DETAIL.to_owned(),
            lists: vec![
                audience_user_id(),
                List {
                    name: "thirdIdList".to_owned(),
                    kind: "thirdId".to_owned(),
                    value_type: ValueType::Text,
                    record: vec![FieldPath::Member("thirdId".to_owned())],
                    unique: true,
                },
                List {
                    name: "phoneList".to_owned(),
                    kind: "phone".to_owned(),
                    value_type: ValueType::Text,
                    record: vec![
                        FieldPath::Member("phone".to_owned()),
                        FieldPath::EachMember { list: "phoneList".to_owned(), member: "phone".to_owned() },
                    ],
                    unique: false,
                },
            ],
        }
    }

    /// The shape of `/api/audience/user/tag/batchlist`.
    #[must_use]
    pub fn tag_batchlist() -> Self {
        Self { path: TAG_BATCHLIST.to_owned(), lists: vec![audience_user_id()] }
    }

    /// The built-in shape of a path and the interval that its documented limit asks for.
    #[must_use]
    pub fn built_in(path: &str) -> Option<(Self, Duration)> {
        match path {
            AUDIENCE_DETAIL => Some((Self::audience_detail(), Duration::from_secs(1))),
            TAG_BATCHLIST => Some((Self::tag_batchlist(), Duration::from_millis(500))),
            _ => None,
        }
    }

    /// The list of a kind.
    #[must_use]
    pub fn list(&self, kind: Kind) -> &List {
        &self.lists[kind.index()]
    }

    /// Every kind with its list, in answer order.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, &List)> {
        (0..=u8::MAX).map(Kind).zip(&self.lists)
    }
}

fn audience_user_id() -> List {
    List {
        name: "audienceUserIdList".to_owned(),
        kind: "audienceUserId".to_owned(),
        value_type: ValueType::Int64,
        record: vec![FieldPath::Member("audienceUserId".to_owned())],
        unique: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_path_is_a_field_or_a_field_of_a_list() {
        for text in ["phone", "phoneList[].phone"] {
            assert_eq!(FieldPath::parse(text).expect("valid").to_string(), text);
        }
        for text in ["", "[].x", "a[].", "a.b", "a[]", "a[].b[].c"] {
            assert!(FieldPath::parse(text).is_err(), "{text}");
        }
    }
}
