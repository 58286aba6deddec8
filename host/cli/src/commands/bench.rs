//! `bench`: how fast a host is on this machine, and what that costs.
//!
//! One saga of three trivial steps, as it completes and as it is undone, from a number of clients
//! in a closed loop: each starts the next saga when the one before has ended. Everything is real:
//! components, store, fsync. After each run the store is closed, opened again and counted: a saga
//! that is not in it, ended as it must, fails the bench.
//!
//! Deliberately absent: a time that is compared with another machine's. Machines are shared and
//! differ; compare what one run prints.

mod floor;
mod host;
mod http;
mod inside;
mod measure;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::commands::Format;
use crate::commands::exit::{EXIT_DONE, EXIT_INTERRUPTED};

use host::{Place, STEPS_MAX};
use report::{Report, Run};

/// Clients at once, unless told otherwise.
const CLIENTS: [usize; 5] = [1, 16, 64, 256, 1_024];

/// Steps of the saga, unless told otherwise.
const STEPS: usize = 3;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends bench\n  amends bench --mode in-process --clients 256 \
                        --seconds 10 --floor\n  amends bench --mode http,batch --clients 64 -o json\n  \
                  amends bench --mode in-process --outcome happy --clients 64 --stored 1000,100000 \
                        --waiting 10000"
)]
pub struct Bench {
    /// How sagas are started: by calls within the process, by one HTTP request each, or by batches
    /// of 256 over HTTP, at most 8 at once
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::InProcess, Mode::Http, Mode::Batch])]
    pub mode: Vec<Mode>,
    /// What becomes of the sagas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Outcome::Happy, Outcome::Compensating])]
    pub outcome: Vec<Outcome>,
    /// Clients at once, one run for each number; each has one saga in flight, or one batch
    #[arg(long, value_delimiter = ',', default_values_t = CLIENTS, value_parser = clients)]
    pub clients: Vec<usize>,
    /// How long each run takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Whether each append is on the disk before it is acknowledged
    #[arg(long, value_enum, default_value_t = Durability::Full)]
    pub durability: Durability,
    /// Calls that an instance of a component may serve; 0: a fresh one for every call
    #[arg(long, value_name = "CALLS", default_value_t = 0)]
    pub reuse: u32,
    /// Steps of the saga, one run for each number
    #[arg(long, value_delimiter = ',', default_values_t = [STEPS], value_parser = steps)]
    pub steps: Vec<usize>,
    /// Sagas that have ended and are in the store before a run, one run for each number
    #[arg(long, value_name = "SAGAS", value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub stored: Vec<u64>,
    /// Sagas that wait during each run, half of them for a signal and half for a time
    #[arg(long, value_name = "SAGAS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=150_000))]
    pub waiting: u64,
    /// Swap a plugin for another component so many times a minute, each of which is compiled; one
    /// run for each number. Within the process only
    #[arg(long, value_name = "A MINUTE", value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u64).range(0..=120))]
    pub swaps: Vec<u64>,
    /// After each run, measure what its parts can do alone: the commits of its bytes, the calls of
    /// its components, and fsync
    #[arg(long)]
    pub floor: bool,
    /// Where the stores are made and removed; a temporary folder when it is not said
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// How the figures are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How sagas are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By calls within the process.
    InProcess,
    /// By one HTTP request each, which waits for the saga's end, to a host of its own.
    Http,
    /// By batches over HTTP; each client sends one after another.
    Batch,
}

/// What becomes of the sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// Three steps succeed.
    Happy,
    /// The third fails, so two are undone.
    Compensating,
}

/// Whether appends are on the disk before they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// They are.
    Full,
    /// A power cut may lose the last moments.
    Relaxed,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Http => "http",
            Self::Batch => "batch",
        }
    }
}

