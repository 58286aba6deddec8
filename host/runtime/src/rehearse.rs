//! Rehearsals: compares the undos of a new component with those of the active one, on recorded steps.
//!
//! For each step both components are called as a real undo would call them. A stub answers their
//! requests, and what they write is discarded ([`Registry::rehearse`]). The active component is called
//! before and after the new one. A difference between its own two calls comes from a clock, a random
//! number or a state that a saga changed meanwhile. Such a difference says nothing about the new
//! component, and is left out.
//!
//! Deliberately absent: what a plugin kept before a step was undone. A step that has been undone is
//! rehearsed on what the plugin keeps now.

mod compare;
mod groups;
mod recorded;

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Call, Digest, Direction, PluginName, Saga, SagaId, StepName, Target};
use amends_registry::{Candidate, Registry};
use amends_sandbox::{LoadedComponent, PluginCall, Rehearsed, Rejection, StubAnswer, give_way};
use tokio::time::{Instant, timeout_at};

use crate::action::{Action, authorize};
use crate::dispatch::Dispatcher;
use crate::error::RuntimeError;
use crate::host::Host;
use crate::principal::Principal;
use crate::serving::Undo;
use compare::{Conduct, SagaWords, unsteady};
use groups::{Compared, Groups};
use recorded::Recorded;

pub use compare::Difference;
pub use groups::RehearsalGroup;

/// Sagas of one rehearsal when nobody says how many.
pub const REHEARSAL_SAGAS_DEFAULT: usize = 100;

/// Sagas of one rehearsal at most: they are held in memory until it ends.
pub const REHEARSAL_SAGAS_MAX: usize = 1_000;

/// How long the calls of one rehearsal may take together: as long as a person waits for an answer,
/// and long enough that a call which never ends meets its own limits within it (`timeout` is 30
/// seconds when a definition does not say).
pub const REHEARSAL_TIME_MAX: Duration = Duration::from_mins(1);

/// What a rehearsal found.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The plugin.
    pub plugin: PluginName,
    /// The component that serves.
    pub serving: Digest,
    /// The version of the serving component.
    pub serving_version: String,
    /// The component that was tried.
    pub digest: Digest,
    /// The version of the new component.
    pub version: String,
    /// Steps that there were to rehearse on.
    pub steps_found: usize,
    /// Sagas that they belong to.
    pub sagas: usize,
    /// Of the sagas, those that have not ended.
    pub sagas_in_flight: usize,
    /// Steps that were rehearsed.
    pub steps: usize,
    /// Steps that cannot be: nobody can compute their input any more, or load the component that
    /// would undo them now.
    pub steps_passed_over: usize,
    /// Of the steps that were rehearsed, those at which something differs.
    pub steps_differing: usize,
    /// Of the steps that were rehearsed, those at which one of the two sends requests.
    pub steps_with_requests: usize,
    /// What differs, the most frequent first: at most so many as are named one by one.
    pub groups: Vec<RehearsalGroup>,
    /// How many groups there are, also those that are not in `groups`.
    pub groups_total: usize,
    /// What was not compared because the component that serves does not do it the same twice, and at
    /// how many steps.
    pub left_out: Vec<(String, usize)>,
    /// Which call was running when the time was up, if it was.
    pub unfinished: Option<Unfinished>,
}

/// A call that had not ended when the time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its saga.
    pub saga: SagaId,
    /// Its step.
    pub step: StepName,
    /// Whether it was the component that is tried that ran; else the one that serves.
    pub is_new: bool,
}

/// Why nothing was rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearseError {
    /// The component cannot serve. Its author.
    #[error("plugin {plugin}: {rejection}")]
    Rejected {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        rejection: Rejection,
    },
    /// There is no such plugin. The caller can act.
    #[error("there is no plugin `{0}`")]
    NoPlugin(PluginName),
    /// There is nothing to compare with. Operator.
    #[error("no component serves plugin `{0}` now, so there is nothing to compare with")]
    NothingServes(PluginName),
    /// It is not the undo of anything. Caller.
    #[error("the component exports no undo (`amends:saga/undo`), so there is nothing to rehearse")]
    NoUndo,
    /// Another rehearsal runs. The caller can try later.
    #[error("another rehearsal is running; a host does one at a time")]
    Busy,
    /// There was no thread for it, or it panicked. Operator.
    #[error("the rehearsal was broken off; the host's log says why")]
    BrokenOff,
    /// Another error of the host.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl Host {
    /// Runs the undo of a component, and that of the one that serves, on what sagas have recorded:
    /// of at most `sagas_max` sagas, those in flight first, then those that ended last. Changes
    /// nothing and sends nothing. When this is dropped, it ends.
    ///
    /// # Errors
    /// When there is nothing that it could be compared with, or the store fails.
    pub async fn rehearse(
        &self,
        principal: &Principal,
        plugin: PluginName,
        bytes: Vec<u8>,
        sagas_max: usize,
    ) -> Result<Rehearsal, RehearseError> {
        authorize(principal, &Action::Rehearse { plugin: &plugin });
        let _room = self.rehearsals().try_acquire().map_err(|_| RehearseError::Busy)?;
        if self.registry().info(&plugin).is_none() {
            return Err(RehearseError::NoPlugin(plugin));
        }
        let Some(serving) = self.registry().active(&plugin) else {
            return Err(RehearseError::NothingServes(plugin));
        };
        let new = if serving.digest == Digest::of(&bytes) {
            Arc::clone(&serving)
        } else {
            match self.registry().candidate(&plugin, bytes).await {
                Ok(Candidate { component, .. }) => component,
                Err(rejection) => return Err(RehearseError::Rejected { plugin, rejection }),
            }
        };
        if !new.exports.compensate {
            return Err(RehearseError::NoUndo);
        }
        let host = self.clone();
        let work = async move { Pair { plugin, serving, new }.rehearse(&host, sagas_max).await };
        give_way(work).await.unwrap_or(Err(RehearseError::BrokenOff))
    }
}

