//! What all lookup paths share while they are built, and how one is.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::reload::LivePath;
use crate::{
    admin::{self, Admin},
    cache::Cache,
    clock,
    config::{self, Config},
    dispatch::{self, Fleet, Recruit, Sharing, Worker},
    key_log::KeyLog,
    link::{self, Connector, Link},
    live::Whole,
    lookup::{Bounds, Lookup, compression::Compression},
    metrics::{Metrics, RouteMetrics},
    passthrough::{self, Passthrough},
    replicas::{Redis, Replicas},
    request::{Limits, budget::Budget},
    shape::Shape,
    store::{self, Opened, Store},
    trace::Recorder,
    upstream::{client::Client, credentials::Mode},
    warmup::{self, Warmup},
};

/// What the lookup paths are built of.
pub(super) struct Common {
    pub(super) metrics: Arc<Metrics>,
    pub(super) cache: Arc<Cache>,
    pub(super) client: Client,
    pub(super) limits: Limits,
    pub(super) key_log: KeyLog,
    pub(super) compression: Arc<Compression>,
    pub(super) recorder: Recorder,
    pub(super) sharing: Option<Sharing>,
}

/// How long a slot is held for a request that is not on the wire yet. As long as a first packet may be lost, which is sent
/// again after a second; a winner that dies before that costs everybody as much.
const LONGEST_HOLD: Duration = Duration::from_millis(1500);

/// With whom the slots are shared, and the connection over which that is done.
pub(super) fn sharing(config: &Config, metrics: &Metrics) -> Result<Option<(Sharing, Arc<Link>)>, String> {
    let Some(shared) = &config.replicas else { return Ok(None) };
    let (link, metrics) =
        (Arc::new(Link::new(Connector::new(shared.link.clone(), "replicas")?, link::CALL)), metrics.replicas());
    let redis = Arc::new(Redis::new(Arc::clone(&link), &shared.prefix, metrics.clone()));
    let upstream = &config.upstream;
    let application = match &upstream.credentials {
        Mode::Managed(application) => &application.id,
        Mode::Forward(_) => "",
    };
    let sharing = Sharing {
        replicas: Arc::new(Replicas::new(redis, shared, metrics)),
        upstream: format!("{} {application}", upstream.base_url).into(),
        hold: upstream.connect_timeout.min(LONGEST_HOLD),
        // To the wire, the answer, and a moment to tell everybody.
        lease: upstream.connect_timeout + upstream.request_timeout + Duration::from_secs(1),
    };
    Ok(Some((sharing, link)))
}

impl Common {
    /// One path: its handler, what operators see of it, and what of it may change.
    pub(super) fn lookup(&self, position: u8, built: &config::Lookup) -> (Lookup, admin::Path, LivePath) {
        let shape = Arc::new(built.shape.clone());
        let dispatch = Whole::new(built.dispatch.clone());
        let bounds = Bounds::new(&built.lookup);
        let recruit = self.recruiter(dispatch.clone(), &shape);
        let fleet = Arc::new(Fleet::new(built.dispatch.limit_per, recruit, clock::now()));
        let path = admin::Path {
            position,
            shape: Arc::clone(&shape),
            max_keys: bounds.max_keys.clone(),
            dispatch: Arc::clone(&fleet),
            config: dispatch.clone(),
        };
        let live = LivePath { bounds: bounds.clone(), dispatch, fleet: Arc::clone(&fleet) };
        let lookup = Lookup {
            position,
            metrics: self.metrics.lookup(shape.lists.iter().map(|list| list.kind.as_str())),
            shape,
            bounds,
            limits: self.limits.clone(),
            compression: Arc::clone(&self.compression),
            credentials: Arc::clone(self.client.credentials()),
            cache: Arc::clone(&self.cache),
            dispatch: fleet,
            key_log: self.key_log.clone(),
            recorder: self.recorder.clone(),
        };
        (lookup, path, live)
    }

