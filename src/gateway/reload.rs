//! What is read again while the gateway runs: the tokens of clients, and the certificates of TLS.
//!
//! A file that is wrong changes nothing: what was read of it before goes on, and the log says what is wrong.

use std::{path::PathBuf, sync::Arc};

use tracing::{info, warn};

use crate::{
    clients::{Clients, tokens::Tokens},
    server::tls,
};

/// The files, and who wants to know what is in them.
#[derive(Clone)]
pub struct Reload {
    pub(super) tls: Option<tls::Config>,
    pub(super) clients: Option<(PathBuf, Arc<Clients>)>,
}

impl Reload {
    /// Reads the files again; blocks while it does.
    pub fn now(&self) {
        if let Some((file, clients)) = &self.clients {
            let read = Tokens::read(file).map(|tokens| clients.replace(&tokens));
            report("clients.tokens_file", read.map_err(|flaws| flaws.iter().map(ToString::to_string).collect()));
        }
        if let Some(tls) = &self.tls {
            let read = tls.files.read().map(|read| tls.tls.replace(&read));
            let sentence = |flaw: &tls::Flaw| format!("{} {}", flaw.file.as_str(), flaw.sentence);
            report("server.tls", read.map_err(|flaws| flaws.iter().map(sentence).collect()));
        }
        if self.clients.is_none() && self.tls.is_none() {
            info!("there is nothing to be read again");
        }
    }
}

fn report(key: &'static str, read: Result<(), Vec<String>>) {
    match read {
        Ok(()) => info!(key, "read again"),
        Err(problems) => warn!(key, problem = problems.join("; "), "not read again: what was there before goes on"),
    }
}
