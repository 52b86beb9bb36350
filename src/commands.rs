//! What each command does, from a configuration to an end.

use std::{
    future::Future,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::Arc,
};

use audience_gateway::{
    config::{Config, Problems},
    gateway::{Gateway, Reload},
    probe::{self, Report, Target, Written},
    simulator::{self, Simulator},
    upstream::{client::Client, connect::Network, token},
};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{Failure, logging, otlp::Spans};

/// Where the demo's simulated upstream listens, and `simulate` unless told otherwise.
const SIMULATOR: &str = "127.0.0.1:8081";

/// A word with so many digits may be a customer's number.
const DIGITS_OF_A_KEY: usize = 4;

/// The demo's configuration: the defaults, with the simulated upstream behind them.
const DEMO: &str = r#"
upstream.base_url = "http://127.0.0.1:8081/api/open"
log = { format = "text", level = "info" }
"#;

/// The simulated upstream and where it listens.
#[derive(clap::Args)]
pub(crate) struct Simulate {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = SIMULATOR)]
    listen: SocketAddr,
    #[command(flatten)]
    config: simulator::Config,
}

/// What to ask the upstream. Everything is read as text, so that no message of the argument parser quotes a key or a token.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Probe {
    /// A key that reaches a customer, by the name of its kind, such as audienceUserId=747, thirdId=… or phone=….
    /// Best one of each kind, of different customers; at most four.
    #[arg(long = "key", value_name = "KIND=VALUE", allow_hyphen_values = true)]
    keys: Vec<String>,
    /// The lookup path to ask; without it the first one of the configuration.
    #[arg(long, value_name = "LOOKUP")]
    path: Option<String>,
    /// A credential header; X-Token may also be given in $GATEWAY_PROBE_TOKEN, where no list of processes shows it.
    #[arg(long = "token", value_name = "HEADER=VALUE", allow_hyphen_values = true)]
    tokens: Vec<String>,
    /// A field of the request's body besides the keys, such as companyId='"31"'.
    #[arg(long = "body-field", value_name = "NAME=JSON", allow_hyphen_values = true)]
    body_fields: Vec<String>,
    /// The shortest interval that may be tried; without it nothing faster than the configured one is.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    fastest: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// What belongs to no flag: perhaps a key whose flag was forgotten.
    #[arg(hide = true)]
    stray: Vec<String>,
}

/// Asks the upstream, and prints what it answers and the settings that fit.
pub(crate) fn probe(config: Config, arguments: Probe) -> Result<(), Failure> {
    let usage = |problems: Vec<String>| Failure::Usage(problems.join("\n"));
    if !arguments.stray.is_empty() {
        return Err(usage(vec!["an argument stands behind no flag: keys are given as --key KIND=VALUE".to_owned()]));
    }
    let target = target(&config, arguments.path.as_deref())?;
    let written = Written {
        keys: arguments.keys,
        tokens: arguments.tokens,
        token_from_environment: std::env::var("GATEWAY_PROBE_TOKEN").ok(),
        body_fields: arguments.body_fields,
        fastest: arguments.fastest,
    };
    let probe = probe::Probe::new(target.clone(), &config.upstream.credentials, &written).map_err(usage)?;
    let network = Network::new(&config.upstream).map_err(Failure::Usage)?;
    let findings = block_on(async {
        let stop = stop_signal()?;
        let client = Client::new(config.upstream, Arc::new(network));
        if std::io::stderr().is_terminal() {
            let longest = probe.patience().as_secs();
            complain(&format!("asking at most {} questions, for about {longest} s; Ctrl-C stops", probe::REQUESTS));
        }
        let mut keeping = JoinSet::new();
        keeping.spawn(token::keep(client.clone()));
        Ok(probe::run(&probe, &client, stopped(stop)).await)
    })?;
    if findings.is_reached() {
        let report = Report::new(&target, &findings);
        print(&if arguments.json { report.to_json() } else { report.to_toml() });
    }
    findings.failure().map_or(Ok(()), |reason| Err(Failure::Run(reason)))
}

/// The lookup of a path, or the first one.
fn target(config: &Config, path: Option<&str>) -> Result<Target, Failure> {
    let wanted = |path: &str| config.lookups.iter().position(|lookup| lookup.shape.path.eq_ignore_ascii_case(path));
    let Some(position) = path.map_or(Some(0), wanted) else {
        let known: Vec<_> = config.lookups.iter().map(|lookup| lookup.shape.path.as_str()).collect();
        return Err(Failure::Usage(format!("--path: is none of the configured lookups, {}", known.join(", "))));
    };
    let lookup = &config.lookups[position];
    let number = u8::try_from(position).expect("this holds because there are at most 255 lookups");
    Ok(Target { lookup: number, shape: lookup.shape.clone(), interval: lookup.dispatch.interval })
}

