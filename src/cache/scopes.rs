//! The scopes that anything cached or under way belongs to: each once, so that all of a customer's keys can be found.
//!
//! A request enters its scope when it starts; a scope to which nothing belongs any more is let go when the number of
//! scopes has doubled.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::key::{Credential, Scope};

/// Scopes that are never worth a search for those without content.
const FEW: usize = 64;

/// Whose answers are meant.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// Those of every scope.
    Everybodys,
    /// Those that were asked for with this credential, whatever else was said.
    Credentials(&'a Credential),
}

/// Every scope that is in use.
pub(super) struct Scopes(Mutex<Known>);

struct Known {
    scopes: HashSet<Arc<Scope>>,
    /// How many there may be before those without content are looked for.
    sweep_at: usize,
}

impl Scopes {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Known { scopes: HashSet::new(), sweep_at: FEW }))
    }

    /// The one instance of a scope that everything in it refers to.
    pub(super) fn enter(&self, scope: &Arc<Scope>) -> Arc<Scope> {
        let mut known = self.lock();
        if let Some(scope) = known.scopes.get(scope) {
            return Arc::clone(scope);
        }
        if known.scopes.len() >= known.sweep_at {
            known.scopes.retain(|scope| Arc::strong_count(scope) > 1);
            known.sweep_at = (known.scopes.len() * 2).max(FEW);
        }
        known.scopes.insert(Arc::clone(scope));
        Arc::clone(scope)
    }

    /// The scopes of a lookup path that are meant.
    pub(super) fn of(&self, lookup: u8, whose: Whose<'_>) -> Vec<Arc<Scope>> {
        let meant = |scope: &&Arc<Scope>| {
            scope.lookup == lookup
                && match whose {
                    Whose::Everybodys => true,
                    Whose::Credentials(credential) => scope.credential == *credential,
                }
        };
        self.lock().scopes.iter().filter(meant).cloned().collect()
    }

    /// The credentials of a lookup path's scopes, each once.
    pub(super) fn credentials(&self, lookup: u8) -> Vec<Credential> {
        let known = self.lock();
        let scopes = known.scopes.iter().filter(|scope| scope.lookup == lookup);
        let credentials: HashSet<&Credential> = scopes.map(|scope| &scope.credential).collect();
        credentials.into_iter().cloned().collect()
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_known_while_something_refers_to_it() {
        let scopes = Scopes::new();
        let scope = |number: usize| Arc::new(Scope::new(0, vec![], number.to_string(), ""));
        let kept = scopes.enter(&scope(0));
        assert!(Arc::ptr_eq(&kept, &scopes.enter(&scope(0))), "equal scopes are one");
        for number in 1..10 * FEW {
            let _gone = scopes.enter(&scope(number));
        }
        let known = scopes.of(0, Whose::Everybodys);
        assert!(known.contains(&kept) && known.len() <= 2 * FEW, "{}", known.len());
        assert!(scopes.of(1, Whose::Everybodys).is_empty());
    }
}
