//! `amends replay --component` and `--calls`: makes the recorded calls of a saga again, on another component
//! or on those that served them.
//!
//! The calls run in the order of the log, without any effect outside. Requests are answered by a stub. What
//! a call writes of its plugin's state is there for the next call of the same replay, and nothing else is:
//! a bundle has no state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amends_engine::{
    Call, Command, Digest, Direction, Event, FailureClass, Outcome, Payload, PluginName, Saga,
    StepEvent, StepName, Target, UndoEvent, Version, arguments, commands, idempotency_key,
};
use amends_runtime::now;
use amends_sandbox::{PluginCall, PluginSettings, StubAnswer};
use amends_store::{Append, Appended, NewEvent, Stream};
use anyhow::{Context as _, bail};
use serde::Serialize;

use super::alone::{Alone, Served};
use super::component;

/// Which component makes the calls.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The plugin whose calls it makes.
    pub plugin: PluginName,
    /// The component: a file, or `oci://REGISTRY/REPOSITORY@sha256:…`.
    pub file: PathBuf,
    /// A config that says what is granted, instead of state and events.
    pub config: Option<PathBuf>,
}

/// Components that make the calls of a saga again.
pub struct Replayer {
    alone: Alone,
    /// The plugin of each component that is served.
    plugins: Vec<PluginName>,
    /// Each component makes the calls that it served, and no others.
    is_as_recorded: bool,
    /// The version of the stream that the state is written with.
    version: Version,
    /// The calls that were made again, and whose recorded outcome has not come.
    pending: Vec<Pending>,
}

/// What came of a call that was made again.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    /// The component.
    pub digest: Digest,
    /// Whether it came to the recorded outcome.
    pub verdict: ReplayVerdict,
    /// What it came to, for people.
    pub outcome: String,
    /// The requests that it would have sent, for people. The stub answered each with 200 and `{}`.
    pub requests: Vec<String>,
}

/// How the outcome of a call stands to the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayVerdict {
    /// They are the same: the same output, or a failure of the same class and code.
    Same,
    /// They differ.
    Differs,
    /// Nobody knows what came of the recorded call.
    NotComparable,
}

/// A call that was made again.
struct Pending {
    step: StepName,
    direction: Direction,
    digest: Digest,
    outcome: Outcome,
    requests: Vec<String>,
}

impl Replayer {
    /// Loads the component.
    ///
    /// # Errors
    /// Why a host would refuse it.
    pub async fn open(options: &ReplayOptions) -> anyhow::Result<Self> {
        let file = options.file.display();
        let bytes = component::bytes_of(&options.file).await?;
        let granted = |name: &PluginName| granted(options.config.as_deref(), name);
        let components = vec![(bytes, Some(options.plugin.clone()))];
        let alone = Alone::open(components, granted).await;
        let alone = alone.with_context(|| format!("{file} cannot be called"))?;
        let plugins = vec![options.plugin.clone()];
        Ok(Self { alone, plugins, is_as_recorded: false, version: Version(0), pending: Vec::new() })
    }

    /// Loads components that served calls of a saga, each with its plugin. They share their state.
    ///
    /// # Errors
    /// Why a host would refuse one of them.
    pub async fn of_components(
        components: Vec<(PluginName, Vec<u8>)>,
        config: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (mut plugins, mut serving) = (Vec::new(), Vec::new());
        let mut names: BTreeMap<PluginName, PluginName> = BTreeMap::new();
        for (plugin, bytes) in components {
            // Several components may have served one plugin, and here each needs a name of its own.
            let mut name = plugin.clone();
            if names.contains_key(&name) {
                name = format!("replay-{}", &Digest::of(&bytes).hex()[..16]).parse()?;
            }
            names.insert(name.clone(), plugin.clone());
            plugins.push(plugin);
            serving.push((bytes, Some(name)));
        }
        let granted = |name: &PluginName| granted(config, names.get(name).unwrap_or(name));
        let alone = Alone::open(serving, granted).await.context("a component cannot be called")?;
        Ok(Self { alone, plugins, is_as_recorded: true, version: Version(0), pending: Vec::new() })
    }

