//! `amends plugin test`: calls a component the way that a host does when things go wrong, and says
//! whether it keeps to what a host counts on.
//!
//! The calls are real ones, over a store of their own that goes with the process: what a call
//! writes of its state is there for the next.

mod checks;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amends_engine::{Payload, PluginName, on_one_line};
use amends_plugins::PluginSettings;
use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::Cell;
use serde_json::{Value, json};

use super::component;
use crate::commands::Format;
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::input::read_json;
use crate::commands::output::{print_json, print_json_line, print_table, say, status_cell, table};

use checks::{Check, Verdict};
use trial::Trial;

/// The arguments of the verb.
#[derive(Debug, Args)]
pub struct Test {
    /// The component: a file, or oci://REGISTRY/REPOSITORY@sha256:…
    pub file: PathBuf,
    /// An input to call it with, beside the `examples` of its input schema; may be repeated
    #[arg(long = "input", value_name = "JSON|FILE")]
    pub inputs: Vec<String>,
    /// Grant what `[plugin.NAME]` of this config grants, instead of state and events
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// The NAME in the config, where it is not that of the manifest
    #[arg(long = "as", value_name = "NAME", requires = "config")]
    pub name: Option<PluginName>,
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
    let trial = Trial::open(bytes, |name| {
        granted(args.config.as_deref(), args.name.as_ref().unwrap_or(name))
    })
    .await
    .with_context(|| format!("{file} cannot be tested"))?;
    let manifest = &trial.component().manifest;
    let inputs = inputs(&manifest.input_schema, &args.inputs)?;
    let found = checks::run(&trial, &inputs).await?;
    let failed = found.iter().filter(|check| matches!(check.verdict, Verdict::Failed(_))).count();
    print(&args.file, &trial, &found, failed, args.output)?;
    trial.close().await?;
    Ok(if failed == 0 { EXIT_DONE } else { EXIT_ERROR })
}

/// What a config grants the plugin; without one its state and events.
fn granted(config: Option<&Path>, name: &PluginName) -> anyhow::Result<PluginSettings> {
    let Some(path) = config else {
        return Ok(PluginSettings { state: true, events: true, ..PluginSettings::default() });
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

fn print(
    file: &Path,
    trial: &Trial,
    found: &[Check],
    failed: usize,
    format: Format,
) -> anyhow::Result<()> {
    let component = trial.component();
    let checks: Vec<_> = found.iter().map(Check::to_json).collect();
    let all = json!({
        "file": file.display().to_string(),
        "name": component.manifest.name,
        "version": component.manifest.version,
        "digest": component.digest,
        "ok": failed == 0,
        "checks": checks,
    });
    match format {
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
        let status = if word == "ok" { Cell::new(word) } else { status_cell(word) };
        rows.add_row(vec![Cell::new(check.what), Cell::new(input), status, Cell::new(why)]);
    }
    print_table(&rows)?;
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let manifest = &component.manifest;
    say!(
        "\n{} {}: {}",
        on_one_line(&manifest.name),
        on_one_line(&manifest.version),
        counts.join(", ")
    )
}
