//! The figures.

use std::time::Duration;

use serde::Serialize;

use super::floor::Floor;
use super::host::Stored;
use super::measure::{Measured, cores};
use super::options::{BenchOptions, Load, durability_word};

/// The figures of all runs.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The cores of this machine.
    pub cores: usize,
    /// `SQLite` or `PostgreSQL`.
    pub store: &'static str,
    /// `full` or `relaxed`.
    pub durability: &'static str,
    /// Calls that an instance may serve; 0: a fresh one for every call.
    pub reuse: u32,
    /// The runs, in the order in which they were made.
    pub runs: Vec<RunReport>,
}

impl BenchReport {
    /// The report before the first run.
    #[must_use]
    pub fn new(options: &BenchOptions) -> Self {
        let durability = durability_word(options.durability);
        let store = if options.server.is_some() { "PostgreSQL" } else { "SQLite" };
        Self { cores: cores(), store, durability, reuse: options.reuse, runs: Vec::new() }
    }
}

/// The figures of one run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// How sagas were started.
    pub mode: &'static str,
    /// What became of them.
    pub outcome: &'static str,
    /// Clients at once.
    pub clients: usize,
    /// Hosts that shared the store.
    pub hosts: usize,
    /// Steps of the saga.
    pub steps: usize,
    /// Sagas that were in the store before the run.
    pub stored: u64,
    /// Sagas that waited meanwhile.
    pub waiting: u64,
    /// Swaps of a component that were wanted, a minute.
    pub swaps_per_minute: u64,
    /// Components that were swapped in.
    pub swapped: u64,
    /// From the start of the host until it took sagas, where that was measured.
    pub ready_ms: Option<f64>,
    /// The share of one core that the host used before there was anything to do, where that was measured.
    pub idle_cores: Option<f64>,
    /// Sagas that ended while it was measured.
    pub(crate) sagas: u64,
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// Sagas that ended in a second.
    pub sagas_per_second: f64,
    /// The latency that half of the sagas do not exceed, where that was measured.
    pub p50_ms: Option<f64>,
    /// The same of 99 %.
    pub p99_ms: Option<f64>,
    /// The same of 99.9 %.
    pub p999_ms: Option<f64>,
    /// Processor time of the hosts, by 1,000 sagas.
    pub cpu_seconds_per_1000: f64,
    /// Processor time of the database's server, by 1,000 sagas; none without one on this machine.
    pub server_cpu_seconds_per_1000: Option<f64>,
    /// The most memory of a host.
    pub memory_mib: f64,
    /// Events in the store, by saga.
    pub events_per_saga: f64,
    /// Bytes that the store grew by, by saga.
    pub bytes_per_saga: f64,
    /// Transactions of the store, by saga: each is one fsync when it is durable.
    pub fsyncs_per_saga: f64,
    /// Appends of the store, by saga.
    pub(crate) appends_per_saga: f64,
    /// What the parts can do alone, where that was measured.
    pub floor: Option<FloorReport>,
}

/// What the parts of a host can do alone. All but the first two and the last are sagas a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FloorReport {
    /// `fdatasync` of 4 KiB.
    pub fsync_ms: f64,
    /// Commits of the same bytes in as many rows a transaction.
    pub commits: f64,
    /// The same with a row of each client in a transaction.
    pub commits_grouped: f64,
    /// Calls on all cores.
    pub calls: f64,
    /// Commits and calls on all cores together.
    pub together: f64,
    /// So many clients, one saga after another.
    pub clients: f64,
    /// The least of them, the grouped commits aside.
    pub sagas_per_second: f64,
    /// What the run reached of that.
    pub share: f64,
}

impl RunReport {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) fn new(
        load: Load,
        measured: &Measured,
        stored: Stored,
        floor: Option<Floor>,
    ) -> Self {
        let counted = measured.counted.max(1) as f64;
        let latency = |thousandth| measured.latency(thousandth).map(ms);
        Self {
            mode: load.mode.word(),
            outcome: load.outcome.word(),
            clients: load.clients,
            hosts: load.hosts,
            steps: load.steps,
            stored: load.stored,
            waiting: load.waiting,
            swaps_per_minute: load.swaps,
            swapped: measured.swapped,
            ready_ms: measured.ready.map(ms),
            idle_cores: measured.idle,
            sagas: measured.counted,
            seconds: measured.elapsed.as_secs_f64(),
            sagas_per_second: measured.per_second(),
            p50_ms: latency(500),
            p99_ms: latency(990),
            p999_ms: latency(999),
            cpu_seconds_per_1000: measured.cpu.as_secs_f64() / counted * 1e3,
            server_cpu_seconds_per_1000: measured
                .cpu_of_server
                .map(|cpu| cpu.as_secs_f64() / counted * 1e3),
            memory_mib: measured.memory as f64 / f64::from(1 << 20),
            events_per_saga: stored.events,
            bytes_per_saga: stored.bytes,
            fsyncs_per_saga: measured.transactions as f64 / counted,
            appends_per_saga: measured.appends as f64 / counted,
            floor: floor.map(|floor| FloorReport {
                fsync_ms: ms(floor.fsync),
                commits: floor.commits,
                commits_grouped: floor.commits_grouped,
                calls: floor.calls,
                together: floor.together,
                clients: floor.clients,
                sagas_per_second: floor.sagas_per_second(),
                share: measured.per_second() / floor.sagas_per_second(),
            }),
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