    /// The plugins whose calls are made again.
    #[must_use]
    pub fn plugins(&self) -> &[PluginName] {
        &self.plugins
    }

    /// The component that makes a call, if one does.
    fn server(&self, call: &Call) -> Option<&Served> {
        let Target::Plugin(plugin) = &call.target else { return None };
        let mut served = self.plugins.iter().zip(&self.alone.served);
        let is_it = |(name, served): &(&PluginName, &Served)| {
            if self.is_as_recorded {
                served.component.digest == call.digest
            } else {
                *name == plugin
            }
        };
        served.find(is_it).map(|(_, served)| served)
    }

    /// Makes the call that an event began, when it is one of the plugin. `saga` is the state after the
    /// event.
    ///
    /// # Errors
    /// When the call cannot be made.
    pub async fn call(&mut self, saga: &Saga, began: &Event) -> anyhow::Result<()> {
        let (step, direction) = if let Event::Step(StepEvent::Started(fact)) = began {
            (&fact.step, Direction::Execute)
        } else if let Event::Undo(UndoEvent::Started(fact)) = began {
            (&fact.step, Direction::Compensate)
        } else {
            return Ok(());
        };
        let running = commands(saga).find_map(|command| {
            let Command::Run(call) = command else { return None };
            (call.step == *step && call.direction == direction).then_some(call)
        });
        let Some(call) = running else { return Ok(()) };
        let Some(served) = self.server(&call) else { return Ok(()) };
        let exports = served.component.exports;
        let is_exported = match direction {
            Direction::Execute => exports.execute,
            Direction::Compensate => exports.compensate,
        };
        if !is_exported {
            bail!("the component does not export {} of `{step}`", direction.as_str());
        }
        let digest = served.component.digest;
        let call = plugin_call(served, saga, &call)?;
        let answer = StubAnswer::Status(200);
        let rehearsed = self.alone.plugins.rehearse(&served.component, &call, answer).await;
        let requests = rehearsed.requests.iter().map(|request| {
            let refused = request.refused.as_ref().map(|why| format!(" (refused: {why})"));
            format!("{} {}{}", request.method, request.url, refused.unwrap_or_default())
        });
        let requests = requests.collect();
        let (step, outcome) = (call.step, rehearsed.outcome);
        if let Some(state) = rehearsed.effects.state
            && matches!(outcome, Outcome::Succeeded(_) | Outcome::NothingToUndo)
        {
            let event = NewEvent { kind: "call.succeeded".into(), data: "{}".to_owned() };
            let stream = Stream::Plugin(call.state_of);
            let append = Append::shared(stream, self.version, now(), vec![event]);
            let append = Append { state: vec![(*state).into()], ..append };
            let appended = self.alone.store.state().change(append).await?;
            let Appended::Done { version, .. } = appended else {
                bail!("what a call wrote cannot be recorded: {appended:?}");
            };
            self.version = version;
        }
        self.pending.retain(|other| (&other.step, other.direction) != (&step, direction));
        self.pending.push(Pending { step, direction, digest, outcome, requests });
        Ok(())
    }

    /// Compares a call with an event, when that is the recorded outcome of one that was made again.
    pub fn compare(&mut self, event: &Event) -> Option<Replayed> {
        let (step, direction, recorded) = recorded(event)?;
        let is_of = |other: &Pending| (&other.step, other.direction) == (step, direction);
        let pending = self.pending.swap_remove(self.pending.iter().position(is_of)?);
        let verdict = match (&recorded, &pending.outcome) {
            (Outcome::Unknown(_), _) => ReplayVerdict::NotComparable,
            (recorded, outcome) if is_same(recorded, outcome) => ReplayVerdict::Same,
            _ => ReplayVerdict::Differs,
        };
        Some(Replayed {
            digest: pending.digest,
            verdict,
            outcome: pending.outcome.to_string(),
            requests: pending.requests,
        })
    }

