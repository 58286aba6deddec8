//! What must be running or waited for now.
//!
//! Commands follow from the state and never from events, so they are the same after a crash.

use std::time::Duration;

use serde_json::Value;

use crate::call::Direction;
use crate::definition::{ExpressionError, StepKind, Variables, as_list};
use crate::ids::{DefinitionName, Digest, PluginName, SagaId, ServiceName, StepName, Timestamp};
use crate::payload::Payload;
use crate::saga::{Phase, Progress, Saga, StepOutcome, UndoProgress};

/// One thing that the runtime must do or wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A call is due. The runtime finds its component and decides on [`crate::Input::Admit`].
    Start(Due),
    /// A call was started, and that is durable, so it must be running. When it is not, because the
    /// host stopped, its outcome is unknown.
    Run(Call),
    /// This saga is compensated, so the saga that a step started must be cancelled. Repeating that
    /// does no harm.
    CancelChild(SagaId),
    /// Time matters at this moment. The runtime decides on [`crate::Input::Tick`] then.
    Wake(Timestamp),
}

/// The target of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The call goes to a component of a plugin.
    Plugin(PluginName),
    /// The call goes to another saga: `execute` starts it and waits for its end, `compensate`
    /// compensates it and waits for that. The runtime finds the saga by its id, so such a call can
    /// run again after a crash, and its outcome is never unknown.
    Saga {
        /// The definition of that saga.
        definition: DefinitionName,
        /// The id of that saga. None while the call is only due, because the fact that starts the
        /// call chooses the id.
        id: Option<SagaId>,
    },
}

/// A call that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The step.
    pub step: StepName,
    /// The direction of the call.
    pub direction: Direction,
    /// The target of the call.
    pub target: Target,
    /// The service that the step calls, if the config names one.
    pub service: Option<ServiceName>,
    /// When the call is due; none when it is due now.
    pub at: Option<Timestamp>,
    /// For an undo, the component that executed the step.
    pub executed_by: Option<Digest>,
}

/// A call that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The step.
    pub step: StepName,
    /// The direction of the call.
    pub direction: Direction,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The generation of the idempotency key that it carries, see [`crate::idempotency_key`].
    pub generation: u32,
    /// The target of the call.
    pub target: Target,
    /// The service that the step calls, if the config names one.
    pub service: Option<ServiceName>,
    /// The component that the started event names.
    pub digest: Digest,
    /// The timeout of the call.
    pub timeout: Duration,
}

/// Returns what must be running or waited for now. Empty when the saga has ended, or when only an
/// operator can move it.
pub fn commands(saga: &Saga) -> impl Iterator<Item = Command> {
    let is_live = !saga.has_ended();
    let steps = (0..saga.definition.steps().len()).map(|index| (index, true));
    let elements = saga.fan_outs.iter().flat_map(|fan_out| {
        let until = saga.may_begin_until(fan_out);
        fan_out.range().map(move |index| (index, index < until))
    });
    let is_at_work = move |(index, _): &(usize, bool)| is_live && !is_at_rest(saga, *index);
    let steps = steps.chain(elements).filter(is_at_work).flat_map(|(index, may_begin)| {
        let call = running(saga, index).map(Command::Run);
        let call = call.or_else(|| wanted(saga, index, may_begin).map(Command::Start));
        call.into_iter().chain(wake(saga, index)).chain(cancel_child(saga, index))
    });
    steps
        .chain(saga.start_at().map(Command::Wake))
        .chain(saga.deadline_in_force().map(Command::Wake))
}

/// Returns true when a step certainly leads to no command. That is so for most steps of a long
/// saga.
fn is_at_rest(saga: &Saga, index: usize) -> bool {
    let is_forward = saga.phase == Phase::Forward;
    match saga.steps[index].progress {
        Progress::Pending => !(is_forward && saga.is_ready(index)),
        Progress::Settled(StepOutcome::Succeeded | StepOutcome::Unknown) => is_forward,
        Progress::Settled(StepOutcome::Failed | StepOutcome::Skipped)
        | Progress::FannedOut
        | Progress::Undo(UndoProgress::Blocked | UndoProgress::Undone | UndoProgress::Skipped) => {
            true
        }
        Progress::Waiting { .. }
        | Progress::Running
        | Progress::BackingOff { .. }
        | Progress::Undo(UndoProgress::Running | UndoProgress::BackingOff { .. }) => false,
    }
}

