//! Assembly: every part built from the configuration, the one tower service, and the owner of all tasks.
//!
//! ```text
//! server ─▶ edge: place, route, client ─┬▶ lookup ─▶ cache ─▶ (misses) dispatch ─▶ upstream
//!                                       └▶ passthrough ────────────────────────────▶ upstream
//! ```

mod assembly;
mod body;
mod edge;
mod journal;
mod reload;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex},
};

use http_body_util::Full;
use tokio::{sync::oneshot, task::JoinSet};
use tower::service_fn;
use tracing::info;

use self::{assembly::Common, edge::Edge, reload::Live};
use crate::{
    admin::{Admin, History, Phase, Readiness},
    clients::Clients,
    clock,
    config::Config,
    key_log::KeyLog,
    link::Link,
    live::{Count, Places, Time},
    log_filter::Control,
    lookup::compression::Compression,
    metrics::Metrics,
    passthrough,
    replicas::Replicas,
    request::{Limits, budget::Budget},
    route::Router,
    server::{Demand, Listener, Server},
    store,
    trace::Recorder,
    upstream::{self, connect::Dial},
    warmup::Warmup,
};

pub use self::{body::ResponseBody, reload::Reload};

/// Connections to the admin listener: a scraper, a probe and a few people.
const ADMIN_CONNECTIONS: usize = 64;

/// What part of the grace period is kept for writing the last answers: waiting callers are told before it.
const LAST_WORDS: f64 = 0.1;

/// The gateway, built and not yet serving.
pub struct Gateway {
    edge: Arc<Edge>,
    admin: Arc<Admin>,
    readiness: Arc<Readiness>,
    server: Server,
    warmup: Option<Warmup>,
    client: upstream::client::Client,
    live: Arc<Live>,
    replicas: Option<(Arc<Replicas>, Arc<Link>)>,
    config: Config,
}

impl Gateway {
    /// Builds every part and starts the workers; `dial` makes the connections to the upstream.
    ///
    /// # Errors
    /// A sentence when a configured path has no safe form.
    pub fn new(config: Config, dial: Arc<dyn Dial>) -> Result<Self, String> {
        Self::with(config, dial, (Recorder::default(), None))
    }

    /// Opens the store that is configured, if one is.
    ///
    /// # Errors
    /// A sentence when it cannot be used, or is by another process.
    pub fn open_store(config: &Config) -> Result<Option<store::Opened>, String> {
        assembly::open_store(config)
    }

