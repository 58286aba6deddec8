//! What is measured: the options of a bench, and one run of it.

use std::path::PathBuf;
use std::time::Duration;

use amends_store::Durability;

/// Steps of the saga, unless told otherwise.
pub const STEPS: usize = 3;

/// Steps of a saga, at most: fewer than a definition may have, and enough to see what grows.
pub const STEPS_MAX: usize = 100;

/// Starts of one batch.
pub(super) const BATCH: usize = 256;

/// Batches at once, whatever the number of clients: more than a host takes are refused.
pub(super) const BATCHES_MAX: usize = 8;

/// What is measured. Where it has several values, there is a run for each combination of them.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// How sagas are started.
    pub modes: Vec<Mode>,
    /// What becomes of the sagas.
    pub outcomes: Vec<Outcome>,
    /// Clients at once; each has one saga in flight, or one batch.
    pub clients: Vec<usize>,
    /// How long each run takes.
    pub time: Duration,
    /// Whether each append is on the disk before it is acknowledged.
    pub durability: Durability,
    /// Calls that an instance of a component may serve; 0: a fresh one for every call.
    pub reuse: u32,
    /// Steps of the saga, at most [`STEPS_MAX`].
    pub steps: Vec<usize>,
    /// Sagas that have ended and are in the store before a run.
    pub stored: Vec<u64>,
    /// Sagas that wait during each run, half of them for a signal and half for a time.
    pub waiting: u64,
    /// Swaps of a plugin for another component, a minute. Within the process only.
    pub swaps: Vec<u64>,
    /// Also measure what the parts of a host can do alone, after each run.
    pub floor: bool,
    /// Where the stores are made and removed; a temporary folder when there is none.
    pub dir: Option<PathBuf>,
    /// A PostgreSQL server, as the URL of a database of it: each run makes a database of its own there and drops it.
    /// None: each run has an SQLite file.
    pub server: Option<String>,
    /// Hosts that share the store. More than one only over HTTP and with a server.
    pub hosts: Vec<usize>,
    /// The program that runs a host, for runs over HTTP: `amends`.
    pub program: PathBuf,
    /// Takes each error that such a host logs.
    pub complain: fn(&str),
}

impl BenchOptions {
    /// Every run, in the order in which they are made.
    ///
    /// # Errors
    /// When components are to be swapped in another process, or when several hosts are to share what they cannot.
    pub fn loads(&self) -> anyhow::Result<Vec<Load>> {
        let swaps = self.swaps.iter().any(|swaps| *swaps > 0);
        anyhow::ensure!(
            !swaps || self.modes == [Mode::InProcess],
            "--swaps goes with --mode in-process alone"
        );
        anyhow::ensure!(
            self.hosts == [1] || (self.server.is_some() && !self.modes.contains(&Mode::InProcess)),
            "--hosts goes with --store and with --mode http or batch"
        );
        let loads = [Load {
            mode: Mode::InProcess,
            outcome: Outcome::Happy,
            clients: 1,
            time: self.time,
            steps: STEPS,
            stored: 0,
            waiting: self.waiting,
            swaps: 0,
            hosts: 1,
        }];
        let loads = each(&loads, &self.modes, |load, mode| load.mode = mode);
        let loads = each(&loads, &self.outcomes, |load, outcome| load.outcome = outcome);
        let loads = each(&loads, &self.clients, |load, clients| load.clients = clients);
        let loads = each(&loads, &self.steps, |load, steps| load.steps = steps);
        let loads = each(&loads, &self.stored, |load, stored| load.stored = stored);
        let loads = each(&loads, &self.hosts, |load, hosts| load.hosts = hosts);
        Ok(each(&loads, &self.swaps, |load, swaps| load.swaps = swaps))
    }
}

/// Each of the loads with each of the values.
fn each<T: Copy>(loads: &[Load], values: &[T], set: impl Fn(&mut Load, T)) -> Vec<Load> {
    let with = |mut load: Load, value: T| {
        set(&mut load, value);
        load
    };
    loads.iter().flat_map(|load| values.iter().map(|value| with(*load, *value))).collect()
}

/// How sagas are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By calls within the process.
    InProcess,
    /// By one HTTP request each, which waits for the saga's end, to a host of its own.
    Http,
    /// By batches over HTTP; each client sends one after another.
    Batch,
}

/// What becomes of the sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Three steps succeed.
    Happy,
    /// The third fails, so two are undone.
    Compensating,
}

impl Mode {
    /// Its word on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Http => "http",
            Self::Batch => "batch",
        }
    }
}

/// `full` or `relaxed`.
pub(super) const fn durability_word(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => "full",
        Durability::Relaxed => "relaxed",
    }
}

impl Outcome {
    /// Its word on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
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
pub struct Load {
    /// How sagas are started.
    pub mode: Mode,
    /// What becomes of them.
    pub outcome: Outcome,
    /// Clients at once.
    pub clients: usize,
    /// How long it is measured.
    pub(crate) time: Duration,
    /// Steps of the saga.
    pub(crate) steps: usize,
    /// Ended sagas that are in the store before it.
    pub(crate) stored: u64,
    /// Sagas that wait meanwhile.
    pub(crate) waiting: u64,
    /// Swaps of a component, a minute.
    pub(crate) swaps: u64,
    /// Hosts that share the store.
    pub(crate) hosts: usize,
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