/// Runs the gateway until it is told to stop.
pub(crate) fn serve(
    config: Config,
    read: impl Fn() -> Result<Config, Problems> + Send + Sync + 'static,
) -> Result<(), Failure> {
    let log = logging::start(&config.log);
    raise_open_files(config.server.limits.max_connections);
    block_on(async {
        let stop = stop_signal()?;
        // Heard from the beginning: it would end a process that does not listen for it.
        let hangups = listen_for(SignalKind::hangup())?;
        run(config, (log, Some((hangups, Arc::new(read)))), stopped(stop), |_, _| ()).await
    })
}

/// Takes as many open files as the system allows, and says so where that is too few for the callers that are let in: one
/// for a caller's connection, and one for the upstream's that it may need.
fn raise_open_files(max_connections: usize) {
    let wanted = max_connections as u64 * 2;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < wanted => {
            warn!(limit, wanted, "fewer files may be open than server.max_connections needs");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "the limit of open files stays as it is"),
    }
}

/// Runs the simulated upstream until it is told to stop.
pub(crate) fn simulate(simulate: Simulate) -> Result<(), Failure> {
    // What it has is what it can serve: nobody asked for a number of connections.
    let _limit = rlimit::increase_nofile_limit(u64::MAX);
    block_on(async {
        let stop = stop_signal()?;
        let listener = bind(simulate.listen).await?;
        print(&format!("the simulated upstream listens on http://{}/api/open\n", local(&listener)?));
        Simulator::new(simulate.config).serve(listener, stopped(stop)).await;
        Ok(())
    })
}

/// Runs the simulated upstream and a gateway in front of it, and says what to try.
pub(crate) fn demo() -> Result<(), Failure> {
    let config = Config::parse(DEMO, std::iter::empty()).map_err(|problems| Failure::Usage(problems.to_string()))?;
    let log = logging::start(&config.log);
    block_on(async {
        let stop = stop_signal()?;
        let upstream = bind(SIMULATOR.parse().expect("this holds because it is written above")).await?;
        let simulator = Simulator::new(simulator::Config::default());
        let what_to_try = what_to_try(&simulator);
        let simulating = simulator.serve(upstream, std::future::pending());
        let serving = run(config, (log, None), stopped(stop), move |_, _| print(&what_to_try));
        tokio::select! {
            // It goes on for as long as the gateway does.
            () = simulating => Ok(()),
            result = serving => result,
        }
    })
}

async fn run(
    config: Config,
    (log, hangups): (logging::Handle, Option<(Signal, Read)>),
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(SocketAddr, SocketAddr),
) -> Result<(), Failure> {
    let network = Network::new(&config.upstream).map_err(Failure::Usage)?;
    let (listen, admin_listen) = (config.server.listen, config.server.admin_listen);
    let store = Gateway::open_store(&config).map_err(Failure::Run)?;
    let spans = Spans::start(&config).map_err(Failure::Usage)?;
    let parts = (spans.recorder(), store);
    let gateway = Gateway::with(config, Arc::new(network), parts).map_err(Failure::Usage)?;
    let (callers, operators) = (bind(listen).await?, bind(admin_listen).await?);
    let (listen, admin_listen) = (local(&callers)?, local(&operators)?);
    info!(%listen, %admin_listen, version = env!("CARGO_PKG_VERSION"), "serving");
    ready(listen, admin_listen);
    gateway.log().applied_by(move |filter| logging::change(&log, filter));
    let reload = gateway.reload();
    tokio::select! {
        // Until it is told to stop.
        () = gateway.serve(callers, operators, stop) => {}
        // Never ends: every hangup is one more reading.
        () = read_again(hangups, reload) => {}
    }
    spans.finish().await;
    Ok(())
}

/// Reads the configuration again.
type Read = Arc<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// Reads the configuration, certificates and tokens again whenever the process is told to.
async fn read_again(hangups: Option<(Signal, Read)>, reload: Reload) {
    if let Some((mut hangups, read)) = hangups {
        while hangups.recv().await.is_some() {
            let (reload, read) = (reload.clone(), Arc::clone(&read));
            // A panic in it has been printed by the hook, and changes nothing.
            let _read = tokio::task::spawn_blocking(move || {
                let read = read();
                read.iter().for_each(|config| raise_open_files(config.server.limits.max_connections));
                reload.now(read);
            })
            .await;
        }
    }
    std::future::pending::<()>().await;
}