    /// The same as [`new`](Self::new), has its spans recorded, and keeps what is cached in a store.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(
        config: Config,
        dial: Arc<dyn Dial>,
        (recorder, store): (Recorder, Option<store::Opened>),
    ) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::new());
        let client = upstream::client::Client::new(config.upstream.clone(), dial);
        let configured = config.lookups.iter().map(|lookup| &lookup.shape.path);
        let router = Router::new(config.upstream.base_url.path(), configured)?;
        let budget = Budget::new(config.server.max_buffered);
        let limits = Limits {
            max: Count::new(config.server.max_body),
            timeout: Time::new(config.server.limits.header_timeout),
            budget: budget.clone(),
        };
        let (sharing, link) = assembly::sharing(&config, &metrics)?.unzip();
        let common = Common {
            sharing: sharing.clone(),
            cache: assembly::cache(&config, store, &metrics),
            key_log: KeyLog::new(config.log.key_hash_secret.as_ref()),
            compression: Arc::new(Compression::new(&config.server.compression, budget.clone())),
            metrics,
            client,
            limits,
            recorder,
        };
        let (mut lookups, mut admin_paths, mut live_paths) = (Vec::new(), Vec::new(), Vec::new());
        for (position, built) in (0..=u8::MAX).zip(&config.lookups) {
            let (lookup, path, live) = common.lookup(position, built);
            lookups.push((lookup, common.metrics.route(&built.shape.path)));
            admin_paths.push(path);
            live_paths.push(live);
        }
        let warming = config.warmup.enabled;
        let warmup = warming.then(|| assembly::warmup(&config, &common, &admin_paths)).flatten();
        let server =
            Server::new(config.server.limits.clone()).with_tls(config.server.tls.as_ref().map(|tls| tls.tls.clone()));
        let clients = config.clients.as_ref();
        let clients = clients.map(|clients| Arc::new(Clients::new(clients, common.metrics.clients(), clock::now())));
        let edge = Edge {
            router,
            clients: clients.clone(),
            passed: common.metrics.passing(),
            passthrough: common.passthrough(&config, &lookups, budget.clone()),
            dispatchers: admin_paths.iter().map(|path| Arc::clone(&path.dispatch)).collect(),
            lookups,
        };
        // A budget of their own: what callers do must not keep an operator from a purge.
        let operators = Budget::new(config.server.max_buffered);
        let log = Arc::new(Control::new(config.log.level.clone()));
        let live = Arc::new(Live {
            config: Mutex::new(config.clone()),
            log: Arc::clone(&log),
            cache: Arc::clone(&common.cache),
            paths: live_paths,
            max_body: common.limits.max.clone(),
            body_timeout: common.limits.timeout.clone(),
            server: server.limits(),
            places: Places::new(config.server.limits.max_connections),
            budgets: [budget, operators.clone()],
            shutdown_grace: Time::new(config.server.shutdown_grace),
            passthrough: edge.passthrough.settings(),
            clients,
        });
        let readiness = Arc::new(Readiness::default());
        let Common { metrics, cache, client, limits, key_log, .. } = common;
        let admin = Admin {
            credentials: Arc::clone(client.credentials()),
            counters: metrics.admin(),
            history: history(&config, &metrics),
            metrics,
            cache,
            capacity: config.cache.capacity,
            paths: admin_paths,
            limits: Limits { budget: operators, ..limits },
            readiness: Arc::clone(&readiness),
            server: server.stats(),
            started: clock::now(),
            key_log,
            log,
        };
        let replicas = sharing.map(|sharing| sharing.replicas).zip(link);
        let (edge, admin) = (Arc::new(edge), Arc::new(admin));
        assembly::attach(&admin);
        Ok(Self { edge, admin, readiness, server, client, warmup, live, replicas, config })
    }

    /// What may be read again while it serves.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload(Arc::clone(&self.live))
    }

    /// Which lines are written, as operators set it.
    #[must_use]
    pub fn log(&self) -> Arc<Control> {
        Arc::clone(&self.live.log)
    }

    /// Serves until `shutdown` resolves and every caller has been answered, or the grace period is over.
    pub async fn serve<L, A>(self, listener: L, admin: A, shutdown: impl Future<Output = ()>)
    where
        L: Listener,
        A: Listener + 'static,
    {
        let Self { edge, admin: operators, readiness, server, client, warmup, live, replicas, config } = self;
        let cache = Arc::clone(&operators.cache);
        let limits = crate::server::Config { max_connections: ADMIN_CONNECTIONS, ..config.server.limits.clone() };
        let watched = Arc::clone(&operators);
        let answer = service_fn(move |request| {
            let operators = Arc::clone(&operators);
            async move { Ok::<_, Infallible>(operators.handle(request).await.map(Full::new)) }
        });
        let mut tasks = JoinSet::new();
        // The gateway's own token, if it has one, is fetched when somebody needs it.
        tasks.spawn(upstream::token::keep(client));
        // The other gateways are met, if there are any.
        if let Some(((replicas, link), shared)) = replicas.zip(config.replicas) {
            tasks.spawn(async move { replicas.run(link, &shared.prefix).await });
        }
        // What others erase is heard of, if the store is also theirs.
        if let Some(connection) = cache.store().and_then(store::Store::connection) {
            tasks.spawn(connection);
        }
        let kept = Arc::clone(&cache);
        // Records are packed with what it has learned from them; over at once where none are.
        tasks.spawn(Arc::clone(&cache).keep_learning());
        // What the status page shows of the last two minutes is there when somebody comes to look.
        tasks.spawn(async move { watched.history.keep().await });
        // It answers to the very end: that the gateway drains is read here.
        tasks.spawn(crate::server::serve(admin, answer, limits, std::future::pending()));
        let warming = warmup.map(|warmup| tasks.spawn(warmup.run()));
        let draining = Arc::clone(&edge);
        let (stop, stopped) = oneshot::channel::<()>();
        let stack = edge::stack(edge, &live.places);
        readiness.enter(Phase::Ready);
        let mut serving = pin!(server.serve(listener, stack, async {
            let _dropped = stopped.await;
        }));
        tokio::select! {
            // It is told to stop.
            () = shutdown => {}
            // Never, as long as `stop` is held; polled because this is where it serves.
            () = &mut serving => {}
        }
        readiness.enter(Phase::Draining);
        let grace = live.shutdown_grace.now();
        info!(grace_seconds = grace.as_secs_f64(), "draining");
        // Nobody would have anything of it any more.
        warming.inspect(tokio::task::AbortHandle::abort);
        let now = clock::now();
        let drain_at = now + grace.mul_f64(1.0 - LAST_WORDS);
        draining.dispatchers.iter().for_each(|dispatcher| dispatcher.drain(drain_at));
        draining.passthrough.drain(drain_at);
        drop(stop);
        let in_time = tokio::time::timeout(grace, serving).await.is_ok();
        if let Some(store) = kept.store() {
            // What came last is there after the restart.
            store.flush().await;
        }
        info!(in_time, "stopped");
    }
}

/// How the keys of every kind are answered, on whichever path they are asked for.
fn history(config: &Config, metrics: &Metrics) -> History {
    let shapes = config.lookups.iter().map(|lookup| &lookup.shape);
    let kinds: BTreeSet<_> = shapes.flat_map(|shape| &shape.lists).map(|list| list.kind.as_str()).collect();
    History::new(metrics.lookup(kinds.into_iter()))
}

/// How long either side of what passes through may take.
fn timeouts(config: &Config) -> passthrough::Timeouts {
    passthrough::Timeouts {
        caller: Demand { grace: config.server.limits.header_timeout, min_rate: config.server.limits.min_rate },
        upstream: config.upstream.request_timeout,
    }
}