impl Rehearsal {
    fn count(&mut self, compared: &Compared) {
        let differs = compared.found.iter().any(|(_, found)| !found.is_empty());
        self.steps += 1;
        self.steps_with_requests += usize::from(compared.sends);
        self.steps_differing += usize::from(differs);
    }
}

/// The two components that are compared.
struct Pair {
    plugin: PluginName,
    serving: Arc<LoadedComponent>,
    new: Arc<LoadedComponent>,
}

/// What came of one step.
enum Step {
    Compared(Compared),
    PassedOver,
    TimeIsUp(Unfinished),
}

impl Pair {
    async fn rehearse(self, host: &Host, sagas_max: usize) -> Result<Rehearsal, RehearseError> {
        let mut rehearsal = self.empty();
        if self.serving.digest == self.new.digest {
            return Ok(rehearsal);
        }
        let recorded = recorded::find(host, &self.plugin, sagas_max).await?;
        rehearsal.sagas = recorded.len();
        rehearsal.sagas_in_flight = recorded.iter().filter(|one| !one.saga.has_ended()).count();
        rehearsal.steps_found = recorded.iter().map(|one| one.steps.len()).sum();
        let mut groups = Groups::default();
        let until = Instant::now() + REHEARSAL_TIME_MAX;
        'sagas: for Recorded { saga, steps } in &recorded {
            for step in steps {
                if host.is_stopping() {
                    return Err(RuntimeError::Stopping.into());
                }
                match self.step(host.registry(), saga, step, until).await {
                    Step::Compared(compared) => {
                        rehearsal.count(&compared);
                        groups.add(saga.id(), step, compared);
                    }
                    Step::PassedOver => rehearsal.steps_passed_over += 1,
                    Step::TimeIsUp(unfinished) => {
                        rehearsal.unfinished = Some(unfinished);
                        break 'sagas;
                    }
                }
            }
        }
        (rehearsal.groups, rehearsal.groups_total, rehearsal.left_out) = groups.finish();
        Ok(rehearsal)
    }

    fn empty(&self) -> Rehearsal {
        Rehearsal {
            plugin: self.plugin.clone(),
            serving: self.serving.digest,
            serving_version: self.serving.manifest.version.clone(),
            digest: self.new.digest,
            version: self.new.manifest.version.clone(),
            steps_found: 0,
            sagas: 0,
            sagas_in_flight: 0,
            steps: 0,
            steps_passed_over: 0,
            steps_differing: 0,
            steps_with_requests: 0,
            groups: Vec::new(),
            groups_total: 0,
            left_out: Vec::new(),
            unfinished: None,
        }
    }

    async fn step(&self, plugins: &Registry, saga: &Saga, name: &StepName, until: Instant) -> Step {
        let Some(step) = saga.step(name) else { return Step::PassedOver };
        let Some(timeout) = step.spec.undo.as_ref().map(|undo| undo.timeout) else {
            return Step::PassedOver;
        };
        let undo = Undo::of(saga, name, &self.plugin, step.digest);
        let now = undo.served_with(plugins, &self.serving).await;
        let then = undo.served_with(plugins, &self.new).await;
        let (Some((now, _)), Some((then, _))) = (now, then) else { return Step::PassedOver };
        if then != self.new.digest {
            let found =
                self.pinned(now, then, step.output.and_then(|it| self.new.reads_output(it).err()));
            return Step::Compared(Compared { found: vec![(None, found)], ..Compared::default() });
        }
        let call = Call {
            step: name.clone(),
            direction: Direction::Compensate,
            attempt: step.undo_attempts + 1,
            generation: step.undo_generation,
            target: Target::Plugin(self.plugin.clone()),
            service: None,
            digest: now,
            timeout,
        };
        let Ok(now) = Dispatcher::plugin_call(plugins, saga, &call) else {
            return Step::PassedOver;
        };
        let serving = if now.digest == self.serving.digest {
            Arc::clone(&self.serving)
        } else {
            match plugins.by_digest(&now.plugin, now.digest).await {
                Ok(component) => component,
                Err(_) => return Step::PassedOver,
            }
        };
        let then = PluginCall { plugin: self.plugin.clone(), digest: then, ..now.clone() };
        let calls = Calls { plugins, now: (&serving, &now), then: (&self.new, &then), until };
        match calls.compare().await {
            Ok(compared) => Step::Compared(compared),
            Err(is_new) => {
                Step::TimeIsUp(Unfinished { saga: saga.id(), step: name.clone(), is_new })
            }
        }
    }

    /// The new component would not be called: by which it is undone now, and then.
    fn pinned(&self, now: Digest, then: Digest, why: Option<String>) -> Vec<Difference> {
        if now == then && now != self.serving.digest {
            return Vec::new();
        }
        let why = why.unwrap_or_else(|| "it exports no undo".to_owned());
        let stays = if now == then { "stays pinned to" } else { "would be pinned to" };
        vec![Difference::of_output(
            &format!("it is undone by {now}"),
            &format!("cannot read it ({why}); its undo {stays} {then}"),
            &why,
        )]
    }
}

