//! Shows one step of a saga.

use amends_api_types::{ByHandView, ErrorView, OmittedView, StepView};
use amends_engine::{
    Direction, Failure, SagaId, StepKind, StepStatus, StepView as EngineStep, idempotency_key,
};
use amends_runtime::{Stall, StallReason};

use crate::payloads::Payloads;

/// Shows a step of the saga, without its input.
pub(crate) fn step_view(step: &EngineStep<'_>, saga: SagaId, payloads: Payloads) -> StepView {
    let undone = step.undo_attempts > 0 || step.status == StepStatus::Undone;
    let (direction, attempts, digest) = if undone {
        (Direction::Compensate, step.undo_attempts, step.undo_digest)
    } else {
        (Direction::Execute, step.attempts, step.digest)
    };
    StepView {
        name: step.name.to_string(),
        status: step.status.to_string(),
        direction: direction.as_str().to_owned(),
        attempts,
        input: None,
        input_omitted: false,
        output: payloads.optional(step.output.cloned()),
        error: step.error.map(|failure| error_view(failure, payloads)),
        digest: digest.map(|digest| digest.to_string()),
        idempotency_key: key_of(step, saga, Direction::Execute),
        undo_idempotency_key: key_of(step, saga, Direction::Compensate),
        started_at: step.started_at,
        ended_at: step.ended_at,
        next_at: step.next_at,
        waits_for: None,
        signal: match &step.spec.kind {
            StepKind::Wait { wait } => Some(wait.signal.to_string()),
            StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        },
        child: step.child.map(|child| child.to_string()),
        by_hand: step
            .by_hand
            .map(|by_hand| ByHandView { who: by_hand.who.clone(), reason: by_hand.reason.clone() }),
        undid_nothing: step.undid_nothing,
        omitted: None,
    }
}

/// Computes the idempotency key of the calls in one direction. None when no such call was made, or the
/// step calls no component.
fn key_of(step: &EngineStep<'_>, saga: SagaId, direction: Direction) -> Option<String> {
    let (attempts, generation) = match direction {
        Direction::Execute => (step.attempts, step.generation),
        Direction::Compensate => (step.undo_attempts, step.undo_generation),
    };
    let was_called = step.spec.plugin().is_some() && attempts > 0;
    was_called.then(|| idempotency_key(saga, step.name, direction, generation))
}

/// Shows what went wrong with a call.
fn error_view(failure: &Failure, payloads: Payloads) -> ErrorView {
    ErrorView {
        code: failure.code.clone(),
        message: failure.message.clone(),
        details: payloads.optional(failure.details.clone()),
    }
}

/// Says what the step's call waits for, and shows the step as `breaker_open` when that is its service. The
/// events of the saga do not say so.
pub(crate) fn held_by(view: StepView, stalls: &[Stall]) -> StepView {
    let stall = stalls.iter().find(|stall| stall.step.as_str() == view.name);
    let Some(Stall { reason, .. }) = stall else { return view };
    let view = StepView { waits_for: Some(reason.to_string()), ..view };
    match reason {
        StallReason::BreakerOpen { until, .. } => {
            let status = StepStatus::BreakerOpen.to_string();
            StepView { status, next_at: *until, ..view }
        }
        StallReason::PluginMissing { .. }
        | StallReason::ComponentSought(_)
        | StallReason::NoRoom(_)
        | StallReason::Machine(_) => view,
    }
}

/// Takes the step's payloads out when the answer has no room for them. `room` is how many bytes are left.
pub(crate) fn within(mut view: StepView, room: &mut usize, saga: SagaId) -> StepView {
    let details = view.error.as_ref().and_then(|error| error.details.as_ref());
    let payloads = [view.output.as_ref(), details].into_iter().flatten();
    let bytes = payloads.map(|payload| payload.as_str().len()).sum();
    if let Some(left) = room.checked_sub(bytes) {
        *room = left;
        return view;
    }
    view.output = None;
    if let Some(error) = &mut view.error {
        error.details = None;
    }
    let see = format!("/v1/sagas/{saga}/events");
    StepView { omitted: Some(OmittedView { bytes, see }), ..view }
}
