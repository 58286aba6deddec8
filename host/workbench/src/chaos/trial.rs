//! A host of its own on which sagas are tried.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{
    Definition, DefinitionName, Direction, Outcome, Payload, Saga, SagaId, SagaStatus, StepKind,
    StepStatus, Timestamp, Verb, Version,
};
use amends_registry::Registry;
use amends_runtime::{Host, Principal, RuntimeConfig, StartRequest, Via, import, with_state_cache};
use amends_store::{Durability, OwnedShards, Store, StoreConfig, StoredEvent, Stream};
use anyhow::Context as _;

use super::plan::{ByTag, Fault, FaultKind, TAG};
use super::report::Verdict;
use amends_config::Config;

/// A saga that has not ended by then does not end.
const LIMIT: Duration = Duration::from_mins(2);

/// How often a saga is looked at that may wait for a signal.
const LOOK: Duration = Duration::from_millis(200);

/// Events of a log that are read: a saga that has more is none that chaos tries.
const EVENTS_MAX: u32 = 10_000;

/// How long calls in flight may take when a trial is over.
const STOP_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Trial {
    runtime: Host,
    faults: Arc<ByTag>,
    _folder: tempfile::TempDir,
}

impl Trial {
    pub(super) async fn open(config: &Config, definitions: &[Definition]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for a store")?;
        let store = open_store(&folder)?;
        Self::on(config, definitions, folder, store).await
    }

