//! A page of the list of all customers: `{"code":"200",…,"data":{"audienceUserIdList":["1","2",…]}}`.
//!
//! Its envelope is judged like any other; the ids may be strings or numbers.

use std::fmt;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    envelope::{self, Reading},
    wire,
};
use crate::{key::Value, shape::List};

/// What one HTTP answer means.
#[derive(PartialEq, Eq)]
pub enum Page {
    /// The ids, in the order in which they came.
    Ids(Vec<i64>),
    /// Asked too often.
    Throttled,
    /// The credential is not taken.
    Unauthorized,
    /// No page, and why: never a word of the answer.
    Failed(&'static str),
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids(ids) => write!(f, "Ids({} ids)", ids.len()),
            Self::Throttled => f.write_str("Throttled"),
            Self::Unauthorized => f.write_str("Unauthorized"),
            Self::Failed(reason) => write!(f, "Failed({reason:?})"),
        }
    }
}

/// Judges an answer that should list ids under the name of a lookup's list.
#[must_use]
pub fn read(list: &List, status: StatusCode, body: &[u8]) -> Page {
    match envelope::read(status, body) {
        Reading::Success(_, records) if records.is_empty() => Page::Ids(Vec::new()),
        Reading::Invalid(reason) if !status.is_success() => Page::Failed(reason),
        // To a lookup an object in `data` makes no sense; here it is what was asked for.
        Reading::Invalid(_) => ids(list, body).map_or(Page::Failed("it has no list of ids"), Page::Ids),
        Reading::Success(..) => Page::Failed("it has records instead of ids"),
        Reading::Throttled => Page::Throttled,
        Reading::Unauthorized => Page::Unauthorized,
        Reading::Rejected => Page::Failed("it was rejected"),
        Reading::Unavailable(reason) => Page::Failed(reason),
    }
}

fn ids(list: &List, body: &[u8]) -> Option<Vec<i64>> {
    let members = Vec::<&RawValue>::deserialize(envelope::member(body, &list.name)?).ok()?;
    let id = |raw: &RawValue| match wire::value(list.value_type, raw)? {
        Value::Int(id) => Some(id),
        Value::Text(_) => None,
    };
    members.into_iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn a_page_is_a_list_of_strings_or_numbers_and_everything_else_is_none() {
        let shape = Shape::audience_detail();
        let success = |data: &str| format!(r#"{{"code":"200","data":{data},"errorCode":"0","msg":"操作成功"}}"#);
        let no_list = Page::Failed("it has no list of ids");
        let rows = [
            (200, success(r#"{"orgId":"6","audienceUserIdList":["1",2,"9007199254741007"]}"#), "ids"),
            (200, success(r#"{"audienceUserIdList":[]}"#), "empty"),
            (200, success("[]"), "empty"),
            (200, success("null"), "empty"),
            (200, success(r#"{"audienceUserIdList":["1","x"]}"#), "no list"),
            (200, success(r#"{"audienceUserIdList":[1.5]}"#), "no list"),
            (200, success(r#"{"audienceUserIdList":null}"#), "no list"),
            (200, success("{}"), "no list"),
            (200, "<html>".to_owned(), "no list"),
            (200, r#"{"code":"100500","errorCode":"100500","msg":"操作频繁","data":null}"#.to_owned(), "throttled"),
            (429, String::new(), "throttled"),
            (200, r#"{"code":"100200","errorCode":"100200","msg":"token","data":null}"#.to_owned(), "unauthorized"),
            (401, String::new(), "unauthorized"),
            (200, r#"{"code":"404","errorCode":"404","msg":"?","data":null}"#.to_owned(), "rejected"),
            (502, success(r#"{"audienceUserIdList":[1]}"#), "gateway"),
            (500, success(r#"{"audienceUserIdList":[1]}"#), "no list of objects"),
        ];
        for (status, body, expected) in rows {
            let page =
                read(shape.list(crate::key::Kind(0)), StatusCode::from_u16(status).expect("valid"), body.as_bytes());
            let matches = match expected {
                "ids" => page == Page::Ids(vec![1, 2, 9_007_199_254_741_007]),
                "empty" => page == Page::Ids(vec![]),
                "no list" => page == no_list,
                "throttled" => page == Page::Throttled,
                "unauthorized" => page == Page::Unauthorized,
                _ => matches!(page, Page::Failed(reason) if reason.contains(expected)),
            };
            assert!(matches, "{status} {body}: {page:?}");
        }
    }
}
