//! Which effects stand, and which undos a compensation would run now. Nothing is decided here.

use crate::commands::input;
use crate::definition::StepKind;
use crate::ids::{Digest, PluginName, SagaId, StepName};
use crate::payload::Payload;
use crate::saga::{FanOut, Progress, Saga, StepOutcome, UndoProgress};
use crate::status::StepStatus;

/// One undo that a compensation would run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedUndo {
    /// The step.
    pub step: StepName,
    /// The wave, from 1. Undos of one wave run in parallel, after those of the wave before.
    pub wave: usize,
    /// The plugin that undoes the step; none when the saga that it ran is compensated.
    pub plugin: Option<PluginName>,
    /// The saga that the step ran, if it ran one.
    pub child: Option<SagaId>,
    /// The input of the undo; none when it cannot be computed.
    pub input: Option<Payload>,
    /// The output of the step, if it is known.
    pub output: Option<Payload>,
    /// The component that executed the step.
    pub executed_by: Option<Digest>,
    /// The status of the step now.
    pub status: StepStatus,
}

/// An effect that stands or may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The step.
    pub step: StepName,
    /// True when the effect stands for certain, false when it may stand.
    pub is_certain: bool,
    /// True when the definition has an undo for it.
    pub has_undo: bool,
    /// The output of the step, if it is known.
    pub output: Option<Payload>,
}

/// Returns the undos that a compensation would run now, in their order. Calls in flight count as if
/// they will happen. Empty for a saga past its pivot or with nothing to undo.
#[must_use]
pub fn undo_plan(saga: &Saga) -> Vec<PlannedUndo> {
    if saga.is_past_pivot() {
        return Vec::new();
    }
    let is_undone = |index: usize| saga.spec(index).undo.is_some() && stands(saga, index).is_some();
    // The calls of a step; for a step over a list, those of its elements.
    let calls = |step: usize| {
        let elements = saga.fan_out(step).map(FanOut::range);
        elements.unwrap_or(step..step + 1).filter(|index| is_undone(*index))
    };
    // A step is undone after every step that comes after it, so its wave is the longest path to the
    // end.
    let steps = saga.definition.steps().len();
    let mut waves = vec![0; steps];
    let mut order: Vec<usize> = (0..steps).collect();
    order.sort_by_key(|index| saga.definition.step(*index).descendants.len());
    for step in order.iter().copied().filter(|step| calls(*step).next().is_some()) {
        let below = saga.definition.step(step).descendants.iter();
        waves[step] = 1 + below.map(|other| waves[other]).max().unwrap_or(0);
    }
    let mut plan: Vec<_> = order
        .into_iter()
        .flat_map(|step| calls(step).map(move |index| (step, index)))
        .map(|(step, index)| PlannedUndo {
            step: saga.name(index).clone(),
            wave: waves[step],
            plugin: saga.spec(index).undo_plugin().cloned(),
            child: saga.child(index),
            input: input(saga, index).ok(),
            output: saga.steps[index].output.clone(),
            executed_by: saga.steps[index].digest,
            status: saga.step_status(index),
        })
        .collect();
    plan.sort_by_key(|undo| undo.wave);
    plan
}

/// Returns the effects of a saga that stand or may stand now.
#[must_use]
pub fn exposure(saga: &Saga) -> Vec<Effect> {
    (0..saga.steps.len())
        .filter_map(|index| {
            let is_certain = stands(saga, index)?;
            Some(Effect {
                step: saga.name(index).clone(),
                is_certain,
                has_undo: saga.spec(index).undo.is_some(),
                output: saga.steps[index].output.clone(),
            })
        })
        .collect()
}

/// Returns true when the effect of a step stands for certain, false when it may stand. None when it
/// does not stand, or the step has no effect.
fn stands(saga: &Saga, index: usize) -> Option<bool> {
    match saga.spec(index).kind {
        // The elements of a list have the effects.
        _ if saga.runs_over_list(index) => return None,
        StepKind::Call { .. } | StepKind::Saga { .. } => {}
        StepKind::Wait { .. } | StepKind::Sleep { .. } => return None,
    }
    let step = &saga.steps[index];
    match step.progress {
        Progress::Settled(StepOutcome::Succeeded) => Some(!step.undo_tainted),
        Progress::Undo(
            UndoProgress::Blocked | UndoProgress::BackingOff { .. } | UndoProgress::Skipped,
        ) => Some(step.output.is_some() && !step.undo_tainted),
        Progress::Settled(StepOutcome::Unknown)
        | Progress::Running
        | Progress::Undo(UndoProgress::Running) => Some(false),
        Progress::Pending | Progress::BackingOff { .. } if step.tainted => Some(false),
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::FannedOut
        | Progress::BackingOff { .. }
        | Progress::Settled(StepOutcome::Failed | StepOutcome::Skipped)
        | Progress::Undo(UndoProgress::Undone) => None,
    }
}
