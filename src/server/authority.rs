//! A certificate authority for tests: what it signs is written into a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// The authority and where its files are.
pub(crate) struct Authority {
    desk: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one of that name.
    pub(crate) fn new(name: &str) -> Self {
        let desk = tempfile::tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.self_signed(&key).expect("it signs itself");
        fs::write(desk.path().join("ca.pem"), cert.pem()).expect("room for a file");
        Self { desk, issuer: Issuer::new(params, key) }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.desk.path()
    }

    /// Its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// Signs a certificate for `localhost` and 127.0.0.1, good for either side of a connection, and writes it and its key
    /// into `cert.pem` and `key.pem`, over those that are there.
    pub(crate) fn sign(&self) -> [PathBuf; 2] {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("good names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).expect("the authority signs");
        let paths = ["cert.pem", "key.pem"].map(|name| self.path().join(name));
        fs::write(&paths[0], cert.pem()).expect("room for a file");
        fs::write(&paths[1], key.serialize_pem()).expect("room for a file");
        paths
    }
}