    async fn on(
        config: &Config,
        definitions: &[Definition],
        folder: tempfile::TempDir,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<Self> {
        let mut plugins = config.plugins.clone();
        plugins.require(definitions);
        let plugins = Registry::open(plugins, Arc::clone(&store)).await?;
        let faults = Arc::new(ByTag::default());
        let runtime = RuntimeConfig {
            plugins_dir: config.plugins.dir.clone(),
            faults: Some(Arc::clone(&faults) as Arc<_>),
            ..RuntimeConfig::default()
        };
        let definitions = copy(definitions)?;
        let runtime = Host::open(runtime, store, plugins, definitions).await?;
        Ok(Self { runtime, faults, _folder: folder })
    }

    pub(super) async fn start(
        &self,
        name: &DefinitionName,
        input: &Payload,
        fault: Option<&Fault>,
    ) -> anyhow::Result<SagaId> {
        let tags = fault.map(|fault| (TAG.to_owned(), fault.tag()));
        let request = StartRequest {
            definition: name.to_string(),
            input: input.clone(),
            key: None,
            tags: tags.into_iter().collect(),
            traceparent: None,
            start_at: None,
        };
        Ok(self.runtime.start(&chaos(), request).await?.id)
    }

    /// Until it rests; what waits for a signal gets one.
    pub(super) async fn wait(&self, id: SagaId) -> anyhow::Result<Saga> {
        let began = Instant::now();
        loop {
            let found = self.runtime.wait(id, LOOK).await?;
            let saga = found.context("the saga is gone")?.saga;
            let rests = saga.has_ended() || saga.status() == SagaStatus::Blocked;
            if rests || began.elapsed() > LIMIT {
                return Ok(saga);
            }
            for step in saga.steps() {
                if let (StepKind::Wait { wait }, StepStatus::Waiting) =
                    (&step.spec.kind, step.status)
                {
                    let signal = wait.signal.clone();
                    // One that has moved on meanwhile refuses it.
                    let _ = self.runtime.signal(&chaos(), id, signal, None, Payload::null()).await;
                }
            }
        }
    }

    /// A saga that is compensated with nothing else going wrong, after it completed or else because its
    /// pivot fails; none when neither can be.
    pub(super) async fn compensated(
        &self,
        name: &DefinitionName,
        input: &Payload,
        pivot: Option<&Fault>,
    ) -> anyhow::Result<Option<Saga>> {
        let id = self.start(name, input, pivot).await?;
        if pivot.is_some() {
            return Ok(Some(self.wait(id).await?));
        }
        let saga = self.wait(id).await?;
        if saga.status() != SagaStatus::Completed || !self.compensate(id).await {
            return Ok(None);
        }
        Ok(Some(self.wait(id).await?))
    }

    async fn compensate(&self, id: SagaId) -> bool {
        let reason = "to try its undos".to_owned();
        self.runtime.operate(&chaos(), id, Verb::Compensate, reason).await.is_ok()
    }

    /// What came of a fault.
    pub(super) async fn finish(&self, id: SagaId, fault: &Fault) -> anyhow::Result<Verdict> {
        let mut saga = self.wait(id).await?;
        if fault.direction == Direction::Compensate && saga.status() == SagaStatus::Completed {
            self.compensate(id).await;
            saga = self.wait(id).await?;
        }
        if fault.kind == FaultKind::ReplyLost
            && let Some(found) = self.repeated(id, fault)
        {
            return Ok(Verdict::Found(found));
        }
        if fault.ends(&saga).contains(&saga.status()) {
            return Ok(Verdict::Good);
        }
        let reason = saga.reason().unwrap_or("it does not move");
        Ok(Verdict::Found(format!("the saga is {}: {reason}", saga.status())))
    }

    /// What is wrong with a call that was repeated with the same key.
    fn repeated(&self, id: SagaId, fault: &Fault) -> Option<String> {
        let ended = self.faults.ended(id);
        let same =
            ended.iter().filter(|one| one.step == fault.step && one.direction == fault.direction);
        let calls: Vec<_> = same.collect();
        let [first, second, ..] = calls.as_slice() else {
            return Some("it was not repeated".to_owned());
        };
        let is_held = fault.direction == Direction::Execute && !first.is_thrown_away;
        match (&first.outcome, &second.outcome) {
            (Outcome::Succeeded(first), Outcome::Succeeded(second)) if is_held => (first != second)
                .then(|| {
                    format!(
                        "not idempotent: the same key answered {} and then {}",
                        first.as_str(),
                        second.as_str()
                    )
                }),
            (
                Outcome::Succeeded(_) | Outcome::NothingToUndo,
                Outcome::Succeeded(_) | Outcome::NothingToUndo,
            ) => None,
            (_, other) => Some(format!("it cannot be repeated: {}", told(other))),
        }
    }

    /// The sagas that a saga ran: the definition and the input of each.
    pub(super) async fn children(
        &self,
        saga: &Saga,
    ) -> anyhow::Result<Vec<(DefinitionName, Payload)>> {
        let mut children = Vec::new();
        for child in saga.steps().filter_map(|step| step.child) {
            if let Some(found) = self.runtime.state(child).await? {
                let started = found.saga.started();
                children.push((started.definition.clone(), started.input.clone()));
            }
        }
        Ok(children)
    }

    pub(super) async fn log(&self, id: SagaId) -> anyhow::Result<Vec<StoredEvent>> {
        let mut log: Vec<StoredEvent> = Vec::new();
        // A page of large events ends early.
        while log.len() < EVENTS_MAX as usize {
            let after = log.last().map_or(Version(0), |last| last.version);
            let left = EVENTS_MAX - u32::try_from(log.len()).unwrap_or(EVENTS_MAX);
            let page = self.runtime.events(Stream::Saga(id), after, left).await?;
            if page.is_empty() {
                break;
            }
            log.extend(page);
        }
        Ok(log)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.runtime.stop(STOP_LIMIT).await;
        Ok(self.runtime.close().await?)
    }
}

fn chaos() -> Principal {
    Principal::local("chaos", Via::CommandLine)
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded(_) | Outcome::NothingToUndo => "it succeeded".to_owned(),
        Outcome::Permanent(failure) | Outcome::Retryable(failure) | Outcome::Unknown(failure) => {
            format!("{}: {}", failure.code, failure.message)
        }
    }
}

