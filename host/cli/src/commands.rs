//! The verbs of the command line, one module each.

mod audit;
mod bench;
mod breaker;
mod bundle;
mod change;
mod chaos;
pub(crate) mod check;
mod client;
mod context;
mod erase;
mod evidence;
mod exit;
mod filter;
mod hosts;
mod ids;
mod input;
mod me;
mod namespace;
mod on;
mod operate;
mod output;
mod plan;
mod plugin;
mod replace;
mod replay;
mod run;
mod sagas;
mod schedule;
mod service_manager;
mod signal;
mod start;
mod state;
mod store;
mod subscription;
mod token;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub(crate) use exit::{
    EXIT_DONE, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED, Failed, PipeClosed, of_error,
};
pub use output::format::Format;
pub(crate) use output::shown;

/// The saga platform whose steps and undos are WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "amends",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 error, 2 usage, 3 auth, 4 not found, 5 the saga was \
                  compensated,\n6 blocked, 7 the wait ended first, 8 the rehearsal found differences,\n9 the host \
                  lost its store, 130 interrupted, 141 the output was closed.\n\nExamples:\n  amends run examples/order-fulfillment/amends.toml\n  amends start \
                  order-fulfillment --input order.json --wait\n  amends list --status blocked"
)]
pub(crate) struct Cli {
    /// The host's address, for verbs that talk to one; may also stand after the verb
    #[arg(long, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// The context to use, of those that `amends context list` lists [env: AMENDS_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Whole ids, exact times, and nothing cut off, also on a terminal
    #[arg(long, global = true)]
    pub(crate) wide: bool,
    /// The namespace to work in; `token new` takes several, or '*' [env: AMENDS_NAMESPACE] [default: that of the
    /// context, else that of the token]
    #[arg(long, global = true, value_name = "NAME", display_order = 990)]
    pub(crate) namespace: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a host: sagas, plugins, HTTP API
    Run(run::Run),
    /// Look for mistakes in a config, its definitions and its plugins
    Check(check::Check),
    /// Try a definition and its plugins under every fault that a host can meet
    Chaos(chaos::Chaos),
    /// Measure how fast a host is on this machine
    Bench(bench::Bench),
    /// Start a saga, or one for each line of a file
    Start(start::Start),
    /// List sagas, the newest first
    List(sagas::List),
    /// Show a saga and its steps
    #[command(after_help = "Examples:\n  amends get 0198c0de-0000-7000-8000-000000000000\n  \
                            amends list --status blocked -o ids | amends get - -o jsonl")]
    Get(sagas::OneSaga),
    /// Show a saga's events, in order
    #[command(after_help = "Example:\n  amends history 0198c0de-0000-7000-8000-000000000000")]
    History(sagas::OneSaga),
    /// Follow a saga's events until it ends
    Watch(watch::Watch),
    /// Say in one sentence why a saga is where it is
    #[command(after_help = "Examples:\n  amends why 0198c0de-0000-7000-8000-000000000000\n  \
                            amends list --status blocked -o ids | amends why -")]
    Why(sagas::OneSaga),
    /// Show what a compensation would undo now, wave by wave
    #[command(after_help = "Example:\n  amends undo-plan 0198c0de-0000-7000-8000-000000000000")]
    UndoPlan(sagas::OneSaga),
    /// Show which effects stand: of a saga, or summed over those that have not completed
    Exposure(plan::Exposure),
    /// Compensate a saga that has not completed
    #[command(after_help = "Examples:\n  amends cancel ID --reason \"ordered twice\"\n  amends \
                            cancel --tag batch:7 --reason \"ordered twice\" --dry-run")]
    Cancel(operate::OrderArgs),
    /// Compensate a saga, also one that has completed
    #[command(after_help = "Examples:\n  amends compensate ID --reason \"sent back\"\n  amends \
                            compensate --status completed --tag batch:7 --reason \"recalled\" \
                            --dry-run")]
    Compensate(operate::OrderArgs),
    /// Retry now a call that failed for good or waits for its next attempt
    Retry(operate::Retry),
    /// Skip a step, or its undo: without the undo, the effect stands
    Skip(operate::Skip),
    /// Record what became of a call or an undo, with evidence
    Resolve(operate::Resolve),
    /// Pause a saga: no call of it begins until it is resumed
    #[command(after_help = "Examples:\n  amends pause ID --reason \"the price is wrong\"\n  \
                            amends pause --status running --definition order-fulfillment \
                            --reason \"the price is wrong\"")]
    Pause(operate::OrderArgs),
    /// Resume a saga that is paused, is in quarantine or has a full log
    #[command(after_help = "Examples:\n  amends resume ID --reason \"the price is right\"\n  \
                            amends resume --status paused --reason \"the price is right\" --rate \
                            50")]
    Resume(operate::OrderArgs),
    /// Abandon a saga: nothing acts on it any more, and effects may stand
    #[command(after_help = "Examples:\n  amends exposure ID\n  amends abandon ID --reason \
                            \"settled by phone\"")]
    Abandon(operate::OrderArgs),
    /// Add a note to a saga in any status; the note changes nothing else
    #[command(
        after_help = "Examples:\n  amends note ID --reason \"refunded by hand, ticket 44\"\n  \
                            amends note --tag batch:7 --reason \"see ticket 44\" --dry-run"
    )]
    Note(operate::OrderArgs),
    /// Send a saga the signal that one of its steps waits for
    Signal(signal::Signal),
    /// Erase the personal values of a subject, or list erasures
    Erase(erase::Erase),
    /// Write a saga into a file that the host signs, or check such a file without a host
    Evidence(evidence::Evidence),
    /// List the hosts that share the store, and how many shards each owns
    Hosts(hosts::Hosts),
    /// Make, list and revoke the tokens of a host with access control
    #[command(
        subcommand,
        after_help = "Examples:\n  amends token new shop --role service\n  amends token list\n  amends \
                      token revoke shop --reason \"it was in a log\""
    )]
    Token(token::Token),
    /// Show who you are to a host, and what you may do
    Me(me::Me),
    /// List the hosts that you work with, and choose the one that verbs talk to
    #[command(
        subcommand,
        after_help = "Examples:\n  amends context list\n  amends context use production\n  amends \
                      list --context staging"
    )]
    Context(context::ContextVerb),
    /// Show who asked a host with access control for a change, and what became of it
    Audit(audit::Audit),
    /// List the circuit breakers
    Breakers(plan::Breakers),
    /// Open or close a circuit breaker by hand
    #[command(
        subcommand,
        after_help = "Examples:\n  amends breaker list\n  amends breaker open carrier --for 1h --reason \
                      \"the carrier moves house\"\n  amends breaker close carrier --reason \"it is back\""
    )]
    Breaker(breaker::Breaker),
    /// List schedules: when they are due, and what they did last
    #[command(subcommand, after_help = "Example:\n  amends schedule list")]
    Schedule(schedule::Schedule),
    /// List the rules for events: what came, and what became of it
    #[command(subcommand, after_help = "Example:\n  amends on list")]
    On(on::On),
    /// List subscriptions, and send dead letters again
    #[command(
        subcommand,
        after_help = "Examples:\n  amends subscription list\n  amends subscription redrive billing \
                      --reason \"the receiver is mended\""
    )]
    Subscription(subscription::Subscription),
    /// Make, test, sign and deploy plugins
    #[command(
        subcommand,
        after_help = "Examples:\n  amends plugin list\n  amends plugin inspect \
                      plugins/inventory.wasm"
    )]
    Plugin(plugin::Plugin),
    /// Show and change the state of a plugin
    #[command(
        subcommand,
        after_help = "Examples:\n  amends state get inventory stock/north/metformin\n  amends \
                      state set inventory stock/north/metformin 40\n  amends state list inventory \
                      stock/\n  amends state import inventory stock.csv --key \
                      'stock/{warehouse}/{sku}' --value quantity"
    )]
    State(state::State),
    /// Look at the store, copy it, check a copy, and put a copy in its place
    #[command(
        subcommand,
        after_help = "Examples:\n  amends store stats\n  amends store backup \
                      amends-monday.db\n  amends store verify amends-monday.db\n  amends store \
                      restore amends-monday.db --config amends.toml"
    )]
    Store(store::Store),
    /// Step through the history of a saga from a file, without a host
    Replay(replay::Replay),
    /// Inspect a component from standard input, as the child process of a host
    #[command(name = amends_sandbox::INSPECT_COMPONENT, hide = true)]
    InspectComponent,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  amends completions bash > /etc/bash_completion.d/amends")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs a verb.
