//! Large answers, compressed for callers who accept that. What comes back is read by decoders that share nothing with the
//! gateway's encoders but the format.

use std::io::Read;

use http::{Method, StatusCode};

use crate::harness::{App, DETAIL, Reply, Setup};

/// A lookup of the customers with these numbers.
fn body(app: &App, customers: std::ops::Range<u64>) -> String {
    let ids: Vec<_> = customers.map(|index| app.simulator.customer(index).id.to_string()).collect();
    format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","))
}

/// The body as it was before it was compressed, and by what.
fn decoded(reply: &Reply) -> (String, Vec<u8>) {
    let coding = reply.header("content-encoding").to_owned();
    let mut plain = Vec::new();
    let read = match &*coding {
        "" => return (coding, reply.body.to_vec()),
        "zstd" => zstd::Decoder::new(&*reply.body).unwrap().read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(&*reply.body, 4096).read_to_end(&mut plain),
        "gzip" => flate2::read::GzDecoder::new(&*reply.body).read_to_end(&mut plain),
        other => panic!("{other} is not a coding that was asked for"),
    };
    read.unwrap();
    (coding, plain)
}

/// The coding of the answer, whose content must be `plain`.
async fn coding(app: &App, body: &str, accept: &str, plain: &Reply) -> String {
    let reply = app.lookup_with(body, &[("accept-encoding", accept)]).await;
    assert_eq!(reply.status, StatusCode::OK, "{accept}");
    let (coding, content) = decoded(&reply);
    assert!(content == plain.body, "{accept}: another content");
    assert_eq!(reply.header("content-length"), reply.body.len().to_string(), "{accept}");
    assert_eq!(reply.header("content-type"), plain.header("content-type"), "{accept}");
    coding
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_compressed_as_its_caller_accepts_it() {
    let app = Setup::new().start();
    let body = body(&app, 0..50);
    app.lookup(&body).await;
    let plain = app.lookup(&body).await;
    let asked = [
        ("zstd", "zstd"),
        ("br", "br"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("*", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("zstd;q=0.5, br;q=0.9, gzip", "gzip"),
        ("zstd;q=0, br;q=0.1, gzip;q=0.05", "br"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("*;q=0, br", "br"),
        ("br;q=0, *", "zstd"),
        ("zstd;q=0, br;q=0.000, *;q=0.3", "gzip"),
        // Without a coding of ours, or with more of a liking for none, it comes as it is.
        ("", ""),
        ("identity", ""),
        ("deflate", ""),
        ("identity, gzip;q=0.5", ""),
        ("gzip;q=0", ""),
        ("gzip;q=2, zstd;q=x, ,;", ""),
        // Nothing is acceptable: an answer is better than none.
        ("identity;q=0", ""),
        ("*;q=0", ""),
    ];
    for (accept, expected) in asked {
        assert_eq!(coding(&app, &body, accept, &plain).await, expected, "{accept}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_has_the_plain_answer_with_its_length() {
    let app = Setup::new().start();
    let body = body(&app, 0..50);
    app.lookup(&body).await;
    let plain = app.lookup(&body).await;
    assert_eq!(plain.header("content-length"), plain.body.len().to_string());
    let names: Vec<_> = plain.headers.keys().map(http::HeaderName::as_str).filter(|name| *name != "date").collect();
    assert_eq!(names, ["content-type", "cache-status", "age", "content-length"]);
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_compressed_answer_says_all_that_a_plain_one_says() {
    let app = Setup::new().start();
    let body = body(&app, 0..50);
    let miss = app.lookup_with(&body, &[("accept-encoding", "gzip")]).await;
    assert!(miss.header("cache-status").contains("fwd=miss"), "{:?}", miss.headers);
    tokio::time::advance(std::time::Duration::from_secs(7)).await;
    let hit = app.lookup_with(&body, &[("accept-encoding", "gzip")]).await;
    assert!(hit.header("cache-status").starts_with("audience-gateway; hit; detail=\"keys=50 hit=50"));
    assert_eq!((hit.header("age"), hit.header("vary")), ("7", "accept-encoding"));
    assert_eq!(decoded(&hit), decoded(&miss));
    assert!(hit.body.len() * 3 < decoded(&hit).1.len(), "{} bytes", hit.body.len());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_small_answer_is_left_alone_unless_its_caller_refuses_it_so() {
    let app = Setup::new().start();
    let small = body(&app, 0..1);
    app.lookup(&small).await;
    let plain = app.lookup(&small).await;
    for (accept, expected) in [
        ("zstd, br, gzip", ""),
        ("gzip;q=0.5", ""),
        ("identity;q=0", ""),
        ("identity;q=0, gzip", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("identity;Q=0.0, zstd", "zstd"),
    ] {
        assert_eq!(coding(&app, &small, accept, &plain).await, expected, "{accept}");
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_smallest_answer_that_is_compressed_has_the_configured_size() {
    for (less, expected) in [(0, "zstd"), (1, "")] {
        let length = {
            let app = Setup::new().start();
            let length = app.lookup(&body(&app, 0..3)).await.body.len();
            app.finish().await;
            length
        };
        let app = Setup::new().config(&format!("server.compression_min_size = \"{}B\"", length + less)).start();
        let body = body(&app, 0..3);
        let plain = app.lookup(&body).await;
        assert_eq!(coding(&app, &body, "zstd", &plain).await, expected);
        app.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_configured_is_not_offered() {
    let app = Setup::new().config("server.compression = [\"gzip\"]").start();
    let all = body(&app, 0..50);
    app.lookup(&all).await;
    let plain = app.lookup(&all).await;
    assert_eq!(coding(&app, &all, "zstd, br, gzip;q=0.1", &plain).await, "gzip");
    assert_eq!(coding(&app, &all, "zstd, br", &plain).await, "");
    app.finish().await;

    let app = Setup::new().config("server.compression = []").start();
    app.lookup(&all).await;
    let plain = app.lookup(&all).await;
    assert_eq!(coding(&app, &all, "zstd, br, gzip", &plain).await, "");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn several_lines_of_accept_encoding_are_one_list() {
    let app = Setup::new().start();
    let body = body(&app, 0..50);
    let headers = [("accept-encoding", "zstd;q=0.1"), ("accept-encoding", "gzip")];
    assert_eq!(decoded(&app.lookup_with(&body, &headers).await).0, "gzip");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_wants_no_transformation_has_none() {
    let app = Setup::new().start();
    let body = body(&app, 0..50);
    let headers = [("accept-encoding", "gzip"), ("cache-control", "max-age=9, No-Transform")];
    assert_eq!(decoded(&app.lookup_with(&body, &headers).await).0, "");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_partial_answer_is_compressed_like_a_whole_one() {
    let app = Setup::new().start();
    let ready = body(&app, 0..50);
    app.lookup(&ready).await;
    let more = body(&app, 0..60);
    let headers = [("accept-encoding", "br"), ("prefer", "wait=0, partial-results")];
    let reply = app.lookup_with(&more, &headers).await;
    let (coding, content) = decoded(&reply);
    assert_eq!((&*coding, reply.header("preference-applied")), ("br", "partial-results"));
    let json: serde_json::Value = serde_json::from_slice(&content).unwrap();
    assert_eq!(json["data"].as_array().map(Vec::len), Some(50));
    assert_eq!(json["pending"]["audienceUserIdList"].as_array().map(Vec::len), Some(10));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_as_it_is() {
    let app = Setup::new().config("server.compression_min_size = \"0B\"").start();
    let headers = [("accept-encoding", "gzip"), ("content-type", "application/json")];
    let wrong = app.send(Method::POST, DETAIL, "{}", &headers).await;
    assert_eq!((wrong.status, wrong.header("content-encoding")), (StatusCode::BAD_REQUEST, ""));
    assert_eq!(wrong.error_code(), "INVALID_REQUEST");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_passes_through_is_not_touched() {
    let app = Setup::new().config("server.compression_min_size = \"0B\"").start();
    let plain = app.send(Method::GET, "/api/audience/getTagList", "", &[]).await;
    let asked = app.send(Method::GET, "/api/audience/getTagList", "", &[("accept-encoding", "gzip")]).await;
    assert_eq!(asked.header("content-encoding"), "");
    assert_eq!((asked.status, asked.headers.contains_key("vary")), (plain.status, plain.headers.contains_key("vary")));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_records_come_whole() {
    let app = Setup::new().start();
    let body = body(&app, 0..1000);
    let plain = app.lookup(&body).await;
    for accept in ["zstd", "br", "gzip"] {
        assert_eq!(coding(&app, &body, accept, &plain).await, accept);
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_compressed_answer_needs_no_room_besides_that_of_the_plain_one() {
    let length = {
        let app = Setup::new().start();
        let length = app.lookup(&body(&app, 0..100)).await.body.len();
        app.finish().await;
        length
    };
    let app = Setup::new().config(&format!("server.max_buffered = \"{}B\"", length + 100)).start();
    let body = body(&app, 0..100);
    let plain = app.lookup(&body).await;
    assert_eq!(coding(&app, &body, "gzip", &plain).await, "gzip");
    app.finish().await;
}

/// Looks customers up by the hundred, and gives the bytes of their records.
async fn fill(app: &App, customers: std::ops::Range<u64>) -> usize {
    let mut bytes = 0;
    for start in customers.clone().step_by(100) {
        let reply = app.lookup(&body(app, start..(start + 100).min(customers.end))).await;
        bytes += reply.records().iter().map(String::len).sum::<usize>();
    }
    bytes
}

/// Waits for the first dictionary, which a thread of its own trains: virtual time stands still while that works.
async fn learned(app: &App) {
    let trained = async {
        while app.metric("gateway_cache_dictionaries_trained_total").await < 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), trained).await.expect("there was enough to learn from");
}

#[tokio::test(start_paused = true)]
async fn a_cached_customer_with_all_its_keys_takes_a_third_of_its_record_or_less() {
    let config = "cache.compression = \"zstd\"\n[[lookup]]\ninterval = \"1ms\"";
    let app = Setup::new().config(config).upstream(|upstream| {
        upstream.customers = 4000;
        upstream.interval = std::time::Duration::ZERO;
    });
    let app = app.interval(std::time::Duration::from_millis(1)).start();
    fill(&app, 0..2100).await;
    learned(&app).await;
    let before = app.metric("gateway_cache_bytes").await;
    let payload = fill(&app, 2100..3100).await;
    let held = app.metric("gateway_cache_bytes").await - before;
    assert!(held <= 0.35 * payload as f64, "{held} bytes for {payload}");
    let [long, short] =
        ["before", "after"].map(|stage| format!("gateway_cache_compressed_bytes_total{{stage=\"{stage}\"}}"));
    assert!(app.metric(&short).await < app.metric(&long).await / 3.0);
    assert!(app.metric("gateway_cache_compressed_records_total").await >= 1000.0);

    // Each of its keys gives what the upstream says, byte for byte, packed or not.
    for customer in [5, 2500, 2501, 3099] {
        let expected = {
            let id = app.simulator.customer(customer).id;
            app.simulator.expected("", "", "audienceUserIdList", &id.to_string())
        };
        for way in &app.ways(customer)[..2.min(app.ways(customer).len())] {
            let reply = app.lookup(way).await;
            assert_eq!(reply.records(), expected);
        }
    }
    let many = body(&app, 2400..2500);
    let hit = app.lookup(&many).await;
    assert!(hit.header("cache-status").starts_with("audience-gateway; hit"), "{:?}", hit.headers);
    assert_eq!(coding(&app, &many, "gzip", &hit).await, "gzip");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_read_lately_is_held_compressed_where_room_is_short() {
    let held = async |compression: &str| {
        let config = format!(
            "cache = {{ capacity = \"6MiB\", compression = \"{compression}\" }}\n[[lookup]]\ninterval = \"1ms\""
        );
        let app = Setup::new().config(&config).upstream(|upstream| {
            upstream.customers = 8000;
            upstream.interval = std::time::Duration::ZERO;
        });
        let app = app.interval(std::time::Duration::from_millis(1)).start();
        fill(&app, 0..2100).await;
        if compression != "off" {
            learned(&app).await;
        }
        fill(&app, 2100..6000).await;
        let mut held = 0;
        for customer in (0..6000).step_by(10) {
            held += u32::from(app.is_cached(&body(&app, customer..customer + 1), &[]).await);
        }
        assert!(app.metric("gateway_cache_bytes").await <= f64::from(6 << 20));
        app.finish().await;
        held
    };
    let (plain, cold, all) = (held("off").await, held("zstd-cold").await, held("zstd").await);
    assert!(plain * 3 / 2 < cold && cold < all, "{plain}, {cold} and {all} of 600");
}
