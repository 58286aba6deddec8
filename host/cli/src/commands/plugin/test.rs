//! `amends plugin test`: calls a component the way that a host does when things go wrong, and says
//! whether it keeps to what a host counts on.
//!
//! The calls are real ones, over a store of their own that goes with the process: what a call
//! writes of its state is there for the next.

mod checks;
mod said;
mod trial;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use amends_engine::{Payload, PluginName, on_one_line};
use amends_sandbox::{AllowHost, PluginSettings};
use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::Cell as TableCell;
use serde_json::{Value, json};

use super::component;
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::input::read_json;
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, status_cell, table};

use checks::{Check, Verdict};
use said::Said;
use trial::Trial;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct Test {
    /// The component: a file, or oci://REGISTRY/REPOSITORY@sha256:…
    pub file: PathBuf,
    /// The component of its undo, where that is another one: a file, or oci://…
    #[arg(long, value_name = "FILE")]
    pub undo: Option<PathBuf>,
    /// An input to call it with, beside the `examples` of its input schema; may be repeated
    #[arg(long = "input", value_name = "JSON|FILE")]
    pub inputs: Vec<String>,
    /// Grant what `[plugin.NAME]` of this config grants, instead of state and events
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// The NAME in the config, where it is not that of the manifest
    #[arg(long = "as", value_name = "NAME", requires = "config")]
    pub name: Option<PluginName>,
    /// Grant requests to this service, such as http://127.0.0.1:7171; may be repeated
    #[arg(long = "allow-host", value_name = "URL", conflicts_with = "config")]
    pub allow_hosts: Vec<AllowHost>,
    /// Show what it logs and prints in every check, not only in those that failed
    #[arg(long)]
    pub log: bool,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// Runs the verb.
///
/// # Errors
/// When nothing could be tested.
pub(crate) async fn run(args: Test) -> anyhow::Result<u8> {
    let file = args.file.display();
    let bytes = component::bytes_of(&args.file).await?;
    let undo = match &args.undo {
        Some(undo) => Some(component::bytes_of(undo).await?),
        None => None,
    };
    let said = Said::listen();
    let is_first = Cell::new(true);
    let trial = Trial::open(bytes, undo, |name| {
        // The undo has the name of its manifest.
        let other = args.name.as_ref().filter(|_| is_first.take());
        granted(&args, other.unwrap_or(name))
    })
    .await
    .with_context(|| format!("{file} cannot be tested"))?;
    let manifest = &trial.component().manifest;
    let inputs = inputs(&manifest.input_schema, &args.inputs)?;
    let found = checks::run(&trial, &inputs, &said).await?;
    let failed = found.iter().filter(|check| matches!(check.verdict, Verdict::Failed(_))).count();
    print(&args, &trial, &found, failed)?;
    trial.close().await?;
    Ok(if failed == 0 { EXIT_DONE } else { EXIT_ERROR })
}

/// What a config grants the plugin; without one its state and events, and the services that are named.
fn granted(args: &Test, name: &PluginName) -> anyhow::Result<PluginSettings> {
    let Some(path) = &args.config else {
        let allow_hosts = args.allow_hosts.iter().cloned().collect();
        let granted = PluginSettings { state: true, events: true, ..PluginSettings::default() };
        return Ok(PluginSettings { allow_hosts, ..granted });
    };
    component::granted(path, name)
}

fn inputs(schema: &Value, given: &[String]) -> anyhow::Result<Vec<Payload>> {
    let mut texts: Vec<String> = Vec::new();
    if let Some(examples) = schema["examples"].as_array() {
        texts.extend(examples.iter().map(Value::to_string));
    }
    for input in given {
        texts.push(read_json("--input", input)?.get().to_owned());
    }
    if texts.is_empty() {
        bail!(
            "there is nothing to call it with: put `examples` into the input schema of its \
             manifest, or give an input with --input JSON|FILE"
        );
    }
    texts.iter().map(|text| Payload::parse(text).context("an input cannot be used")).collect()
}

fn print(args: &Test, trial: &Trial, found: &[Check], failed: usize) -> anyhow::Result<()> {
    let component = trial.component();
    let checks: Vec<_> = found.iter().map(Check::to_json).collect();
    let all = json!({
        "file": args.file.display().to_string(),
        "name": component.manifest.name,
        "version": component.manifest.version,
        "digest": component.digest,
        "ok": failed == 0,
        "checks": checks,
    });
    match args.output {
        Format::Json => return print_json(&all),
        Format::Jsonl => return print_json_line(&all),
        Format::Ids => return say!("{}", component.digest),
        Format::Table => {}
    }
    let mut rows = table(&["check", "input", "result", "why"]);
    let mut counts = BTreeMap::<&str, usize>::new();
    for check in found {
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
    print_log(args, found)?;
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let manifest = &component.manifest;
    say!(
        "\n{} {}: {}",
        on_one_line(&manifest.name),
        on_one_line(&manifest.version),
        counts.join(", ")
    )
}

/// What the component said in the checks that failed, or in all.
fn print_log(args: &Test, found: &[Check]) -> anyhow::Result<()> {
    let is_shown = |check: &&Check| args.log || matches!(check.verdict, Verdict::Failed(_));
    for Check { what, input, log, .. } in found.iter().filter(is_shown) {
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
