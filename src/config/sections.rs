//! Every section but `[[lookup]]`: its keys, their defaults and their ranges.
//!
//! What is returned while there are problems is a stand-in and is thrown away.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use http::Uri;

use super::{
    Config, Lookup, Server, clients, credentials, invalidate, limits, log, lookups,
    reader::Section,
    replicas, store, tls, url,
    value::{Given, Read, address, choice, count, duration, flag, share, size, string},
    warmup,
};
use crate::{
    cache::{self, Compression, entry::Policy},
    dispatch::Share,
    lookup::compression::{self, Coding},
    passthrough, server,
    upstream::{self, Kind, credentials::Mode},
};

/// A day: nobody waits longer for anything, and adding it to a moment never overflows.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// A year: what is older is no answer any more, and adding several to a moment never overflows.
const LONGEST_KEPT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Far above what one machine can hold, far below what a semaphore or a sum can count.
const MOST: usize = 100_000_000;
/// 1 TiB: a larger body or cache is a slip of the finger.
const LARGEST: u64 = 1 << 40;

/// A wait that may be nothing.
pub(super) const WAIT: RangeInclusive<Duration> = Duration::ZERO..=LONGEST_WAIT;
/// A time limit: nothing can be done in no time.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST_WAIT;
/// A number of things of which there must be one.
pub(super) const AT_LEAST_ONE: RangeInclusive<usize> = 1..=MOST;

const KEPT: RangeInclusive<Duration> = Duration::ZERO..=LONGEST_KEPT;
const BODY: RangeInclusive<u64> = 1..=LARGEST;
const CAPACITY: RangeInclusive<u64> = 0..=LARGEST;

const MIB: usize = 1 << 20;
/// Bytes per second that a caller moves at least: Kestrel's number. The slowest of modems manages five times that.
const MIN_RATE: u64 = 240;

/// Bytes of the smallest answer that is compressed. Up to here it fits what a connection may send before it hears from its
/// peer (ten packets, RFC 6928), and the slowest coding takes as long as a wire of 1 Gbit/s would for what it saves.
const MIN_COMPRESSED: usize = 16 << 10;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The whole file.
pub(super) fn config(root: &mut Section<'_>) -> Config {
    let server = root.section("server", listeners);
    let upstream = root.section("upstream", upstream);
    let (allow_anonymous, clients) =
        root.section("clients", |section| clients::clients(section, &upstream.credentials));
    let has_mutual_tls = server.tls.as_ref().is_some_and(|tls| tls.files.client_ca.is_some());
    let is_meant = allow_anonymous
        || clients.is_some()
        || has_mutual_tls
        || !["clients.tokens_file", "server.tls.client_ca"].iter().all(|key| root.is_sound(key));
    clients::check_reach(root, server.listen, &upstream.credentials, is_meant);
    let mut lookups = lookups::lookups(root, &upstream);
    let (cache, idle_refresh) = root.section("cache", cache);
    if upstream.kind == Kind::Gateway && idle_refresh > Share::NONE {
        root.problem("cache.idle_refresh", "must be 0 in front of another gateway, which refreshes what it holds");
    }
    for lookup in &mut lookups {
        lookup.dispatch.idle_refresh = idle_refresh;
    }
    let passthrough = root.section("passthrough", |section| passthrough(section, &lookups, &upstream));
    let server = Server { allow_anonymous, ..server };
    let warmup = root.section("warmup", |section| warmup::warmup(section, &mut lookups, cache.capacity));
    let store = root.section("store", |section| store::store(section, &cache.policy));
    let replicas = root.section("replicas", replicas::replicas);
    if upstream.kind == Kind::Gateway && replicas.is_some() {
        root.problem("replicas.kind", "must be \"none\" in front of another gateway, which keeps the pace");
    }
    Config {
        server,
        clients,
        cache,
        passthrough,
        warmup,
        replicas,
        store,
        log: root.section("log", log::log),
        lookups,
        upstream,
    }
}

