//! A caching, batching reverse proxy in front of a customer-detail call that allows one request per second.
//!
//! Callers wait on keys, never on requests; one dispatcher decides, at the moment a slot opens, which keys ride in it.
//!
//! ```text
//!  callers ─▶ server ─▶ gateway (limits) ─▶ route ─┬─▶ lookup ──▶ cache ── every key there ──▶ answer
//!                                                  │      │
//!                                                  │      └─ misses, one ticket ─▶ dispatch ─▶ queue
//!                                                  │                                  │
//!                                                  │             slot (pacer) ─▶ batch ┘
//!                                                  │                  │
//!                                                  │                  ▼
//!                                                  └─▶ passthrough ─▶ upstream ─▶ records ─▶ cache, then callers
//! ```
//!
//! The modules in reading order; each imports only from those above it:

pub mod clock;
pub mod codec;
pub mod error;
pub mod key;
pub mod live;
pub mod log_filter;
pub mod record;
pub mod secret;
pub mod shape;

pub mod key_hash;
pub mod key_log;
pub mod trace;

pub mod metrics;

pub mod link;

pub mod request;
pub mod route;
pub mod server;
pub mod simulator;

pub mod store;

pub mod cache;
pub mod upstream;

pub mod replicas;

pub mod dispatch;

pub mod clients;

pub mod admin;
pub mod lookup;
pub mod passthrough;
pub mod probe;
pub mod warmup;

pub mod config;
pub mod gateway;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
