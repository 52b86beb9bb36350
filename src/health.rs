//! `health`: whether the gateway on this machine is ready, or alive, for probes that run a command: those of a container
//! without a shell, whose gateway listens on a loopback address only.
//!
//! Invariant: nothing is judged but the answer. Of the configuration only the admin listener's address is read: a file that
//! was broken while a gateway runs is no reason to have it ended.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

use crate::Failure;

/// The address of `server.admin_listen`, unless something else is configured.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The variable that wins over the file, as it does for the gateway.
const VARIABLE: &str = "GATEWAY_SERVER__ADMIN_LISTEN";

/// A gateway on the same machine answers in a millisecond; one that takes longer than this is stuck.
const LONGEST: Duration = Duration::from_secs(2);

/// What to ask.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Health {
    /// Ask whether it is alive; without it, whether it is ready to be sent callers.
    #[arg(long)]
    live: bool,
}

/// Asks the gateway of this configuration file, and fails unless it says yes.
pub(crate) fn health(file: &Path, arguments: &Health) -> Result<(), Failure> {
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let written = std::env::var(VARIABLE).ok().or_else(|| configured(file));
    let address = written.map_or(Ok(DEFAULT), |text| address(&text)).map_err(Failure::Usage)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Run(format!("no runtime: {error}")))?;
    let asked = runtime.block_on(async { timeout(LONGEST, ask(address, path)).await });
    match asked {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(Failure::Run(format!("{path} of {address} answers {}", status.as_u16()))),
        Ok(Err(error)) => Err(Failure::Run(format!("{path} of {address}: {error}"))),
        Err(_elapsed) => Err(Failure::Run(format!("{path} of {address}: no answer in {} s", LONGEST.as_secs()))),
    }
}

/// What a file has for the address, as far as it can be read.
fn configured(file: &Path) -> Option<String> {
    let table: toml::Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
    Some(table.get("server")?.get("admin_listen")?.as_str()?.to_owned())
}

/// Where a listener with this address is reached from its own machine.
fn address(text: &str) -> Result<SocketAddr, String> {
    let mut address: SocketAddr =
        text.parse().map_err(|_no_address| "server.admin_listen must be an IP address and a port".to_owned())?;
    if address.port() == 0 {
        return Err("server.admin_listen has port 0: which one it became cannot be known".to_owned());
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

/// The status of one answer.
async fn ask(address: SocketAddr, path: &str) -> Result<StatusCode, io::Error> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(io::Error::other)?);
    tokio::select! {
        answer = answer => answer.map(|response| response.status()).map_err(io::Error::other),
        // Drives the connection; it ends before the answer where that is no HTTP.
        ended = connection => Err(ended.err().map_or_else(|| io::ErrorKind::UnexpectedEof.into(), io::Error::other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_interface_is_asked_on_the_loopback_one() {
        for (written, asked) in [
            ("127.0.0.1:9090", "127.0.0.1:9090"),
            ("0.0.0.0:9091", "127.0.0.1:9091"),
            ("[::]:9092", "[::1]:9092"),
            ("[::1]:9093", "[::1]:9093"),
            ("10.0.0.7:9094", "10.0.0.7:9094"),
        ] {
            assert_eq!(address(written), Ok(asked.parse().expect("an address")), "{written}");
        }
    }

    #[test]
    fn what_is_no_address_with_a_port_is_one_sentence() {
        for written in ["", "9090", "localhost:9090", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536"] {
            let sentence = address(written).expect_err("it is wrong");
            assert!(sentence.starts_with("server.admin_listen ") && sentence.lines().count() == 1, "{sentence}");
        }
    }

    #[test]
    fn of_a_file_only_the_address_is_read_and_nothing_of_one_that_is_broken() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        for (text, found) in [
            ("[server]\nadmin_listen = \"127.0.0.1:9\"\nnonsense = 1\n", Some("127.0.0.1:9")),
            ("server.admin_listen = \"x\"", Some("x")),
            ("server.admin_listen = 9090", None),
            ("[server", None),
            ("", None),
        ] {
            std::fs::write(&file, text).expect("it is written");
            assert_eq!(configured(&file).as_deref(), found, "{text}");
        }
        assert_eq!(configured(&folder.path().join("missing.toml")), None);
    }
}
