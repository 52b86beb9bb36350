//! How to ask the upstream.
//!
//! [`client`] sends a request and bounds its answer; [`wire`] writes the body and attributes the records to the keys;
//! [`envelope`] tells an answer from the many ways of not answering; [`verdict`] is what all of that comes to;
//! [`page`] reads a page of the list of all customers; `relay` asks another gateway. [`credentials`] knows who asks, and [`token`] keeps the gateway's own
//! token.

pub mod client;
pub mod connect;
pub mod credentials;
mod envelope;
pub mod page;
mod relay;
pub mod token;
pub mod verdict;
pub mod wire;

use std::{path::PathBuf, time::Duration};

use http::Uri;

use self::credentials::Mode;
pub use self::{
    envelope::{DataForm, Spelling, is_refusal, is_throttled, is_unauthorized},
    relay::Kind,
};

/// How the upstream is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What it is.
    pub kind: Kind,
    /// Scheme, authority and base path (without a trailing slash; may be empty apart from the mandatory `/`).
    pub base_url: Uri,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long one request may take from its slot to the last byte of the answer.
    pub request_timeout: Duration,
    /// Bytes of one answer; a larger one is refused.
    pub max_response: usize,
    /// Certificate authorities in PEM to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Trust any certificate: for a laboratory only.
    pub danger_accept_invalid_certs: bool,
    /// Whose credential goes upstream.
    pub credentials: Mode,
}