/// Returns the command for the end of a wait.
fn wake(saga: &Saga, index: usize) -> Option<Command> {
    match saga.steps[index].progress {
        Progress::Waiting { until, .. } => until.map(Command::Wake),
        Progress::Pending
        | Progress::Running
        | Progress::FannedOut
        | Progress::BackingOff { .. }
        | Progress::Settled(_)
        | Progress::Undo(_) => None,
    }
}

/// Returns the command to cancel the saga that a step runs.
fn cancel_child(saga: &Saga, index: usize) -> Option<Command> {
    let is_running = saga.steps[index].progress == Progress::Running;
    let is_undone = matches!(saga.phase, Phase::Compensating(_));
    if is_running && is_undone { saga.child(index).map(Command::CancelChild) } else { None }
}

/// Returns the target of a step's calls, or none for a step that makes none. `child` is the saga
/// that the call runs or compensates, if it exists already.
fn target(
    saga: &Saga,
    index: usize,
    direction: Direction,
    child: Option<SagaId>,
) -> Option<Target> {
    if saga.runs_over_list(index) {
        return None;
    }
    let spec = saga.spec(index);
    match &spec.kind {
        StepKind::Call { plugin, .. } => Some(Target::Plugin(match direction {
            Direction::Execute => plugin.clone(),
            Direction::Compensate => spec.undo_plugin()?.clone(),
        })),
        StepKind::Saga { saga: definition } => {
            Some(Target::Saga { definition: definition.clone(), id: child })
        }
        StepKind::Wait { .. } | StepKind::Sleep { .. } => None,
    }
}

/// Computes the input of a step's calls from what is done before it. It is the same for every
/// attempt, and for the undo.
///
/// # Errors
/// When an expression of the step cannot be computed; the words are for people.
pub(crate) fn input(saga: &Saga, index: usize) -> Result<Payload, ExpressionError> {
    input_with(saga, index, &saga.variables(index).decided())
}

/// Computes the same input with the variables of a decision, which count what the expressions read.
pub(crate) fn input_with(
    saga: &Saga,
    index: usize,
    variables: &Variables<'_>,
) -> Result<Payload, ExpressionError> {
    if let Some(edited) = &saga.steps[index].input {
        return Ok(edited.clone());
    }
    if let Some(input) = saga.input_passed_through(index) {
        return Ok(input);
    }
    let step = saga.definition.step(saga.step_of(index));
    let value = step.input(variables)?;
    Payload::from_value(&value).map_err(|error| ExpressionError::Failed(error.to_string()))
}

/// Returns the input of a step's calls as the saga is now. It is what the last call got, because
/// everything that a step reads is settled before the step begins. None when there is no such step,
/// when it makes no call of its own, or when the input cannot be computed.
#[must_use]
pub fn step_input(saga: &Saga, step: &StepName) -> Option<Payload> {
    let index = saga.index_of(step)?;
    match saga.spec(index).kind {
        StepKind::Call { .. } | StepKind::Saga { .. } => {}
        StepKind::Wait { .. } | StepKind::Sleep { .. } => return None,
    }
    if saga.runs_over_list(index) {
        return saga.steps[index].input.clone();
    }
    input(saga, index).ok()
}

/// Returns the list that a step runs over: the one of an operator, or the value of its expression.
///
/// # Errors
/// When the expression cannot be computed, or its value is no list; the words are for people.
pub(crate) fn list(
    saga: &Saga,
    index: usize,
    variables: &Variables<'_>,
) -> Result<Vec<Value>, ExpressionError> {
    if let Some(edited) = &saga.steps[index].input {
        let edited = edited.to_value();
        return as_list(edited.map_err(|error| ExpressionError::Failed(error.to_string()))?);
    }
    let list = saga.definition.step(index).list(variables);
    list.unwrap_or_else(|| Err(ExpressionError::Failed("it runs over no list".to_owned())))
}

