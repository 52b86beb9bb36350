//! TLS: which protocol it carries, who is let in, and certificates that are replaced.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::server::{
    authority::Authority,
    tls::{File, Files, Tls},
};

/// A server with the authority's certificate.
fn serve(tls: &Tls) -> Fixture {
    let (connector, listener) = duplex::pair();
    let server = config(1000);
    let (stats, stop, running) = run(Server::new(server).with_tls(Some(tls.clone())), listener);
    Fixture { connector, stats, stop: Some(stop), running }
}

fn files(authority: &Authority) -> Files {
    let [cert, key] = authority.sign();
    Files { cert, key, client_ca: None }
}

/// A caller that trusts the authority, offers these protocols, and shows that authority's certificate.
fn connector(trusted: &Authority, protocols: &[&str], own: Option<&Authority>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted.ca()).expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let [cert, key] = own.sign();
            let cert = CertificateDer::from_pem_file(cert).expect("PEM");
            builder.with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_file(key).expect("PEM")).expect("a pair")
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(fixture: &Fixture, with: &TlsConnector) -> std::io::Result<Client<TlsStream<DuplexStream>>> {
    let io = fixture.connector.connect(64 << 10).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    Ok(Client::new(with.connect(name, io).await?))
}

#[tokio::test(start_paused = true)]
async fn the_protocol_is_the_one_that_was_agreed_on() {
    let authority = Authority::new("a");
    let fixture = serve(&files(&authority).read().expect("good files"));
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let mut client = connect(&fixture, &connector(&authority, offered, None)).await.expect("a handshake");
        assert_eq!(client.io.get_ref().1.alpn_protocol(), agreed);
        if agreed == Some(b"h2") {
            client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            let mut frame = [0; 9];
            client.io.read_exact(&mut frame).await.expect("a frame");
            assert_eq!(frame[3], 4, "the server's settings");
        } else {
            client.ask("/peer").await;
            assert!(client.answer().await.ends_with("Peer { address: None, is_secure: true }"));
        }
    }
    let strange = connect(&fixture, &connector(&authority, &["spdy/3"], None)).await;
    assert!(strange.is_err(), "nothing in common");
}

#[tokio::test(start_paused = true)]
async fn who_speaks_no_tls_is_told_so_and_who_says_nothing_is_closed_in_time() {
    let fixture = serve(&files(&Authority::new("a")).read().expect("good files"));
    let mut plain = fixture.connect().await;
    plain.ask("/").await;
    let answer = plain.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https"), "{answer}");
    assert_eq!(fixture.connect().await.rest().await, "");
    // The beginning of a handshake, and no more.
    let mut half = fixture.connect().await;
    half.io.write_all(&[22, 3, 1]).await.expect("open");
    half.io.read_to_end(&mut Vec::new()).await.expect("the connection ends");
    assert_eq!(half.age(), HEADER_TIMEOUT);
    let mut rubbish = fixture.connect().await;
    rubbish.io.write_all(&[22, 3, 1, 0, 5, 9, 9, 9, 9, 9]).await.expect("open");
    rubbish.io.read_to_end(&mut Vec::new()).await.expect("the connection ends");
    assert_eq!(rubbish.age(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn with_authorities_of_callers_a_connection_needs_a_certificate_of_theirs() {
    let (authority, ours, theirs) = (Authority::new("a"), Authority::new("ours"), Authority::new("theirs"));
    let fixture = serve(&Files { client_ca: Some(ours.ca()), ..files(&authority) }.read().expect("good files"));
    let mut known = connect(&fixture, &connector(&authority, &[], Some(&ours))).await.expect("a handshake");
    known.ask("/").await;
    assert!(known.answer().await.ends_with("hello"));
    for own in [None, Some(&theirs)] {
        // In TLS 1.3 the client learns of it with what it reads first.
        if let Ok(mut stranger) = connect(&fixture, &connector(&authority, &[], own)).await {
            let _maybe = stranger.io.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
            let mut answer = Vec::new();
            stranger.io.read_to_end(&mut answer).await.expect_err("an alert");
            assert!(answer.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_that_are_replaced_are_for_new_connections() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let tls = files(&before).read().expect("good files");
    let fixture = serve(&tls);
    let mut open = connect(&fixture, &connector(&before, &[], None)).await.expect("a handshake");
    tls.replace(&files(&after).read().expect("good files"));
    assert!(connect(&fixture, &connector(&before, &[], None)).await.is_err());
    connect(&fixture, &connector(&after, &[], None)).await.expect("a handshake");
    open.ask("/").await;
    assert!(open.answer().await.ends_with("hello"));
}

#[test]
fn what_is_wrong_with_a_file_is_said_without_a_byte_of_it() {
    let authority = Authority::new("a");
    let good = files(&authority);
    let write = |name: &str, text: &str| {
        let path = authority.path().join(name);
        std::fs::write(&path, text).expect("room for a file");
        path
    };
    let empty = write("empty", "");
    let text = write("text", "hunter2");
    let broken = write("broken", "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n");
    let rubbish = write("rubbish", "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n");
    let other = Authority::new("b");
    let [_, other_key] = other.sign();
    let missing = authority.path().join("missing");
    let with = |cert, key, client_ca| Files { cert, key, client_ca };
    let cases = [
        (with(missing.clone(), missing.clone(), Some(missing)), &[File::Cert, File::Key, File::ClientCa][..]),
        (with(empty.clone(), empty.clone(), Some(empty)), &[File::Cert, File::Key, File::ClientCa]),
        (with(text.clone(), text.clone(), Some(text)), &[File::Cert, File::Key, File::ClientCa]),
        (with(broken.clone(), good.key.clone(), Some(broken)), &[File::Cert, File::ClientCa]),
        (with(rubbish.clone(), good.key.clone(), None), &[File::Cert]),
        (with(good.cert.clone(), good.key.clone(), Some(rubbish)), &[File::ClientCa]),
        (with(good.cert.clone(), good.cert.clone(), None), &[File::Key]),
        (with(good.cert, other_key, None), &[File::Key]),
    ];
    for (files, wrong) in cases {
        let flaws = files.read().expect_err("something is wrong");
        assert_eq!(flaws.iter().map(|flaw| flaw.file).collect::<Vec<_>>(), wrong, "{flaws:?}");
        assert!(flaws.iter().all(|flaw| !flaw.sentence.contains("hunter2")), "{flaws:?}");
    }
}
