//! What stands, and what a compensation would do about it now. Nothing is decided here.

use crate::commands::input;
use crate::definition::StepKind;
use crate::ids::{Digest, PluginName, SagaId, StepName};
use crate::payload::Payload;
use crate::saga::{FanOut, Progress, Saga};
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
    let is_undone = |index: usize| saga.spec(index).undo.is_some() && stands(saga, index).is_some();
    // The calls of a step: its elements' when it runs over a list.
    let calls = |step: usize| {
        let elements = saga.fan_out(step).map(FanOut::range);
        elements.unwrap_or(step..step + 1).filter(|index| is_undone(*index))
    };
    // A step is undone after all that was built on it: its wave is the longest way down.
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

/// The effects of a saga that stand or may stand now.
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

/// Whether the effect of a step stands for certain (true) or perhaps (false); none: it does not,
/// or the step has none.
fn stands(saga: &Saga, index: usize) -> Option<bool> {
    match saga.spec(index).kind {
        // Its elements have the effects.
        _ if saga.runs_over_list(index) => return None,
        StepKind::Call { .. } | StepKind::Saga { .. } => {}
        StepKind::Wait { .. } | StepKind::Sleep { .. } => return None,
    }
    let step = &saga.steps[index];
    match step.progress {
        Progress::Succeeded => Some(!step.undo_tainted),
        Progress::UndoBlocked | Progress::UndoBackingOff { .. } | Progress::UndoSkipped => {
            Some(step.output.is_some() && !step.undo_tainted)
        }
        Progress::Unknown | Progress::Running | Progress::Undoing => Some(false),
        Progress::Pending | Progress::BackingOff { .. } if step.tainted => Some(false),
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::FannedOut
        | Progress::BackingOff { .. }
        | Progress::Failed
        | Progress::Skipped
        | Progress::Undone => None,
    }
}
