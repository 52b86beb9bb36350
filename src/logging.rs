//! Logs: on standard error, as JSON or text, of this program only.

use std::panic;

use audience_gateway::config::{Log, LogFormat};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts to write logs. What libraries have to say is heard only from warnings on: at finer levels they print what
/// passes through them.
pub(crate) fn start(log: &Log) {
    let own = Targets::new().with_target("audience_gateway", log.level);
    let filter = own.with_default(log.level.min(LevelFilter::WARN));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// A panic's message may hold what was being worked on: only its place is printed.
pub(crate) fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        crate::commands::complain(&format!("a task panicked at {place}"));
    }));
}
