//! How what must not be seen is named where gateways meet: by a hash that every gateway computes alike.
//!
//! SHA-256 over the parts, each with its length in front, so that no two lists of parts are hashed alike. A credential has
//! too many bits to be guessed; what is hashed with one cannot be guessed either. Only a client that has no token is named
//! by its address alone, in half a hash that is of no use but to be compared.

use sha2::{Digest as _, Sha256};

use crate::{
    key::{Credential, Scope},
    shape::Shape,
};

/// Names a domain: everybody who must share a slot, and nobody else. `upstream` says which one it is, and as whom it is
/// asked where the gateway has a credential of its own.
#[must_use]
pub fn domain_name(upstream: &str, shape: &Shape, credential: &Credential) -> String {
    let mut hash = Hash::new("domain");
    hash.part(upstream.as_bytes());
    hash.part(shape.path.as_bytes());
    for list in &shape.lists {
        hash.part(list.name.as_bytes());
        hash.part(list.value_type.as_str().as_bytes());
    }
    hash.credential(credential);
    hash.name(16)
}

/// Names a scope of a domain.
#[must_use]
pub fn scope_name(scope: &Scope) -> String {
    let mut hash = Hash::new("scope");
    hash.credential(&scope.credential);
    hash.part(scope.fields.as_bytes());
    hash.name(16)
}

/// Names a client, who is the same at every gateway.
#[must_use]
pub fn client_name(client: &[u8]) -> String {
    let mut hash = Hash::new("client");
    hash.part(client);
    hash.name(8)
}

struct Hash(Sha256);

impl Hash {
    fn new(of: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.part(of.as_bytes());
        hash
    }

    fn part(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    fn credential(&mut self, credential: &Credential) {
        let headers = match credential {
            Credential::Headers(headers) => {
                self.part(b"headers");
                headers
            }
            Credential::Application(id, headers) => {
                self.part(b"application");
                self.part(id.as_bytes());
                headers
            }
            Credential::Gateway => return self.part(b"gateway"),
        };
        for (name, value) in headers {
            self.part(name.as_str().as_bytes());
            self.part(value.as_bytes());
        }
    }

    fn name(self, bytes: usize) -> String {
        let whole: [u8; 32] = self.0.finalize().into();
        whole.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn scope(token: &'static str, fields: &str) -> Scope {
        let headers = vec![(HeaderName::from_static("x-token"), HeaderValue::from_static(token))];
        Scope::new(0, headers, fields, "")
    }

    #[test]
    fn what_differs_in_any_part_has_another_name() {
        let names = [scope("a", "{}"), scope("b", "{}"), scope("a", "{1}")].map(|scope| scope_name(&scope));
        assert_eq!(std::collections::HashSet::from(names.clone()).len(), 3);
        assert_eq!(names[0], scope_name(&scope("a", "{}")));
        let (detail, tags) = (Shape::audience_detail(), Shape::built_in(crate::shape::TAG_BATCHLIST));
        let detail = domain_name("", &detail, &Credential::Gateway);
        assert_ne!(Some(detail), tags.map(|(tags, _)| domain_name("", &tags, &Credential::Gateway)));
    }

    #[test]
    fn a_name_tells_nothing_of_what_it_names() {
        assert!(!scope_name(&scope("hunter2", "{}")).contains("hunter2"));
    }
}