///
/// # Errors
/// What stopped it; a [`Failed`] in it says the exit code, else it is [`EXIT_ERROR`].
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // The TLS of every client of reqwest, which panics when there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if cli.host.is_some() && !talks_to_host(&cli.command) {
        let wrong = "this verb talks to no host, so --host changes nothing";
        return Err(Failed::with_help(exit::EXIT_USAGE, wrong, "leave it out").into());
    }
    let has_context = talks_to_host(&cli.command) || matches!(cli.command, Command::Context(_));
    if cli.context.is_some() && !has_context {
        let wrong = "this verb talks to no host, so --context changes nothing";
        return Err(Failed::with_help(exit::EXIT_USAGE, wrong, "leave it out").into());
    }
    if cli.namespace.is_some() && !has_namespace(&cli.command) {
        let wrong = "this verb works in no namespace, so --namespace changes nothing";
        return Err(Failed::with_help(exit::EXIT_USAGE, wrong, "leave it out").into());
    }
    client::set_host(cli.host);
    namespace::set(cli.namespace);
    context::set_context(cli.context);
    output::set_wide(cli.wide);
    let code = match cli.command {
        Command::Run(command) => return on_threads(run::run(command)),
        Command::Chaos(command) => return on_threads(chaos::run(command)),
        Command::Bench(command) => return on_threads(bench::run(command)),
        Command::Check(check) => return check::run(&check),
        Command::Start(command) => on_one_thread(start::run(command)),
        Command::List(command) => on_one_thread(sagas::list(command)),
        Command::Get(command) => on_one_thread(sagas::get(command)),
        Command::History(command) => on_one_thread(sagas::history(command)),
        Command::Watch(command) => on_one_thread(watch::run(command)),
        Command::Why(command) => on_one_thread(sagas::why(command)),
        Command::UndoPlan(command) => on_one_thread(plan::undo_plan(command)),
        Command::Exposure(command) => on_one_thread(plan::exposure(command)),
        Command::Cancel(command) => on_one_thread(operate::run("cancel", command)),
        Command::Compensate(command) => on_one_thread(operate::run("compensate", command)),
        Command::Retry(command) => on_one_thread(operate::retry(command)),
        Command::Skip(command) => on_one_thread(operate::skip(command)),
        Command::Resolve(command) => on_one_thread(operate::resolve(command)),
        Command::Pause(command) => on_one_thread(operate::run("pause", command)),
        Command::Resume(command) => on_one_thread(operate::run("resume", command)),
        Command::Abandon(command) => on_one_thread(operate::run("abandon", command)),
        Command::Note(command) => on_one_thread(operate::run("note", command)),
        Command::Signal(command) => on_one_thread(signal::run(command)),
        Command::Erase(command) => on_one_thread(erase::run(command)),
        Command::Evidence(command) => on_one_thread(evidence::run(command)),
        Command::Hosts(command) => on_one_thread(hosts::run(command)),
        Command::Token(command) => on_one_thread(token::run(command)),
        Command::Me(command) => on_one_thread(me::run(command)),
        Command::Context(command) => context::run(command),
        Command::Audit(command) => on_one_thread(audit::run(command)),
        Command::Breakers(command) => on_one_thread(plan::breakers(command)),
        Command::Breaker(command) => on_one_thread(breaker::run(command)),
        Command::Schedule(command) => on_one_thread(schedule::run(command)),
        Command::On(command) => on_one_thread(on::run(command)),
        Command::Subscription(command) => on_one_thread(subscription::run(command)),
        Command::Plugin(command) => on_one_thread(plugin::run(command)),
        Command::State(command) => on_one_thread(state::run(command)),
        Command::Store(command) => on_one_thread(store::run(command)),
        Command::Replay(command) => on_one_thread(replay::run(command)),
        Command::InspectComponent => return Ok(amends_sandbox::inspect_component()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "amends", &mut script);
            output::write(&script)?;
            Ok(EXIT_DONE)
        }
    };
    code.map(ExitCode::from)
}

