//! The figures, as a table and as JSON.

use std::time::Duration;

use comfy_table::Cell;
use serde_json::{Value, json};

use super::host::Stored;
use super::measure::Measured;
use super::{Bench, Load};
use crate::commands::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, table};

/// One run and what came of it.
pub(super) struct Run {
    pub(super) load: Load,
    pub(super) measured: Measured,
    pub(super) stored: Stored,
}

pub(super) struct Report {
    format: Format,
    durability: String,
    reuse: u32,
    runs: Vec<Run>,
}

impl Report {
    pub(super) fn new(args: &Bench) -> Self {
        let durability = format!("{:?}", args.durability).to_lowercase();
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
        let mut rows = table(&[
            "mode",
            "outcome",
            "clients",
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
        for run in &self.runs {
            let figures = figures(run);
            let number = |name: &str, digits: usize| match figures[name].as_f64() {
                Some(number) => format!("{number:.digits$}"),
                None => "-".to_owned(),
            };
            rows.add_row([
                Cell::new(run.load.mode.word()),
                Cell::new(run.load.outcome.word()),
                Cell::new(run.load.clients),
                Cell::new(number("sagas_per_second", 0)),
                Cell::new(number("p50_ms", 2)),
                Cell::new(number("p99_ms", 2)),
                Cell::new(number("p999_ms", 2)),
                Cell::new(number("cpu_seconds_per_1000", 3)),
                Cell::new(number("memory_mib", 0)),
                Cell::new(number("events_per_saga", 1)),
                Cell::new(number("bytes_per_saga", 0)),
                Cell::new(number("fsyncs_per_saga", 3)),
            ]);
        }
        print_table(&rows)?;
        say!("")?;
        say!(
            "{} cores, durability {}, {}; events, bytes and fsyncs are by saga; every saga that \
             is counted was found in the store after it was closed",
            cores(),
            self.durability,
            if self.reuse == 0 { "a fresh instance for every call" } else { "instances reused" }
        )
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(run: &Run) -> Value {
    let Run { load, measured, stored } = run;
    let ms = |thousandth| measured.latency(thousandth).map(|it: Duration| it.as_secs_f64() * 1e3);
    let counted = measured.counted.max(1) as f64;
    json!({
        "mode": load.mode.word(),
        "outcome": load.outcome.word(),
        "clients": load.clients,
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
    })
}
