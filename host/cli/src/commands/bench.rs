//! `bench`: how fast a host is on this machine, and what that costs.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use amends_workbench::bench::{self, BenchOptions, BenchReport, Load, STEPS, STEPS_MAX};
use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::commands::exit::{EXIT_DONE, EXIT_INTERRUPTED};
use crate::commands::output::format::Format;
use crate::commands::output::{complain, print_json, print_json_line};

/// Clients at once, unless told otherwise.
const CLIENTS: [usize; 5] = [1, 16, 64, 256, 1_024];

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends bench\n  amends bench --mode in-process --clients 256 \
                        --seconds 10 --floor\n  amends bench --mode http,batch --clients 64 -o json\n  \
                  amends bench --mode in-process --outcome happy --clients 64 --stored 1000,100000 \
                        --waiting 10000"
)]
pub(crate) struct Bench {
    /// How sagas are started: by calls within the process, by one HTTP request each, or by batches
    /// of 256 over HTTP, at most 8 at once
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::InProcess, Mode::Http, Mode::Batch])]
    pub(crate) mode: Vec<Mode>,
    /// What becomes of the sagas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Outcome::Happy, Outcome::Compensating])]
    pub(crate) outcome: Vec<Outcome>,
    /// Clients at once, one run for each number; each has one saga in flight, or one batch
    #[arg(long, value_delimiter = ',', default_values_t = CLIENTS, value_parser = clients)]
    pub(crate) clients: Vec<usize>,
    /// How long each run takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Whether each append is on the disk before it is acknowledged
    #[arg(long, value_enum, default_value_t = Durability::Full)]
    pub(crate) durability: Durability,
    /// Calls that an instance of a component may serve; 0: a fresh one for every call
    #[arg(long, value_name = "CALLS", default_value_t = 0)]
    pub(crate) reuse: u32,
    /// Steps of the saga, one run for each number
    #[arg(long, value_delimiter = ',', default_values_t = [STEPS], value_parser = steps)]
    pub(crate) steps: Vec<usize>,
    /// Sagas that have ended and are in the store before a run, one run for each number
    #[arg(long, value_name = "SAGAS", value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub(crate) stored: Vec<u64>,
    /// Sagas that wait during each run, half of them for a signal and half for a time
    #[arg(long, value_name = "SAGAS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=150_000))]
    pub(crate) waiting: u64,
    /// Swap a plugin for another component so many times a minute, each of which is compiled; one
    /// run for each number. Within the process only
    #[arg(long, value_name = "A MINUTE", value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u64).range(0..=120))]
    pub(crate) swaps: Vec<u64>,
    /// After each run, measure what its parts can do alone: the commits of its bytes, the calls of
    /// its components, and fsync
    #[arg(long)]
    pub(crate) floor: bool,
    /// Keep the stores on a PostgreSQL server of this machine, named by a database of it: postgres://USER@HOST/DATABASE.
    /// Each run makes a database of its own there and drops it
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Hosts that share the store; one run for each number. Over HTTP, and with --store
    #[arg(long, value_delimiter = ',', default_values_t = [1], value_parser = hosts)]
    pub(crate) hosts: Vec<usize>,
    /// Where the stores are made and removed; a temporary folder when it is not said
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// How the figures are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How sagas are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// By calls within the process.
    InProcess,
    /// By one HTTP request each, which waits for the saga's end, to a host of its own.
    Http,
    /// By batches over HTTP; each client sends one after another.
    Batch,
}

/// What becomes of the sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    /// Three steps succeed.
    Happy,
    /// The third fails, so two are undone.
    Compensating,
}

/// Whether appends are on the disk before they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// They are.
    Full,
    /// A power cut may lose the last moments.
    Relaxed,
}

impl Bench {
    fn to_options(&self) -> anyhow::Result<BenchOptions> {
        let modes = self.mode.iter().map(|mode| match mode {
            Mode::InProcess => bench::Mode::InProcess,
            Mode::Http => bench::Mode::Http,
            Mode::Batch => bench::Mode::Batch,
        });
        let outcomes = self.outcome.iter().map(|outcome| match outcome {
            Outcome::Happy => bench::Outcome::Happy,
            Outcome::Compensating => bench::Outcome::Compensating,
        });
        Ok(BenchOptions {
            modes: modes.collect(),
            outcomes: outcomes.collect(),
            clients: self.clients.clone(),
            time: Duration::from_secs(self.seconds),
            durability: match self.durability {
                Durability::Full => amends_store::Durability::Full,
                Durability::Relaxed => amends_store::Durability::Relaxed,
            },
            reuse: self.reuse,
            steps: self.steps.clone(),
            stored: self.stored.clone(),
            waiting: self.waiting,
            swaps: self.swaps.clone(),
            floor: self.floor,
            dir: self.dir.clone(),
            server: self.store.clone(),
            hosts: self.hosts.clone(),
            program: std::env::current_exe().context("where this program is")?,
            complain: |line| complain!("{line}"),
        })
    }
}

pub(crate) async fn run(args: Bench) -> anyhow::Result<u8> {
    let options = args.to_options()?;
    let loads = options.loads()?;
    anyhow::ensure!(args.output != Format::Ids, "-o ids: figures have no ids; use json or jsonl");
    // Dropped, what is under way removes its folder and ends its host.
    tokio::select! {
        done = all(&options, &loads, args.output) => done.map(|()| EXIT_DONE),
        _ = tokio::signal::ctrl_c() => Ok(EXIT_INTERRUPTED),
    }
}

async fn all(options: &BenchOptions, loads: &[Load], format: Format) -> anyhow::Result<()> {
    let mut report = BenchReport::new(options);
    for (number, load) in loads.iter().enumerate() {
        let Load { mode, outcome, clients, .. } = *load;
        let name = format!("{}, {}, {clients} clients", mode.word(), outcome.word());
        match bench::run(options, *load).await {
            Ok(run) => {
                let sagas = run.sagas_per_second;
                eprintln!("run {} of {}: {name}: {sagas:.0} sagas/s", number + 1, loads.len());
                if format == Format::Jsonl {
                    print_json_line(&serde_json::to_value(&run)?)?;
                }
                report.runs.push(run);
            }
            // What was measured before is told all the same.
            Err(error) => {
                print(&report, format)?;
                return Err(error.context(name));
            }
        }
    }
    print(&report, format)
}

fn print(report: &BenchReport, format: Format) -> anyhow::Result<()> {
    match format {
        // Each run was told when it was over.
        Format::Jsonl => Ok(()),
        Format::Json => print_json(&serde_json::to_value(report)?),
        Format::Table | Format::Ids => report::print(report),
    }
}

fn clients(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(clients) if (1..=10_000).contains(&clients) => Ok(clients),
        Ok(_) | Err(_) => Err("clients are a number from 1 to 10000".to_owned()),
    }
}

fn hosts(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(hosts) if (1..=16).contains(&hosts) => Ok(hosts),
        Ok(_) | Err(_) => Err("hosts are a number from 1 to 16".to_owned()),
    }
}

fn steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(steps) if (1..=STEPS_MAX).contains(&steps) => Ok(steps),
        Ok(_) | Err(_) => Err(format!("steps are a number from 1 to {STEPS_MAX}")),
    }
}
