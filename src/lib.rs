//! A caching, batching reverse proxy.
pub mod clock;
pub mod error;
pub mod key;
pub mod metrics;
pub mod record;
pub mod route;
pub mod shape;

pub mod admin;
pub mod cache;
pub mod config;
pub mod dispatch;
pub mod lookup;
pub mod passthrough;
pub mod server;
pub mod simulator;
pub mod upstream;
