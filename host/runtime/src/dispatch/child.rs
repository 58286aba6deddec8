//! A step that runs another saga: a call that starts it and waits for its end.
//!
//! The child's id follows from the parent's, so whoever runs the call again after a crash finds
//! the same saga, and the outcome is never unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{
    Call, DefinitionName, Direction, Failure, Order, Outcome, Parent, Payload, Saga, SagaId,
    SagaStatus, Start, Target, Verb, arguments,
};
use amends_store::failpoint;

use crate::error::{OperateError, StartError};
use crate::runtime::Sagas;

/// How long before a child is started again that the host had no room for.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a child is started with.
pub(super) struct Child {
    id: SagaId,
    parent: Parent,
    definition: DefinitionName,
    input: Result<Payload, String>,
    tags: BTreeMap<String, String>,
    traceparent: Option<String>,
}

impl Child {
    /// None for a call that runs no saga.
    pub(super) fn of(saga: &Saga, call: &Call) -> Option<Self> {
        let (definition, id) = match &call.target {
            Target::Saga { definition, id } => (definition.clone(), *id),
            Target::Plugin(_) => return None,
        };
        Some(Self {
            id,
            parent: Parent { saga: saga.id(), step: call.step.clone() },
            definition,
            input: arguments(saga, call).map(|(input, _)| input),
            tags: saga.started().tags.clone(),
            traceparent: saga.started().traceparent.clone(),
        })
    }
}

pub(super) async fn run(sagas: &Sagas, child: Option<Child>, call: &Call) -> Outcome {
    let Some(child) = child else {
        let failure = Failure::new("host_failed", "the call runs no saga");
        return Outcome::Unknown(failure);
    };
    match call.direction {
        Direction::Execute => execute(sagas, child).await,
        Direction::Compensate => compensate(sagas, &child).await,
    }
}

async fn execute(sagas: &Sagas, child: Child) -> Outcome {
    let id = child.id;
    failpoint("runtime.child.before");
    if let Err(failure) = start(sagas, child).await {
        return Outcome::Permanent(failure);
    }
    failpoint("runtime.child.started");
    let ended = sagas.wait_for_end(id).await;
    // The call is cut off with the host, and run again at the next start.
    let Some(saga) = ended else { return std::future::pending().await };
    failpoint("runtime.child.ended");
    let reason = || saga.reason().unwrap_or_default().to_owned();
    match saga.status() {
        SagaStatus::Completed => Outcome::Succeeded(saga.output().unwrap_or_else(Payload::null)),
        SagaStatus::Abandoned => Outcome::Unknown(Failure::new(
            "child_abandoned",
            format!("saga {id} was given up: {}", reason()),
        )),
        SagaStatus::Compensated
        | SagaStatus::Running
        | SagaStatus::Waiting
        | SagaStatus::Paused
        | SagaStatus::Compensating
        | SagaStatus::Blocked => Outcome::Permanent(Failure::new(
            "child_compensated",
            format!("saga {id} came undone: {}", reason()),
        )),
    }
}

/// Answers when the child is there, whoever started it.
async fn start(sagas: &Sagas, child: Child) -> Result<(), Failure> {
    loop {
        let Some(definition) = sagas.definition(&child.definition) else {
            let message = format!("the config has no saga `{}`", child.definition);
            return Err(Failure::new("definition_unknown", message));
        };
        let input = child.input.clone().map_err(|error| Failure::new("input_failed", error))?;
        let what = Start {
            id: child.id,
            definition,
            input,
            key: None,
            tags: child.tags.clone(),
            traceparent: child.traceparent.clone(),
            parent: Some(child.parent.clone()),
        };
        match sagas.start(what).await {
            Ok(_) => return Ok(()),
            Err(StartError::DefinitionUnknown(_) | StartError::KeyReused(_)) => {}
            Err(error @ (StartError::Overloaded(_) | StartError::Store(_))) => {
                tracing::debug!(saga_id = %child.id, %error, "child is not started yet");
            }
            // The call is cut off with the host, and run again at the next start.
            Err(StartError::Stopping) => std::future::pending().await,
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn compensate(sagas: &Sagas, child: &Child) -> Outcome {
    let who = format!("saga {}", child.parent.saga);
    let reason = format!("its step {} is undone", child.parent.step);
    let verb = Verb::Compensate;
    loop {
        let order = Order { who: who.clone(), reason: reason.clone(), verb: verb.clone() };
        match sagas.operate(child.id, order).await {
            Ok(_) => break,
            // It was to be started, and never was.
            Err(OperateError::NotFound(_)) => return Outcome::NothingToUndo,
            Err(OperateError::Refused(refusal)) => {
                let message = format!("saga {} cannot be undone: {refusal}", child.id);
                return Outcome::Permanent(Failure::new("child_refused", message));
            }
            Err(OperateError::Runtime(error)) => {
                tracing::debug!(saga_id = %child.id, %error, "child is not undone yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    failpoint("runtime.child.undo_ordered");
    let ended = sagas.wait_for_end(child.id).await;
    let Some(saga) = ended else { return std::future::pending().await };
    failpoint("runtime.child.undone");
    if saga.status() == SagaStatus::Compensated {
        return Outcome::Succeeded(Payload::null());
    }
    let reason = saga.reason().unwrap_or_default();
    let message = format!("saga {} is {}: {reason}", child.id, saga.status());
    Outcome::Permanent(Failure::new("child_not_undone", message))
}
