//! Whether the definitions fit a component that is to become active.
//!
//! The engine finds the flaws, as it does for `amends check`. This module decides what they mean for a
//! deploy. A flaw that would break sagas is a reason to refuse the component, unless the component
//! that serves now has the same flaw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use amends_engine::{
    Definition, DefinitionName, Digest, Flaw, FlawKind, PluginName, Saga, Schema, Schemas,
    StepName, StepStatus, flaws,
};
use amends_registry::Candidate;
use amends_sandbox::{LoadedComponent, Manifest, Rejection};

use crate::host::Host;

/// Flaws that a refusal tells; it is kept in the history of the plugin.
const TOLD_MAX: usize = 5;

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

/// Whether steps of the saga may yet be executed. Its status does not say so: a saga that is being undone
/// may be blocked or paused, too.
fn goes_on(saga: &Saga) -> bool {
    !saga.has_ended() && saga.compensating_since().is_none()
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

impl Host {
    /// What in the definitions does not fit a component, or may not.
    pub(super) async fn find_flaws(
        &self,
        plugin: &PluginName,
        component: &LoadedComponent,
        others: &[Candidate],
        ahead: &Ahead,
    ) -> Vec<FoundFlaw> {
        let in_force = ahead.in_force.iter().map(|definition| (Arc::clone(definition), None));
        let older = ahead.older.values();
        let older = older.map(|(definition, steps)| (Arc::clone(definition), Some(steps.clone())));
        let definitions: Vec<_> = in_force.chain(older).collect();
        let active = self.active_of(definitions.iter().map(|(definition, _)| definition));
        let others = others.iter().map(|one| (one.plugin.clone(), Arc::clone(&one.component)));
        let search = Search {
            plugin: plugin.clone(),
            manifest: component.manifest.clone(),
            others: others.collect(),
            active,
            definitions,
        };
        // Schemas may be large, and there may be many definitions.
        let found = tokio::task::spawn_blocking(move || search.flaws()).await;
        // Nobody cancels it. A panic goes on here, where it would have been.
        found.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// The active components of all plugins that these definitions name.
    fn active_of<'d>(
        &self,
        definitions: impl Iterator<Item = &'d Arc<Definition>>,
    ) -> BTreeMap<PluginName, Arc<LoadedComponent>> {
        let steps = definitions.flat_map(|definition| definition.steps());
        let names: BTreeSet<_> =
            steps.flat_map(|step| step.plugin().into_iter().chain(step.undo_plugin())).collect();
        let active = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.registry().active(name)?)));
        active.collect()
    }
}

/// What the definitions are held against.
struct Search {
    plugin: PluginName,
    /// Of the component that is to become active.
    manifest: Manifest,
    /// What becomes active together with it.
    others: BTreeMap<PluginName, Arc<LoadedComponent>>,
    /// What serves now.
    active: BTreeMap<PluginName, Arc<LoadedComponent>>,
    /// Older ones with the steps that count.
    definitions: Vec<(Arc<Definition>, Option<BTreeSet<StepName>>)>,
}

impl Search {
    fn flaws(&self) -> Vec<FoundFlaw> {
        let before = |name: &PluginName| Some(self.active.get(name)?.manifest.schemas());
        let after = |name: &PluginName| {
            if *name == self.plugin {
                return Some(self.manifest.schemas());
            }
            let other = self.others.get(name).or_else(|| self.active.get(name));
            other.map(|component| component.manifest.schemas())
        };
        let active = self.active.get(&self.plugin);
        // What serves now says which fields there are, so one that is not among them any more is gone.
        let described = active.is_some_and(|active| describes(&active.manifest));
        let mut found = Vec::new();
        for (definition, steps) in &self.definitions {
            let known = flaws(definition, &before);
            for flaw in flaws(definition, &after) {
                let is_of_it = flaw.plugins.contains(&self.plugin);
                let counts = |steps| is_ahead(definition, &self.plugin, &flaw, steps);
                if !is_of_it || !steps.as_ref().is_none_or(counts) {
                    continue;
                }
                let is_bad = match flaw.kind {
                    FlawKind::Expression | FlawKind::Undo | FlawKind::Personal => flaw.is_certain,
                    FlawKind::Undescribed => flaw.is_certain || described,
                    // Where nothing serves yet, the config may be what has to change. An input of elements is
                    // not certain, and each element that there is fails.
                    FlawKind::Fields => active.is_some(),
                };
                let refuses = is_bad && !known.iter().any(|before| before.covers(&flaw));
                let definition = definition.name().clone();
                found.push(FoundFlaw { definition, is_older: steps.is_some(), refuses, flaw });
            }
        }
        found
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
