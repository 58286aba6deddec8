//! What stands, and what a compensation would do about it now. Nothing is decided here.

use crate::commands::input;
use crate::definition::StepKind;
use crate::ids::{Digest, PluginName, SagaId, StepName};
use crate::payload::Payload;
use crate::saga::{Progress, Saga};
use crate::status::StepStatus;

/// One undo that a compensation would run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedUndo {
    /// The step.
    pub step: StepName,
    /// From 1: undos of one wave run in parallel, each wave after the one before.
    pub wave: usize,
    /// The plugin that undoes it; none: the saga that it ran is compensated.
    pub plugin: Option<PluginName>,
    /// The saga that it ran.
    pub child: Option<SagaId>,
    /// What its calls are given; none when that cannot be computed.
    pub input: Option<Payload>,
    /// What the step answered, if that is known.
    pub output: Option<Payload>,
    /// The component that executed it.
    pub executed_by: Option<Digest>,
    /// Where it stands now.
    pub status: StepStatus,
}

/// An effect that stands, or that may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The step.
    pub step: StepName,
    /// Whether that is known; false: nobody knows whether it stands.
    pub is_certain: bool,
    /// Whether the definition has an undo for it.
    pub has_undo: bool,
    /// What it answered, if that is known.
    pub output: Option<Payload>,
}

/// The undos that a compensation would run now, in their order; what is in flight counts as if it
/// will happen. Empty for a saga past its pivot or with nothing to undo.
#[must_use]
pub fn undo_plan(saga: &Saga) -> Vec<PlannedUndo> {
    if saga.is_past_pivot() {
        return Vec::new();
    }
    let steps = saga.definition.steps();
    let is_undone = |index: usize| steps[index].undo.is_some() && stands(saga, index).is_some();
    // A step is undone after all that was built on it: its wave is the longest way down.
    let mut waves = vec![0; steps.len()];
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|index| saga.definition.step(*index).descendants.len());
    for index in order.iter().copied().filter(|index| is_undone(*index)) {
        let below = saga.definition.step(index).descendants.iter();
        waves[index] = 1 + below.map(|other| waves[other]).max().unwrap_or(0);
    }
    let mut plan: Vec<_> = order
        .into_iter()
        .filter(|index| waves[*index] > 0)
        .map(|index| PlannedUndo {
            step: steps[index].name.clone(),
            wave: waves[index],
            plugin: steps[index].undo_plugin().cloned(),
            child: saga.child(index),
            input: input(saga, index).ok(),
            output: saga.steps[index].output.clone(),
            executed_by: saga.steps[index].digest,
            status: saga.steps[index].progress.status(),
        })
        .collect();
    plan.sort_by_key(|undo| undo.wave);
    plan
}

/// The effects of a saga that stand or may stand now.
#[must_use]
pub fn exposure(saga: &Saga) -> Vec<Effect> {
    let steps = saga.definition.steps().iter().enumerate();
    steps
        .filter_map(|(index, spec)| {
            let is_certain = stands(saga, index)?;
            Some(Effect {
                step: spec.name.clone(),
                is_certain,
                has_undo: spec.undo.is_some(),
                output: saga.steps[index].output.clone(),
            })
        })
        .collect()
}

/// Whether the effect of a step stands for certain (true) or perhaps (false); none: it does not,
/// or the step has none.
fn stands(saga: &Saga, index: usize) -> Option<bool> {
    match saga.definition.steps()[index].kind {
        StepKind::Call { .. } | StepKind::Saga { .. } => {}
        StepKind::Wait { .. } | StepKind::Sleep { .. } => return None,
    }
    let step = &saga.steps[index];
    match step.progress {
        Progress::Succeeded => Some(true),
        Progress::UndoBlocked | Progress::UndoBackingOff { .. } | Progress::UndoSkipped => {
            Some(step.output.is_some())
        }
        Progress::Unknown | Progress::Running | Progress::Undoing => Some(false),
        Progress::Pending | Progress::BackingOff { .. } if step.tainted => Some(false),
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::BackingOff { .. }
        | Progress::Failed
        | Progress::Skipped
        | Progress::Undone => None,
    }
}
