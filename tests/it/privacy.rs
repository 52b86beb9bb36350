//! Nothing of a customer, a credential or a token reaches what the program writes.

use audience_gateway::simulator::Customer;
use http::Method;

use crate::{
    harness::DETAIL,
    program::{Desk, customer, send, send_rubbish, serve, simulate},
};

#[tokio::test]
async fn at_the_finest_level_no_key_record_or_token_reaches_the_log() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--bad-key", "bad-key-7"]).await;
    let (mut gateway, callers, operators) =
        serve(&desk, &desk.config(upstream, "log.level = \"trace\"\nserver.max_body = \"2KiB\"")).await;
    let Customer { id, third_id, phones, .. } = customer(2);
    let (id, third_id, phone) = (id.to_string(), third_id.unwrap(), &*phones[0]);
    let headers =
        [("x-token", "token-of-alice"), ("authorization", "Bearer token-of-bob"), ("cookie", "c=token-of-eve")];
    let whole = format!(
        r#"{{"audienceUserIdList":[{id}],"thirdIdList":["{third_id}"],"phoneList":["{phone}"],"companyId":"company-31"}}"#
    );
    let reply = send(callers, Method::POST, DETAIL, &whole, &headers).await;
    let record = reply.records().concat();
    let too_large = format!("{whole}{}", " ".repeat(2048));
    let mistyped = format!(r#"{{"phoneList":[{phone}]}}"#);
    for body in [&*whole, &mistyped, &whole[1..], &too_large, r#"{"thirdIdList":["bad-key-7"]}"#] {
        send(callers, Method::POST, DETAIL, body, &headers).await;
        let path = format!("/api/audience/detail;{phone}?phone={phone}&token=token-of-alice");
        send(callers, Method::POST, &path, body, &headers).await;
        send(callers, Method::PUT, &format!("/echo/{phone}?id={id}&third={third_id}"), body, &headers).await;
        send(callers, Method::PUT, &format!("/..%2f{phone}?id={id}"), body, &headers).await;
    }
    for text in [
        format!("POST {DETAIL} HTTP/1.1\r\nhost: x\r\nx-token token-of-alice {phone}\r\n\r\n"),
        format!("{phone} {phone} {phone}\r\n\r\n"),
        format!("POST {DETAIL}?{phone} HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n{{\"phoneList\":[\"{phone}"),
        format!("POST {DETAIL} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{phone}zz\r\n"),
    ] {
        send_rubbish(callers, &text).await;
        send_rubbish(operators, &text).await;
    }
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let log = gateway.stderr();
    assert!(log.lines().filter(|line| line.contains("\"upstream request\"")).count() >= 2, "{log}");
    assert!(
        log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "each line is JSON: {log}"
    );
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    let name = record["realName"].as_str().expect("customer 2 has a name");
    for secret in [&*id, &third_id, phone, name, "token-of-", "company-31", "bad-key-7"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
    assert_eq!(gateway.stdout(), "");
}

#[tokio::test]
async fn at_the_finest_level_no_clients_token_or_its_hash_reaches_the_log() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    // `printf %s red-canary | sha256sum`
    let hash = "a6693b9dcf0bc84ac553d2f0a9f5c501788c3a1cc08b036ce6e15f0e2dc86711";
    let tokens = desk.write("tokens", &format!("crm:{hash}\n"));
    let config = format!("log.level = \"trace\"\nclients.tokens_file = {tokens:?}\nclients.requests_per_second = 1");
    let (mut gateway, callers, _operators) = serve(&desk, &desk.config(upstream, &config)).await;
    for token in ["red-canary", "red-canary", "green-canary"] {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        send(callers, Method::POST, DETAIL, r#"{"audienceUserIdList":[1]}"#, &headers).await;
        send(callers, Method::GET, "/echo", "", &headers).await;
    }
    send_rubbish(callers, "GET /echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer red-canary\r\nx y: z\r\n\r\n").await;
    gateway.signal("TERM");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let log = gateway.stderr();
    assert!(log.contains("\"upstream request\""), "the finest level is on: {log}");
    for secret in ["canary", &hash[..16]] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
