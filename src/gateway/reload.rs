//! What is read again while the gateway runs: the whole configuration, the clients' tokens and the certificates.
//!
//! - **All or nothing.** A configuration, or a file that it names, that is wrong changes nothing, and the log names every
//!   problem.
//! - **What may change does, at once.** What a connection has agreed on, and what waits already, stays.
//! - **What may not is named**, each time, until the gateway is started anew; see [`Config::changes`].

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use crate::{
    cache::Cache,
    clients::Clients,
    config::{Changes, Config, Problems},
    dispatch::{self, Fleet},
    live::{Count, Places, Time, Whole},
    log_filter::Control,
    lookup::Bounds,
    passthrough::Settings,
    request::budget::Budget,
    server,
};

/// The parts that may change, and the configuration that they run on.
#[derive(Clone)]
pub struct Reload(pub(super) Arc<Live>);

/// One lookup path's.
pub(super) struct LivePath {
    pub(super) bounds: Bounds,
    pub(super) dispatch: Whole<dispatch::Config>,
    pub(super) fleet: Arc<Fleet>,
}

/// What may change.
pub(super) struct Live {
    /// What it runs on: what was started, with what has changed since.
    pub(super) config: Mutex<Config>,
    pub(super) log: Arc<Control>,
    pub(super) cache: Arc<Cache>,
    pub(super) paths: Vec<LivePath>,
    pub(super) max_body: Count,
    pub(super) body_timeout: Time,
    pub(super) server: Whole<server::Config>,
    /// As many requests may be at work as there may be connections.
    pub(super) places: Places,
    pub(super) budgets: [Budget; 2],
    pub(super) shutdown_grace: Time,
    pub(super) passthrough: Whole<Settings>,
    pub(super) clients: Option<Arc<Clients>>,
}

impl Reload {
    /// Takes over what was read again.
    pub fn now(&self, read: Result<Config, Problems>) {
        match read {
            Ok(new) => self.0.take_over(&new),
            Err(problems) => {
                for problem in problems.iter() {
                    let (key, problem) = (&*problem.key, &*problem.sentence);
                    warn!(key, problem, "not read again: what was there before goes on");
                }
            }
        }
    }
}

impl Live {
    fn take_over(&self, new: &Config) {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let Changes { live, fixed } = config.changes(new);
        config.take_over(new);
        // Whatever was set meanwhile: what is written counts again.
        let level_was_set = self.log.now() != config.log.level;
        self.log.set(config.log.level.clone());
        self.apply(&config);
        for key in &live {
            info!(key, "read again");
        }
        for key in &fixed {
            warn!(key, "changed, but needs a restart: what was there before goes on");
        }
        if live.is_empty() && fixed.is_empty() && !level_was_set {
            info!("read again: nothing has changed");
        }
    }

    fn apply(&self, config: &Config) {
        self.cache.set_policy(&config.cache.policy);
        for (path, lookup) in self.paths.iter().zip(&config.lookups) {
            path.bounds.set(&lookup.lookup);
            path.dispatch.set(lookup.dispatch.clone());
            path.fleet.reconfigure(&lookup.dispatch);
        }
        self.max_body.set(config.server.max_body);
        self.body_timeout.set(config.server.limits.header_timeout);
        self.server.set(config.server.limits.clone());
        self.places.set(config.server.limits.max_connections);
        self.budgets.iter().for_each(|budget| budget.set_limit(config.server.max_buffered));
        self.shutdown_grace.set(config.server.shutdown_grace);
        self.passthrough.set(Settings::new(&config.passthrough, super::timeouts(config)));
        if let (Some(clients), Some(config)) = (&self.clients, &config.clients) {
            clients.replace(&config.tokens, config.rate);
        }
    }
}
