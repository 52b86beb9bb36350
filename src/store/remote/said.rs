//! How erasures are told: a number and a tag, which show to whom something is missing, and what is erased, sealed.

use std::sync::atomic::Ordering::Relaxed;

use super::{Remote, scripts};
use crate::{
    key::Id,
    store::{
        erased::Order,
        names::{self, CredentialName},
        rows::{self, Input},
    },
};

/// With what an erasure is sealed.
const PLACE: &[u8] = b"erasure";

/// What was told.
pub(super) enum Said {
    /// Everything that was written is not believed any more; what is in memory has nothing to do with that for who knows of
    /// the same erasures as the author, up to the one of this number and tag.
    Begun(u64, String),
    /// Everything is erased.
    All,
    /// Some ids are.
    Some(Elsewhere),
}

/// What was told, and by whom.
pub(super) struct Entry {
    pub(super) number: u64,
    /// The name of the erasure, which no other has.
    pub(super) tag: String,
    pub(super) is_own: bool,
    pub(super) said: Said,
}

/// An erasure as it is told.
pub(super) struct Elsewhere {
    pub(super) lookup: u8,
    pub(super) is_purge: bool,
    pub(super) whose: Option<CredentialName>,
    pub(super) ids: Vec<Id>,
}

impl Remote {
    /// What everybody is told of an erasure.
    pub(super) fn some(&self, order: &Order, ids: &[Id]) -> Vec<u8> {
        let whose = order.whose.as_ref().map(|whose| names::credential_name(&self.seal, whose));
        let mut plain = vec![order.lookup, u8::from(order.is_purge), u8::from(whose.is_some())];
        plain.extend(whose.iter().flatten());
        ids.iter().for_each(|id| rows::write_id(&mut plain, id));
        [b"some ", &self.seal.close(PLACE, &plain)[..]].concat()
    }

    /// The name of an erasure that this process begins.
    pub(super) fn tag(&self) -> String {
        format!("{}.{}", self.origin, self.told.fetch_add(1, Relaxed))
    }

    /// What was told.
    pub(super) fn read_entry(&self, entry: &[u8]) -> Option<Entry> {
        let mut words = entry.splitn(4, |byte| *byte == b' ');
        let number = scripts::number(words.next()?)?;
        let tag = std::str::from_utf8(words.next()?).ok()?.to_owned();
        let is_own = tag.starts_with(&self.origin);
        let said = match words.next()? {
            b"begun" => {
                let (number, tag) = std::str::from_utf8(words.next()?).ok()?.split_once(' ')?;
                // Who had never joined knew nothing.
                Said::Begun(number.parse().unwrap_or_default(), tag.to_owned())
            }
            b"all" => Said::All,
            b"some" => Said::Some(Elsewhere::read(&self.seal.open(PLACE, words.next()?)?)?),
            _ => return None,
        };
        Some(Entry { number, tag, is_own, said })
    }
}

impl Elsewhere {
    fn read(plain: &[u8]) -> Option<Self> {
        let (&[lookup, is_purge, has_whose], mut rest) = plain.split_first_chunk()?;
        let whose = match has_whose {
            0 => None,
            _ => {
                let (whose, left) = rest.split_first_chunk()?;
                rest = left;
                Some(*whose)
            }
        };
        let (mut input, mut ids) = (Input(rest), Vec::new());
        while !input.0.is_empty() {
            ids.push(input.id()?);
        }
        Some(Self { lookup, is_purge: is_purge != 0, whose, ids })
    }
}
