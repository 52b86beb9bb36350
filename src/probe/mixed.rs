//! What several lists in one request mean, as far as the answers show it.
//!
//! Evidence is one list's own customers: those that this list's key reaches when it is asked alone, and no other key of
//! the same request does. Rules:
//! - **Shown.** They come back although other lists have keys: this list was answered for itself.
//! - **Missed.** They do not: another list took its place, or the lists were intersected.
//! - **Union.** For every two lists of the shape, one answer shows both. That each is shown beside keys that nobody has
//!   is not enough: the upstream may take the first list that finds somebody.

use std::collections::HashSet;

use super::{
    Probe,
    journal::{Asked, Journal, Part, Question, Said},
};
use crate::{key::Kind, upstream::wire::Carried};

/// What several lists in one request mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mixed {
    /// The path has one list.
    OneList,
    /// The customers that any list reaches.
    Union,
    /// Only the first list that is not empty counts.
    First,
    /// The customers that every list reaches.
    Intersection,
    /// No union, and more cannot be told with these keys.
    NoUnion,
    /// The upstream rejects it.
    Rejected,
    /// The lists of these kinds count beside others, but not every two lists were seen in one answer.
    Partly(Vec<String>),
    /// It cannot be told, and why.
    Unknown(&'static str),
}

impl Mixed {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::OneList => "one list",
            Self::Union => "union",
            Self::First => "first",
            Self::Intersection => "intersection",
            Self::NoUnion => "no union",
            Self::Rejected => "rejected",
            Self::Partly(_) => "partly",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// What the answers show of each list.
pub(super) struct Evidence<'a> {
    probe: &'a Probe,
    journal: &'a Journal,
    /// For each kind with a key that reaches somebody: the first such key.
    known: Vec<(Kind, usize)>,
    /// For each kind, whether its own customers came back in company.
    shown: Vec<Option<bool>>,
    /// The pairs of kinds that one answer showed, the lower one first.
    pairs: HashSet<(usize, usize)>,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(probe: &'a Probe, journal: &'a Journal) -> Self {
        let mut known: Vec<(Kind, usize)> = Vec::new();
        for (key, id) in probe.keys.iter().enumerate() {
            let reaches = journal.found(&Question::Alone(key)).is_some_and(|records| !records.is_empty());
            if reaches && !known.iter().any(|(kind, _)| *kind == id.kind) {
                known.push((id.kind, key));
            }
        }
        known.sort_unstable_by_key(|(kind, _)| *kind);
        let mut evidence =
            Self { probe, journal, known, shown: vec![None; probe.target.shape.lists.len()], pairs: HashSet::new() };
        for asked in &journal.0 {
            if let (Question::Mixed(parts), Said::Found(came)) = (&asked.question, &asked.said) {
                evidence.weigh(parts, came);
            }
        }
        evidence
    }

    /// The next request that would show something new. `empty` is whether a key that nobody has is answered with nothing.
    pub(super) fn next(&self, empty: bool) -> Option<Vec<Part>> {
        if self.shown.len() < 2 {
            return None;
        }
        let together = self.together();
        let own = |part: &Part| matches!(part, Part::Given(key) if !self.own(*key, &together).is_empty());
        if together.len() > 1
            && together.iter().any(own)
            && self.journal.answer(&Question::Mixed(together.clone())).is_none()
        {
            return Some(together);
        }
        if !empty {
            return None;
        }
        let open = |(kind, key): &&(Kind, usize)| {
            let asked = Question::Mixed(self.in_company(*key));
            self.shown[kind.index()].is_none() && self.journal.answer(&asked).is_none()
        };
        // The last list first: where only the first one counts, that shows at once.
        let next = match (self.shown.contains(&Some(false)), self.shown.contains(&Some(true))) {
            (false, _) => self.known.iter().rev().find(open),
            // No union. Whether it is the first list or an intersection, the first list tells.
            (true, false) => self.known.first().filter(open),
            (true, true) => None,
        };
        next.map(|(_, key)| self.in_company(*key))
    }

    /// What it all comes to.
    pub(super) fn verdict(&self) -> Mixed {
        let kinds_that = |shown: bool| (0..self.shown.len()).filter(move |kind| self.shown[*kind] == Some(shown));
        let (last_shown, first_missed) = (kinds_that(true).next_back(), kinds_that(false).next());
        let rejected = |asked: &Asked| matches!((&asked.question, &asked.said), (Question::Mixed(parts), Said::Rejected) if *parts == self.together());
        match (last_shown, first_missed) {
            _ if self.shown.len() < 2 => Mixed::OneList,
            _ if self.journal.0.iter().any(rejected) => Mixed::Rejected,
            (Some(shown), Some(missed)) if shown < missed => Mixed::First,
            (None, Some(0)) => Mixed::Intersection,
            (_, Some(_)) => Mixed::NoUnion,
            (Some(_), None) if self.is_union() => Mixed::Union,
            (Some(_), None) => {
                let name = |kind: usize| self.probe.target.shape.lists[kind].kind.clone();
                Mixed::Partly(kinds_that(true).map(name).collect())
            }
            (None, None) if self.known.is_empty() => Mixed::Unknown("none of the keys reached a customer"),
            (None, None) => Mixed::Unknown("no request that could tell was answered"),
        }
    }

    /// Every known key in one request.
    fn together(&self) -> Vec<Part> {
        self.known.iter().map(|(_, key)| Part::Given(*key)).collect()
    }

    /// One known key, with keys that nobody has in all other lists.
    fn in_company(&self, key: usize) -> Vec<Part> {
        let own = self.probe.keys[key].kind;
        let part = |(kind, _)| if kind == own { Part::Given(key) } else { Part::MadeUp(kind) };
        self.probe.target.shape.kinds().map(part).collect()
    }

    /// The customers that this key alone reaches among the keys of a request.
    fn own(&self, key: usize, parts: &[Part]) -> Vec<&Carried> {
        let reached = |key: usize| self.journal.found(&Question::Alone(key)).unwrap_or_default();
        let others: Vec<&Carried> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Given(other) if *other != key => Some(reached(*other)),
                _ => None,
            })
            .flatten()
            .collect();
        reached(key).iter().filter(|one| !others.iter().any(|other| one.same_customer(other))).collect()
    }

    /// Whether every two lists were shown by one answer.
    fn is_union(&self) -> bool {
        let lists = self.shown.len();
        (0..lists).all(|one| (one + 1..lists).all(|other| self.pairs.contains(&(one, other))))
    }

    fn weigh(&mut self, parts: &[Part], came: &[Carried]) {
        let mut shown_here: Vec<usize> = Vec::new();
        for part in parts {
            let Part::Given(key) = part else { continue };
            let own = self.own(*key, parts);
            if !own.is_empty() {
                let shown = own.iter().any(|one| came.iter().any(|record| record.same_customer(one)));
                let kind = self.probe.keys[*key].kind.index();
                // Once missed, it stays so: a union never misses.
                self.shown[kind] = Some(shown && self.shown[kind] != Some(false));
                if shown {
                    self.pairs.extend(shown_here.iter().map(|other| (kind.min(*other), kind.max(*other))));
                    shown_here.push(kind);
                }
            }
        }
    }
}
