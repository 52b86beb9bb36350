//! The program over TLS and HTTP/2, as its callers use it, and its certificates and tokens read again.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use audience_gateway::server::{self, Received, Server, tls::Files};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use tokio::{net::TcpListener, task::JoinSet};
use tower::service_fn;

use crate::{
    authority::Authority,
    harness::DETAIL,
    program::{Desk, Program, by_id, customer, get, lookup, send, serve, simulate, until},
};

/// Callers that trust this authority, with a connection for each request, in the highest version that both sides speak.
async fn ask(to: SocketAddr, trusted: &Path, versions: &[Version], body: &str) -> Result<(Version, String), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let connector = match versions {
        [Version::HTTP_11] => builder.enable_http1().build(),
        _ => builder.enable_all_versions().build(),
    };
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let url = format!("https://localhost:{}{DETAIL}", to.port());
    let request = Request::post(url).body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let version = response.version();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((version, String::from_utf8(body.to_vec()).unwrap()))
}

fn section(authority: &Authority) -> String {
    let [cert, key] = authority.sign();
    format!("server.tls = {{ cert = {cert:?}, key = {key:?} }}")
}

async fn logged(program: &Program, what: &str, times: usize) {
    until(what, async || (program.stderr().matches(what).count() >= times).then_some(())).await;
}

#[tokio::test]
async fn a_lookup_over_tls_is_answered_in_either_version_and_its_scheme_goes_upstream() {
    let (desk, authority) = (Desk::new(), Authority::new("a"));
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (_gateway, callers, operators) = serve(&desk, &desk.config(upstream, &section(&authority))).await;
    for (versions, spoken) in
        [(&[Version::HTTP_11][..], Version::HTTP_11), (&[Version::HTTP_11, Version::HTTP_2], Version::HTTP_2)]
    {
        let (version, body) = ask(callers, &authority.ca(), versions, &by_id(2)).await.unwrap();
        assert_eq!(version, spoken);
        assert!(body.contains(&customer(2).id.to_string()), "{body}");
    }
    assert_eq!(get(operators, "/readyz").await.status, 200, "operators speak plain HTTP");
    let plain = send(callers, http::Method::GET, "/echo", "", &[]).await;
    assert_eq!((plain.status.as_u16(), plain.error_code()), (400, "INVALID_REQUEST".to_owned()));
}

#[tokio::test]
async fn certificates_and_tokens_are_read_again_on_sighup_and_what_is_wrong_changes_nothing() {
    let (desk, before, after) = (Desk::new(), Authority::new("before"), Authority::new("after"));
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    // `printf %s red-canary | sha256sum`, and the same of blue-canary.
    let tokens = desk.write("tokens", "a:a6693b9dcf0bc84ac553d2f0a9f5c501788c3a1cc08b036ce6e15f0e2dc86711\n");
    let config = format!("{}\nclients.tokens_file = {tokens:?}", section(&before));
    let (gateway, callers, _) = serve(&desk, &desk.config(upstream, &config)).await;
    let answer = ask(callers, &before.ca(), &[Version::HTTP_2], &by_id(2)).await.unwrap().1;
    assert!(answer.contains("UNAUTHENTICATED"), "{answer}");

    // Half of it is new, and does not fit the other half: nothing changes.
    let [cert, key] = after.sign();
    std::fs::copy(&cert, before.path().join("cert.pem")).unwrap();
    desk.write("tokens", "hunter2\n");
    gateway.signal("HUP");
    logged(&gateway, "not read again", 2).await;
    ask(callers, &before.ca(), &[Version::HTTP_2], &by_id(2)).await.unwrap();

    std::fs::copy(&key, before.path().join("key.pem")).unwrap();
    desk.write("tokens", "a:544f6db81a3e7c9bbf51e1b7c76a3082c9a1ec428f339a0d0935fbd19a24eb46\n");
    gateway.signal("HUP");
    logged(&gateway, "\"read again\"", 2).await;
    let answer = ask(callers, &after.ca(), &[Version::HTTP_2], &by_id(2)).await.unwrap().1;
    assert!(answer.contains("UNAUTHENTICATED"), "{answer}");
    assert!(ask(callers, &before.ca(), &[Version::HTTP_2], &by_id(2)).await.is_err());
    assert!(!gateway.stderr().contains("hunter2"));
}

#[tokio::test]
async fn a_gateway_that_has_nothing_to_read_again_goes_on_after_a_sighup() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (mut gateway, callers, _) = serve(&desk, &desk.config(upstream, "")).await;
    gateway.signal("HUP");
    logged(&gateway, "nothing has changed", 1).await;
    assert_eq!(get(callers, "/echo").await.status, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
}

/// An upstream that speaks TLS only, has customer 7, and notes in which version it was asked for what.
async fn serve_upstream(authority: &Authority) -> (SocketAddr, Arc<Mutex<Vec<(Version, String)>>>, JoinSet<()>) {
    let [cert, key] = authority.sign();
    let tls = Files { cert, key, client_ca: None }.read().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Received>| {
        noted.lock().unwrap().push((request.version(), request.uri().path().to_owned()));
        async {
            let record = r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":[{"audienceUserId":7}]}"#;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(record)))
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let minute = Duration::from_secs(60);
    let config = server::Config { max_connections: 100, header_timeout: minute, idle_timeout: minute, min_rate: 0 };
    let mut running = JoinSet::new();
    running.spawn(Server::new(config).with_tls(Some(tls)).serve(listener, service, std::future::pending()));
    (address, asked, running)
}

#[tokio::test]
async fn an_upstream_with_tls_is_asked_in_the_version_that_it_prefers_and_must_be_who_it_says() {
    let (desk, authority) = (Desk::new(), Authority::new("a"));
    let (upstream, asked, _running) = serve_upstream(&authority).await;
    let config = format!(
        "upstream = {{ base_url = \"https://localhost:{}/open\", ca_file = {:?} }}\n\
         server = {{ listen = \"127.0.0.1:0\", admin_listen = \"127.0.0.1:0\" }}\n",
        upstream.port(),
        authority.ca()
    );
    let (_gateway, callers, _) = serve(&desk, &desk.write("gateway.toml", &config)).await;
    let reply = lookup(callers, r#"{"audienceUserIdList":[7]}"#).await;
    assert_eq!(reply.records(), [r#"{"audienceUserId":7}"#], "{}", reply.text());
    assert_eq!(send(callers, http::Method::PUT, "/echo", "body", &[]).await.status, 200);
    let expected = [(Version::HTTP_2, format!("/open{DETAIL}")), (Version::HTTP_2, "/open/echo".to_owned())];
    assert_eq!(*asked.lock().unwrap(), expected);

    // Nobody is believed to be the upstream whom its authority has not signed.
    let stranger = Authority::new("b");
    let config = config.replace(&format!("{:?}", authority.ca()), &format!("{:?}", stranger.ca()));
    let (_gateway, callers, _) = serve(&desk, &desk.write("stranger.toml", &config)).await;
    let reply = send(callers, http::Method::PUT, "/echo", "body", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.error_code()), (502, "UPSTREAM_UNAVAILABLE".to_owned()));
    assert_eq!(asked.lock().unwrap().len(), expected.len());
}
