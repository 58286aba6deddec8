//! `chaos`: a user's own definition and plugins, with everything going wrong that can.
//!
//! Each step and each undo fails, is lost before and after its effect, and is repeated; the host
//! is crashed at every event boundary. What is judged is what can be seen from outside of the
//! plugins: how the sagas end, and whether a call that is repeated with the same key answers the
//! same. All of it runs on the real engine, runtime and components, on a store of its own.

mod plan;
mod report;
mod trial;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;

use amends_engine::{BackoffSpec, Definition, DefinitionName, Payload, RetrySpec, StepKind};
use anyhow::Context as _;
use clap::Args;

use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::output::format::Format;
use crate::commands::output::shown;
use amends_config::{Config, OverrideFlags, Overrides, load};

use plan::Fault;
use report::Report;
use trial::Trial;

/// Inputs that are tried when the caller does not say.
const INPUTS_DEFAULT: usize = 5;

/// Attempts that each call has at least, so that one can be repeated.
const ATTEMPTS_MIN: u32 = 2;

/// Every pause, in place of the definition's: what is tried is what happens, not when.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    long_about = "Tries a definition and its plugins with everything going wrong that can: each \
                  step and each undo fails, is lost before and after its effect, and is repeated, \
                  and the host is crashed at every event boundary. Says which steps are not \
                  idempotent or not undone. The definitions that its steps run are tried after it, \
                  with what they were given in it.\n\nIn the table a call fails once or for good; \
                  its reply is lost once, or always (LOST); or the call never arrives.\n\nThe \
                  plugins are really called, with a store of their own: point them at a test \
                  system. Pauses are shortened, deadlines left out, each call has at least two \
                  attempts.\n\nExits with 0 when nothing was found, else with 1.",
    after_help = "Example:\n  amends chaos examples/order-fulfillment/amends.toml --input \
                  examples/order-fulfillment/order.json"
)]
pub struct Chaos {
    /// The config file (TOML)
    pub config: PathBuf,
    /// What sagas are given: a file with JSON, or with JSON a line (NDJSON)
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The definition; the config's first when none is named
    #[arg(long, value_name = "NAME")]
    pub definition: Option<DefinitionName>,
    /// At most so many inputs of each definition
    #[arg(long, default_value_t = INPUTS_DEFAULT)]
    pub limit: usize,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// What stands above the file.
    #[command(flatten)]
    pub overrides: OverrideFlags,
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
    let mut config = loaded.config;
    // For the time of this run: what lies beside the config may be its author's code.
    let cache = tempfile::tempdir().context("no folder for compiled code")?;
    config.plugins.cache = cache.path().to_owned();
    let name = pick(&config, args.definition.as_ref())?;
    let definitions: Vec<_> = config.definitions.iter().map(hasten).collect::<Result<_, _>>()?;
    let reports = try_all(&config, &definitions, name, inputs, args.limit).await?;
    report::print(&reports, args.output)?;
    Ok(if reports.iter().all(Report::is_clean) { EXIT_DONE } else { EXIT_ERROR })
}

/// A definition with its inputs; then those that its steps run, with what they were given in it.
async fn try_all(
    config: &Config,
    definitions: &[Definition],
    name: DefinitionName,
    inputs: Vec<Payload>,
    limit: usize,
) -> anyhow::Result<Vec<Report>> {
    let mut reports = vec![Report::new(&name, config)];
    let mut left: VecDeque<_> = inputs.into_iter().map(|input| (name.clone(), input)).collect();
    let mut seen = HashSet::new();
    while let Some((name, input)) = left.pop_front() {
        if !seen.insert((name.clone(), input.as_str().to_owned())) {
            continue;
        }
        let known = reports.iter().position(|report| *report.definition() == name);
        let index = known.unwrap_or_else(|| {
            reports.push(Report::new(&name, config));
            reports.len() - 1
        });
        let report = &mut reports[index];
        if report.inputs() < limit {
            let number = report.inputs() + 1;
            left.extend(try_input(config, definitions, &name, (number, input), report).await?);
        }
    }
    Ok(reports)
}

/// One input: as it should go, then with each fault, then with a crash after each event. Answers what the
/// sagas were given that it ran.
async fn try_input(
    config: &Config,
    definitions: &[Definition],
    name: &DefinitionName,
    (number, input): (usize, Payload),
    report: &mut Report,
) -> anyhow::Result<Vec<(DefinitionName, Payload)>> {
    let trial = Trial::open(config, definitions).await?;
    let good = trial.start(name, &input, None).await?;
    let good = trial.wait(good).await?;
    report.input(number, &good);
    let children = trial.children(&good).await?;
    let mut logs = vec![(vec![good.status()], trial.log(good.id()).await?)];
    if good.status() == amends_engine::SagaStatus::Completed {
        let faults = Fault::all(&good);
        let mut started = Vec::new();
        for fault in faults {
            started.push((trial.start(name, &input, Some(&fault)).await?, fault));
        }
        for (id, fault) in started {
            let verdict = trial.finish(id, &fault).await?;
            report.tried(number, &fault, verdict);
        }
        let pivot = Fault::of_pivot(&good);
        if let Some(undone) = trial.compensated(name, &input, pivot.as_ref()).await? {
            report.compensated(number, &undone);
            // A pivot whose call was cut off may have happened, and then nothing is undone.
            let ends =
                pivot.map_or_else(|| vec![undone.status()], |pivot| pivot.ends(&good).to_vec());
            logs.push((ends, trial.log(undone.id()).await?));
        }
    }
    trial.close().await?;
    for (ends, log) in logs {
        let (tried, found) = trial::crash(config, definitions, name, &ends, &log).await?;
        report.crashed(number, tried, found);
    }
    Ok(children)
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

fn pick(config: &Config, wanted: Option<&DefinitionName>) -> anyhow::Result<DefinitionName> {
    let names: Vec<_> = config.definitions.iter().map(|one| one.name().clone()).collect();
    let list = names.iter().map(DefinitionName::as_str).collect::<Vec<_>>().join(", ");
    match wanted {
        Some(name) if names.contains(name) => Ok(name.clone()),
        Some(name) => anyhow::bail!("the config has no saga `{name}`; it has {list}"),
        None => names.into_iter().next().context("the config has no saga"),
    }
}

/// The definition without waiting.
fn hasten(definition: &Definition) -> anyhow::Result<Definition> {
    let mut spec = definition.spec().clone();
    spec.deadline = None;
    spec.compensate_within = None;
    for step in &mut spec.steps {
        step.retry = repeated(&step.retry);
        if let Some(undo) = &mut step.undo {
            undo.retry = repeated(&undo.retry);
        }
        match &mut step.kind {
            StepKind::Sleep { sleep } => *sleep = PAUSE,
            StepKind::Wait { wait } => wait.timeout = None,
            StepKind::Call { .. } | StepKind::Saga { .. } => {}
        }
    }
    Definition::new(spec).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}: {}", definition.name(), errors.join("; "))
    })
}

fn repeated(retry: &RetrySpec) -> RetrySpec {
    RetrySpec {
        attempts: retry.attempts.max(ATTEMPTS_MIN),
        backoff: BackoffSpec::Listed(vec![PAUSE]),
    }
}