fn listeners(section: &mut Section<'_>) -> Server {
    let listen = section.take("listen", SocketAddr::from(([127, 0, 0, 1], 8080)), address);
    let admin_listen = section.take("admin_listen", SocketAddr::from(([127, 0, 0, 1], 9090)), address);
    let ips = [listen.ip(), admin_listen.ip()];
    let same_ip = ips[0] == ips[1] || ips.iter().any(|ip| ip.is_unspecified());
    // Port 0 asks for any free port, and twice for two of them.
    let clash = same_ip && listen.port() == admin_listen.port() && listen.port() != 0;
    if clash && section.is_sound("listen") && section.is_sound("admin_listen") {
        let other = section.name("listen");
        section.problem("admin_listen", format!("must not be the address of {other}"));
    }
    Server {
        allow_anonymous: false,
        listen,
        admin_listen,
        max_body: section.take("max_body", MIB, size(BODY)),
        max_buffered: section.take("max_buffered", 256 * MIB, size(BODY)),
        compression: compression::Config {
            codings: section.list("compression", &Coding::ALL.map(Coding::as_str), coding),
            min_size: section.take("compression_min_size", MIN_COMPRESSED, size(CAPACITY)),
        },
        shutdown_grace: section.take("shutdown_grace", seconds(25), duration(WAIT)),
        limits: server::Config {
            max_connections: section.take("max_connections", 10_000, count(AT_LEAST_ONE)),
            header_timeout: section.take("header_timeout", seconds(10), duration(TIMEOUT)),
            idle_timeout: section.take("idle_timeout", seconds(75), duration(TIMEOUT)),
            min_rate: section.take("min_rate", MIN_RATE, size(CAPACITY)),
        },
        tls: section.section("tls", tls::tls),
    }
}

fn upstream(section: &mut Section<'_>) -> upstream::Config {
    let kinds = [Kind::Platform, Kind::Gateway].map(|kind| (kind.as_str(), kind));
    let kind = section.take("kind", Kind::Platform, choice(&kinds));
    // Another gateway answers within its lookups' timeout, 30 s by default.
    let request_timeout = seconds(if kind == Kind::Gateway { 35 } else { 10 });
    upstream::Config {
        kind,
        base_url: section
            .required("base_url", string(url::base_url))
            .unwrap_or_else(|| Uri::from_static("http://localhost/")),
        connect_timeout: section.take("connect_timeout", seconds(3), duration(TIMEOUT)),
        request_timeout: section.take("request_timeout", request_timeout, duration(TIMEOUT)),
        max_response: section.take("max_response", 32 * MIB, size(BODY)),
        ca_file: section.optional("ca_file", string(|path| Ok(PathBuf::from(path)))),
        danger_accept_invalid_certs: section.take("danger_accept_invalid_certs", false, flag),
        credentials: section.section("credentials", credentials::credentials),
    }
}

fn coding(given: Given<'_>) -> Read<Coding> {
    choice(&Coding::ALL.map(|coding| (coding.as_str(), coding)))(given)
}

fn compression(given: Given<'_>) -> Read<Compression> {
    choice(&Compression::ALL.map(|compression| (compression.as_str(), compression)))(given)
}

/// The cache, and which part of idle slots may refresh what is in it.
fn cache(section: &mut Section<'_>) -> (cache::Config, Share) {
    let config = cache::Config {
        capacity: section.take("capacity", 512 << 20, size(CAPACITY)),
        policy: Policy {
            ttl: section.take("ttl", seconds(10 * 60), duration(KEPT)),
            negative_ttl: section.take("negative_ttl", seconds(60), duration(KEPT)),
            stale_while_revalidate: section.take("stale_while_revalidate", seconds(60 * 60), duration(KEPT)),
            stale_if_error: section.take("stale_if_error", seconds(24 * 60 * 60), duration(KEPT)),
        },
        compression: section.take("compression", Compression::Off, compression),
    };
    (config, section.take("idle_refresh", Share::NONE, share))
}

fn passthrough(section: &mut Section<'_>, lookups: &[Lookup], upstream: &upstream::Config) -> passthrough::Config {
    let inject_token = section.list("inject_token", &[], string(url::prefix));
    if !inject_token.is_empty() && matches!(upstream.credentials, Mode::Forward(_)) {
        section.problem("inject_token", r#"needs upstream.credentials.mode = "managed""#);
    }
    passthrough::Config {
        inject_token,
        enabled: section.take("enabled", true, flag),
        allow: section.list("allow", &["/"], string(url::prefix)),
        limits: limits::limits(section, lookups, upstream.base_url.path()),
        invalidate: invalidate::invalidate(section, lookups, upstream.base_url.path()),
    }
}
