//! What a host counts on, check by check. Each has a saga of its own, or more.

use amends_engine::{Direction, Fate, Outcome, Payload};
use serde::Serialize;
use serde_json::Value;

use super::said::Said;
use super::trial::{State, Trial};

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    #[serde(rename = "check")]
    pub what: &'static str,
    /// Which input, from 1; none when it is about the component.
    pub input: Option<usize>,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the component logged and printed meanwhile.
    pub log: Vec<String>,
}

/// What came of a check.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "result", content = "why", rename_all = "snake_case")]
pub enum Verdict {
    /// What was seen.
    Ok(String),
    /// What is wrong.
    Failed(String),
    /// It does not apply, or cannot be told because another check failed.
    Skipped(&'static str),
}

impl Verdict {
    /// `ok`, `failed` or `skipped`, and why.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Ok(why) => ("ok", why),
            Self::Failed(why) => ("failed", why),
            Self::Skipped(why) => ("skipped", why),
        }
    }
}

impl From<Found> for Verdict {
    fn from(found: Found) -> Self {
        found.map_or_else(Self::Failed, Self::Ok)
    }
}

/// What was seen, or what is wrong.
type Found = Result<String, String>;

/// An undo that succeeded.
struct Undone {
    /// It found nothing to undo.
    is_nothing: bool,
    /// What the plugin keeps is as it was before the step.
    restores: bool,
}

const NO_UNDO: &str = "it exports no undo: another component's is given with --undo";
const NO_EXECUTE: &str =
    "it exports no action: test the component of the step, with this one as --undo";
const NO_PROBE: &str = "it exports no probe";
const NOT_DONE: &str = "the step failed";
const NOT_UNDONE: &str = "the undo failed";

/// What fails is told, and is no error.
pub(super) async fn run(
    trial: &Trial,
    inputs: &[Payload],
    said: &Said,
) -> anyhow::Result<Vec<Check>> {
    let mut checks = Checks { found: Vec::new(), input: None, said };
    checks.add("manifest", manifest(trial, inputs));
    for (input, number) in inputs.iter().zip(1..) {
        checks.input = Some(number);
        steps(trial, input, &mut checks).await?;
        undos(trial, input, &mut checks).await?;
    }
    Ok(checks.found)
}

/// The checks that were made.
struct Checks<'s> {
    found: Vec<Check>,
    input: Option<usize>,
    said: &'s Said,
}

impl Checks<'_> {
    /// Adds a check that has just been made: what the component said since the last one belongs to it.
    fn add(&mut self, what: &'static str, verdict: impl Into<Verdict>) {
        let (verdict, log) = (verdict.into(), self.said.take());
        self.found.push(Check { what, input: self.input, verdict, log });
    }

    fn skip(&mut self, all: &[&'static str], why: &'static str) {
        for what in all {
            self.add(what, Verdict::Skipped(why));
        }
    }
}

async fn steps(trial: &Trial, input: &Payload, checks: &mut Checks<'_>) -> anyhow::Result<()> {
    const ALL: [&str; 3] = ["execute", "the same call again", "an input without a field"];
    const PROBE: [&str; 1] = ["probe"];
    let exports = trial.exports();
    if !exports.execute {
        checks.skip(&ALL, NO_EXECUTE);
        checks.skip(&PROBE, if exports.probe { NO_EXECUTE } else { NO_PROBE });
        return Ok(());
    }
    let once = execute(trial, input).await?;
    let is_done = once.is_ok();
    checks.add(ALL[0], once);
    if is_done {
        checks.add(ALL[1], again(trial, input).await?);
    } else {
        checks.skip(&ALL[1..2], NOT_DONE);
    }
    checks.add(ALL[2], missing_field(trial, input).await?);
    match (exports.probe, is_done) {
        (false, _) => checks.skip(&PROBE, NO_PROBE),
        (true, false) => checks.skip(&PROBE, NOT_DONE),
        (true, true) => checks.add(PROBE[0], probe(trial, input).await?),
    }
    Ok(())
}

