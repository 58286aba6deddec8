//! Whether the definitions fit a component that is to become active.
//!
//! The engine says what does not fit, as it does for `amends check`. Here stands what a deploy makes
//! of it: what would break is refused, and what is as bad with the component that serves now is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use amends_engine::{
    Definition, DefinitionName, Digest, Flaw, FlawKind, PluginName, Saga, SagaStatus, Schema,
    Schemas, StepName, StepStatus, flaws,
};
use amends_plugins::{Candidate, LoadedComponent, Manifest, Rejection};

use crate::runtime::Runtime;

/// Flaws that a refusal tells; it is kept in the history of the plugin.
const TOLD_MAX: usize = 5;

/// Definitions that are looked at before others get this thread.
const DEFINITIONS_AT_ONCE: usize = 64;

/// What in a definition does not fit a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFlaw {
    /// The definition.
    pub definition: DefinitionName,
    /// It is not in force any more, and sagas in flight are pinned to it.
    pub is_older: bool,
    /// Whether the component is refused for it, unless it is forced.
    pub refuses: bool,
    /// What does not fit.
    pub flaw: Flaw,
}

/// The definitions by which sagas go on.
pub(super) struct Ahead {
    in_force: Vec<Arc<Definition>>,
    /// Older ones, with the steps that are not done in one of their sagas.
    older: BTreeMap<Digest, (Arc<Definition>, BTreeSet<StepName>)>,
}

impl Ahead {
    pub(super) fn new(in_force: Vec<Arc<Definition>>) -> Self {
        Self { in_force, older: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, saga: &Saga) {
        let digest = saga.definition().digest();
        if self.in_force.iter().any(|definition| definition.digest() == digest) || !goes_on(saga) {
            return;
        }
        let entry = self.older.entry(digest);
        let (_, steps) = entry.or_insert_with(|| (Arc::clone(saga.definition()), BTreeSet::new()));
        let left = saga.steps().filter(|step| !is_done(step.status));
        steps.extend(left.map(|step| step.spec.name.clone()));
    }
}

/// Whether steps of the saga may yet be executed.
fn goes_on(saga: &Saga) -> bool {
    match saga.status() {
        SagaStatus::Running | SagaStatus::Waiting | SagaStatus::Paused | SagaStatus::Blocked => {
            true
        }
        SagaStatus::Compensating
        | SagaStatus::Completed
        | SagaStatus::Compensated
        | SagaStatus::Abandoned => false,
    }
}

/// Whether the step is not executed any more.
fn is_done(status: StepStatus) -> bool {
    match status {
        StepStatus::Succeeded
        | StepStatus::Skipped
        | StepStatus::Undoing
        | StepStatus::UndoBackingOff
        | StepStatus::Undone
        | StepStatus::UndoBlocked
        | StepStatus::UndoSkipped => true,
        StepStatus::Pending
        | StepStatus::Waiting
        | StepStatus::Running
        | StepStatus::BackingOff
        | StepStatus::BreakerOpen
        | StepStatus::Failed
        | StepStatus::Unknown => false,
    }
}

impl Runtime {
    /// What in the definitions does not fit a component, or may not.
    pub(super) async fn find_flaws(
        &self,
        plugin: &PluginName,
        component: &LoadedComponent,
        others: &[Candidate],
        ahead: &Ahead,
    ) -> Vec<FoundFlaw> {
        let definitions = ahead.in_force.iter().map(|definition| (definition, None));
        let older = ahead.older.values().map(|(definition, steps)| (definition, Some(steps)));
        let definitions: Vec<_> = definitions.chain(older).collect();
        let active = self.active_of(definitions.iter().map(|(definition, _)| *definition));
        let before = |name: &PluginName| Some(active.get(name)?.manifest.schemas());
        let after = |name: &PluginName| {
            let candidate = others.iter().find(|candidate| candidate.plugin == *name);
            match candidate {
                _ if name == plugin => Some(component.manifest.schemas()),
                Some(candidate) => Some(candidate.component.manifest.schemas()),
                None => before(name),
            }
        };
        // What serves now says which fields there are, so one that is not among them any more is gone.
        let described = active.get(plugin).is_some_and(|active| describes(&active.manifest));
        let mut found = Vec::new();
        for (number, (definition, steps)) in definitions.into_iter().enumerate() {
            if number % DEFINITIONS_AT_ONCE == DEFINITIONS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let known = flaws(definition, &before);
            for flaw in flaws(definition, &after) {
                let is_of_it = flaw.plugins.contains(plugin);
                if !is_of_it
                    || !steps.is_none_or(|steps| is_ahead(definition, plugin, &flaw, steps))
                {
                    continue;
                }
                let is_bad = match flaw.kind {
                    FlawKind::Expression | FlawKind::Undo => flaw.is_certain,
                    FlawKind::Undescribed => flaw.is_certain || described,
                    // Where nothing serves yet, the config may be what has to change.
                    FlawKind::Fields => flaw.is_certain && active.contains_key(plugin),
                };
                let refuses = is_bad && !known.contains(&flaw);
                let definition = definition.name().clone();
                found.push(FoundFlaw { definition, is_older: steps.is_some(), refuses, flaw });
            }
        }
        found
    }

    /// The active components of all plugins that these definitions name.
    fn active_of<'d>(
        &self,
        definitions: impl Iterator<Item = &'d Arc<Definition>>,
    ) -> BTreeMap<PluginName, Arc<LoadedComponent>> {
        let steps = definitions.flat_map(|definition| definition.steps());
        let names: BTreeSet<_> =
            steps.flat_map(|step| step.plugin().into_iter().chain(step.undo_plugin())).collect();
        let active =
            names.into_iter().filter_map(|name| Some((name.clone(), self.plugins().active(name)?)));
        active.collect()
    }
}

/// Whether a component says which fields its output has.
fn describes(manifest: &Manifest) -> bool {
    let Schemas { output, .. } = manifest.schemas();
    Schema::names(output).next().is_some()
}

/// Whether the step of the flaw, and one that the plugin executes, are still to come.
fn is_ahead(
    definition: &Definition,
    plugin: &PluginName,
    flaw: &Flaw,
    steps: &BTreeSet<StepName>,
) -> bool {
    let mut of_plugin = definition
        .steps()
        .iter()
        .filter(|step| step.plugin() == Some(plugin) || step.undo_plugin() == Some(plugin));
    steps.contains(&flaw.step) && of_plugin.any(|step| steps.contains(&step.name))
}

/// Why a component is refused, if one of the flaws refuses it.
pub(super) fn rejection(found: &[FoundFlaw]) -> Option<Rejection> {
    let refusing: Vec<_> = found.iter().filter(|one| one.refuses).collect();
    let mut told = String::new();
    for FoundFlaw { definition, is_older, flaw, .. } in refusing.iter().take(TOLD_MAX) {
        let separator = if told.is_empty() { "" } else { "; " };
        let older = if *is_older { " (an older definition, of sagas in flight)" } else { "" };
        let (step, key, message, remedy) = (&flaw.step, flaw.key, &flaw.message, &flaw.remedy);
        let field = flaw.field.as_ref().map(|field| format!(".{field}")).unwrap_or_default();
        let _ = write!(
            told,
            "{separator}saga {definition}{older}, step {step}, {key}{field}: {message} ({remedy})"
        );
    }
    let more = refusing.len().saturating_sub(TOLD_MAX);
    if more > 0 {
        let _ = write!(told, "; and {more} more");
    }
    (!refusing.is_empty()).then_some(Rejection::Unfit { flaws: told })
}
