//! The `[replicas]` section: other gateways in front of the same upstream.

use super::{
    link::Keys,
    reader::Section,
    value::{choice, count},
};
use crate::replicas::{self, WhenDown};

/// As many gateways as anybody could want in front of one request a second.
const MOST_REPLICAS: usize = 1000;

/// Reads the section; none where there are no others.
pub(super) fn replicas(section: &mut Section<'_>) -> Option<replicas::Config> {
    let is_shared = section.take("kind", false, choice(&[("none", false), ("redis", true)]));
    let keys = Keys::read(section);
    let max_replicas = section.take("max_replicas", 2, count(1..=MOST_REPLICAS));
    let modes = WhenDown::ALL.map(|mode| (mode.as_str(), mode));
    let when_redis_is_down = section.take("when_redis_is_down", WhenDown::Stale, choice(&modes));
    if !is_shared {
        keys.refuse(section);
        return None;
    }
    let (link, prefix) = keys.server(section);
    Some(replicas::Config {
        link,
        prefix,
        // Within its range.
        max_replicas: u32::try_from(max_replicas).unwrap_or(1),
        when_redis_is_down,
    })
}
