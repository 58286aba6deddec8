//! One sentence that says why a saga does not move.

use crate::ids::Timestamp;
use crate::saga::{Saga, StepView};
use crate::status::{SagaStatus, StepStatus};

/// Why a saga is where it is, for a person at three in the morning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// One sentence.
    pub sentence: String,
    /// When something will happen by the clock alone.
    pub next_at: Option<Timestamp>,
    /// The operator's verbs that would change something.
    pub verbs: Vec<&'static str>,
}

/// Explains the state.
#[must_use]
pub fn why(saga: &Saga) -> Why {
    let status = saga.status();
    let reason = saga.reason().unwrap_or_default();
    let sentence = match status {
        SagaStatus::Completed => "It is completed: every step is done.".to_owned(),
        SagaStatus::Compensated => {
            format!("It is compensated: no effect stands. It was undone because {reason}.")
        }
        SagaStatus::Abandoned => "It was abandoned by an operator.".to_owned(),
        SagaStatus::Paused => "It is paused by an operator.".to_owned(),
        SagaStatus::Blocked => format!("It is blocked and needs an operator: {reason}."),
        SagaStatus::Compensating => {
            format!("It is being undone because {reason}; {}.", activity(saga))
        }
        SagaStatus::Running | SagaStatus::Waiting => {
            format!("It is {status}: {}.", activity(saga))
        }
    };
    let verbs = match status {
        SagaStatus::Running | SagaStatus::Waiting if !saga.is_past_pivot() => vec!["cancel"],
        SagaStatus::Running
        | SagaStatus::Waiting
        | SagaStatus::Paused
        | SagaStatus::Compensating
        | SagaStatus::Blocked
        | SagaStatus::Completed
        | SagaStatus::Compensated
        | SagaStatus::Abandoned => Vec::new(),
    };
    Why { sentence, next_at: saga.wake_at(), verbs }
}

/// What is in flight or waited for, step by step.
fn activity(saga: &Saga) -> String {
    let parts: Vec<_> = saga.steps().filter_map(|step| step_activity(&step)).collect();
    if parts.is_empty() { "nothing is in flight".to_owned() } else { parts.join("; ") }
}

fn step_activity(step: &StepView<'_>) -> Option<String> {
    let name = step.name;
    let error = || {
        step.error.map_or_else(String::new, |error| format!(" ({}: {})", error.code, error.message))
    };
    let next = || step.next_at.map_or_else(String::new, |at| format!(" at {at}"));
    match step.status {
        StepStatus::Running => Some(format!("attempt {} of {name} is in flight", step.attempts)),
        StepStatus::BackingOff => Some(format!(
            "{name} failed{} and will be tried again{}, attempt {}",
            error(),
            next(),
            step.attempts + 1
        )),
        StepStatus::BreakerOpen => Some(format!("{name} waits for its service")),
        StepStatus::Undoing => {
            Some(format!("attempt {} to undo {name} is in flight", step.undo_attempts))
        }
        StepStatus::UndoBackingOff => Some(format!(
            "the undo of {name} failed{} and will be tried again{}, attempt {}",
            error(),
            next(),
            step.undo_attempts + 1
        )),
        StepStatus::Pending
        | StepStatus::Succeeded
        | StepStatus::Failed
        | StepStatus::Unknown
        | StepStatus::Skipped
        | StepStatus::Undone
        | StepStatus::UndoBlocked => None,
    }
}