/// Tries a crash of the host after each event of a log, each with a saga of its own. Answers how many
/// crashes it tried, and by the number of the event what did not come to one of `ends`. A crash after an
/// event that ends the saga changes nothing, and before the first event there is no saga.
pub(super) async fn crash(
    config: &Config,
    definitions: &[Definition],
    name: &DefinitionName,
    ends: &[SagaStatus],
    log: &[StoredEvent],
) -> anyhow::Result<(usize, BTreeMap<usize, String>)> {
    let folder = tempfile::tempdir().context("no folder for a store")?;
    let store = open_store(&folder)?;
    let shards = OwnedShards::gain(store.ownership()).await?;
    let definition = copy(definitions)?.into_iter().find(|one| one.name() == name);
    let definition = Arc::new(definition.context("the definition is gone")?);
    let is_end = |kind: &str| matches!(kind, "saga.completed" | "saga.compensated");
    let mut crashed = Vec::new();
    for events in 1..log.len() {
        if is_end(&log[events - 1].kind) {
            continue;
        }
        let mut random = [0; 10];
        random[8..].copy_from_slice(&u16::try_from(events).unwrap_or(u16::MAX).to_be_bytes());
        let id = SagaId::from_parts(Timestamp::from_millis(1), &random);
        let own = with_own_children(&log[..events], events);
        import(&shards, id, Arc::clone(&definition), &own).await?;
        // A completed saga that nobody had compensated yet stays completed.
        let is_reopened = log[..events].iter().any(|event| event.kind == "operator.compensated");
        let reopens = log.iter().any(|event| event.kind == "operator.compensated");
        let wanted = if reopens && !is_reopened { &[SagaStatus::Completed][..] } else { ends };
        crashed.push((events, id, wanted));
    }
    // The host below gains them.
    drop(shards);
    let trial = Trial::on(config, definitions, folder, store).await?;
    let (tried, mut found) = (crashed.len(), BTreeMap::new());
    for (events, id, wanted) in crashed {
        let saga = trial.wait(id).await?;
        if !wanted.contains(&saga.status()) {
            let reason = saga.reason().unwrap_or("it does not move");
            let what = format!("{} and not {}: {reason}", saga.status(), wanted[0]);
            found.insert(events, format!("after {}: {what}", log[events - 1].kind));
        }
    }
    trial.close().await?;
    Ok((tried, found))
}

/// The events of one of several copies of a saga: the sagas that it ran are its own, so that what one copy
/// undoes is not undone for the others.
fn with_own_children(log: &[StoredEvent], copy: usize) -> Vec<StoredEvent> {
    let child = |event: &StoredEvent| {
        let data: serde_json::Value = serde_json::from_str(&event.data).ok()?;
        data["child"].as_str().map(str::to_owned)
    };
    let mut own = log.to_vec();
    for (number, old) in log.iter().filter_map(child).enumerate() {
        let mut random = [1; 10];
        random[..4].copy_from_slice(&u32::try_from(copy).unwrap_or(u32::MAX).to_be_bytes());
        random[4..8].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
        let new = SagaId::from_parts(Timestamp::from_millis(1), &random).to_string();
        for event in &mut own {
            event.data = event.data.replace(&old, &new);
        }
    }
    own
}

fn open_store(folder: &tempfile::TempDir) -> anyhow::Result<Arc<dyn Store>> {
    let url = format!("sqlite:{}", folder.path().join("chaos.db").display());
    let store =
        amends_store::open(&StoreConfig { url, durability: Durability::Relaxed, archive: None })?;
    Ok(with_state_cache(store))
}

fn copy(definitions: &[Definition]) -> anyhow::Result<Vec<Definition>> {
    let copies = definitions.iter().map(|one| Definition::from_canonical(&one.canonical()));
    copies.collect::<Result<_, _>>().map_err(anyhow::Error::msg)
}
