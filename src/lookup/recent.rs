//! The scopes of the last callers: whoever asks again, as nearly everybody does, need not have one made anew.
//!
//! Each thread remembers a few of its own, so that there is no lock and no count that several processors write.
//!
//! Invariant: a scope is given to nobody but whom it would be made for. Path, credential and fields are compared whole, also as
//! they are spelled, because that is what goes upstream; where a scope is remembered is a guess and decides nothing.

use std::{cell::RefCell, sync::Arc};

use http::HeaderMap;

use crate::{clock::Instant, key::Scope, upstream::credentials::Credentials};

/// Scopes that a thread remembers. Callers are applications, and there are not many; a scope is at most some 50 KiB.
const PLACES: usize = 64;

/// So much of each header of a credential says where its scope is remembered: tokens differ at their end.
const END: usize = 4;

thread_local! {
    static RECENT: RefCell<[Option<Arc<Scope>>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// The scope of what was asked on a lookup path, with these headers and these fields in both spellings.
pub(super) fn scope(
    (lookup, credentials): (u8, &Credentials),
    (headers, now): (&HeaderMap, Instant),
    (fields, sent): (String, String),
) -> Arc<Scope> {
    RECENT.with_borrow_mut(|recent| {
        let place = &mut recent[place(credentials, headers)];
        let is_own = |scope: &&mut Arc<Scope>| {
            scope.lookup == lookup
                && *scope.fields == *fields
                && *scope.sent == *sent
                && credentials.is(&scope.credential, headers, now)
        };
        if let Some(known) = place.as_mut().filter(is_own) {
            return Arc::clone(known);
        }
        let credential = credentials.identify(headers, now);
        Arc::clone(place.insert(Arc::new(Scope::new(lookup, credential, fields, sent))))
    })
}

fn place(credentials: &Credentials, headers: &HeaderMap) -> usize {
    let values = credentials.mode().headers().iter().filter_map(|name| headers.get(name));
    let ends = values.flat_map(|value| value.as_bytes().iter().rev().take(END));
    ends.fold(0_usize, |place, byte| place.wrapping_mul(31).wrapping_add(usize::from(*byte))) % PLACES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::upstream::credentials::{Mode, X_TOKEN};

    const TENANT: HeaderName = HeaderName::from_static("x-tenant");

    fn forwarding() -> Credentials {
        Credentials::new(Mode::Forward(vec![X_TOKEN, TENANT]))
    }

    fn sent(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn of(credentials: &Credentials, headers: &HeaderMap, (fields, spelled): (&str, &str)) -> Arc<Scope> {
        scope((0, credentials), (headers, crate::clock::now()), (fields.to_owned(), spelled.to_owned()))
    }

    #[test]
    fn who_asks_again_has_the_same_scope_and_nobody_else_has() {
        let (credentials, headers) = (forwarding(), sent(&[(X_TOKEN, "one"), (TENANT, "7")]));
        let first = of(&credentials, &headers, ("{}", ""));
        assert!(Arc::ptr_eq(&first, &of(&credentials, &headers, ("{}", ""))));
        for other in [
            sent(&[(X_TOKEN, "one")]),
            sent(&[(X_TOKEN, "one"), (TENANT, "8")]),
            sent(&[(TENANT, "one"), (X_TOKEN, "7")]),
            sent(&[]),
        ] {
            let theirs = of(&credentials, &other, ("{}", ""));
            assert_ne!(*theirs, *first);
            assert_eq!(*theirs, Scope::new(0, credentials.identify(&other, crate::clock::now()), "{}", ""));
        }
        assert_ne!(*of(&credentials, &headers, (r#"{"a":1}"#, r#""a":1"#)), *first);
    }

    #[test]
    fn what_goes_upstream_is_what_this_caller_wrote() {
        let (credentials, headers) = (forwarding(), sent(&[(X_TOKEN, "spelled")]));
        for spelled in [r#""a":1"#, r#""a" : 1"#, r#""\u0061":1"#] {
            assert_eq!(&*of(&credentials, &headers, (r#"{"a":1}"#, spelled)).sent, spelled);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_handed_out_or_expires_is_somebody_else_from_then_on() {
        let (credentials, now) = (forwarding(), crate::clock::now());
        let (headers, hour) = (sent(&[(X_TOKEN, "issued")]), Duration::from_secs(3600));
        let of = |at| scope((0, &credentials), (&headers, at), ("{}".to_owned(), String::new()));
        let stranger = of(now);
        credentials.issued_to("application", HeaderValue::from_static("issued"), (now, hour));
        let known = of(now);
        assert_ne!(*known, *stranger);
        assert!(Arc::ptr_eq(&known, &of(now)));
        assert_eq!(*of(now + hour), *stranger);
    }

    #[test]
    fn two_tokens_are_not_one() {
        let (credentials, one) = (forwarding(), sent(&[(X_TOKEN, "token")]));
        let mut two = one.clone();
        two.append(X_TOKEN, HeaderValue::from_static("token"));
        assert_ne!(*of(&credentials, &one, ("{}", "")), *of(&credentials, &two, ("{}", "")));
        assert_ne!(*of(&credentials, &two, ("{}", "")), *of(&credentials, &one, ("{}", "")));
    }
}
