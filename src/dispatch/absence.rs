//! When a request that carried several lists may be believed to have said everything of a list.
//!
//! Nobody has written down what several lists in one request mean: their union, only the first that is not empty, or
//! the intersection. A record that comes back is true in any case. That there is no record, or that there is not another
//! one behind a phone that two customers may share, is only as good as the union. Rules:
//! - **One list** in the request: what it leaves out does not exist.
//! - **Shown.** A record that is explained by list A alone shows that list A was answered for itself in this request:
//!   neither was it an intersection, nor did another list take its place.
//! - **Proof.** An answer that shows two lists proves the pair to be a union, for every later request too.
//! - **Until then** a key without a record, and a key that several customers may share, is asked again with its own list
//!   only.
//! - **Refutation.** If that finds a key that was not found in company, the lists are not a union: from then on each
//!   rides alone, until [`FORGET`] has passed (the customer may have been created in between).

use std::time::Duration;

use super::MixedLists;
use crate::{clock::Instant, key::Kind};

/// How long a refutation holds before lists are mixed again.
const FORGET: Duration = Duration::from_secs(600);

/// What is known of a pair of lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pair {
    Unknown,
    Proved,
    Refuted(Instant),
}

/// What has been learned of mixed requests on one lookup path.
pub struct Absence {
    setting: MixedLists,
    lists: usize,
    /// One entry per pair of lists; the lower kind times `lists` plus the higher.
    pairs: Vec<Pair>,
}

impl Absence {
    /// Nothing is known yet, beyond what the configuration says.
    #[must_use]
    pub fn new(setting: MixedLists, lists: usize) -> Self {
        Self { setting, lists, pairs: vec![Pair::Unknown; lists * lists] }
    }

    /// Whether lists may be mixed in one request at all.
    #[must_use]
    pub fn may_mix(&self, now: Instant) -> bool {
        let refuted = |pair: &Pair| matches!(pair, Pair::Refuted(at) if now.saturating_duration_since(*at) < FORGET);
        match self.setting {
            MixedLists::Union => true,
            MixedLists::Never => false,
            MixedLists::Auto => !self.pairs.iter().any(refuted),
        }
    }

    /// Whether a key of this kind may be added to a request that carries these kinds without taking anything from what
    /// its answer proves.
    #[must_use]
    pub fn may_join(&self, kind: Kind, kinds: &[Kind]) -> bool {
        let proved = |other: &Kind| self.pairs[self.position(kind, *other)] == Pair::Proved;
        match self.setting {
            MixedLists::Union => true,
            MixedLists::Never => kinds.iter().all(|other| *other == kind),
            MixedLists::Auto => kinds.iter().all(|other| *other == kind || proved(other)),
        }
    }

    /// Whether a request that carried these kinds is believed to have said everything of one of them, given the kinds
    /// that its answer shows.
    #[must_use]
    pub fn is_complete(&self, kind: Kind, kinds: &[Kind], exclusive: &[bool]) -> bool {
        let proved = |other: &Kind| *other == kind || self.pairs[self.position(kind, *other)] == Pair::Proved;
        self.setting == MixedLists::Union || exclusive[kind.index()] || kinds.iter().all(proved)
    }

    /// An answer came in which each of these kinds explained a record that no other kind explains.
    pub fn observe_exclusive(&mut self, exclusive: &[bool]) {
        for one in 0..self.lists {
            for other in one + 1..self.lists {
                if exclusive[one] && exclusive[other] {
                    self.pairs[one * self.lists + other] = Pair::Proved;
                }
            }
        }
    }

    /// A key that a mixed request did not find was found when its list was asked alone.
    pub fn observe_missed(&mut self, kind: Kind, now: Instant) {
        for other in (0..=u8::MAX).map(Kind).take(self.lists).filter(|other| *other != kind) {
            let position = self.position(kind, other);
            self.pairs[position] = Pair::Refuted(now);
        }
    }

    fn position(&self, one: Kind, other: Kind) -> usize {
        one.min(other).index() * self.lists + one.max(other).index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Kind = Kind(0);
    const THIRD: Kind = Kind(1);
    const PHONE: Kind = Kind(2);

    const NOTHING: &[bool] = &[false; 3];

    #[test]
    fn one_list_is_complete_and_several_are_once_each_pair_is_proved() {
        let mut absence = Absence::new(MixedLists::Auto, 3);
        assert!(absence.is_complete(PHONE, &[PHONE], NOTHING));
        assert!(!absence.is_complete(PHONE, &[ID, PHONE], NOTHING));
        absence.observe_exclusive(&[true, false, true]);
        assert!(absence.is_complete(PHONE, &[ID, PHONE], NOTHING));
        assert!(!absence.is_complete(PHONE, &[ID, THIRD, PHONE], NOTHING));
        absence.observe_exclusive(&[false, true, true]);
        assert!(absence.is_complete(PHONE, &[ID, THIRD, PHONE], NOTHING));
        assert!(!absence.is_complete(ID, &[ID, THIRD, PHONE], NOTHING));
    }

    #[test]
    fn a_list_that_alone_explains_a_record_is_complete_in_that_answer_and_proves_nothing() {
        let mut absence = Absence::new(MixedLists::Auto, 3);
        let exclusive = &[true, false, false];
        absence.observe_exclusive(exclusive);
        assert!(absence.is_complete(ID, &[ID, PHONE], exclusive));
        assert!(!absence.is_complete(PHONE, &[ID, PHONE], exclusive));
        assert!(!absence.is_complete(ID, &[ID, PHONE], NOTHING));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_in_company_ends_the_mixing_for_a_while() {
        let now = crate::clock::now();
        let mut absence = Absence::new(MixedLists::Auto, 3);
        assert!(absence.may_mix(now));
        absence.observe_missed(PHONE, now);
        assert!(!absence.may_mix(now));
        assert!(absence.may_mix(now + FORGET));
        assert!(!absence.is_complete(ID, &[ID, PHONE], NOTHING), "and nothing is proved after it");
    }

    #[tokio::test(start_paused = true)]
    async fn the_configuration_has_the_last_word() {
        let now = crate::clock::now();
        let mut union = Absence::new(MixedLists::Union, 3);
        union.observe_missed(PHONE, now);
        assert!(union.may_mix(now) && union.is_complete(ID, &[ID, PHONE], NOTHING));
        assert!(!Absence::new(MixedLists::Never, 3).may_mix(now));
    }
}
