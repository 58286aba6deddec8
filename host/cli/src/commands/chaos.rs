//! `chaos`: a user's own definition and plugins under every fault that a host can meet.

use std::path::PathBuf;

use amends_config::{OverrideFlags, Overrides, load};
use amends_engine::{DefinitionName, Direction, Payload, on_one_line};
use amends_workbench::chaos::{self, ChaosOptions, DefinitionReport, FaultKind, TrialsReport};
use anyhow::Context as _;
use clap::Args;
use comfy_table::Cell;

use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::output::format::Format;
use crate::commands::output::{print_json, print_json_line, print_table, say, shown, table};

/// Inputs that are tried when the caller does not say.
const INPUTS_DEFAULT: usize = 5;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    long_about = "Tries a definition and its plugins under every fault that a host can meet. Each step \
                  and each undo fails, is lost before and after its effect, and is repeated. The host \
                  is stopped after every event. Reports which steps are not idempotent, or are not \
                  undone. The definitions that its steps run are tried afterwards, with the inputs \
                  that they received.\n\nIn the table a call fails once or for good; its reply is lost \
                  once, or always (LOST); or the call never arrives.\n\nThe plugins are really called, \
                  with a store of their own: point them at a test system. Pauses are shortened, \
                  deadlines are left out, and each call has at least two attempts.\n\nExits with 0 \
                  when nothing was found, else with 1.",
    after_help = "Example:\n  amends chaos examples/order-fulfillment/amends.toml --input \
                  examples/order-fulfillment/order.json"
)]
pub(crate) struct Chaos {
    /// The config file (TOML)
    pub(crate) config: PathBuf,
    /// The inputs of the sagas: a file with one JSON text, or with one on each line (NDJSON)
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The definition; the config's first when none is named
    #[arg(long, value_name = "NAME")]
    pub(crate) definition: Option<DefinitionName>,
    /// How many inputs of each definition at most
    #[arg(long, default_value_t = INPUTS_DEFAULT)]
    pub(crate) limit: usize,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// What stands above the file.
    #[command(flatten)]
    pub(crate) overrides: OverrideFlags,
}

pub(crate) async fn run(args: Chaos) -> anyhow::Result<u8> {
    let loaded = match load(&args.config, &Overrides::of_process(args.overrides.clone())) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", shown(&report.to_string()));
            return Ok(EXIT_ERROR);
        }
    };
    let inputs = read_inputs(&args)?;
    let Chaos { definition, limit, .. } = args;
    let options = ChaosOptions { config: loaded.config, inputs, definition, limit };
    let report = chaos::run(options).await?;
    match args.output {
        Format::Json => print_json(&serde_json::to_value(&report)?)?,
        Format::Jsonl => print_json_line(&serde_json::to_value(&report)?)?,
        Format::Ids | Format::Table => {
            print(&report.definition)?;
            for child in &report.children {
                say!("\n{}, as it was run:", child.definition)?;
                print(child)?;
            }
        }
    }
    Ok(if report.definition.ok { EXIT_DONE } else { EXIT_ERROR })
}

fn read_inputs(args: &Chaos) -> anyhow::Result<Vec<Payload>> {
    let file = args.input.display();
    let text = std::fs::read_to_string(&args.input)
        .with_context(|| format!("--input {file} cannot be read"))?;
    if let Ok(whole) = Payload::parse(&text) {
        return Ok(vec![whole]);
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .take(args.limit)
        .map(|(number, line)| {
            Payload::parse(line).with_context(|| format!("--input {file}, line {number}"))
        })
        .collect()
}

fn print(report: &DefinitionReport) -> anyhow::Result<()> {
    // In the order of the kinds; shorter than their words, so that the table fits 80 columns.
    let mut rows = table(&["call", "once", "for good", "reply lost", "lost", "never arrives"]);
    let is_same_call = |one: &TrialsReport, other: &TrialsReport| {
        one.step == other.step && one.direction == other.direction
    };
    for call in report.trials.chunk_by(is_same_call) {
        let TrialsReport { step, direction, .. } = &call[0];
        let which = match direction {
            Direction::Execute => step.to_string(),
            Direction::Compensate => format!("{step}, undo"),
        };
        let of_kind = |kind| call.iter().find(|trials| trials.fault == kind);
        let results = FaultKind::EXECUTE.map(|kind| Cell::new(words(of_kind(kind))));
        rows.add_row([vec![Cell::new(which)], results.to_vec()].concat());
    }
    if report.trials.is_empty() {
        // Else nothing found would sound as if all had been tried.
        say!(
            "no call of {} was tried: no step of it calls a plugin itself, or none",
            report.definition
        )?;
        say!("was called")?;
    } else {
        print_table(&rows)?;
    }
    say!("")?;
    let inputs = report.inputs.iter().map(|(status, count)| format!("{count} {status}"));
    let inputs = inputs.collect::<Vec<_>>().join(", ");
    say!("{}: inputs with no fault: {inputs}", report.definition)?;
    say!("crashed after each of {} events", report.crashes)?;
    for step in &report.undos_not_tried {
        say!(
            "the undo of {step} was not tried: no saga undoes a step that is not before the pivot"
        )?;
    }
    for finding in &report.findings {
        say!("  {}", on_one_line(finding))?;
    }
    match report.findings.len() {
        0 => say!("nothing found: every saga ended as it must"),
        1 => say!("1 finding"),
        count => say!("{count} findings"),
    }
}

fn words(trials: Option<&TrialsReport>) -> String {
    match trials {
        None => "-".to_owned(),
        Some(TrialsReport { found: 0, .. }) => "ok".to_owned(),
        Some(TrialsReport { trials, found, .. }) => format!("FOUND {found} of {trials}"),
    }
}
