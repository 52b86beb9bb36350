//! A Redis that speaks TLS only, and knows one user who may do only what gateways need.

use std::{path::Path, time::Duration};

use http::StatusCode;
use tokio::time::sleep;

use crate::{
    authority::Authority,
    program::{Program, lookup, serve_as, until},
    town::{KEPT, Load, Redis, Town, question},
};

pub const PASSWORD: &str = "red-canary";

/// What the README says that the user must be allowed.
const ALLOWED: &str = "~audience-gateway:* &audience-gateway:* -@all +evalsha +script|load +subscribe +publish +info +time \
                       +hget +hmget +hgetall +hset +hdel +pexpire +get +set +exists";

/// Whoever may not do one of these things is of no use.
const NEEDED: [&str; 2] = ["-hgetall", "-evalsha"];

/// Starts it, with such a user.
pub async fn redis(authority: &Authority, user: &str) -> Redis {
    let [cert, key] = authority.sign().map(|path| path.to_str().unwrap().to_owned());
    let (ca, password) = (authority.ca().to_str().unwrap().to_owned(), format!(">{PASSWORD}"));
    let tls = ["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no", "--tls-cert-file", &cert];
    let files = ["--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let users = ["--user", "default", "off", "--user", "gateway", "on", &password];
    Redis::start_in(
        Path::new("/tmp"),
        &[&tls[..], &files, &users, &user.split_whitespace().collect::<Vec<_>>()].concat(),
    )
    .await
}

/// What a gateway says of such a Redis.
pub fn section(redis: &Redis, authority: &Authority, password: &str) -> String {
    format!(
        "url = \"rediss://localhost:{}\"\nusername = \"gateway\"\npassword = \"{password}\"\nca_file = {:?}\n",
        redis.port,
        authority.ca()
    )
}

/// A gateway that finds no Redis that it could use: it says why, misses are told, and no secret is in its log.
async fn is_turned_away(town: &Town, name: &str, why: &str) {
    let (program, callers, _) = serve_as(&town.desk, name, &town.config(), &[]).await;
    until(why, async || warned(&program, why).then_some(())).await;
    let told = lookup(callers, &question(1).0).await;
    assert_eq!((told.status, &*told.error_code()), (StatusCode::SERVICE_UNAVAILABLE, "REPLICAS_UNAVAILABLE"));
    sleep(Duration::from_millis(300)).await;
    let log = program.stderr();
    assert!(!log.contains(PASSWORD) && !log.contains("blue-canary"), "{log}");
    assert_eq!(log.matches("not connected to redis").count(), 1, "it is said once: {log}");
    assert!(!log.contains("\"connected to redis\""), "{log}");
}

fn warned(program: &Program, why: &str) -> bool {
    let log = program.stderr();
    let mut lines = log.lines().filter(|line| line.contains("\"WARN\"") && line.contains("not connected to redis"));
    lines.any(|line| line.contains(why))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_meet_over_tls_as_a_user_who_may_do_nothing_else() {
    let authority = Authority::new("a");
    let redis = redis(&authority, ALLOWED).await;
    let section = section(&redis, &authority, PASSWORD);
    let mut town = Town::around(redis, section).await;
    for _ in 0..2 {
        let gateway = town.gateway().await;
        town.gateways.push(gateway);
    }
    let load = Load::start(&town.callers(), 2, 10);
    sleep(KEPT * 5).await;
    // It comes back with nothing that it knew.
    town.redis.restart().await;
    let before = town.check_arrivals();
    until("it goes on", async || (town.check_arrivals() > before + 3).then_some(())).await;
    let (answered, refused) = load.finish().await;
    assert!(answered > 0 && refused == 0, "{answered} answered, {refused} refused");
    let (body, ids) = question(1);
    for gateway in town.callers() {
        assert!(lookup(gateway, &body).await.text().contains(&*ids[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_use_redis_says_why() {
    let (authority, stranger) = (Authority::new("a"), Authority::new("b"));
    let guarded = redis(&authority, ALLOWED).await;
    let right = section(&guarded, &authority, PASSWORD);
    let mut town = Town::around(guarded, section_of_another(&right)).await;
    is_turned_away(&town, "wrong-password", "does not accept the user name or the password").await;
    town.replicas = right.replace("username = \"gateway\"\n", "").replace("password = \"red-canary\"\n", "");
    is_turned_away(&town, "no-password", "wants a user name and a password").await;
    town.replicas = right.replace(authority.ca().to_str().unwrap(), stranger.ca().to_str().unwrap());
    is_turned_away(&town, "stranger", "invalid peer certificate").await;
    town.replicas = right.clone() + "prefix = \"other\"\n";
    is_turned_away(&town, "other-prefix", "the user may not do what is needed").await;
    for (number, missing) in NEEDED.iter().enumerate() {
        let less = redis(&authority, &format!("{ALLOWED} {missing}")).await;
        town.replicas = section(&less, &authority, PASSWORD);
        is_turned_away(&town, &format!("less-{number}"), "the user may not do what is needed").await;
    }
    assert_eq!(town.simulator.lookups().len(), 0);
}

fn section_of_another(right: &str) -> String {
    right.replace(PASSWORD, "blue-canary")
}
