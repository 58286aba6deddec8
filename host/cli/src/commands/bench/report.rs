//! The figures, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::floor::Floor;
use super::host::Stored;
use super::measure::{Measured, cores};
use super::options::{Bench, Load, STEPS};
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, table};

/// One run and what came of it.
pub(super) struct Run {
    pub(super) load: Load,
    pub(super) measured: Measured,
    pub(super) stored: Stored,
    pub(super) floor: Option<Floor>,
}

pub(super) struct Report {
    format: Format,
    durability: &'static str,
    reuse: u32,
    runs: Vec<Run>,
}

impl Report {
    pub(super) fn new(args: &Bench) -> Self {
        let durability = args.durability.word();
        Self { format: args.output, durability, reuse: args.reuse, runs: Vec::new() }
    }

    /// With `jsonl`, each run is told when it is over.
    pub(super) fn add(&mut self, run: Run) -> anyhow::Result<()> {
        if self.format == Format::Jsonl {
            print_json_line(&figures(&run))?;
        }
        self.runs.push(run);
        Ok(())
    }

    pub(super) fn print(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Jsonl => return Ok(()),
            Format::Json => {
                return print_json(&json!({
                    "cores": cores(),
                    "durability": self.durability,
                    "reuse": self.reuse,
                    "runs": self.runs.iter().map(figures).collect::<Vec<_>>(),
                }));
            }
            Format::Table | Format::Ids => {}
        }
        let is_grown = self.runs.iter().any(|run| run.load.is_grown());
        let grown = ["steps", "stored", "waiting", "swapped", "ready ms", "idle CPU"];
        let grown = if is_grown { grown.as_slice() } else { &[] };
        let mut names = vec!["mode", "outcome", "clients"];
        names.extend(grown);
        names.extend([
            "sagas/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "CPU s/1000",
            "MiB",
            "events",
            "bytes",
            "fsyncs",
        ]);
        let mut rows = table(&names);
        for run in &self.runs {
            let figures = figures(run);
            let number = |name: &str, digits: usize| match figures[name].as_f64() {
                Some(number) => format!("{number:.digits$}"),
                None => "-".to_owned(),
            };
            let mut cells = vec![
                run.load.mode.word().to_owned(),
                run.load.outcome.word().to_owned(),
                run.load.clients.to_string(),
            ];
            if is_grown {
                cells.extend([
                    run.load.steps.to_string(),
                    run.load.stored.to_string(),
                    run.load.waiting.to_string(),
                    run.measured.swapped.to_string(),
                    number("ready_ms", 0),
                    number("idle_cores", 3),
                ]);
            }
            cells.extend([
                number("sagas_per_second", 0),
                number("p50_ms", 2),
                number("p99_ms", 2),
                number("p999_ms", 2),
                number("cpu_seconds_per_1000", 3),
                number("memory_mib", 0),
                number("events_per_saga", 1),
                number("bytes_per_saga", 0),
                number("fsyncs_per_saga", 3),
            ]);
            rows.add_row(cells);
        }
        print_table(&rows)?;
        say!("")?;
        self.print_floor()?;
        say!(
            "{} cores, durability {}, {}; events, bytes and fsyncs are by saga; every saga that \
             is counted was found in the store after it was closed",
            cores(),
            self.durability,
            if self.reuse == 0 { "a fresh instance for every call" } else { "instances reused" }
        )
    }

    /// The parts alone, where they were measured.
    fn print_floor(&self) -> anyhow::Result<()> {
        let names = [
            "mode",
            "outcome",
            "clients",
            "fsync ms",
            "commits",
            "grouped",
            "calls",
            "together",
            "one by one",
            "floor",
            "sagas/s",
            "share",
        ];
        let mut rows = table(&names);
        for run in &self.runs {
            let Some(floor) = run.floor else { continue };
            rows.add_row([
                run.load.mode.word().to_owned(),
                run.load.outcome.word().to_owned(),
                run.load.clients.to_string(),
                format!("{:.3}", floor.fsync.as_secs_f64() * 1e3),
                format!("{:.0}", floor.commits),
                format!("{:.0}", floor.commits_grouped),
                format!("{:.0}", floor.calls),
                format!("{:.0}", floor.together),
                format!("{:.0}", floor.clients),
                format!("{:.0}", floor.sagas_per_second()),
                format!("{:.0}", run.measured.per_second()),
                format!("{:.0} %", 100.0 * run.measured.per_second() / floor.sagas_per_second()),
            ]);
        }
        if rows.is_empty() {
            return Ok(());
        }
        print_table(&rows)?;
        say!("")?;
        say!(
            "the floor is the least of what the parts can do alone, in sagas a second: commits of \
             the same bytes in as many rows a transaction (grouped, which is not part of it: a row \
             of each client), calls on all cores, both together on them, and so many clients one by \
             one"
        )?;
        say!("")
    }
}

impl Load {
    /// Whether it is about what grows.
    fn is_grown(&self) -> bool {
        (self.steps, self.stored, self.waiting, self.swaps) != (STEPS, 0, 0, 0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(run: &Run) -> Value {
    let Run { load, measured, stored, floor } = run;
    let ms = |thousandth| measured.latency(thousandth).map(|it: Duration| it.as_secs_f64() * 1e3);
    let counted = measured.counted.max(1) as f64;
    json!({
        "mode": load.mode.word(),
        "outcome": load.outcome.word(),
        "clients": load.clients,
        "steps": load.steps,
        "stored": load.stored,
        "waiting": load.waiting,
        "swaps_per_minute": load.swaps,
        "swapped": measured.swapped,
        "ready_ms": measured.ready.map(|ready| ready.as_secs_f64() * 1e3),
        "idle_cores": measured.idle,
        "sagas": measured.counted,
        "seconds": measured.elapsed.as_secs_f64(),
        "sagas_per_second": measured.per_second(),
        "p50_ms": ms(500),
        "p99_ms": ms(990),
        "p999_ms": ms(999),
        "cpu_seconds_per_1000": measured.cpu.as_secs_f64() / counted * 1e3,
        "memory_mib": measured.memory as f64 / f64::from(1 << 20),
        "events_per_saga": stored.events,
        "bytes_per_saga": stored.bytes,
        "fsyncs_per_saga": measured.transactions as f64 / counted,
        "appends_per_saga": measured.appends as f64 / counted,
        "floor": floor.map(|floor| json!({
            "fsync_ms": floor.fsync.as_secs_f64() * 1e3,
            "commits": floor.commits,
            "commits_grouped": floor.commits_grouped,
            "calls": floor.calls,
            "together": floor.together,
            "clients": floor.clients,
            "sagas_per_second": floor.sagas_per_second(),
            "share": measured.per_second() / floor.sagas_per_second(),
        })),
    })
}