/// Returns the input of a call. For an undo, also returns the output of its step, if it is known.
///
/// # Errors
/// When the step does not exist or its input cannot be computed. Neither happens for a call that
/// [`commands`] returned. Also when it needs an erased value, as a call may that was cut off before a
/// backup was restored.
pub fn arguments(saga: &Saga, call: &Call) -> Result<(Payload, Option<Payload>), String> {
    let index =
        saga.index_of(&call.step).ok_or_else(|| format!("there is no step `{}`", call.step))?;
    if saga.arguments_need_erased(index, call.direction) {
        return Err("it needs personal values that were erased".to_owned());
    }
    let output = match call.direction {
        Direction::Execute => None,
        Direction::Compensate => saga.steps[index].output.clone(),
    };
    let input = input(saga, index).map_err(|error| error.to_string())?;
    Ok((input, output))
}

/// Returns the call of a step that must be running, if one must.
fn running(saga: &Saga, index: usize) -> Option<Call> {
    let (state, spec) = (&saga.steps[index], saga.spec(index));
    let (direction, attempt, digest, timeout) = match state.progress {
        Progress::Running => (Direction::Execute, state.attempts, state.digest?, spec.timeout),
        Progress::Undo(UndoProgress::Running) => {
            let timeout = spec.undo.as_ref()?.timeout;
            (Direction::Compensate, state.undo_attempts, state.undo_digest?, timeout)
        }
        Progress::Pending
        | Progress::Waiting { .. }
        | Progress::FannedOut
        | Progress::BackingOff { .. }
        | Progress::Settled(_)
        | Progress::Undo(
            UndoProgress::BackingOff { .. }
            | UndoProgress::Blocked
            | UndoProgress::Undone
            | UndoProgress::Skipped,
        ) => return None,
    };
    Some(Call {
        step: saga.name(index).clone(),
        direction,
        attempt,
        generation: state.generation(direction),
        target: target(saga, index, direction, state.child)?,
        service: spec.service().cloned(),
        digest,
        timeout,
    })
}

/// Returns the call of a step that is due, if one is. None while the saga is paused, its log is full or
/// the step lacks values.
pub(crate) fn due(saga: &Saga, index: usize) -> Option<Due> {
    let may_begin =
        saga.element(index).is_none_or(|(fan_out, _)| index < saga.may_begin_until(fan_out));
    wanted(saga, index, may_begin)
}

/// Returns the call of a step that is due, if one is. `may_begin` says whether a first attempt may
/// begin; it is false only for elements that wait for others.
fn wanted(saga: &Saga, index: usize, may_begin: bool) -> Option<Due> {
    let state = &saga.steps[index];
    let (direction, at) = match (&saga.phase, state.progress) {
        _ if saga.paused.is_some() || saga.is_log_full() || state.lacks_values => return None,
        (Phase::Forward, Progress::Pending) if may_begin && saga.is_ready(index) => {
            (Direction::Execute, None)
        }
        (Phase::Forward, Progress::BackingOff { retry_at, .. }) => {
            (Direction::Execute, Some(retry_at))
        }
        (Phase::Compensating(_), Progress::Settled(_))
            if may_begin && saga.is_undo_ready(index) =>
        {
            (Direction::Compensate, None)
        }
        (Phase::Compensating(_), Progress::Undo(UndoProgress::BackingOff { retry_at, .. })) => {
            (Direction::Compensate, Some(retry_at))
        }
        (
            Phase::Forward
            | Phase::Compensating(_)
            | Phase::Completed
            | Phase::Compensated(_)
            | Phase::Abandoned(_),
            _,
        ) => return None,
    };
    let spec = saga.spec(index);
    let child = state.child.filter(|_| direction == Direction::Compensate);
    Some(Due {
        step: saga.name(index).clone(),
        direction,
        target: target(saga, index, direction, child)?,
        service: spec.service().cloned(),
        at,
        executed_by: state.digest.filter(|_| direction == Direction::Compensate),
    })
}
