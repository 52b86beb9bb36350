//! What a purge names: the keys of every lookup path whose shape has a list of the body, or everything.
//!
//! The body is a lookup's. Its lists are read once for each path that has a list of that name, so that one value is erased
//! wherever it is a key. The other fields narrow nothing: an erasure must not miss the customer who was cached for
//! another company. They are read all the same, because a body with a name that is given twice is refused like a lookup's.

use std::mem::replace;

use super::{
    canonical::Unfit,
    wire::{
        Fields, invalid,
        keys::{Keys, none_given},
        parse,
        scan::{Scanner, text},
    },
};
use crate::{error::Refusal, key::Id, shape::Shape};

/// The member that stands for every key there is.
const ALL: &str = "all";

/// What is to be forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purge {
    /// Everything.
    All,
    /// The distinct keys of each lookup path, in the order of the paths; at least one in all of them together.
    Keys(Vec<Vec<Id>>),
}

/// Reads a body. Each lookup path is given with the number of keys that it takes in one request.
///
/// # Errors
/// As [`decode`](super::wire::decode); also when `all` is no boolean.
pub fn decode(paths: &[(&Shape, usize)], body: &[u8]) -> Result<Purge, Refusal> {
    let mut scanner = Scanner::new(parse(body)?);
    if !scanner.take(b'{') {
        return Err(invalid("the body must be one JSON object"));
    }
    let (mut all, mut all_given) = (false, false);
    let mut keys: Vec<_> = paths.iter().map(|&(_, max_keys)| Keys::new(max_keys)).collect();
    let mut fields = Fields::new();
    while scanner.more(b'}') {
        let written = scanner.scalar();
        let name = text(written)?;
        scanner.take(b':');
        if name == ALL && replace(&mut all_given, true) {
            // Even where one is the word and the other a list.
            return Err(Unfit::Duplicate.into());
        }
        if name == ALL && matches!(scanner.peek(), Some(b't' | b'f')) {
            all = scanner.peek() == Some(b't');
            fields.read(name, written, &mut scanner)?;
            continue;
        }
        let start = scanner;
        let mut is_list = false;
        for ((shape, _), keys) in paths.iter().zip(&mut keys) {
            let Some((kind, list)) = shape.kinds().find(|(_, list)| *list.name == *name) else { continue };
            is_list = true;
            scanner = start;
            keys.read(kind, list, &mut scanner)?;
        }
        if is_list {
            continue;
        }
        if name == ALL {
            return Err(invalid("all must be true or false"));
        }
        fields.read(name, written, &mut scanner)?;
    }
    fields.finish()?;
    if all {
        return Ok(Purge::All);
    }
    let keys: Vec<_> = keys.into_iter().map(Keys::sorted).collect();
    if keys.iter().all(Vec::is_empty) {
        return Err(none_given(paths.iter().map(|(shape, _)| *shape)));
    }
    Ok(Purge::Keys(keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Value};

    fn read(body: &str) -> Result<Purge, Refusal> {
        let (detail, tags) = (Shape::audience_detail(), Shape::tag_batchlist());
        decode(&[(&detail, 3), (&tags, 2)], body.as_bytes())
    }

    fn number(number: i64) -> Id {
        Id { kind: Kind(0), value: Value::Int(number) }
    }

    fn phone(phone: &str) -> Id {
        Id { kind: Kind(2), value: Value::Text(phone.into()) }
    }

    #[test]
    fn a_list_names_keys_of_every_path_that_has_it() {
        let body = r#"{"phoneList":["1"],"companyId":"31","audienceUserIdList":[7,"7"," ",null],"thirdIdList":null}"#;
        assert_eq!(read(body), Ok(Purge::Keys(vec![vec![number(7), phone("1")], vec![number(7)]])));
        assert_eq!(read(r#"{"phoneList":["1"],"all":false}"#), Ok(Purge::Keys(vec![vec![phone("1")], vec![]])));
    }

    #[test]
    fn all_needs_no_keys() {
        for body in [r#"{"all":true}"#, r#"{ "\u0061ll" : true , "phoneList":["1"]}"#] {
            assert_eq!(read(body), Ok(Purge::All), "{body}");
        }
    }

    #[test]
    fn what_a_lookup_would_refuse_is_refused() {
        let rows = [
            ("{}", "give at least one key in audienceUserIdList, thirdIdList or phoneList"),
            (r#"{"all":false}"#, "give at least one key in audienceUserIdList, thirdIdList or phoneList"),
            (r#"{"mobileList":["1"]}"#, "give at least one key in audienceUserIdList, thirdIdList or phoneList"),
            (r#"{"all":"true"}"#, "all must be true or false"),
            (r#"{"all":1}"#, "all must be true or false"),
            (r#"{"all":null}"#, "all must be true or false"),
            (r#"{"all":[true]}"#, "all must be true or false"),
            (r#"{"all":true,"all":true}"#, "a field is given twice"),
            (r#"{"all":true,"phoneList":["1"],"phoneList":["2"]}"#, "phoneList is given twice"),
            (r#"{"phoneList":["1"],"a":1,"a":2}"#, "a field is given twice"),
            (r#"{"phoneList":"1"}"#, "phoneList must be an array of strings"),
            (r#"{"phoneList":["1","2","3","4"]}"#, "too many keys: at most 3 in one request"),
            (r#"{"audienceUserIdList":[1,2,3]}"#, "too many keys: at most 2 in one request"),
            (r#"[{"all":true}]"#, "the body must be one JSON object"),
            ("", "the body is not JSON: line 1 column 0"),
        ];
        for (body, sentence) in rows {
            assert_eq!(read(body), Err(invalid(sentence)), "{body}");
        }
    }

    #[test]
    fn a_list_that_is_called_all_is_a_list_and_the_word_still_stands_for_everything() {
        let mut shape = Shape::tag_batchlist();
        shape.lists[0].name = "all".to_owned();
        assert_eq!(decode(&[(&shape, 9)], br#"{"all":[7]}"#), Ok(Purge::Keys(vec![vec![number(7)]])));
        assert_eq!(decode(&[(&shape, 9)], br#"{"all":true}"#), Ok(Purge::All));
        let twice = Err(invalid("a field is given twice"));
        assert_eq!(decode(&[(&shape, 9)], br#"{"all":[7],"all":false}"#), twice);
        assert_eq!(decode(&[(&shape, 9)], br#"{"all":true,"all":[7]}"#), twice);
    }
}
