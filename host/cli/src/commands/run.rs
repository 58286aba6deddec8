//! `run`: the host.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use futures::future::{join_all, select_all};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use amends_api::{
    ApiState, CONNECTIONS_MAX, ConnectionLimit, PrometheusHandle, Server, Tls, prometheus, router,
    starting,
};
use amends_runtime::{DEFAULT_NAMESPACE, Host};

use crate::commands::exit::{
    EXIT_DONE, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_STORE_LOST, EXIT_USAGE, Failed,
};
use crate::commands::output::{log_line, shown};
use crate::commands::service_manager;
use amends_config::{HostConfig, Hosts, OpenHostError, OverrideFlags, Overrides, load, open_all};

/// How long calls in flight may take after the host was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How long requests may take after that.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How often samples of histograms are summed up. A busy host records some ten thousand a second:
/// so few of them take little memory, and summing them up is a short task.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The variable of the environment that says what the host logs.
const LOG_VARIABLE: &str = "AMENDS_LOG";

/// What the host logs when the variable is not set.
const LOG_DEFAULT: &str = "info";

/// What the variable takes.
const LOG_HELP: &str = "write a level (`off`, `error`, `warn`, `info`, `debug` or `trace`), TARGET=LEVEL, \
                        or several of these, such as `info,amends_runtime=debug,plugin=debug`";

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends run examples/order-fulfillment/amends.toml\n\nSIGTERM \
                        or an interrupt stops it: no new calls, those in flight settle for up to \
                        20 s.\nSIGHUP reads the certificate of the host again, if it has one, and nothing \
                        else: a changed config needs a restart.\nAMENDS_LOG says how much it logs, such as info or \
                        amends_runtime=debug,plugin=debug.")]
pub(crate) struct Run {
    /// The config file (TOML)
    pub(crate) config: PathBuf,
    /// What stands above the file.
    #[command(flatten)]
    pub(crate) overrides: OverrideFlags,
}

pub(crate) async fn run(args: Run) -> anyhow::Result<u8> {
    log_to_stderr(log_filter(std::env::var_os(LOG_VARIABLE).as_deref())?);
    let began = Instant::now();
    let hangups = tokio::spawn(pass_over(hangup_signal()?));
    let mut loaded = match load(&args.config, &Overrides::of_process(args.overrides)) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", shown(&report.to_string()));
            return Ok(EXIT_ERROR);
        }
    };
    if loaded.report.warnings() > 0 {
        eprint!("{}", shown(&loaded.report.to_string()));
    }
    let tls = own_tls(&loaded.config.host)?;
    if let Some(tls) = tls.clone() {
        hangups.abort();
        tokio::spawn(keep_certificate(tls, hangup_signal()?));
    }
    let connections = ConnectionLimit::for_descriptors(raise_descriptors());
    if connections.served < CONNECTIONS_MAX {
        let served = connections.served;
        tracing::warn!(
            served,
            "few clients at once: the process may have few descriptors (ulimit -Hn)"
        );
    }
    let listen = loaded.config.host.listen;
    let public_url = loaded.config.host.public_url.clone();
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; is another host running? set host.listen or --listen")
    })?;
    let listen = listener.local_addr().unwrap_or(listen);
    // With port 0, the system has chosen one.
    loaded.config.host.listen = listen;
    for namespace in loaded.namespaces.values_mut() {
        namespace.config.host.listen = listen;
    }
    let prometheus = prometheus().context("cannot collect metrics")?;
    // It says that it lives and what it does, while it compiles.
    let progress = loaded.config.plugins.progress.clone();
    let has_access_control = loaded.config.auth.is_some();
    let rate = loaded.config.auth.as_ref().and_then(|auth| auth.rate);
    let (start, opening) =
        starting(public_url.clone(), has_access_control, move || progress.words());
    let (close, closing) = tokio::sync::watch::channel(false);
    let server = Server::new(start, connections, closing).with_tls(tls);
    let server = tokio::spawn(server.run(listener));
    let hosts = Arc::new(open_all(loaded).await.map_err(damaged_store)?);
    // Before anybody can learn that it is ready, and stop it.
    let signals = Signals::new()?;
    let upkeep = tokio::spawn(keep_up(prometheus.clone()));
    let state = ApiState::new(hosts.default.clone(), prometheus, public_url)
        .with_namespaces(hosts.others.iter().cloned());
    opening.open(router(match rate {
        Some(rate) => state.with_token_rate(rate.per_second, rate.burst),
        None => state,
    }));
    service_manager::ready();
    let watchdog = tokio::spawn(service_manager::keep_saying_that_it_lives(Arc::clone(&hosts)));
    tracing::info!(listen = %listen, ready_ms = ms(began.elapsed()), "amends is ready");
    let ended = tokio::select! {
        code = serve_until_told(&hosts, signals) => Ok(code),
        lost = store_lost(&hosts) => Err(lost),
    };
    if let Err(lost) = &ended {
        tracing::error!(error = lost, "amends ends: it can record nothing any more");
        // Nothing that is in flight can be recorded; it is unknown to whoever goes on.
        let _ = tokio::time::timeout(CLOSE_LIMIT, stop_all(&hosts, Duration::ZERO)).await;
    }
    let _ = close.send(true);
    let _ = tokio::time::timeout(CLOSE_LIMIT, server).await;
    upkeep.abort();
    watchdog.abort();
    close_all(&hosts).await?;
    tracing::info!("amends has stopped");
    ended.map_err(|message| Failed { exit: EXIT_STORE_LOST, message }.into())
}

