//! What another gateway has erased from a store that both use is forgotten here, too.

use super::{Admin, forget::Named};
use crate::{
    cache::Whose,
    clock::now,
    key::{Credential, Id},
    key_log::Cause,
    store::Memory,
};

impl Memory for Admin {
    fn credentials(&self, lookup: u8) -> Vec<Credential> {
        self.cache.credentials(lookup)
    }

    fn forget(&self, lookup: u8, whose: Option<&Credential>, ids: &[Id], is_purge: bool) {
        let mut named: Named = vec![Vec::new(); self.paths.len()];
        let Some(own) = named.get_mut(usize::from(lookup)) else { return };
        own.extend_from_slice(ids);
        match whose {
            Some(credential) => {
                let path = &self.paths[usize::from(lookup)];
                let forgotten = self.cache.forget((lookup, &path.shape), Whose::Credentials(credential), ids, now());
                self.key_log.forgotten(&path.shape, Cause::Elsewhere, ids.iter().chain(forgotten.ids()));
            }
            // What this memory knows of a customer leads to paths of which the other one did not know.
            None => self.forget_held(named, is_purge, now()),
        }
    }

    fn forget_all(&self) -> bool {
        let forgotten = self.cache.forget_all(now());
        for path in &self.paths {
            path.dispatch.erase(|_key| true);
        }
        forgotten.keys > 0
    }

    fn learn_envelope(&self, lookup: u8, envelope: bytes::Bytes) {
        self.cache.suggest_envelope(lookup, envelope);
    }
}
