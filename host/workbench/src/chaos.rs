//! `chaos`: a user's own definition and plugins under every fault that a host can meet.
//!
//! Each step and each undo fails, is lost before and after its effect, and is repeated; the host
//! is crashed at every event boundary. What is judged is what can be seen from outside of the
//! plugins: how the sagas end, and whether a call that is repeated with the same key answers the
//! same. All of it runs on the real engine, runtime and components, on a store of its own.

mod plan;
mod report;
mod trial;

use std::collections::{HashSet, VecDeque};

use amends_engine::{BackoffSpec, Definition, DefinitionName, Payload, RetrySpec, StepKind};
use anyhow::Context as _;

use amends_config::Config;

pub use plan::FaultKind;
pub use report::{ChaosReport, DefinitionReport, TrialsReport};

use plan::Fault;
use report::Report;
use trial::Trial;

/// Attempts that each call has at least, so that one can be repeated.
const ATTEMPTS_MIN: u32 = 2;

/// Every pause, in place of the definition's: what is tried is what happens, not when.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// What is tried.
#[derive(Debug)]
pub struct ChaosOptions {
    /// The config.
    pub config: Config,
    /// What sagas are given.
    pub inputs: Vec<Payload>,
    /// The definition; the config's first when none is named.
    pub definition: Option<DefinitionName>,
    /// At most so many inputs of each definition.
    pub limit: usize,
}

/// Tries a definition, and then those that its steps run. The plugins are really called, with a store of
/// their own.
///
/// # Errors
/// When something cannot be tried. What was found is in the report, and is no error.
pub async fn run(options: ChaosOptions) -> anyhow::Result<ChaosReport> {
    let ChaosOptions { mut config, inputs, definition, limit } = options;
    // For the time of this run: what lies beside the config may be its author's code.
    let cache = tempfile::tempdir().context("no folder for compiled code")?;
    config.plugins.cache = cache.path().to_owned();
    let name = pick(&config, definition.as_ref())?;
    let definitions: Vec<_> = config.definitions.iter().map(hasten).collect::<Result<_, _>>()?;
    let reports = try_all(&config, &definitions, name, inputs, limit).await?;
    let mut reports = reports.into_iter().map(Report::answer);
    let mut definition = reports.next().context("nothing was tried")?;
    let children: Vec<_> = reports.collect();
    definition.ok &= children.iter().all(|child| child.ok);
    Ok(ChaosReport { definition, children })
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
