//! What must be running or waited for now.
//!
//! Derived from the state, never from events: after a crash it is the same as before.

use std::time::Duration;

use crate::call::Direction;
use crate::ids::{Digest, PluginName, StepName, Timestamp};
use crate::payload::Payload;
use crate::saga::{Phase, Progress, Saga};

/// One thing that the runtime must see to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A call is wanted: find its component and answer with [`crate::Input::Admit`].
    Start(Due),
    /// A call was started, and that is durable: it must be running. When it is not, because the
    /// host stopped, its outcome is unknown.
    Run(Call),
    /// Answer with [`crate::Input::Tick`] then.
    Wake(Timestamp),
}

/// A call that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The step.
    pub step: StepName,
    /// Which way.
    pub direction: Direction,
    /// The plugin to call.
    pub plugin: PluginName,
    /// Not before; none: now.
    pub at: Option<Timestamp>,
    /// The component that executed the step, for an undo.
    pub executed_by: Option<Digest>,
}

/// A call that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The step.
    pub step: StepName,
    /// Which way.
    pub direction: Direction,
    /// Which attempt.
    pub attempt: u32,
    /// The plugin to call.
    pub plugin: PluginName,
    /// The component that the started event names.
    pub digest: Digest,
    /// How long it may take.
    pub timeout: Duration,
}

/// What must be running or waited for now; empty when the saga has ended or only an operator can
/// move it.
pub fn commands(saga: &Saga) -> impl Iterator<Item = Command> {
    let steps = (0..saga.steps.len()).filter_map(|index| {
        running(saga, index).map(Command::Run).or_else(|| due(saga, index).map(Command::Start))
    });
    steps.chain(saga.deadline_in_force().map(Command::Wake))
}

/// The input of a step's calls, computed from what is done before it: the same on every attempt,
/// and for its undo.
///
/// # Errors
/// When an expression of the step cannot be computed; the words are for people.
pub(crate) fn input(saga: &Saga, index: usize) -> Result<Payload, String> {
    let value = saga.definition.step(index).input(&saga.variables(index))?;
    Payload::from_value(&value).map_err(|error| error.to_string())
}

/// The input of a call, and for an undo the output of its step if it is known.
///
/// # Errors
/// When the step does not exist or its input cannot be computed; neither can be for a call that
/// [`commands`] named.
pub fn arguments(saga: &Saga, call: &Call) -> Result<(Payload, Option<Payload>), String> {
    let index = saga
        .definition
        .index_of(&call.step)
        .ok_or_else(|| format!("there is no step `{}`", call.step))?;
    let output = match call.direction {
        Direction::Execute => None,
        Direction::Compensate => saga.steps[index].output.clone(),
    };
    Ok((input(saga, index)?, output))
}

fn running(saga: &Saga, index: usize) -> Option<Call> {
    let (state, spec) = (&saga.steps[index], &saga.definition.steps()[index]);
    match state.progress {
        Progress::Running => Some(Call {
            step: spec.name.clone(),
            direction: Direction::Execute,
            attempt: state.attempts,
            plugin: spec.plugin.clone(),
            digest: state.digest?,
            timeout: spec.timeout,
        }),
        Progress::Undoing => {
            let undo = spec.undo.as_ref()?;
            Some(Call {
                step: spec.name.clone(),
                direction: Direction::Compensate,
                attempt: state.undo_attempts,
                plugin: undo.plugin.clone(),
                digest: state.undo_digest?,
                timeout: undo.timeout,
            })
        }
        Progress::Pending
        | Progress::BackingOff { .. }
        | Progress::Succeeded
        | Progress::Failed
        | Progress::Unknown
        | Progress::Skipped
        | Progress::UndoBackingOff { .. }
        | Progress::Undone
        | Progress::UndoBlocked => None,
    }
}

/// The call of a step that is wanted, if one is.
pub(crate) fn due(saga: &Saga, index: usize) -> Option<Due> {
    let (state, spec) = (&saga.steps[index], &saga.definition.steps()[index]);
    let execute = |at| Due {
        step: spec.name.clone(),
        direction: Direction::Execute,
        plugin: spec.plugin.clone(),
        at,
        executed_by: None,
    };
    let compensate = |at| {
        spec.undo.as_ref().map(|undo| Due {
            step: spec.name.clone(),
            direction: Direction::Compensate,
            plugin: undo.plugin.clone(),
            at,
            executed_by: state.digest,
        })
    };
    match (&saga.phase, state.progress) {
        (Phase::Forward, Progress::Pending) if saga.is_ready(index) => Some(execute(None)),
        (Phase::Forward, Progress::BackingOff { retry_at }) => Some(execute(Some(retry_at))),
        (Phase::Compensating(_), Progress::Succeeded | Progress::Unknown)
            if saga.is_undo_ready(index) =>
        {
            compensate(None)
        }
        (Phase::Compensating(_), Progress::UndoBackingOff { retry_at }) => {
            compensate(Some(retry_at))
        }
        (Phase::Forward | Phase::Compensating(_) | Phase::Completed | Phase::Compensated(_), _) => {
            None
        }
    }
}
