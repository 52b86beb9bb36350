//! Where a row stands: tables, and names within them.
//!
//! A name is the hash of kind and value, then that of the credential, then that of the other body fields. So all rows of an id
//! stand together whoever asked, and among them those of one credential: what has to be forgotten is found without a list of
//! who ever asked.

use super::{rows, seal::Seal};
use crate::key::{Credential, CredentialHeaders, Id, Scope};

/// The tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Table {
    /// What each key was answered.
    Answers,
    /// Each identified customer, once.
    Customers,
    /// Who carries an id that others may carry too.
    Links,
    /// What is known of the file itself.
    About,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [Self::Answers, Self::Customers, Self::Links, Self::About];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Customers => "customers",
            Self::Links => "links",
            Self::About => "about",
        }
    }
}

/// Bytes of the hash of a credential, and of that of the other fields.
const HALF: usize = 8;

/// A credential's part of a name.
pub(super) type CredentialName = [u8; HALF];

/// A scope's part of a name.
pub(super) type ScopeName = [u8; 2 * HALF];

/// The hash of a kind and a value: half a key's name.
pub(super) type IdName = [u8; 16];

/// The name of a key.
pub(super) type Name = [u8; 32];

/// A scope as rows know it.
pub(super) struct Named {
    pub(super) name: ScopeName,
    /// What stands in a row of the scope, in which a credential is a hash as long as no two have the same: no token gets
    /// onto a disk.
    whole: Vec<u8>,
}

impl Named {
    pub(super) fn new(seal: &Seal, scope: &Scope) -> Self {
        let credential = credential(seal, &scope.credential);
        let fields = seal.name(b'f', &[scope.fields.as_bytes()]);
        let mut name = [0; 2 * HALF];
        name[..HALF].copy_from_slice(&credential[..HALF]);
        name[HALF..].copy_from_slice(&fields[..HALF]);
        let mut whole = vec![scope.lookup];
        whole.extend_from_slice(&credential);
        rows::bytes(&mut whole, scope.fields.as_bytes());
        Self { name, whole }
    }

    /// A row of one of its keys, up to where its content begins.
    pub(super) fn row(&self, id: &Id) -> Vec<u8> {
        let mut row = self.whole.clone();
        rows::write_id(&mut row, id);
        row
    }

    /// What follows the key in a row of one of its keys.
    pub(super) fn content<'a>(&self, row: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = rows::Input(row.strip_prefix(&*self.whole)?);
        rest.id()?;
        Some(rest.0)
    }
}

/// What follows the key in a row of any scope.
pub(super) fn content(row: &[u8]) -> Option<&[u8]> {
    // The lookup path and the credential's hash stand in front.
    let mut rest = rows::Input(row.get(1 + 32..)?);
    rest.bytes()?;
    rest.id()?;
    Some(rest.0)
}

/// The credential's part of all names of its scopes.
pub(super) fn credential_name(seal: &Seal, who: &Credential) -> CredentialName {
    let whole = credential(seal, who);
    let (half, _) = whole.split_first_chunk().expect("this holds because a hash is longer");
    *half
}

/// The hash of an id on a lookup path.
pub(super) fn id_name(seal: &Seal, lookup: u8, id: &Id) -> IdName {
    let mut text = vec![lookup];
    rows::write_id(&mut text, id);
    let whole = seal.name(b'i', &[&text]);
    let (name, _) = whole.split_first_chunk().expect("this holds because a hash is longer");
    *name
}

/// A key's whole name.
pub(super) fn name(id: &IdName, scope: &ScopeName) -> Name {
    let mut name = [0; 32];
    name[..16].copy_from_slice(id);
    name[16..].copy_from_slice(scope);
    name
}

/// What names a link: the id with its scope, then the customer.
pub(super) fn link(id: &Name, customer: &IdName) -> Vec<u8> {
    [&id[..], &customer[..]].concat()
}

fn credential(seal: &Seal, credential: &Credential) -> [u8; 32] {
    let mut text = Vec::new();
    let write = |text: &mut Vec<u8>, headers: &CredentialHeaders| {
        for (name, value) in headers {
            rows::bytes(text, name.as_str().as_bytes());
            rows::bytes(text, value.as_bytes());
        }
    };
    match credential {
        Credential::Headers(headers) => {
            text.push(0);
            write(&mut text, headers);
        }
        Credential::Application(application, headers) => {
            text.push(1);
            rows::bytes(&mut text, application.as_bytes());
            write(&mut text, headers);
        }
        Credential::Gateway => text.push(2),
    }
    seal.name(b'c', &[&text])
}
