//! Whose credential goes upstream: callers' own tokens that passed through, and the gateway's own, renewed in time.

use std::time::Duration;

use audience_gateway::simulator::{Call, Outcome};
use http::Method;
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{App, Reply, Setup, all};

/// What the platform gave the application.
const TOKEN_SECRET: &str = "hunter2";

const SECOND: Duration = Duration::from_secs(1);

/// A gateway with a token of its own, before an upstream that wants one.
fn managed(token_ttl: Duration) -> Setup {
    let credentials = format!(
        "upstream.credentials = {{ mode = \"managed\", instance_appid = \"app\", instance_secret = {TOKEN_SECRET:?} }}"
    );
    Setup::new().config(&credentials).upstream(|upstream| {
        (upstream.require_token, upstream.accept_any_token, upstream.token_ttl) = (true, false, token_ttl);
        upstream.instance_secret = Some(TOKEN_SECRET.to_owned());
    })
}

/// How many tokens the upstream was asked for.
fn token_calls(app: &App) -> usize {
    app.simulator.arrivals().iter().filter(|arrival| arrival.call == Call::Token).count()
}

/// Has the upstream refuse the token that it was asked with last.
fn revoke(app: &App) {
    let token = app.simulator.arrivals().iter().rev().find_map(|arrival| arrival.token.clone());
    app.simulator.expire_token(&token.expect("it was asked with a token"));
}

fn refused(app: &App) -> usize {
    app.upstream_lookups().iter().filter(|arrival| arrival.outcome == Outcome::Unauthorized).count()
}

