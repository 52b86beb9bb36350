//! The `[warmup]` section, and the lookup that it is for.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    Lookup,
    reader::Section,
    sections::TIMEOUT,
    url,
    value::{count, duration, flag, share, string},
};
use crate::{dispatch::Share, upstream::Kind, warmup};

/// What the platform documents as the most ids in one page.
const PAGE: RangeInclusive<usize> = 1..=10_000;

/// Reads the section, and tells the lookup that it is for.
pub(super) fn warmup(section: &mut Section<'_>, lookups: &mut [Lookup], capacity: u64) -> warmup::Config {
    let config = warmup::Config {
        enabled: section.take("enabled", false, flag),
        path: section.take("path", warmup::ID_LIST.to_owned(), string(url::path)),
        page_size: section.take("page_size", 1000, count(PAGE)),
        page_interval: section.take("page_interval", Duration::from_secs(10), duration(TIMEOUT)),
        capacity_share: section.take("capacity_share", Share::new(0.5), share),
        slot_share: section.take("slot_share", Share::new(0.5), share),
    };
    if !config.enabled {
        return config;
    }
    if lookups.iter().any(|lookup| lookup.dispatch.kind == Kind::Gateway) {
        section.problem("enabled", "must be false in front of another gateway: warm that one up");
    }
    if config.slot_share == Share::NONE {
        section.problem("slot_share", "must be above 0, or nothing is ever fetched");
    }
    match lookups.iter_mut().find(|lookup| warmup::kind(&lookup.shape).is_some()) {
        Some(lookup) => {
            lookup.dispatch.warmup = config.slot_share;
            lookup.dispatch.warmup_bytes = config.capacity_share.of(capacity);
        }
        None => section.problem("enabled", "needs a [[lookup]] with a unique list of the type \"int64\""),
    }
    config
}