impl Durability {
    const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Relaxed => "relaxed",
        }
    }
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Happy => "happy",
            Self::Compensating => "compensating",
        }
    }

    /// What a saga of so many steps is given, for this to become of it.
    fn input(self, steps: usize) -> String {
        match self {
            Self::Happy => r#"{"order_id":"ORD-2026-000001"}"#.to_owned(),
            Self::Compensating => {
                let last = host::step(steps - 1);
                format!(r#"{{"order_id":"ORD-2026-000001","fails":"{last}"}}"#)
            }
        }
    }

    /// How its sagas end.
    const fn end(self) -> amends_engine::SagaStatus {
        match self {
            Self::Happy => amends_engine::SagaStatus::Completed,
            Self::Compensating => amends_engine::SagaStatus::Compensated,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
struct Load {
    mode: Mode,
    outcome: Outcome,
    clients: usize,
    time: Duration,
    steps: usize,
    /// Ended sagas that are in the store before it.
    stored: u64,
    /// Sagas that wait meanwhile.
    waiting: u64,
    /// Swaps of a component, a minute.
    swaps: u64,
}

impl Load {
    /// Sagas in flight at once, at most.
    fn in_flight(&self) -> usize {
        match self.mode {
            Mode::InProcess | Mode::Http => self.clients,
            Mode::Batch => self.clients.min(http::BATCHES_MAX) * http::BATCH,
        }
    }
}

fn clients(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(clients) if (1..=10_000).contains(&clients) => Ok(clients),
        Ok(_) | Err(_) => Err("clients are a number from 1 to 10000".to_owned()),
    }
}

fn steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(steps) if (1..=STEPS_MAX).contains(&steps) => Ok(steps),
        Ok(_) | Err(_) => Err(format!("steps are a number from 1 to {STEPS_MAX}")),
    }
}

pub(crate) async fn run(args: Bench) -> anyhow::Result<u8> {
    let swaps = args.swaps.iter().any(|swaps| *swaps > 0);
    anyhow::ensure!(
        !swaps || args.mode == [Mode::InProcess],
        "--swaps goes with --mode in-process alone"
    );
    anyhow::ensure!(args.output != Format::Ids, "-o ids: figures have no ids; use json or jsonl");
    // Dropped, what is under way removes its folder and ends its host.
    tokio::select! {
        done = all(&args) => done.map(|()| EXIT_DONE),
        _ = tokio::signal::ctrl_c() => Ok(EXIT_INTERRUPTED),
    }
}

async fn all(args: &Bench) -> anyhow::Result<()> {
    let mut report = Report::new(args);
    let loads = loads(args);
    for (number, load) in loads.iter().enumerate() {
        let Load { mode, outcome, clients, .. } = *load;
        let name = format!("{}, {}, {clients} clients", mode.word(), outcome.word());
        match one(args, *load).await {
            Ok(run) => {
                let sagas = run.measured.per_second();
                eprintln!("run {} of {}: {name}: {sagas:.0} sagas/s", number + 1, loads.len());
                report.add(run)?;
            }
            // What was measured before is told all the same.
            Err(error) => {
                report.print(args.output)?;
                return Err(error.context(name));
            }
        }
    }
    report.print(args.output)
}

/// Every run, in the order in which they are made.
fn loads(args: &Bench) -> Vec<Load> {
    let loads = [Load {
        mode: Mode::InProcess,
        outcome: Outcome::Happy,
        clients: 1,
        time: Duration::from_secs(args.seconds),
        steps: STEPS,
        stored: 0,
        waiting: args.waiting,
        swaps: 0,
    }];
    let loads = each(&loads, &args.mode, |load, mode| load.mode = mode);
    let loads = each(&loads, &args.outcome, |load, outcome| load.outcome = outcome);
    let loads = each(&loads, &args.clients, |load, clients| load.clients = clients);
    let loads = each(&loads, &args.steps, |load, steps| load.steps = steps);
    let loads = each(&loads, &args.stored, |load, stored| load.stored = stored);
    each(&loads, &args.swaps, |load, swaps| load.swaps = swaps)
}

/// Each of the loads with each of the values.
fn each<T: Copy>(loads: &[Load], values: &[T], set: impl Fn(&mut Load, T)) -> Vec<Load> {
    let with = |mut load: Load, value: T| {
        set(&mut load, value);
        load
    };
    loads.iter().flat_map(|load| values.iter().map(|value| with(*load, *value))).collect()
}

/// Each run has a store and a host of its own, so that none is slower for what came before it.
async fn one(args: &Bench, load: Load) -> anyhow::Result<Run> {
    let place = Place::new(args, load.steps)?;
    inside::fill(&place, load).await?;
    let before = place.before().await?;
    let measured = match load.mode {
        Mode::InProcess => inside::run(&place, load).await?,
        Mode::Http | Mode::Batch => http::run(&place, load).await?,
    };
    let stored = place.count(load, measured.sagas, before).await?;
    let floor = if args.floor {
        Some(floor::measure(args, load, &measured, stored.bytes).await?)
    } else {
        None
    };
    Ok(Run { load, measured, stored, floor })
}