    /// What passes through, and the writes among it that make old what is cached.
    pub(super) fn passthrough(
        &self,
        config: &Config,
        lookups: &[(Lookup, RouteMetrics)],
        budget: Budget,
    ) -> Passthrough {
        let cached = passthrough::Cached {
            cache: Arc::clone(&self.cache),
            shapes: lookups.iter().map(|(lookup, _)| Arc::clone(&lookup.shape)).collect(),
            credentials: Arc::clone(self.client.credentials()),
            max_body: self.limits.max.clone(),
            budget,
            metrics: self.metrics.invalidation(),
            key_log: self.key_log.clone(),
        };
        let asking = (self.client.clone(), super::timeouts(config));
        Passthrough::new(&config.passthrough, asking, self.metrics.passthrough(), cached)
    }

    /// How workers are made: each asks through the one client, and begins with the limits that count then.
    fn recruiter(&self, config: Whole<dispatch::Config>, shape: &Arc<Shape>) -> Recruit {
        let metrics = self.metrics.dispatch(&shape.path);
        let (client, shape, cache) = (self.client.clone(), Arc::clone(shape), Arc::clone(&self.cache));
        let (key_log, recorder) = (self.key_log.clone(), self.recorder.clone());
        let sharing = self.sharing.clone();
        Box::new(move || {
            let ask: dispatch::Ask = {
                let (client, shape) = (client.clone(), Arc::clone(&shape));
                Box::new(move |ask, on_wire| {
                    let (client, shape) = (client.clone(), Arc::clone(&shape));
                    Box::pin(async move { client.ask(&shape, &ask, on_wire).await })
                })
            };
            let config = config.now().as_ref().clone();
            let (worker, handle) = Worker::new(config, Arc::clone(&shape), Arc::clone(&cache), metrics.clone(), ask);
            let worker = worker.log_keys(key_log.clone()).record(recorder.clone());
            (worker.shared_with(sharing.clone()), handle)
        })
    }
}

/// The cache, and the store behind it if there is one.
pub(super) fn cache(config: &Config, store: Option<Opened>, metrics: &Metrics) -> Arc<Cache> {
    let cache = Cache::new(&config.cache, metrics.cache());
    Arc::new(match store {
        None => cache,
        Some(opened) => {
            let shapes = config.lookups.iter().map(|lookup| Arc::new(lookup.shape.clone()));
            let metrics = metrics.store(matches!(config.store, Some(store::Config::Redis(_))));
            cache.with_store(Store::start(opened, shapes.collect(), metrics))
        }
    })
}

/// What others erase from the store is forgotten by this memory.
pub(super) fn attach(admin: &Arc<Admin>) {
    if let Some(store) = admin.cache.store() {
        let memory: Weak<Admin> = Arc::downgrade(admin);
        store.attach(memory);
    }
}

/// Opens the store that is configured. What it holds are answers to this upstream's lookup paths, as these credentials see
/// them, and to no others.
pub(super) fn open_store(config: &Config) -> Result<Option<Opened>, String> {
    let Some(store) = &config.store else { return Ok(None) };
    let mut owner = config.upstream.base_url.to_string();
    match &config.upstream.credentials {
        Mode::Forward(headers) => headers.iter().for_each(|name| owner.push_str(&format!("\nforward {name}"))),
        Mode::Managed(application) => owner.push_str(&format!("\nmanaged {:?}", application.id)),
    }
    for lookup in &config.lookups {
        owner.push_str(&format!("\n{:?}", lookup.shape));
    }
    Opened::new(store, &owner).map(Some)
}

/// The warm-up of the first lookup path whose list the ids may belong to.
pub(super) fn warmup(config: &Config, common: &Common, paths: &[admin::Path]) -> Option<Warmup> {
    let (path, kind) = paths.iter().find_map(|path| Some((path, warmup::kind(&path.shape)?)))?;
    Some(Warmup {
        config: config.warmup.clone(),
        client: common.client.clone(),
        cache: Arc::clone(&common.cache),
        dispatch: Arc::clone(&path.dispatch),
        shape: Arc::clone(&path.shape),
        kind,
        served: path.dispatch.served(),
        metrics: common.metrics.warmup(),
    })
}
