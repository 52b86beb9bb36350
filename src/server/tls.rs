//! TLS for callers: certificates from files, and the configuration that new connections take.
//!
//! - **Replaced while running.** [`Tls::replace`] is for connections accepted from then on; those that are open keep what
//!   they have agreed on.
//! - TLS 1.2 and 1.3 with rustls' own choice of ciphers; no early data, which could be replayed (RFC 8446, section 8).
//! - ALPN (RFC 7301) offers HTTP/2 and HTTP/1.1; a client that names no protocol gets HTTP/1.1.
//! - With `client_ca` a connection needs a certificate that one of these authorities signed: mutual TLS.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio_rustls::TlsAcceptor;

/// The name of HTTP/2 in ALPN.
pub(super) const HTTP_2: &[u8] = b"h2";

/// The name of HTTP/1.1 in ALPN.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Where the certificates are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// PEM: the server's certificate, and those between it and an authority that callers trust.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// PEM: the authorities that sign callers' certificates. Without it callers need none.
    pub client_ca: Option<PathBuf>,
}

/// Which of the files something is wrong with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum File {
    /// The certificate.
    Cert,
    /// The private key.
    Key,
    /// The authorities.
    ClientCa,
}

/// What is wrong with a file. Its sentence quotes nothing of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// The file.
    pub file: File,
    /// What is wrong with it.
    pub sentence: String,
}

/// What new connections take; its clones share it.
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

/// TLS for the callers of one listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the certificates are, to be read again.
    pub files: Files,
    /// What was read of them at the start.
    pub tls: Tls,
}

impl File {
    /// Its key below `server.tls`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Key => "key",
            Self::ClientCa => "client_ca",
        }
    }

    fn flaw(self, sentence: impl Into<String>) -> Flaw {
        Flaw { file: self, sentence: sentence.into() }
    }
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with each of them.
    pub fn read(&self) -> Result<Tls, Vec<Flaw>> {
        let cert = certificates(&self.cert, File::Cert);
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| File::Key.flaw(format!("cannot be used: {}", sentence(&error, "private key"))));
        let client_ca = self.client_ca.as_deref().map(|path| certificates(path, File::ClientCa)).transpose();
        match (cert, key, client_ca) {
            (Ok(cert), Ok(key), Ok(client_ca)) => Tls::new(cert, key, client_ca).map_err(|flaw| vec![flaw]),
            (cert, key, client_ca) => Err([cert.err(), key.err(), client_ca.err()].into_iter().flatten().collect()),
        }
    }
}

impl Tls {
    fn new(
        cert: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        client_ca: Option<Vec<CertificateDer<'static>>>,
    ) -> Result<Self, Flaw> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| File::Cert.flaw(format!("cannot be used: {error}")))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let unusable = |error: VerifierBuilderError| File::ClientCa.flaw(format!("cannot be used: {error}"));
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority).map_err(|error| File::ClientCa.flaw(format!("cannot be used: {error}")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let mut config = builder.with_single_cert(cert, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => File::Key.flaw("is not the key of the certificate"),
            rustls::Error::InvalidCertificate(_) => File::Cert.flaw(format!("cannot be used: {error}")),
            _ => File::Key.flaw(format!("cannot be used: {error}")),
        })?;
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(config))) })
    }

    /// Takes the other's certificates for connections that come from now on.
    pub fn replace(&self, other: &Self) {
        let config = other.config();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// For one connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config())
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Eq for Config {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn certificates(path: &Path, file: File) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let unusable = |error: pem::Error| file.flaw(format!("cannot be used: {}", sentence(&error, "certificate")));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unusable)?.collect();
    match certificates.map_err(unusable)? {
        none if none.is_empty() => Err(file.flaw("cannot be used: there is no certificate in it")),
        certificates => Ok(certificates),
    }
}

/// What is wrong with a file that should hold one of `what`, without a byte of it: the library's own words may quote a line.
fn sentence(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => error.kind().to_string(),
        pem::Error::NoItemsFound => format!("there is no {what} in it"),
        _ => "it is not PEM".to_owned(),
    }
}