async fn undos(trial: &Trial, input: &Payload, checks: &mut Checks<'_>) -> anyhow::Result<()> {
    const NOTHING: &str = "undo of what never happened";
    const OTHERS: [&str; 4] =
        ["undo", "undo after a lost answer", "undo twice", "undo after a repeated call"];
    let exports = trial.exports();
    if !exports.compensate {
        checks.skip(&[NOTHING], NO_UNDO);
        checks.skip(&OTHERS, NO_UNDO);
        return Ok(());
    }
    checks.add(NOTHING, undo_nothing(trial, input).await?);
    if !exports.execute {
        checks.skip(&OTHERS, NO_EXECUTE);
        return Ok(());
    }
    let undone = match undo(trial, input).await? {
        Tried::NotDone => {
            checks.skip(&OTHERS, NOT_DONE);
            return Ok(());
        }
        Tried::Failed(why) => {
            checks.add(OTHERS[0], Verdict::Failed(why));
            checks.skip(&OTHERS[1..], NOT_UNDONE);
            return Ok(());
        }
        Tried::Undone(undone) => undone,
    };
    let told = match (undone.is_nothing, undone.restores) {
        (true, _) => "it found nothing to undo, and the step had left nothing that it keeps",
        (false, true) => "done, and what it keeps is as before",
        (false, false) => "done",
    };
    checks.add(OTHERS[0], Verdict::Ok(told.to_owned()));
    checks.add(OTHERS[1], undo_lost(trial, input, &undone).await?);
    checks.add(OTHERS[2], undo_twice(trial, input).await?);
    checks.add(OTHERS[3], undo_repeated(trial, input, &undone).await?);
    Ok(())
}

fn manifest(trial: &Trial, inputs: &[Payload]) -> Found {
    let component = trial.component();
    let version = &component.manifest.version;
    if let Err(error) = version.parse::<semver::Version>() {
        return Err(format!("its version `{version}` is not SemVer, such as 1.2.0: {error}"));
    }
    for (input, number) in inputs.iter().zip(1..) {
        if let Err(why) = component.takes_input(input) {
            return Err(format!("input {number} does not fit its own input schema: {why}"));
        }
    }
    Ok(format!("version {version}; every input fits its schema"))
}

async fn execute(trial: &Trial, input: &Payload) -> anyhow::Result<Found> {
    let outcome = trial.case(input).execute(1).await?;
    Ok(match &outcome {
        Outcome::Succeeded(_) => Ok(outcome.to_string()),
        Outcome::NothingToUndo
        | Outcome::Permanent(_)
        | Outcome::Retryable(_)
        | Outcome::Unknown(_) => Err(format!("it {outcome}")),
    })
}

async fn again(trial: &Trial, input: &Payload) -> anyhow::Result<Found> {
    let mut case = trial.case(input);
    let first = case.execute(1).await?;
    let kept = trial.state().await?;
    let second = case.execute(2).await?;
    if !is_same(&first, &second) {
        return Ok(Err(format!("not idempotent: the same key {first} and then {second}")));
    }
    Ok(match changed(&kept, &trial.state().await?) {
        Some(key) => Err(format!("not idempotent: the second call changed its state, key `{key}`")),
        None => Ok("the same answer, and nothing done twice that it keeps".to_owned()),
    })
}

async fn missing_field(trial: &Trial, input: &Payload) -> anyhow::Result<Verdict> {
    let schema = &trial.component().manifest.input_schema;
    let Some(field) = schema["required"][0].as_str() else {
        return Ok(Verdict::Skipped("its input schema requires no field"));
    };
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(input.as_str()) else {
        return Ok(Verdict::Skipped("the input is no object"));
    };
    fields.remove(field);
    let without = Payload::parse(&Value::Object(fields).to_string())?;
    let outcome = trial.case(&without).execute(1).await?;
    Ok(if let Outcome::Permanent(failure) = &outcome {
        Verdict::Ok(format!("refused: {}", failure.message))
    } else {
        Verdict::Failed(format!("not refused without `{field}`: it {outcome}"))
    })
}

async fn undo_nothing(trial: &Trial, input: &Payload) -> anyhow::Result<Found> {
    let kept = trial.state().await?;
    let outcome = trial.case(input).compensate(1, None).await?;
    if !is_undone(&outcome) {
        return Ok(Err(format!(
            "it {outcome}; an undo that finds nothing to undo must succeed, else the saga is blocked"
        )));
    }
    Ok(match changed(&kept, &trial.state().await?) {
        Some(key) => {
            Err(format!("it undid what was never done: it changed its state, key `{key}`"))
        }
        None => Ok(outcome.to_string()),
    })
}

enum Tried {
    NotDone,
    Failed(String),
    Undone(Undone),
}

/// The plain way: the step, then its undo with its output.
async fn undo(trial: &Trial, input: &Payload) -> anyhow::Result<Tried> {
    let mut case = trial.case(input);
    let before = trial.state().await?;
    let Outcome::Succeeded(output) = case.execute(1).await? else { return Ok(Tried::NotDone) };
    let outcome = case.compensate(1, Some(&output)).await?;
    if !is_undone(&outcome) {
        return Ok(Tried::Failed(outcome.to_string()));
    }
    let is_nothing = outcome == Outcome::NothingToUndo;
    let after = trial.state().await?;
    let left = changed(&before, &after);
    if let (true, Some(key)) = (is_nothing, left) {
        return Ok(Tried::Failed(format!(
            "it found nothing to undo, and the step had happened: what it wrote to its state is still \
             there, key `{key}`"
        )));
    }
    let restores = left.is_none();
    Ok(Tried::Undone(Undone { is_nothing, restores }))
}

