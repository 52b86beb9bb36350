//! The keys that the contract promises and that nothing stands behind yet.
//!
//! Such a key is refused, never ignored: a gateway that runs without the store that its configuration asks for is
//! worse than one that does not start. Whoever builds it takes its line away here and reads the key.

/// Each key, in the form in which known keys are compared (`lookup[].key[].list`), and what it would switch on. Everything below a key goes with it.
pub(super) const NOT_BUILT: &[(&str, &str)] = &[("store", "keeping the cache over a restart")];

/// The sentence that refuses a key, if it is one that is not built yet.
pub(super) fn refusal(path: &str) -> Option<String> {
    NOT_BUILT
        .iter()
        .find(|(key, _)| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
        .map(|(_, what)| format!("{what} is not built yet: leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_built_yet_is_refused_with_everything_below_it() {
        assert!(refusal("store.kind").is_some());
        assert!(refusal("store[].path").is_some());
        assert!(refusal("store_of_mine").is_none());
        assert!(refusal("cache.compression").is_none());
        let sentence = "keeping the cache over a restart is not built yet: leave it out";
        assert_eq!(refusal("store").as_deref(), Some(sentence));
    }
}