/// Whether `--namespace` means something to a verb: it talks to a host, or works on the store of a config.
fn has_namespace(command: &Command) -> bool {
    use token::Token;
    // All tokens are in one place.
    let is_of_all = matches!(command, Command::Token(Token::List(_) | Token::Revoke(_)));
    let is_restore = matches!(command, Command::Store(store::Store::Restore(_)));
    is_restore || (talks_to_host(command) && !is_of_all)
}

/// Whether `--host` means something to a verb.
fn talks_to_host(command: &Command) -> bool {
    use plugin::Plugin;
    !matches!(
        command,
        Command::Run(_)
            | Command::Check(_)
            | Command::Chaos(_)
            | Command::Bench(_)
            | Command::Completions { .. }
            | Command::Context(_)
            | Command::Replay(_)
            | Command::Evidence(evidence::Evidence { command: Some(_), .. })
            | Command::Store(
                store::Store::Copy(_) | store::Store::Restore(_) | store::Store::Verify(_),
            )
            | Command::Plugin(
                Plugin::Inspect(_)
                    | Plugin::New(_)
                    | Plugin::Build(_)
                    | Plugin::Test(_)
                    | Plugin::Keygen(_)
                    | Plugin::Sign(_)
            )
    )
}

/// A host uses every core.
fn on_threads(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(work);
    // What is still blocked has nothing to lose: everything durable is closed.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code.map(ExitCode::from)
}

/// A client waits for a host; an interrupt ends it at once.
fn on_one_thread(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => Ok(EXIT_INTERRUPTED),
        }
    })
}
