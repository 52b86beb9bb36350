//! How a connection to the upstream comes about: TCP and TLS, or a pipe in a test.
//!
//! The client does not know which: it is given a [`Dial`].

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};
use tower::{BoxError, Service};

use super::Config;

/// A connection, whatever it runs over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that is being made, and whether HTTP/2 was agreed on for it.
pub type Dialing = Pin<Box<dyn Future<Output = Result<(Box<dyn Io>, bool), BoxError>> + Send>>;

/// Makes connections to the upstream.
pub trait Dial: Send + Sync + 'static {
    /// Starts to make a connection to the URI's authority.
    fn dial(&self, to: Uri) -> Dialing;
}

/// TCP, and TLS where the scheme asks for it.
pub struct Network(HttpsConnector<HttpConnector>);

impl Network {
    /// Reads the certificate authorities and sets the connector up.
    ///
    /// # Errors
    /// A sentence when the authorities cannot be read or there are none.
    pub fn new(config: &Config) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let tls = tls(config)?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        // Offered in TLS only (ALPN): over a plain connection it is HTTP/1.1.
        Ok(Self(builder.enable_all_versions().wrap_connector(tcp)))
    }
}

impl Dial for Network {
    fn dial(&self, to: Uri) -> Dialing {
        let connecting = self.0.clone().call(to);
        Box::pin(async move {
            let io = connecting.await?;
            let is_http_2 = io.connected().is_negotiated_h2();
            Ok((Box::new(TokioIo::new(io)) as Box<dyn Io>, is_http_2))
        })
    }
}

fn tls(config: &Config) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    if config.danger_accept_invalid_certs {
        let verifier = Arc::new(AcceptAny(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        let unreadable = |error| format!("upstream.ca_file: {error}");
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|error| format!("upstream.ca_file: {error}"))?;
        }
        if roots.is_empty() {
            return Err("upstream.ca_file: there is no certificate in it".to_owned());
        }
    }
    if config.base_url.scheme_str() == Some("https") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("no certificate authority is known: install ca-certificates or set upstream.ca_file".to_owned());
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes any certificate: `upstream.danger_accept_invalid_certs`, for a laboratory only.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What hyper's client takes for a connector: a [`Dial`] with a limit on its time.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) connect_timeout: Duration,
    /// How long the upstream may take no byte of what is written to it.
    pub(super) write_timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dialing = tokio::time::timeout(self.connect_timeout, self.dial.dial(to));
        let write_timeout = self.write_timeout;
        Box::pin(async move {
            let late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
            let (io, is_http_2) = dialing.await.map_err(late)??;
            Ok(Stream { io: TokioIo::new(io), is_http_2, write_timeout, stalled: None })
        })
    }
}

/// A connection as hyper's client wants it. A write that the upstream does not take in time is an error: hyper flushes
/// before it closes, and would otherwise hold the connection for ever.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    is_http_2: bool,
    write_timeout: Duration,
    /// Runs while a write is waiting.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the upstream does not read")))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        if self.is_http_2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.in_time(cx, shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.in_time(cx, written)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_the_upstream_does_not_take_in_time_is_an_error() {
        let (near, mut far) = tokio::io::duplex(8);
        let limit = Duration::from_secs(10);
        let mut stream =
            Stream { io: TokioIo::new(Box::new(near)), is_http_2: false, write_timeout: limit, stalled: None };
        let mut write =
            async || std::future::poll_fn(|cx| hyper::rt::Write::poll_write(Pin::new(&mut stream), cx, &[0; 8])).await;
        assert_eq!(write().await.expect("it fits"), 8);
        let began = crate::clock::now();
        assert_eq!(write().await.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(crate::clock::now() - began, limit);
        far.read_exact(&mut [0; 8]).await.expect("what was written is there");
    }
}
