//! Passing through, beside lookups: the calls that are none come back as the upstream gives them, and no lookup gets
//! past the queue that way.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::{App, Reply, Setup, request};

/// The values of a header that arrived upstream, as `/echo` says them.
fn arrived(said: &Value, name: &str) -> Vec<String> {
    let lines = said["headers"].as_array().expect("a list of headers").iter();
    lines.filter(|line| line[0] == name).map(|line| line[1].as_str().expect("text").to_owned()).collect()
}

/// A request through the gateway, and the same one to the upstream.
async fn both(app: &App, (method, path, body): (&Method, &str, &str)) -> (Reply, Reply) {
    let headers = [("x-token", "alice"), ("content-type", "application/json")];
    let through = app.send(method.clone(), path, body, &headers).await;
    // Longer than any interval of the upstream's: the second one is not refused.
    sleep(Duration::from_secs(3)).await;
    let path = if path.starts_with("/api/open/") { path.to_owned() } else { format!("/api/open{path}") };
    (through, app.ask_upstream(request(method.clone(), &path, body, &headers)).await)
}

#[tokio::test(start_paused = true)]
async fn the_calls_beside_the_lookup_come_back_as_the_upstream_gives_them() {
    let app = Setup::new().start();
    let customer = app.simulator.customer(13);
    let by_phone = format!(r#"{{"phone":"{}"}}"#, customer.phones[0]);
    let tags = format!(r#"{{"audienceUserIdList":[{}]}}"#, customer.id);
    let add = r#"{"publicParams":{},"data":[{"thirdId":"new","name":"新客"}]}"#;
    let calls = [
        (Method::GET, "/api/audience/user/id/list?audienceUserId=0&size=3", ""),
        (Method::GET, "/api/open/api/audience/user/id/list?audienceUserId=9007199254741100&size=2", ""),
        (Method::GET, "/api/audience/getTagList", ""),
        (Method::POST, "/api/audience/getInfoByPhoneAndOpenid", &*by_phone),
        (Method::POST, "/api/audience/user/tag/batchlist", &*tags),
        (Method::POST, "/api/integrate/audience/info/batchAdd", add),
        (Method::GET, "/app/getOrgAccessToken?instanceAppid=app", ""),
        (Method::GET, "/api/audience/noSuchCall", ""),
        (Method::DELETE, "/api/audience/getTagList", ""),
    ];
    for (method, path, body) in &calls {
        let (through, direct) = both(&app, (method, path, body)).await;
        assert_eq!(through.status, direct.status, "{path}");
        assert_eq!(through.body, direct.body, "{path}");
        assert_eq!(through.header("content-type"), direct.header("content-type"), "{path}");
        assert!(!through.body.is_empty());
    }
    assert!(app.upstream_lookups().is_empty());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_fetched_through_the_gateway_is_good_for_lookups_through_it() {
    let app =
        Setup::new().upstream(|upstream| (upstream.require_token, upstream.accept_any_token) = (true, false)).start();
    let path = "/app/getOrgAccessToken?instanceAppid=app&instanceSecrect=demo-secret";
    let answer = app.send(Method::GET, path, "", &[]).await.json();
    let token = answer["data"]["orgAccessToken"].as_str().expect("a token");
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    assert_eq!(app.lookup_with(&body, &[("x-token", token)]).await.records().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_arrives_as_it_was_sent_but_for_what_concerns_the_connection() {
    let app = Setup::new().start();
    let headers = [
        ("x-token", "alice"),
        ("content-type", "text/plain; charset=gbk"),
        ("accept-language", "zh-CN"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "Basic eA=="),
    ];
    for path in ["/echo/A%20b/?q=%20%2F&q=2&", "/api/open/echo/A%20b/?q=%20%2F&q=2&"] {
        let reply = app.send(Method::PUT, path, "hello", &headers).await;
        let said = reply.json();
        assert_eq!((&said["method"], &said["body"]), (&Value::from("PUT"), &Value::from("hello")));
        assert_eq!(said["path"], "/api/open/echo/A%20b/");
        assert_eq!(said["query"], "q=%20%2F&q=2&");
        assert_eq!(arrived(&said, "host"), ["upstream"]);
        assert_eq!(arrived(&said, "x-token"), ["alice"]);
        assert_eq!(arrived(&said, "content-type"), ["text/plain; charset=gbk"]);
        assert_eq!(arrived(&said, "accept-language"), ["zh-CN"]);
        assert_eq!(arrived(&said, "x-forwarded-host"), ["gateway"]);
        for gone in ["connection", "x-private", "keep-alive", "upgrade", "proxy-authorization"] {
            assert_eq!(arrived(&said, gone), [""; 0], "{gone}");
        }
        let cookies: Vec<_> = reply.headers.get_all("set-cookie").iter().collect();
        assert_eq!((reply.header("x-echo"), cookies.len()), ("yes", 2));
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_is_passed_through_and_answered_without_a_body() {
    let app = Setup::new().start();
    let reply = app.send(Method::HEAD, "/bytes?n=5000", "", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-length"), reply.body.len()), (200, "5000", 0));
    assert_eq!(app.simulator.arrivals()[0].method, Method::HEAD);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_flows_through_whole() {
    let app = Setup::new().config("upstream.max_response = \"1KiB\"").start();
    let reply = app.send(Method::GET, "/bytes?n=3000000", "", &[]).await;
    assert_eq!(reply.body.len(), 3_000_000, "the limit is for lookups");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn where_nothing_may_pass_only_lookups_are_answered() {
    let app = Setup::new().config("passthrough.enabled = false").start();
    for (method, path) in [
        (Method::GET, "/echo"),
        (Method::GET, "/"),
        (Method::GET, "/api/open/api/audience/getTagList"),
        (Method::POST, "/api/audience/details"),
        (Method::OPTIONS, "/api/audience"),
    ] {
        let reply = app.send(method, path, "", &[]).await;
        assert_eq!((reply.status.as_u16(), &*reply.error_code()), (404, "NOT_FOUND"), "{path}");
    }
    assert!(app.simulator.arrivals().is_empty());
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    assert_eq!(app.lookup(&body).await.records().len(), 1);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn only_what_is_below_an_allowed_prefix_passes() {
    let app = Setup::new().config("passthrough.allow = [\"/api/audience/user\", \"/app\"]").start();
    for (path, status) in [
        ("/api/audience/user/id/list?size=1", 200),
        ("/api/open/API/audience/user/id/list?size=1", 200),
        ("/app/getOrgAccessToken", 200),
        ("/api/audience/users", 404),
        ("/api/audience/user/../getTagList", 404),
        ("/api/audience/getTagList", 404),
        ("/echo", 404),
    ] {
        assert_eq!(app.send(Method::GET, path, "", &[]).await.status, status, "{path}");
    }
    assert_eq!(app.simulator.arrivals().len(), 3);
    app.finish().await;
}

/// Spellings that a lenient server may take for the path: every way in, with every way to write the last two segments.
fn spellings() -> BTreeSet<String> {
    let ways_in = [
        "",
        "/api/open",
        "/API/Open",
        "/%61pi/op%65n",
        "/api//open;x",
        "/x/../api/open",
        "/./",
        "//",
        "/api/open/api/open/..",
        "/api/open/../open",
        "/api/open/../..",
        "http://upstream",
        "http://upstream/api/open",
    ];
    let written = [
        "/api/audience/detail",
        "/API/AUDIENCE/DETAIL",
        "/%61%70%69/%61udience/%64%65tail",
        "/api/audience/%44etail",
        "/api;a=1/audience;b/detail;c=2",
        "/api//audience///detail",
        "/api/./audience/%2e/detail",
        "/api/x/../audience/y/%2E%2E/detail",
        "/api/audience%2fdetail",
        "/api/audience%5cdetail",
        "/api/audience/%2564etail",
        "/api/audience/detail%3bx",
        "/api/audience/detail%20",
        "/api/audience/detail%00",
        "/api/audience/detail.json",
        "/api/audience/deta\u{131}l",
    ];
    let ends = ["", "/", "//", "/.", "/%2e", "?", "?x=/api/audience", "/;", "#"];
    let mut all = BTreeSet::new();
    for way_in in ways_in {
        for path in written {
            all.extend(ends.map(|end| format!("{way_in}{path}{end}")));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn no_spelling_with_any_method_gets_a_lookup_past_the_queue() {
    let app = Setup::new().config("[[lookup]]\n[[lookup]]\npath = \"/api/audience/user/tag/batchlist\"").start();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(2).id);
    let mut sent = 0;
    for path in spellings() {
        for path in [path.clone(), path.replace("/detail", "/user/tag/batchlist")] {
            for method in ["POST", "GET", "PUT", "HEAD", "post"] {
                let text = format!(
                    "{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nx-http-method-override: POST\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let reply = app.raw(&text).await;
                assert!(reply.status != 500 && reply.status != 502, "{method} {path}: {}", reply.status);
                sent += 1;
            }
        }
    }
    assert!(sent > 10_000, "{sent}");
    let lookups: Vec<_> = app.simulator.arrivals().into_iter().filter(|arrival| arrival.call.is_lookup()).collect();
    for arrival in &lookups {
        assert!(arrival.path.ends_with(arrival.call.as_str()), "a spelling of a caller's arrived: {}", arrival.path);
        assert_eq!(arrival.method, Method::POST);
    }
    assert_eq!(lookups.len(), 2, "one for each path: all others were hits or no lookups");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_tag_lookup_passes_through_until_it_is_configured() {
    let path = "/api/audience/user/tag/batchlist";
    let app = Setup::new().start();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(3).id);
    for _ in 0..2 {
        let reply = app.send(Method::POST, path, &body, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.header("cache-status")), (200, ""));
    }
    assert_eq!(app.simulator.arrivals().len(), 2);
    app.finish().await;

    let app = Setup::new().config(&format!("[[lookup]]\npath = \"{path}\"")).start();
    for how in ["fwd=miss", "hit"] {
        let reply = app.send(Method::POST, path, &body, &[]).await;
        assert!(reply.header("cache-status").starts_with(&format!("audience-gateway; {how};")), "{:?}", reply.headers);
        let id = app.simulator.customer(3).id.to_string();
        assert_eq!(reply.records(), app.simulator.expected_tags("", "", &id));
    }
    assert_eq!(app.simulator.arrivals().len(), 1);
    app.finish().await;
}
