//! A component in a store of its own, and its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends_engine::{
    DefinitionName, Direction, Failure, Outcome, Payload, PluginName, SagaId, StateQuery, StepName,
    Version, idempotency_key,
};
use amends_runtime::now;
use amends_sandbox::{Answer, Exports, LoadedComponent, PluginCall, PluginSettings};
use amends_store::{Append, Appended, NewEvent, OwnedShards, Stream};
use anyhow::bail;

use crate::plugin::alone::{Alone, Served};

/// The name of the definition and of the step, as a call tells them to the component.
const NAME: &str = "plugin-test";

/// How long a call may take: that of a step by default.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Keys of a plugin's state that are compared.
const KEYS_MAX: u32 = 1_000;

/// What a plugin keeps.
pub(super) type State = BTreeMap<String, Arc<str>>;

pub(super) struct Trial {
    alone: Alone,
    shards: OwnedShards,
    sagas: AtomicU64,
}

impl Trial {
    /// A component, and the one of its undo where that is another.
    ///
    /// # Errors
    /// Why a host would refuse one of them.
    pub(super) async fn open(
        bytes: Vec<u8>,
        undo: Option<Vec<u8>>,
        granted: impl Fn(&PluginName) -> anyhow::Result<PluginSettings>,
    ) -> anyhow::Result<Self> {
        let components = std::iter::once(bytes).chain(undo).map(|bytes| (bytes, None)).collect();
        let alone = Alone::open(components, granted).await?;
        if alone.served.get(1).is_some_and(|undo| !undo.component.exports.compensate) {
            bail!("the component of the undo exports no undo");
        }
        let sagas = AtomicU64::new(0);
        let shards = OwnedShards::gain(alone.store.ownership()).await?;
        Ok(Self { alone, shards, sagas })
    }

    /// Which calls can be made.
    pub(super) fn exports(&self) -> Exports {
        let exports = self.step().component.exports;
        Exports { compensate: exports.compensate || self.alone.served.len() > 1, ..exports }
    }

    /// The component that executes the step.
    fn step(&self) -> &Served {
        &self.alone.served[0]
    }

    /// Which component a call goes to.
    fn of(&self, direction: Direction) -> &Served {
        match direction {
            Direction::Execute => self.step(),
            Direction::Compensate => self.alone.served.get(1).unwrap_or_else(|| self.step()),
        }
    }

    pub(super) fn component(&self) -> &LoadedComponent {
        &self.step().component
    }

    /// Another saga, in which nothing has happened yet.
    pub(super) fn case(&self, input: &Payload) -> Case<'_> {
        let number = self.sagas.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number);
        let saga = SagaId::from_parts(now(), &random);
        Case { trial: self, saga, version: Version(0), input: input.clone() }
    }

    /// All that the plugin keeps.
    pub(super) async fn state(&self) -> anyhow::Result<State> {
        let query = StateQuery { limit: KEYS_MAX, ..StateQuery::default() };
        let mut state = State::new();
        for key in self.alone.store.state().keys(self.step().name.clone(), query).await? {
            if let Some(value) =
                self.alone.store.state().value(self.step().name.clone(), key.clone()).await?
            {
                state.insert(key, value);
            }
        }
        Ok(state)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.alone.close().await
    }
}

/// One saga with the step.
pub(super) struct Case<'t> {
    trial: &'t Trial,
    saga: SagaId,
    version: Version,
    input: Payload,
}

impl Case<'_> {
    pub(super) async fn execute(&mut self, attempt: u32) -> anyhow::Result<Outcome> {
        let call = self.call(Direction::Execute, attempt, None)?;
        let answer = self.trial.alone.plugins.call(&call).await;
        self.record(answer).await
    }

    pub(super) async fn compensate(
        &mut self,
        attempt: u32,
        output: Option<&Payload>,
    ) -> anyhow::Result<Outcome> {
        let call = self.call(Direction::Compensate, attempt, output)?;
        let answer = self.trial.alone.plugins.call(&call).await;
        self.record(answer).await
    }

    /// What it tells of a call whose answer was lost.
    pub(super) async fn ask(&self, direction: Direction) -> anyhow::Result<Answer> {
        let call = self.call(direction, 1, None)?;
        let lost = Failure::new("reply_lost", "the answer was lost");
        Ok(self.trial.alone.plugins.ask(&call, lost, None, None).await)
    }

    fn call(
        &self,
        direction: Direction,
        attempt: u32,
        output: Option<&Payload>,
    ) -> anyhow::Result<PluginCall> {
        let step: StepName = NAME.parse().map_err(anyhow::Error::msg)?;
        let definition: DefinitionName = NAME.parse().map_err(anyhow::Error::msg)?;
        let Served { name, component } = self.trial.of(direction);
        Ok(PluginCall {
            plugin: name.clone(),
            digest: component.digest,
            state_of: self.trial.step().name.clone(),
            saga_id: self.saga,
            definition,
            idempotency_key: idempotency_key(self.saga, &step, direction, 0),
            step,
            attempt,
            direction,
            traceparent: None,
            is_traced: false,
            input: self.input.clone(),
            output: output.cloned(),
            timeout: TIMEOUT,
        })
    }

    /// What a call that succeeded did is done with the event that says so, as the runtime does it.
    async fn record(&mut self, answer: Answer) -> anyhow::Result<Outcome> {
        if !matches!(answer.outcome, Outcome::Succeeded(_) | Outcome::NothingToUndo) {
            return Ok(answer.outcome);
        }
        let event =
            |kind: String, data: &str| NewEvent { kind: kind.into(), data: data.to_owned() };
        let mut events = vec![event("call.succeeded".to_owned(), "{}")];
        let emitted = answer.effects.emitted;
        events.extend(emitted.iter().map(|one| event(one.kind.to_string(), one.data.as_str())));
        let append = Append {
            stream: Stream::Saga(self.saga),
            expected: self.version,
            at: now(),
            events,
            row: None,
            failures: Vec::new(),
            start_key: None,
            state: answer.effects.state.map(Arc::from).into_iter().collect(),
        };
        let appended = self.trial.shards.append(append).await?;
        let Appended::Done { version, .. } = appended else {
            bail!("what a call wrote cannot be recorded: {appended:?}");
        };
        self.version = version;
        Ok(answer.outcome)
    }
}