fn id(number: u64, app: &App) -> String {
    format!(r#"{{"audienceUserIdList":[{}]}}"#, app.simulator.customer(number).id)
}

/// Has a token handed out through the gateway.
async fn issue(app: &App, application: &str) -> String {
    let path = format!("/app/getOrgAccessToken?instanceAppid={application}&instanceSecrect={TOKEN_SECRET}");
    let reply = app.send(Method::GET, &path, "", &[]).await;
    reply.json()["data"]["orgAccessToken"].as_str().expect("a token").to_owned()
}

async fn look_as(app: &App, token: &str) -> Reply {
    app.lookup_with(&id(1, app), &[("x-token", token)]).await
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").starts_with("audience-gateway; hit")
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_managed_gateway_need_no_token_and_there_is_one_for_all() {
    let app = managed(Duration::from_secs(7200)).start();
    let replies = all((1..30).map(|number| {
        let (caller, body) = (app.caller(), id(number, &app));
        // Whatever a caller sends is not the gateway's affair, and goes nowhere.
        async move { caller.lookup_with(body, &[("x-token", "my own")]).await }
    }))
    .await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.records().len() == 1));
    assert_eq!(token_calls(&app), 1);
    assert!(
        app.upstream_lookups().iter().all(|arrival| arrival.token.as_deref().is_some_and(|t| t.starts_with("issued")))
    );
    assert!(is_hit(&app.lookup(&id(1, &app)).await), "everybody has the same cache");
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn with_short_tokens_and_steady_load_no_caller_sees_an_error() {
    let app = managed(3 * SECOND).start();
    let start = Instant::now();
    for number in 0..30 {
        sleep_until(start + SECOND * number).await;
        let reply = app.lookup(&id(u64::from(number), &app)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert!(refused(&app) <= 1, "{} requests with an expired token", refused(&app));
    assert!((10..=15).contains(&token_calls(&app)), "{}", token_calls(&app));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_costs_one_renewal_and_no_caller_an_error() {
    let app = managed(Duration::from_secs(7200)).start();
    assert_eq!(app.lookup(&id(0, &app)).await.status, 200);
    let token = app.upstream_lookups()[0].token.clone().expect("a token");
    app.simulator.expire_token(&token);
    let replies = all((1..200).map(|number| {
        let (caller, body) = (app.caller(), id(number, &app));
        async move { caller.lookup(body).await }
    }))
    .await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.records().len() == 1));
    assert_eq!((token_calls(&app), refused(&app)), (2, 1));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_before_any_lookup_was_answered_with_it_is_renewed_too() {
    let app = managed(Duration::from_secs(7200)).config("passthrough.inject_token = [\"/echo\"]").start();
    app.send(Method::GET, "/echo", "", &[]).await;
    assert_eq!(token_calls(&app), 1);
    revoke(&app);
    let replies = all((0..40).map(|number| {
        let (caller, body) = (app.caller(), id(number, &app));
        async move { caller.lookup(body).await }
    }))
    .await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.records().len() == 1));
    assert_eq!((token_calls(&app), refused(&app)), (2, 1));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_no_token_has_its_say_and_is_not_asked_for_ever() {
    // What it issues has expired before it can be used.
    let app = managed(Duration::from_millis(1)).upstream(|upstream| upstream.token_expire_zero = true).start();
    for number in 0..20 {
        let reply = app.lookup(&id(number, &app)).await;
        assert!(reply.text().contains("100200"), "{}", reply.text());
        sleep(SECOND).await;
    }
    assert!(token_calls(&app) <= 21 && refused(&app) <= 22, "{}, {}", token_calls(&app), refused(&app));
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_to_what_passes_through_is_renewed_once_for_whoever_comes_next() {
    let app = managed(Duration::from_secs(7200)).config("passthrough.inject_token = [\"/api/audience\"]").start();
    let tags = async || app.send(Method::GET, "/api/audience/getTagList", "", &[]).await;
    assert!(!tags().await.json()["data"].is_null());
    revoke(&app);
    sleep(3 * SECOND).await;
    assert!(tags().await.text().contains("100200"), "it is not repeated");
    sleep(3 * SECOND).await;
    assert!(!tags().await.json()["data"].is_null());
    assert_eq!(token_calls(&app), 2);
    // What is refused for another reason costs no token each time.
    revoke(&app);
    for _ in 0..5 {
        sleep(3 * SECOND).await;
        assert!(tags().await.text().contains("100200"));
    }
    assert_eq!(token_calls(&app), 2);
    sleep(30 * SECOND).await;
    tags().await;
    sleep(3 * SECOND).await;
    assert!(!tags().await.json()["data"].is_null());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_wrong_fails_lookups_and_is_not_tried_over_and_over() {
    let app = managed(SECOND).upstream(|upstream| upstream.instance_secret = Some("another".to_owned())).start();
    let start = Instant::now();
    for number in 0..60 {
        sleep_until(start + SECOND * number).await;
        let reply = app.lookup(&id(u64::from(number), &app)).await;
        assert_eq!((reply.status.as_u16(), &*reply.error_code()), (502, "UPSTREAM_UNAVAILABLE"));
        assert!(!reply.header("retry-after").is_empty());
    }
    assert!((2..=12).contains(&token_calls(&app)), "{}", token_calls(&app));
    assert!(app.upstream_lookups().is_empty());
    app.simulator.reconfigure(|upstream| upstream.instance_secret = Some(TOKEN_SECRET.to_owned()));
    sleep(40 * SECOND).await;
    let again = app.lookup(&id(99, &app)).await;
    sleep(2 * SECOND).await;
    let later = app.lookup(&id(99, &app)).await;
    assert!(again.status == 200 || later.status == 200, "{}", later.text());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_passes_through_gets_the_token_only_where_that_is_configured() {
    let app =
        managed(Duration::from_secs(7200)).config("passthrough.inject_token = [\"/api/audience/getTagList\"]").start();
    let tags = app.send(Method::GET, "/api/audience/getTagList", "", &[("x-token", "mine")]).await;
    assert!(tags.status == 200 && !tags.json()["data"].is_null(), "{}", tags.text());
    sleep(3 * SECOND).await;
    let ids = app.send(Method::GET, "/api/audience/user/id/list?audienceUserId=0&size=1", "", &[]).await;
    assert!(ids.text().contains("100200"), "{}", ids.text());
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_application_that_renews_its_token_finds_its_cache_again() {
    let app = Setup::new()
        .upstream(|upstream| {
            (upstream.require_token, upstream.accept_any_token) = (true, false);
            upstream.instance_secret = Some(TOKEN_SECRET.to_owned());
        })
        .start();
    let first = issue(&app, "one").await;
    assert_eq!(look_as(&app, &first).await.status, 200);
    let second = issue(&app, "one").await;
    assert_ne!(first, second);
    assert!(is_hit(&look_as(&app, &second).await) && is_hit(&look_as(&app, &first).await));
    let other = issue(&app, "two").await;
    assert!(!is_hit(&look_as(&app, &other).await), "another application is somebody else");
    for stranger in ["one", "issued-1", ""] {
        let reply = look_as(&app, stranger).await;
        assert!(!is_hit(&reply) && reply.text().contains("100200"), "{stranger}: {}", reply.text());
    }
    app.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_reads_nobodys_cache() {
    let app = Setup::new()
        .upstream(|upstream| {
            (upstream.require_token, upstream.accept_any_token, upstream.token_ttl) = (true, false, 60 * SECOND);
            upstream.instance_secret = Some(TOKEN_SECRET.to_owned());
        })
        .start();
    let first = issue(&app, "one").await;
    assert_eq!(look_as(&app, &first).await.status, 200);
    sleep(61 * SECOND).await;
    let second = issue(&app, "one").await;
    assert!(is_hit(&look_as(&app, &second).await));
    let late = look_as(&app, &first).await;
    assert!(!is_hit(&late) && late.text().contains("100200"), "{}", late.text());
    app.finish().await;
}