    /// Stops the component's registry and store.
    ///
    /// # Errors
    /// When the store cannot be closed.
    pub async fn close(self) -> anyhow::Result<()> {
        self.alone.close().await
    }
}

/// What a component of a plugin is granted: what a config says, or else state and events.
fn granted(config: Option<&Path>, plugin: &PluginName) -> anyhow::Result<PluginSettings> {
    match config {
        Some(config) => component::granted(config, plugin),
        None => Ok(PluginSettings { state: true, events: true, ..PluginSettings::default() }),
    }
}

fn plugin_call(served: &Served, saga: &Saga, call: &Call) -> anyhow::Result<PluginCall> {
    let (input, output) = arguments(saga, call).map_err(anyhow::Error::msg)?;
    let owner = saga.step(&call.step).and_then(|step| step.spec.plugin().cloned());
    let key = idempotency_key(saga.id(), &call.step, call.direction, call.generation);
    Ok(PluginCall {
        plugin: served.name.clone(),
        state_of: owner.unwrap_or_else(|| served.name.clone()),
        digest: served.component.digest,
        saga_id: saga.id(),
        definition: saga.definition().name().clone(),
        step: call.step.clone(),
        attempt: call.attempt,
        direction: call.direction,
        idempotency_key: key,
        traceparent: Some(saga.traceparent().into_owned()),
        is_traced: false,
        input,
        output,
        timeout: call.timeout,
    })
}

/// Returns the outcome of a call that an event records.
fn recorded(event: &Event) -> Option<(&StepName, Direction, Outcome)> {
    let failed = |class, error: &amends_engine::Failure| match class {
        FailureClass::Permanent => Outcome::Permanent(error.clone()),
        FailureClass::Retryable => Outcome::Retryable(error.clone()),
        FailureClass::Unknown => Outcome::Unknown(error.clone()),
    };
    let (step, direction, outcome) = match event {
        Event::Step(StepEvent::Succeeded(fact)) => {
            (&fact.step, Direction::Execute, Outcome::Succeeded(fact.output.clone()))
        }
        Event::Step(StepEvent::Failed(fact)) => {
            (&fact.step, Direction::Execute, failed(fact.class, &fact.error))
        }
        Event::Step(StepEvent::Unknown(fact)) => {
            (&fact.step, Direction::Execute, Outcome::Unknown(fact.error.clone()))
        }
        Event::Undo(UndoEvent::Succeeded(fact)) => {
            let receipt = || fact.receipt.clone().unwrap_or_else(Payload::null);
            let done =
                if fact.nothing { Outcome::NothingToUndo } else { Outcome::Succeeded(receipt()) };
            (&fact.step, Direction::Compensate, done)
        }
        Event::Undo(UndoEvent::Failed(fact)) => {
            (&fact.step, Direction::Compensate, failed(fact.class, &fact.error))
        }
        Event::Undo(UndoEvent::Blocked(fact)) => {
            (&fact.step, Direction::Compensate, failed(fact.class, &fact.error))
        }
        Event::Step(
            StepEvent::Started(_)
            | StepEvent::Waiting(_)
            | StepEvent::Expanded(_)
            | StepEvent::Skipped(_),
        )
        | Event::Undo(UndoEvent::Started(_))
        | Event::Saga(_)
        | Event::Operator(_)
        | Event::Signal(_)
        | Event::Emitted(_) => return None,
    };
    Some((step, direction, outcome))
}

fn is_same(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Succeeded(one), Outcome::Succeeded(other)) => {
            let value = |payload: &Payload| serde_json::from_str(payload.as_str()).ok();
            let (one, other): (Option<serde_json::Value>, _) = (value(one), value(other));
            one == other
        }
        (Outcome::NothingToUndo, Outcome::NothingToUndo) => true,
        (Outcome::Permanent(one), Outcome::Permanent(other))
        | (Outcome::Retryable(one), Outcome::Retryable(other)) => one.code == other.code,
        _ => false,
    }
}