fn what_to_try(simulator: &Simulator) -> String {
    let customer = simulator.customer(2);
    let (id, third_id) = (customer.id, customer.third_id.unwrap_or_default());
    let phone = customer.phones.first().cloned().unwrap_or_default();
    format!(
        r#"
The simulated upstream (one request per second) listens on 127.0.0.1:8081, the gateway on 127.0.0.1:8080,
its admin listener on 127.0.0.1:9090. Things to try in another terminal:

  Ask for a customer. The first time it waits for the upstream, the second time it is a hit:
    curl -si 127.0.0.1:8080/api/audience/detail --json '{{"audienceUserIdList":[{id}]}}'

  The same customer by third-party id is a hit too, because the first answer carried it:
    curl -si 127.0.0.1:8080/api/audience/detail --json '{{"thirdIdList":["{third_id}"]}}'

  Thirty callers at once, with 31 keys between them: one or two upstream requests, nobody refused:
    for i in $(seq 30); do curl -s 127.0.0.1:8080/api/audience/detail --json '{{"phoneList":["{phone}","1390000'$((1000+i))'"]}}' & done; wait

  The upstream itself refuses the second of two requests in a second:
    for i in 1 2; do curl -s 127.0.0.1:8081/api/open/api/audience/detail --json '{{"audienceUserIdList":[{id}]}}' | head -c 120; echo; done

  What the gateway has been doing: the status page, http://127.0.0.1:9090/ in a browser, and its figures:
    curl -s 127.0.0.1:9090/status.json
    curl -s 127.0.0.1:9090/metrics | grep ^gateway_

Ctrl-C ends it.

"#
    )
}

/// What runs the tasks: a thread for each core, which take work from each other; where there is one core there is nobody to
/// take it from, and a request costs less without the means to.
///
/// The other shape, a runtime of one thread for each core and its share of the connections, was tried as two gateways on a
/// core each, which flatters it because they share nothing, against one on both: 2 cores, which the load used too, 32
/// connections, lookups of one key, medians of nine turns of 2 s, built without optimisation across crates.
///
/// | load | shape | CPU / request | requests / s | p50 | p99 |
/// |---|---|---:|---:|---:|---:|
/// | about half | threads that share their work | 24.9 µs | 21,600 | 0.36 ms | 3.5 ms |
/// | about half | a runtime for each core | 23.0 µs | 23,200 | 0.29 ms | 3.5 ms |
/// | all there is | threads that share their work | 17.4 µs | 38,700 | 0.69 ms | 4.3 ms |
/// | all there is | a runtime for each core | 16.3 µs | 65,200 | 0.45 ms | 2.8 ms |
///
/// At the load that a gateway should be run at, p99 is the same, and a twelfth of the processor time is all that there is to
/// gain, less than turns differ from each other. For that, what is accepted on a core would stay there, behind whatever takes
/// long on it while the other is idle.
fn runtime() -> Builder {
    match std::thread::available_parallelism() {
        Ok(cores) if cores.get() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Run(format!("no runtime: {error}")))?;
    let result = runtime.block_on(work);
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::Run(format!("cannot listen on {address}: {error}")))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::Run(format!("a listener has no address: {error}")))
}

/// Becomes true on the first SIGTERM or Ctrl-C.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let (told, stop) = watch::channel(false);
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the process and owns nothing")]
    let _listening = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _gone = told.send(true);
    });
    Ok(stop)
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Run(format!("cannot listen for signals: {error}")))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _told = stop.wait_for(|told| *told).await;
}

/// Writes to standard output; a reader that has gone is no failure.
pub(crate) fn print(text: &str) {
    let _closed = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes one line to standard error.
pub(crate) fn complain(line: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "audience-gateway: {line}");
}

/// What clap has to say, in one line. A word that nobody asked for may be a key whose command or flag was forgotten: it
/// is quoted only if it looks like a command, a flag or a file.
pub(crate) fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let stray = match error.kind() {
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand => error.get(ContextKind::InvalidSubcommand),
        _ => None,
    };
    if let Some(ContextValue::String(word)) = stray
        && (word.contains('=') || word.bytes().filter(u8::is_ascii_digit).count() >= DIGITS_OF_A_KEY)
    {
        line = line.replace(&format!("'{word}'"), "(not shown)");
    }
    format!("{line}; --help lists what there is")
}
