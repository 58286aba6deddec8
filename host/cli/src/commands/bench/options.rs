//! What is measured: the arguments of the verb, and one run of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::commands::output::format::Format;

/// Clients at once, unless told otherwise.
const CLIENTS: [usize; 5] = [1, 16, 64, 256, 1_024];

/// Steps of the saga, unless told otherwise.
pub(super) const STEPS: usize = 3;

/// Steps of a saga, at most: fewer than a definition may have, and enough to see what grows.
pub(super) const STEPS_MAX: usize = 100;

/// Starts of one batch.
pub(super) const BATCH: usize = 256;

/// Batches at once, whatever the number of clients: more than a host takes are refused.
pub(super) const BATCHES_MAX: usize = 8;

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
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Http => "http",
            Self::Batch => "batch",
        }
    }
}

impl Durability {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Relaxed => "relaxed",
        }
    }
}

impl Outcome {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Happy => "happy",
            Self::Compensating => "compensating",
        }
    }

    /// What a saga of so many steps is given, for this to become of it.
    pub(super) fn input(self, steps: usize) -> String {
        match self {
            Self::Happy => r#"{"order_id":"ORD-2026-000001"}"#.to_owned(),
            Self::Compensating => {
                let last = step(steps - 1);
                format!(r#"{{"order_id":"ORD-2026-000001","fails":"{last}"}}"#)
            }
        }
    }

    /// How its sagas end.
    pub(super) const fn end(self) -> amends_engine::SagaStatus {
        match self {
            Self::Happy => amends_engine::SagaStatus::Completed,
            Self::Compensating => amends_engine::SagaStatus::Compensated,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) mode: Mode,
    pub(super) outcome: Outcome,
    pub(super) clients: usize,
    pub(super) time: Duration,
    pub(super) steps: usize,
    /// Ended sagas that are in the store before it.
    pub(super) stored: u64,
    /// Sagas that wait meanwhile.
    pub(super) waiting: u64,
    /// Swaps of a component, a minute.
    pub(super) swaps: u64,
}

impl Load {
    /// Sagas in flight at once, at most.
    pub(super) fn in_flight(&self) -> usize {
        match self.mode {
            Mode::InProcess | Mode::Http => self.clients,
            Mode::Batch => self.clients.min(BATCHES_MAX) * BATCH,
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

/// The name of a step: those of the three plugins, then numbers.
pub(super) fn step(index: usize) -> String {
    PLUGINS.get(index).map_or_else(|| format!("step-{}", index + 1), |name| (*name).to_owned())
}

/// The plugins, each the same component.
pub(super) const PLUGINS: [&str; 3] = ["prescription", "inventory", "shipment"];

/// The plugin that serves a step.
pub(super) fn plugin(step: usize) -> &'static str {
    PLUGINS[step % PLUGINS.len()]
}
