//! The process: arguments, logging, configuration, run, exit status.

use std::{path::PathBuf, process::ExitCode};

use audience_gateway::config::{Config, Problems, environment};
use clap::{Parser, Subcommand};

mod commands;
mod hash;
mod health;
mod logging;
mod otlp;

/// Bad arguments or a bad configuration (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// Caching, batching gateway in front of a customer-detail call that allows one request per second.
#[derive(Parser)]
#[command(name = "audience-gateway", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway.
    Serve {
        #[command(flatten)]
        file: File,
    },
    /// Runs the whole thing on this machine: the simulated upstream, the gateway, and what to try.
    Demo,
    /// Runs the simulated upstream alone.
    Simulate(Box<commands::Simulate>),
    /// Reads the configuration, prints it resolved with secrets masked, and opens nothing.
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Asks the upstream at most a dozen questions, and prints the settings that fit its answers.
    Probe {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        probe: commands::Probe,
    },
    /// Prints the hash by which the log names a key.
    Hash {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        hash: hash::Hash,
    },
    /// Asks the gateway that runs on this machine whether it is ready: status 0 if so, 1 if not.
    Health {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        health: health::Health,
    },
}

#[derive(clap::Args)]
struct File {
    /// The configuration file; without it $GATEWAY_CONFIG, else config/gateway.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why the process ends without having done what it was asked to.
enum Failure {
    /// The user must change something: lines for standard error.
    Usage(String),
    /// Something did not work.
    Run(String),
}

fn main() -> ExitCode {
    logging::quiet_panics();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) if !answer.use_stderr() => {
            commands::print(&answer.render().to_string());
            return ExitCode::SUCCESS;
        }
        Err(error) => return end(Err(Failure::Usage(commands::first_line(&error)))),
    };
    end(match arguments.command {
        Command::Serve { file } => {
            let path = file.path();
            let read = move || Config::load(&path, environment());
            read().map_err(refused).and_then(|config| commands::serve(config, read))
        }
        Command::Demo => commands::demo(),
        Command::Simulate(simulate) => commands::simulate(*simulate),
        Command::Check { file } => file.read().map(|config| commands::print(&config.to_toml())),
        Command::Probe { file, probe } => file.read().and_then(|config| commands::probe(config, probe)),
        Command::Hash { file, hash } => file.read().and_then(|config| hash::hash(&config, &hash)),
        Command::Health { file, health } => health::health(&file.path(), &health),
    })
}

impl File {
    fn path(self) -> PathBuf {
        let named = self.config.or_else(|| std::env::var_os("GATEWAY_CONFIG").map(PathBuf::from));
        named.unwrap_or_else(|| PathBuf::from("config/gateway.toml"))
    }

    fn read(self) -> Result<Config, Failure> {
        Config::load(&self.path(), environment()).map_err(refused)
    }
}

/// A configuration that is refused.
#[expect(clippy::needless_pass_by_value, reason = "it stands where an error is mapped")]
fn refused(problems: Problems) -> Failure {
    Failure::Usage(problems.to_string())
}

fn end(result: Result<(), Failure>) -> ExitCode {
    let (lines, status) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(lines)) => (lines, ExitCode::from(USAGE)),
        Err(Failure::Run(lines)) => (lines, ExitCode::FAILURE),
    };
    for line in lines.lines() {
        commands::complain(line);
    }
    status
}
