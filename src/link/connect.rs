//! How the connection comes about: TCP, TLS where it is asked for, and the first words.

use std::{future::Future, pin::Pin, sync::Arc};

use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult, aio::MultiplexedConnection,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{CALL, Config, Lost};

/// Moves what is written and read, until the connection ends.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes connections to one server.
pub struct Connector {
    config: Config,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// Reads the certificate authorities, if they are needed. `section` is where all of it is configured.
    ///
    /// # Errors
    /// A sentence when they cannot be read, or the host's name is none that a certificate can carry.
    pub fn new(config: Config, section: &str) -> Result<Self, String> {
        let tls = if config.tls { Some(tls(&config, section)?) } else { None };
        Ok(Self { config, tls })
    }

    /// Connects and signs in. What is published comes to `push`.
    pub(super) async fn connect(
        &self,
        push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<(MultiplexedConnection, Driver), Lost> {
        let Config { host, port, database, username, password, .. } = &self.config;
        let unreached = |error: std::io::Error| Lost(format!("it cannot be reached: {}", error.kind()));
        let stream = TcpStream::connect((&**host, *port)).await.map_err(unreached)?;
        // Otherwise a call waits for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(unreached)?;
        let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db((*database).into());
        if let Some(username) = username {
            info = info.set_username(username);
        }
        if let Some(password) = password {
            info = info.set_password(password.reveal());
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(CALL)).set_push_sender(push);
        match &self.tls {
            None => boxed(MultiplexedConnection::new_with_config(&info, stream, config).await),
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await.map_err(|error| untrusted(&error))?;
                boxed(MultiplexedConnection::new_with_config(&info, stream, config).await)
            }
        }
    }
}

/// Why there is no TLS: in the words of the library, which quote nothing but names in certificates.
fn untrusted(error: &std::io::Error) -> Lost {
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    Lost(
        reason.map_or_else(
            || format!("there is no TLS: {}", error.kind()),
            |reason| format!("there is no TLS: {reason}"),
        ),
    )
}

fn boxed(
    connected: RedisResult<(MultiplexedConnection, impl Future<Output = ()> + Send + 'static)>,
) -> Result<(MultiplexedConnection, Driver), Lost> {
    let (connection, driver) = connected.map_err(|error| super::lost(&error))?;
    Ok((connection, Box::pin(driver)))
}

fn tls(config: &Config, section: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        let unreadable = |error| format!("{section}.ca_file: {error}");
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|error| format!("{section}.ca_file: {error}"))?;
        }
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(format!("no certificate authority is known: install ca-certificates or set {section}.ca_file"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let client = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(config.host.to_string())
        .map_err(|_no_name| format!("{section}.url: the host's name is none that a certificate can carry"))?;
    Ok((TlsConnector::from(Arc::new(client)), name))
}
