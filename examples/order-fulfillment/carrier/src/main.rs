//! A small parcel carrier over HTTP, for the example and for tests of sagas: it issues labels,
//! cancels them, and has on purpose the faults that services and networks have.
//!
//! `ledger` knows the labels, `faults` what goes wrong, and `http` brings the two together. What
//! it knows ends with the process.

mod faults;
mod http;
mod ledger;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use faults::{Chances, Faults, Probability, parse_stall_ms};
use http::{Carrier, router};
use ledger::{ENTRIES_MAX, Ledger};

/// After a signal, requests in flight have this long: no stall is worth the wait, for nothing
/// outlasts the process.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A small parcel carrier over HTTP, with faults on purpose.
#[derive(Debug, Parser)]
#[command(name = "carrier", version)]
struct Arguments {
    /// Where to listen, on this machine only; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7171", value_parser = parse_listen)]
    listen: SocketAddr,
    /// How likely a request fails with 503, without an effect: 0 to 1
    #[arg(long, value_name = "P", default_value = "0", allow_negative_numbers = true)]
    fail: Probability,
    /// How likely a request stalls before its effect: 0 to 1
    #[arg(long, value_name = "P", default_value = "0", allow_negative_numbers = true)]
    stall: Probability,
    /// How long a request stalls, such as 500ms or 3s
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_stall_ms)]
    stall_for: u64,
    /// How likely the answer gets lost after the effect: 0 to 1
    #[arg(long, value_name = "P", default_value = "0", allow_negative_numbers = true)]
    lose: Probability,
    /// How likely a request arrives twice: 0 to 1
    #[arg(long, value_name = "P", default_value = "0", allow_negative_numbers = true)]
    duplicate: Probability,
    /// The environment variable with the token that every request must bear
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// The same seed and the same order of requests give the same faults
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let token = arguments.token_env.as_deref().map(read_token).transpose()?;
    let chances = Chances {
        fail: arguments.fail,
        stall: arguments.stall,
        stall_ms: arguments.stall_for,
        lose: arguments.lose,
        duplicate: arguments.duplicate,
    };
    let faults = Faults::new(chances, arguments.seed);
    let carrier = Carrier::new(Ledger::new(ENTRIES_MAX), faults, token);
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    // Before anyone is told that it listens: a signal that comes at once is heard.
    let signals = Signals::new()?;
    tell_ready(listener.local_addr()?)?;
    serve(listener, router(Arc::new(carrier)), signals).await
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("`{text}` is not an address and a port, such as 127.0.0.1:7171 or [::1]:7171")
    })?;
    let loopback = address.ip().is_loopback();
    loopback.then_some(address).ok_or_else(|| {
        format!("{address} is open to other machines; an example listens on loopback only")
    })
}

fn read_token(name: &str) -> anyhow::Result<String> {
    let token = std::env::var_os(name)
        .with_context(|| format!("no token: the environment variable {name} is not set"))?;
    // Anything else would not come through a header as it was sent. No error shows the token.
    let token = token.into_string().unwrap_or_default();
    let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(visible, "the token in {name} must be visible ASCII without spaces, and not empty");
    Ok(token)
}

fn tell_ready(address: SocketAddr) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "carrier listens on http://{address}")
        .and_then(|()| stdout.flush())
        .context("cannot say on which address it listens")
}

/// What tells the service to stop. While there is none of it, the system ends the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("no signals")?,
            interrupt: signal(SignalKind::interrupt()).context("no signals")?,
        })
    }

    async fn any(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Until a signal, and then for at most [`STOP_LIMIT`].
async fn serve(listener: TcpListener, router: Router, signals: Signals) -> anyhow::Result<()> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let mut serving =
        std::pin::pin!(axum::serve(listener, router).with_graceful_shutdown(stopped).into_future());
    tokio::select! {
        ended = &mut serving => return ended.context("cannot serve"),
        () = signals.any() => drop(stop),
    }
    match tokio::time::timeout(STOP_LIMIT, serving).await {
        Ok(ended) => ended.context("cannot serve"),
        Err(_) => Ok(()),
    }
}