/// The calls of one step.
struct Calls<'a> {
    plugins: &'a Registry,
    now: (&'a LoadedComponent, &'a PluginCall),
    then: (&'a LoadedComponent, &'a PluginCall),
    until: Instant,
}

impl Calls<'_> {
    /// # Errors
    /// When the time is up: whether it was the new one that ran.
    async fn compare(&self) -> Result<Compared, bool> {
        let mut compared = Compared::default();
        let own = SagaWords::of(self.then.1);
        for answer in StubAnswer::ALL {
            let before = self.run(self.now, answer).await.ok_or(false)?;
            let new = self.run(self.then, answer).await.ok_or(true)?;
            let after = self.run(self.now, answer).await.ok_or(false)?;
            let all = [&before, &new, &after];
            compared.sends |= all.iter().any(|one| !one.requests.is_empty());
            // What was refused is not answered.
            let mut requests = all.iter().flat_map(|one| &one.requests);
            let is_answered = requests.any(|request| request.refused.is_none());
            let [before, new, after] = all.map(|one| Conduct::of(one, &own));
            let left_out = unsteady(&before, &after);
            let found = compare::differences(&before, &new, &left_out);
            compared.left_out.add(left_out);
            // Until its first answer a component cannot know which it will be.
            if !is_answered {
                compared.found.push((None, found));
                break;
            }
            compared.found.push((Some(answer), found));
        }
        Ok(compared)
    }

    async fn run(
        &self,
        (component, call): (&LoadedComponent, &PluginCall),
        answer: StubAnswer,
    ) -> Option<Rehearsed> {
        timeout_at(self.until, self.plugins.rehearse(component, call, answer)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::{Payload, Timestamp};
    use amends_registry::PluginsConfig;
    use amends_sandbox::{Inspection, PluginSettings, Required};
    use amends_store::{Durability, SqliteStore, Store};
    use amends_tests::{Behaviour, Component};

    use super::*;

    /// A call that never ends is broken off, and it is told whose it is.
    #[tokio::test]
    async fn when_the_time_is_up_it_is_told_who_was_running() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, cache) = (folder.path().join("plugins"), folder.path().join("cache"));
        std::fs::create_dir(&dir).unwrap();
        let spin = Component { name: "b", compensate: Behaviour::Spin, ..Component::default() };
        let quick = Component { name: "a", ..Component::default() };
        std::fs::write(dir.join("a.wasm"), quick.build()).unwrap();
        std::fs::write(dir.join("b.wasm"), spin.build()).unwrap();
        let store = SqliteStore::open(&folder.path().join("amends.db"), Durability::Relaxed);
        let store: Arc<dyn Store> = Arc::new(store.unwrap());
        let required = Required { execute: true, compensate: true };
        let settings = PluginSettings { required, ..PluginSettings::default() };
        let plugins = ["a", "b"].map(|name| (name.parse().unwrap(), settings.clone())).into();
        let inspection = Inspection::InThisProcess;
        let config = PluginsConfig { dir, cache, plugins, inspection, ..PluginsConfig::default() };
        let plugins = Registry::open(config, Arc::clone(&store)).await.unwrap();
        let active = |name: &str| plugins.active(&name.parse().unwrap()).unwrap();
        let (quick, endless) = (active("a"), active("b"));
        let call = |component: &LoadedComponent| PluginCall {
            plugin: "a".parse().unwrap(),
            state_of: "a".parse().unwrap(),
            digest: component.digest,
            saga_id: SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]),
            definition: "definition".parse().unwrap(),
            step: "step".parse().unwrap(),
            attempt: 1,
            direction: Direction::Compensate,
            idempotency_key: "0123".to_owned(),
            traceparent: None,
            is_traced: false,
            input: Payload::null(),
            output: None,
            timeout: Duration::from_hours(1),
        };
        let (of_quick, of_endless) = (call(&quick), call(&endless));
        let (quick, endless) = ((&*quick, &of_quick), (&*endless, &of_endless));
        for (now, then, is_new) in [(quick, endless, true), (endless, quick, false)] {
            let until = Instant::now() + Duration::from_millis(300);
            let calls = Calls { plugins: &plugins, now, then, until };
            assert_eq!(calls.compare().await.err(), Some(is_new));
        }
        plugins.close().await;
        store.close().await.unwrap();
    }
}