/// Waits until the store of a namespace is lost. Returns what to say of it.
async fn store_lost(hosts: &Hosts) -> String {
    let each = hosts.all().map(|host| {
        Box::pin(async move {
            let error = host.store_lost().await;
            let name = host.namespace();
            if name == DEFAULT_NAMESPACE {
                format!("the store is lost to this host: {error}")
            } else {
                format!("the store of the namespace `{name}` is lost to this host: {error}")
            }
        })
    });
    let (lost, _, _) = select_all(each).await;
    lost
}

/// Stops all namespaces at once. Returns how many calls were cut off.
async fn stop_all(hosts: &Hosts, limit: Duration) -> usize {
    join_all(hosts.all().map(|host| host.stop(limit))).await.into_iter().sum()
}

/// Closes all namespaces, also when one cannot be closed.
async fn close_all(hosts: &Hosts) -> anyhow::Result<()> {
    let closed = join_all(hosts.all().map(Host::close)).await;
    closed.into_iter().collect::<Result<(), _>>().context("the store cannot be closed")
}

/// Ends with the exit code of a lost store when the store is damaged, so that whoever looks after the process
/// does not start it again.
fn damaged_store(error: OpenHostError) -> anyhow::Error {
    if !error.is_damage() {
        return error.into();
    }
    let message = format!(
        "{error}\n`amends store verify FILE` shows the damage; `amends store restore BACKUP --config CONFIG \
         --replace` puts a backup in the place of the store"
    );
    Failed { exit: EXIT_STORE_LOST, message }.into()
}

/// Raises the process's limit of descriptors to what it may have at most, and returns that. `None`: as
/// many as it likes. The usual limit is low for the sake of old programs only.
fn raise_descriptors() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors cannot be raised");
            current
        }
    }
}

/// Takes in what was recorded since the last time. Until then histograms keep every single sample,
/// and nobody need ever ask for the metrics.
async fn keep_up(prometheus: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        prometheus.run_upkeep();
    }
}

/// What tells a host to stop. While there is none of it, the system ends the process.
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
}

/// Returns what is told of each SIGHUP. From the first call on, the system does not end the process for one.
fn hangup_signal() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("no signals")
}

/// Reads the host's own certificate, if the config names one.
fn own_tls(host: &HostConfig) -> Result<Option<Tls>, Failed> {
    let Some(files) = host.own_tls() else { return Ok(None) };
    match Tls::open(files.certificate.clone(), files.key.clone()) {
        Ok(tls) => Ok(Some(tls)),
        Err(error) => {
            let help = "tls in [host] names a file with the certificate of the host and those that lead to its \
                        authority, and a file with its private key, both in PEM and readable by the host";
            Err(Failed::with_help(EXIT_ERROR, &error.to_string(), help))
        }
    }
}

/// Keeps the host's own certificate as its files are. Each SIGHUP has them read at once.
async fn keep_certificate(tls: Tls, mut hangups: Signal) {
    let asked = async {
        while hangups.recv().await.is_some() {
            tracing::info!(
                "SIGHUP: the certificate is read again, and nothing else; a changed config is read at the next \
                 start"
            );
            tls.read_again().await;
        }
    };
    tokio::join!(tls.keep_current(), asked);
}

/// Says for each SIGHUP that the host goes on as it is. Without this the system would end the process
/// at once, when somebody means to reload the config or closes the terminal.
async fn pass_over(mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        tracing::warn!(
            "SIGHUP: nothing is reloaded and the host goes on; a changed config is read at the next \
             start, so stop it with SIGTERM and start it again, which takes a moment: sagas go on where \
             they were"
        );
    }
}

