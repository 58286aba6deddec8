//! `amends plugin inspect`: what a component exports, what it imports and why that is there, what it
//! says about itself, and what a config would grant it.

use std::path::PathBuf;

use amends_engine::{PluginName, on_one_line};
use amends_workbench::plugin::inspect::{self, InspectOptions, InspectReport};
use clap::Args;

use crate::commands::exit::EXIT_DONE;
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, table};

/// The arguments of the verb.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The component: a file, or oci://REGISTRY/REPOSITORY@sha256:…
    pub(crate) file: PathBuf,
    /// Say what this config would grant it, and whether it trusts who signed it
    #[arg(long, value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Its NAME in the config, where that is not the one in its manifest
    #[arg(long = "as", value_name = "NAME", requires = "config")]
    pub(crate) name: Option<PluginName>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

pub(crate) async fn run(args: Inspect) -> anyhow::Result<u8> {
    let Inspect { file, config, name, output } = args;
    let options = InspectOptions { file, config: config.clone(), name: name.clone() };
    let report = inspect::run(options).await?;
    match output {
        Format::Json => print_json(&serde_json::to_value(&report)?)?,
        Format::Jsonl => print_json_line(&serde_json::to_value(&report)?)?,
        Format::Ids => say!("{}", report.digest)?,
        Format::Table => {
            print(&report)?;
            if let (Some(config), Some(verdict)) = (&config, &report.verdict) {
                let name = name.as_ref().map_or(report.name.as_str(), PluginName::as_str);
                let verdict = verdict.refused.as_ref().map_or_else(
                    || "it would be served".to_owned(),
                    |why| format!("it would be refused: {why}"),
                );
                let verdict = on_one_line(&verdict);
                say!("\nas [plugin.{name}] of {}: {verdict}", config.display())?;
            }
        }
    }
    Ok(EXIT_DONE)
}

fn print(report: &InspectReport) -> anyhow::Result<()> {
    let title = format!("{} {}: {}", report.name, report.version, report.summary);
    say!("{}", on_one_line(&title))?;
    say!("digest   {}, {} bytes", report.digest, report.bytes)?;
    let keys = &report.signed_by;
    let signed_by = if keys.is_empty() { "nobody".to_owned() } else { keys.join(", ") };
    say!("signed   by {signed_by}")?;
    say!("exports  {}", report.exports.join(", "))?;
    if !report.needs.is_empty() {
        say!("needs    {}", on_one_line(&report.needs.join(", ")))?;
    }
    if let Some(service) = &report.service {
        say!("service  {}", on_one_line(service))?;
    }
    say!("input    {}", serde_json::to_string_pretty(&report.input_schema)?)?;
    say!("output   {}", serde_json::to_string_pretty(&report.output_schema)?)?;
    say!("")?;
    let has_config = report.why.iter().any(|import| import.granted.is_some());
    let columns: &[&str] =
        if has_config { &["imports", "granted", "why"] } else { &["imports", "why"] };
    let mut rows = table(columns);
    for import in &report.why {
        let granted = import.granted.as_deref();
        rows.add_row(
            [Some(import.interface.as_str()), granted, Some(&import.why)].into_iter().flatten(),
        );
    }
    print_table(&rows)
}