async fn undo_lost(trial: &Trial, input: &Payload, plain: &Undone) -> anyhow::Result<Found> {
    let mut case = trial.case(input);
    let before = trial.state().await?;
    case.execute(1).await?;
    let outcome = case.compensate(1, None).await?;
    as_plain(trial, &before, &outcome, plain).await
}

async fn undo_repeated(trial: &Trial, input: &Payload, plain: &Undone) -> anyhow::Result<Found> {
    let mut case = trial.case(input);
    let before = trial.state().await?;
    case.execute(1).await?;
    let Outcome::Succeeded(output) = case.execute(2).await? else {
        return Ok(Err("the second call failed".to_owned()));
    };
    let outcome = case.compensate(1, Some(&output)).await?;
    as_plain(trial, &before, &outcome, plain).await
}

/// Whether an undo did what the plain one did.
async fn as_plain(
    trial: &Trial,
    before: &State,
    outcome: &Outcome,
    plain: &Undone,
) -> anyhow::Result<Found> {
    if !is_undone(outcome) {
        return Ok(Err(format!("it {outcome}")));
    }
    if *outcome == Outcome::NothingToUndo && !plain.is_nothing {
        return Ok(Err("it found nothing to undo, and the step had happened".to_owned()));
    }
    Ok(match changed(before, &trial.state().await?) {
        Some(key) if plain.restores => {
            Err(format!("something of the step is left in its state, key `{key}`"))
        }
        Some(_) | None => Ok(outcome.to_string()),
    })
}

async fn undo_twice(trial: &Trial, input: &Payload) -> anyhow::Result<Found> {
    let mut case = trial.case(input);
    let Outcome::Succeeded(output) = case.execute(1).await? else {
        return Ok(Err(NOT_DONE.to_owned()));
    };
    let first = case.compensate(1, Some(&output)).await?;
    if !is_undone(&first) {
        return Ok(Err(format!("the first one {first}")));
    }
    let kept = trial.state().await?;
    let outcome = case.compensate(2, Some(&output)).await?;
    if !is_undone(&outcome) {
        return Ok(Err(format!("the second one {outcome}")));
    }
    Ok(match changed(&kept, &trial.state().await?) {
        Some(key) => Err(format!("it undid twice: the second changed its state, key `{key}`")),
        None => Ok(format!("the second one {outcome}")),
    })
}

/// A probe may say that it cannot tell; what it tells must be so.
async fn probe(trial: &Trial, input: &Payload) -> anyhow::Result<Found> {
    let mut case = trial.case(input);
    if case.ask(Direction::Execute).await?.fate == Some(Fate::Happened) {
        return Ok(Err("it told that a call happened which never was made".to_owned()));
    }
    let done = case.execute(1).await?;
    let told = case.ask(Direction::Execute).await?;
    match told.fate {
        Some(Fate::DidNotHappen) => {
            return Ok(Err("it told of a call that succeeded that it did not happen".to_owned()));
        }
        Some(Fate::Happened) if !is_same(&done, &told.outcome) => {
            return Ok(Err(format!(
                "the call {done}, and of it was told that it {}",
                told.outcome
            )));
        }
        Some(Fate::Happened | Fate::Unclear) | None => {}
    }
    let (Outcome::Succeeded(output), true) = (done, trial.exports().compensate) else {
        return Ok(Ok("what it told was so".to_owned()));
    };
    let is_undone = is_undone(&case.compensate(1, Some(&output)).await?);
    if is_undone && case.ask(Direction::Compensate).await?.fate == Some(Fate::DidNotHappen) {
        return Ok(Err("it told of an undo that was done that it did not happen".to_owned()));
    }
    Ok(Ok("what it told was so".to_owned()))
}

fn is_undone(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Succeeded(_) | Outcome::NothingToUndo)
}

/// Two texts may say the same.
fn is_same(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Succeeded(one), Outcome::Succeeded(other)) => {
            let value = |text: &Payload| serde_json::from_str::<Value>(text.as_str()).ok();
            value(one) == value(other)
        }
        (one, other) => one == other,
    }
}

/// A key that is not as it was.
fn changed<'s>(before: &'s State, after: &'s State) -> Option<&'s str> {
    let keys = before.keys().chain(after.keys());
    keys.into_iter().find(|key| before.get(*key) != after.get(*key)).map(String::as_str)
}
