//! The figures, as tables.

use amends_workbench::bench::{BenchReport, RunReport, STEPS};

use crate::commands::output::{print_table, say, table};

pub(super) fn print(report: &BenchReport) -> anyhow::Result<()> {
    let is_grown = report.runs.iter().any(is_grown);
    let grown = ["steps", "stored", "waiting", "swapped", "ready ms", "idle CPU"];
    let grown = if is_grown { grown.as_slice() } else { &[] };
    let is_shared = report.store != "SQLite";
    let mut names = vec!["mode", "outcome", "clients"];
    if is_shared {
        names.push("hosts");
    }
    names.extend(grown);
    names.extend(["sagas/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU s/1000"]);
    if is_shared {
        names.push("server CPU s/1000");
    }
    names.extend(["MiB", "events", "bytes", "fsyncs"]);
    let mut rows = table(&names);
    for run in &report.runs {
        let mut cells = vec![run.mode.to_owned(), run.outcome.to_owned(), run.clients.to_string()];
        if is_shared {
            cells.push(run.hosts.to_string());
        }
        if is_grown {
            cells.extend([
                run.steps.to_string(),
                run.stored.to_string(),
                run.waiting.to_string(),
                run.swapped.to_string(),
                number(run.ready_ms, 0),
                number(run.idle_cores, 3),
            ]);
        }
        cells.extend([
            number(Some(run.sagas_per_second), 0),
            number(run.p50_ms, 2),
            number(run.p99_ms, 2),
            number(run.p999_ms, 2),
            number(Some(run.cpu_seconds_per_1000), 3),
        ]);
        if is_shared {
            cells.push(number(run.server_cpu_seconds_per_1000, 3));
        }
        cells.extend([
            number(Some(run.memory_mib), 0),
            number(Some(run.events_per_saga), 1),
            number(Some(run.bytes_per_saga), 0),
            number(Some(run.fsyncs_per_saga), 3),
        ]);
        rows.add_row(cells);
    }
    print_table(&rows)?;
    say!("")?;
    print_floor(report)?;
    say!(
        "{} cores, {}, durability {}, {}; events, bytes and fsyncs are by saga; every saga that \
         is counted was found in the store after it was closed",
        report.cores,
        report.store,
        report.durability,
        if report.reuse == 0 { "a fresh instance for every call" } else { "instances reused" }
    )
}

/// Whether a run is about what grows.
fn is_grown(run: &RunReport) -> bool {
    (run.steps, run.stored, run.waiting, run.swaps_per_minute) != (STEPS, 0, 0, 0)
}

/// A figure, unless it was not measured.
fn number(figure: Option<f64>, digits: usize) -> String {
    match figure.filter(|figure| figure.is_finite()) {
        Some(figure) => format!("{figure:.digits$}"),
        None => "-".to_owned(),
    }
}

/// The parts alone, where they were measured.
fn print_floor(report: &BenchReport) -> anyhow::Result<()> {
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
    for run in &report.runs {
        let Some(floor) = run.floor else { continue };
        rows.add_row([
            run.mode.to_owned(),
            run.outcome.to_owned(),
            run.clients.to_string(),
            format!("{:.3}", floor.fsync_ms),
            format!("{:.0}", floor.commits),
            format!("{:.0}", floor.commits_grouped),
            format!("{:.0}", floor.calls),
            format!("{:.0}", floor.together),
            format!("{:.0}", floor.clients),
            format!("{:.0}", floor.sagas_per_second),
            format!("{:.0}", run.sagas_per_second),
            format!("{:.0} %", 100.0 * floor.share),
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
