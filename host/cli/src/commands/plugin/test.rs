//! `amends plugin test`: calls a component the way that a host does when things go wrong, and says
//! whether it keeps to what a host counts on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amends_engine::{Payload, PluginName, on_one_line};
use amends_sandbox::AllowHost;
use amends_workbench::plugin::test::{self, Check, TestOptions, TestReport, Verdict};
use anyhow::Context as _;
use clap::Args;
use comfy_table::Cell as TableCell;

use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::input::read_json;
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, status_cell, table};

/// The arguments of the verb.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The component: a file, or oci://REGISTRY/REPOSITORY@sha256:…
    pub(crate) file: PathBuf,
    /// The component of its undo, where that is another one: a file, or oci://…
    #[arg(long, value_name = "FILE")]
    pub(crate) undo: Option<PathBuf>,
    /// An input to call it with, beside the `examples` of its input schema; may be repeated
    #[arg(long = "input", value_name = "JSON|FILE")]
    pub(crate) inputs: Vec<String>,
    /// Grant what `[plugin.NAME]` of this config grants, instead of state and events
    #[arg(long, value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The NAME in the config, where it is not that of the manifest
    #[arg(long = "as", value_name = "NAME", requires = "config")]
    pub(crate) name: Option<PluginName>,
    /// Grant requests to this service, such as http://127.0.0.1:7171; may be repeated
    #[arg(long = "allow-host", value_name = "URL", conflicts_with = "config")]
    pub(crate) allow_hosts: Vec<AllowHost>,
    /// Show what it logs and prints in every check, not only in those that failed
    #[arg(long)]
    pub(crate) log: bool,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

pub(crate) async fn run(args: Test) -> anyhow::Result<u8> {
    let Test { file, undo, inputs, config, name, allow_hosts, log, output } = args;
    let inputs = inputs.iter().map(|input| {
        let json = read_json("--input", input)?;
        Payload::parse(json.get()).context("an input cannot be used")
    });
    let inputs = inputs.collect::<anyhow::Result<_>>()?;
    let options = TestOptions { file, undo, inputs, config, name, allow_hosts };
    let report = test::run(options).await?;
    match output {
        Format::Json => print_json(&serde_json::to_value(&report)?)?,
        Format::Jsonl => print_json_line(&serde_json::to_value(&report)?)?,
        Format::Ids => say!("{}", report.digest)?,
        Format::Table => print(&report, log)?,
    }
    Ok(if report.ok { EXIT_DONE } else { EXIT_ERROR })
}

fn print(report: &TestReport, all_logs: bool) -> anyhow::Result<()> {
    let mut rows = table(&["check", "input", "result", "why"]);
    let mut counts = BTreeMap::<&str, usize>::new();
    for check in &report.checks {
        let (word, why) = check.verdict.words();
        *counts.entry(word).or_default() += 1;
        let input = check.input.map_or_else(String::new, |input| input.to_string());
        let status = if word == "ok" { TableCell::new(word) } else { status_cell(word) };
        rows.add_row(vec![
            TableCell::new(check.what),
            TableCell::new(input),
            status,
            TableCell::new(why),
        ]);
    }
    print_table(&rows)?;
    print_log(&report.checks, all_logs)?;
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    say!("\n{} {}: {}", on_one_line(&report.name), on_one_line(&report.version), counts.join(", "))
}

/// What the component said in the checks that failed, or in all.
fn print_log(checks: &[Check], all_logs: bool) -> anyhow::Result<()> {
    let is_shown = |check: &&Check| all_logs || matches!(check.verdict, Verdict::Failed(_));
    for Check { what, input, log, .. } in checks.iter().filter(is_shown) {
        if log.is_empty() {
            continue;
        }
        let input = input.map_or_else(String::new, |input| format!(", input {input}"));
        say!("\nlog of {what}{input}:")?;
        for line in log {
            say!("  {line}")?;
        }
    }
    Ok(())
}
