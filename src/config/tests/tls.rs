//! TLS for callers: which files it takes, and what is said when they are wrong.

use super::*;
use crate::server::authority::Authority;

/// A section with what the authority has signed; with callers' certificates, signed by the same, or without.
pub(super) fn tls(authority: &Authority, is_mutual: bool) -> String {
    let [cert, key] = authority.sign();
    let client_ca = if is_mutual { format!("client_ca = {:?}\n", authority.ca()) } else { String::new() };
    format!("[server.tls]\ncert = {cert:?}\nkey = {key:?}\n{client_ca}")
}

#[test]
fn a_certificate_and_its_key_turn_it_on_and_authorities_ask_callers_for_theirs() {
    let authority = Authority::new("a");
    assert_eq!(accepted("", &[]).server.tls, None);
    let files = accepted(&tls(&authority, false), &[]).server.tls.expect("TLS").files;
    assert_eq!((files.cert.file_name(), files.client_ca), (Some("cert.pem".as_ref()), None));
    let files = accepted(&tls(&authority, true), &[]).server.tls.expect("TLS").files;
    assert_eq!(files.client_ca, Some(authority.ca()));
}

#[test]
fn one_without_the_other_and_files_that_are_none_are_problems_with_their_keys() {
    let authority = Authority::new("a");
    for (given, missing) in [("cert", &["key"][..]), ("key", &["cert"]), ("client_ca", &["cert", "key"])] {
        let text = format!("[server.tls]\n{given} = {:?}", authority.ca());
        let expected: Vec<_> = missing.iter().map(|key| format!("server.tls.{key}: is required for TLS")).collect();
        assert_eq!(refused(&text, &[]), expected);
    }
    let text = tls(&authority, true);
    std::fs::write(authority.path().join("key.pem"), "hunter2").expect("room for a file");
    assert_eq!(refused(&text, &[]), ["server.tls.key: cannot be used: there is no private key in it"]);
    drop(authority);
    let gone = ["cert", "key", "client_ca"].map(|key| format!("server.tls.{key}: cannot be used: entity not found"));
    assert_eq!(refused(&text, &[]), gone);
}

#[test]
fn who_needs_a_certificate_may_use_the_gateways_own_credential_from_elsewhere() {
    let managed = "[upstream.credentials]\nmode = \"managed\"\ninstance_appid = \"a\"\ninstance_secret = \"s\"\n";
    let everywhere = [("GATEWAY_SERVER__LISTEN", "0.0.0.0:8080")];
    let authority = Authority::new("a");
    accepted(&format!("{managed}{}", tls(&authority, true)), &everywhere);
    let open = refused(&format!("{managed}{}", tls(&authority, false)), &everywhere);
    assert!(matches!(&open[..], [one] if one.contains("server.tls.client_ca")), "{open:?}");
}