/// Until a signal. A second one ends the process at once; what is durable stays so.
async fn serve_until_told(hosts: &Hosts, signals: Signals) -> u8 {
    let Signals { mut terminate, mut interrupt } = signals;
    let interrupted = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => true,
    };
    service_manager::stopping();
    tracing::info!("amends is stopping: no new calls, those in flight settle");
    tokio::select! {
        cut_off = stop_all(hosts, STOP_LIMIT) => {
            if cut_off > 0 {
                tracing::warn!(cut_off, "calls were cut off; the next start takes them as unknown");
            }
        }
        _ = terminate.recv() => std::process::exit(i32::from(EXIT_ERROR)),
        _ = interrupt.recv() => std::process::exit(i32::from(EXIT_INTERRUPTED)),
    }
    if interrupted { EXIT_INTERRUPTED } else { EXIT_DONE }
}

/// Standard error, a line of the log at a time. What a plugin logs, and what others say in an error,
/// stays in its line and does not steer the terminal.
struct Terminal {
    colour: bool,
}

impl Write for Terminal {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = log_line(&String::from_utf8_lossy(line), self.colour);
        std::io::stderr().lock().write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Returns the filter that a value of [`LOG_VARIABLE`] describes. An empty value counts as no value.
///
/// # Errors
/// When the value is no filter. A word alone has to be a level. The parser takes any other word for a
/// target, so a misspelled level would hide every line of the host.
fn log_filter(value: Option<&OsStr>) -> Result<EnvFilter, Failed> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(EnvFilter::new(LOG_DEFAULT));
    };
    let refused = |why: &str| {
        let wrong = format!("{LOG_VARIABLE} is `{}`: {why}", value.display());
        Failed::with_help(EXIT_USAGE, &wrong, LOG_HELP)
    };
    let text = value.to_str().ok_or_else(|| refused("it is not UTF-8"))?;
    let is_word = |part: &&str| !part.is_empty() && !part.contains(['=', '[', ']', '{', '}']);
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    if let Some(word) = text.split(',').map(str::trim).filter(is_word).find(|part| !is_level(part))
    {
        return Err(refused(&format!("`{word}` is not a level")));
    }
    EnvFilter::try_new(text).map_err(|error| refused(&error.to_string()))
}

/// Human on a terminal, JSON otherwise.
fn log_to_stderr(filter: EnvFilter) {
    // The first writes a line for each request of a component that makes no sense, without any limit; the
    // second, for each request to the archive that it repeats.
    let quiet = ["wasmtime_wasi_http=off", "object_store=warn"].map(str::parse);
    let filter = quiet.into_iter().flatten().fold(filter, EnvFilter::add_directive);
    // Where the log went may be gone, such as a terminal that was closed: that is said nowhere, because
    // saying it on standard error panics.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colour).with_writer(move || Terminal { colour }).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}

fn ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_log_filter_is_taken_or_refused_with_its_reason() {
        for (value, filter) in [
            (None, "info"),
            (Some(""), "info"),
            (Some("off"), "off"),
            (Some("WARN"), "warn"),
            (
                Some("info,amends_runtime=debug,plugin=debug"),
                "amends_runtime=debug,plugin=debug,info",
            ),
            (Some("amends_sandbox[call{step=x}]=trace"), "amends_sandbox[call{step=x}]=trace"),
        ] {
            let taken = log_filter(value.map(OsStr::new)).unwrap();
            // Before it may stand what holds for all other targets.
            assert!(taken.to_string().ends_with(filter), "{value:?}: {taken}");
        }
        let refused = [
            (&b"debgu"[..], "AMENDS_LOG is `debgu`: `debgu` is not a level"),
            (b"info,amends", "AMENDS_LOG is `info,amends`: `amends` is not a level"),
            (b"amends=inof", "AMENDS_LOG is `amends=inof`: "),
            (b"info\xff", "AMENDS_LOG is `info\u{fffd}`: it is not UTF-8"),
        ];
        for (value, words) in refused {
            let failed = log_filter(Some(OsStr::from_bytes(value))).unwrap_err();
            assert_eq!(failed.exit, EXIT_USAGE);
            assert!(failed.message.starts_with(words), "{}", failed.message);
            assert!(failed.message.ends_with(LOG_HELP), "{}", failed.message);
        }
    }
}
