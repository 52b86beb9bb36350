//! Logs: on standard error, as JSON or text, of this program only.

use std::panic;

use audience_gateway::{
    config::{Log, LogFormat},
    log_filter::Filter,
};
use tracing::Subscriber;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

/// Sets what is written from then on.
pub(crate) type Handle = reload::Handle<Targets, Registry>;

/// Starts to write logs.
pub(crate) fn start(log: &Log) -> Handle {
    let (subscriber, handle) = subscriber(log, std::io::stderr);
    subscriber.init();
    handle
}

/// What is written, where, and how that is changed.
fn subscriber<W>(log: &Log, writer: W) -> (impl Subscriber + Send + Sync + use<W>, Handle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(&log.level));
    let layer = fmt::layer().with_writer(writer);
    let layer = match log.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(false).boxed(),
    };
    (Registry::default().with(layer.with_filter(filter)), handle)
}

/// What libraries have to say is heard only from warnings on, whatever the filter is: see [`Filter::levels`].
fn targets(filter: &Filter) -> Targets {
    filter.levels().fold(Targets::new(), |targets, (module, level)| match module {
        "" => targets.with_default(level),
        module => targets.with_target(module, level),
    })
}

/// What is written changes to this. Which lines are wanted is kept with each of them, so that one that is not wanted costs
/// a look at memory, now as before.
pub(crate) fn change(handle: &Handle, filter: &Filter) {
    let _the_log_has_ended = handle.reload(targets(filter));
}

/// A panic's message may hold what was being worked on: only its place is printed.
pub(crate) fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        crate::commands::complain(&format!("a task panicked at {place}"));
    }));
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        process::Command,
        sync::{Arc, Mutex, PoisonError},
    };

    use audience_gateway::config::Config;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8(bytes.clone()).expect("a log is text")
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written at a level when this happens.
    fn written(level: &str, format: &str, happens: impl FnOnce()) -> String {
        let text = format!("upstream.base_url = \"http://x\"\nlog = {{ level = {level:?}, format = {format:?} }}");
        let config = Config::parse(&text, std::iter::empty()).expect("a configuration");
        let paper = Paper::default();
        let to = paper.clone();
        tracing::subscriber::with_default(subscriber(&config.log, move || to.clone()).0, happens);
        paper.text()
    }

    /// As libraries do: one event of each level, and a span with a field.
    macro_rules! library {
        ($($target:literal),*) => {
            $(
                let span = tracing::trace_span!(target: $target, "request", uri = "canary-span");
                span.in_scope(|| {
                    tracing::trace!(target: $target, header = "canary-trace", "canary");
                    tracing::debug!(target: $target, header = "canary-debug", "canary");
                    tracing::info!(target: $target, header = "canary-info", "canary");
                    tracing::warn!(target: $target, "heard");
                });
            )*
        };
    }

    #[test]
    fn at_the_finest_level_libraries_are_heard_from_warnings_on_and_the_program_in_full() {
        for format in ["json", "text"] {
            let log = written("trace", format, || {
                library!("hyper", "hyper::proto::h1", "hyper_util::client", "h2", "rustls", "tower", "audience", "x");
                tracing::trace!(target: "audience_gateway::lookup", "own");
            });
            assert_eq!(log.matches("heard").count(), 8, "{log}");
            assert!(!log.contains("canary") && log.contains("own"), "{log}");
        }
        let log = written("off", "json", || {
            library!("hyper");
        });
        assert_eq!(log, "");
    }

    /// In the environment of the process that is to panic.
    const ON_PURPOSE: &str = "PANIC_ON_PURPOSE";

    fn panic_with_a_canary() {
        quiet_panics();
        let panicked = std::thread::spawn(|| panic!("canary of {}", 13_800_000_000_u64)).join();
        assert!(panicked.is_err());
        let failed: Result<(), String> = "canary".parse::<char>().map(|_| ()).or(Err("canary".to_owned()));
        failed.expect("a canary");
    }

    #[test]
    fn a_panic_is_reported_by_its_place_and_nothing_of_what_it_says() {
        // It runs itself again, in a process whose panics are nobody else's.
        if std::env::var_os(ON_PURPOSE).is_some() {
            return panic_with_a_canary();
        }
        let own = "logging::tests::a_panic_is_reported_by_its_place_and_nothing_of_what_it_says";
        let program = std::env::current_exe().expect("this test is a program");
        let mut again = Command::new(program);
        again.args(["--exact", own, "--nocapture"]).env("RUST_BACKTRACE", "1").env(ON_PURPOSE, "1");
        let output = again.output().expect("it runs");
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        assert!(!output.status.success(), "{stdout}{stderr}");
        let places = stderr.matches("audience-gateway: a task panicked at src/logging.rs:").count();
        assert_eq!(places, 2, "{stdout}{stderr}");
        assert!(!stderr.contains("13800000000") && !stderr.contains("canary"), "{stderr}");
        assert!(!stdout.contains("canary"), "{stdout}");
    }
}
