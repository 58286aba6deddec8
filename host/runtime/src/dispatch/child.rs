//! A step that runs another saga: a call that starts it and waits for its end.
//!
//! The child's id follows from the parent's, so whoever runs the call again after a crash finds
//! the same saga, and the outcome is never unknown.
//!
//! When the child is to be undone, the order goes to this call and not to the child, because the call
//! knows whether the child exists. If it does not exist, it is not started any more.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{
    Call, DefinitionName, Direction, Failure, Outcome, Parent, Payload, Saga, SagaId, SagaStatus,
    Start, Target, TraceContext, Verb, arguments,
};
use amends_failpoint::failpoint;
use tokio::sync::watch;

use crate::error::{OperateError, StartError};
use crate::ports::SagaPort;
use crate::saga_state::Started;

/// How long before a child is asked again to start or to be undone that could not be.
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
    /// `span`: the span of the call, if it has one.
    pub(super) fn of(saga: &Saga, call: &Call, span: Option<TraceContext>) -> Option<Self> {
        let (definition, id) = match &call.target {
            Target::Saga { definition, id } => (definition.clone(), (*id)?),
            Target::Plugin(_) => return None,
        };
        Some(Self {
            id,
            parent: Parent { saga: saga.id(), step: call.step.clone() },
            definition,
            input: arguments(saga, call).map(|(input, _)| input),
            tags: saga.started().tags.clone(),
            // One trace for both.
            traceparent: Some(
                span.map_or_else(|| saga.traceparent().into_owned(), |span| span.to_string()),
            ),
        })
    }
}

/// A call that runs a saga, in the hands of the saga that made it. When it is dropped, nobody
/// waits for the call, and it ends.
#[derive(Debug)]
pub(crate) struct ChildCall {
    child: SagaId,
    told: watch::Sender<bool>,
}

impl ChildCall {
    /// Has the child undone; often does no more than once. The call sees to it, so the order
    /// cannot come before the child is there, nor after its end.
    pub(crate) fn cancel(&self, child: SagaId) {
        if self.child == child {
            self.told.send_replace(true);
        }
    }

    pub(super) fn new(child: &Child) -> (Self, ChildOrders) {
        let (told, hears) = watch::channel(false);
        (Self { child: child.id, told }, ChildOrders(hears))
    }
}

/// What a call that runs a saga hears of its [`ChildCall`].
#[derive(Clone)]
pub(super) struct ChildOrders(watch::Receiver<bool>);

impl ChildOrders {
    fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Until the child is to be undone.
    async fn cancelled(&mut self) {
        if self.0.wait_for(|cancelled| *cancelled).await.is_err() {
            // Nobody waits for the call: it ends.
            std::future::pending::<()>().await;
        }
    }

    /// Until nobody waits for the call any more.
    async fn gone(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// None when nobody waits for it any more: the host stops, or its saga has ended.
pub(super) async fn run(
    sagas: &dyn SagaPort,
    (child, told): (Child, ChildOrders),
    direction: Direction,
) -> Option<Outcome> {
    let mut parent = told.clone();
    let outcome = async {
        match direction {
            Direction::Execute => execute(sagas, &child, told).await,
            Direction::Compensate => compensate(sagas, &child).await,
        }
    };
    tokio::select! {
        outcome = outcome => Some(outcome),
        () = parent.gone() => None,
    }
}

async fn execute(sagas: &dyn SagaPort, child: &Child, mut told: ChildOrders) -> Outcome {
    let id = child.id;
    failpoint("runtime.child.before");
    if let Err(failure) = start(sagas, child, &mut told).await {
        return Outcome::Permanent(failure);
    }
    failpoint("runtime.child.started");
    let ended = tokio::select! {
        ended = sagas.wait_for_end(id) => ended,
        never = cancel(sagas, child, &mut told) => match never {},
    };
    // The call is cut off with the host, and run again at the next start.
    let Some(saga) = ended else { return std::future::pending().await };
    failpoint("runtime.child.ended");
    let reason = || reason_of(&saga);
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

/// Why a child was not started.
enum NotStarted {
    /// The child will never be started.
    Never(Failure),
    /// The child may be started later.
    NotYet(StartError),
}

/// Answers when the child is there, whoever started it; with a failure when it never will be.
async fn start(sagas: &dyn SagaPort, child: &Child, told: &mut ChildOrders) -> Result<(), Failure> {
    loop {
        let started = if told.is_cancelled() {
            let message = format!("saga {} was not started", child.id);
            Err(NotStarted::Never(Failure::new("child_not_started", message)))
        } else {
            start_once(sagas, child).await
        };
        let error = match started {
            Ok(_) => return Ok(()),
            Err(NotStarted::NotYet(error)) => error,
            // A call before this one may have started it, or one of this whose answer was lost.
            Err(NotStarted::Never(failure)) => match sagas.exists(child.id).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(failure),
                Err(error) => error.into(),
            },
        };
        match error {
            // The call is cut off with the host, and run again at the next start.
            StartError::Stopping => return std::future::pending().await,
            error @ (StartError::NoSubject { .. } | StartError::NeedsSubject { .. }) => {
                return Err(Failure::new("subject_missing", error.to_string()));
            }
            StartError::DefinitionUnknown(_)
            | StartError::KeyReused(_)
            | StartError::Keys(_)
            | StartError::Owner(_)
            | StartError::Overloaded(_)
            | StartError::TooOften { .. }
            | StartError::Store(_) => {
                tracing::debug!(saga_id = %child.id, %error, "child is not started yet");
            }
        }
        let pause = tokio::time::sleep(RETRY_PAUSE);
        if told.is_cancelled() {
            pause.await;
        } else {
            tokio::select! {
                () = pause => {}
                () = told.cancelled() => {}
            }
        }
    }
}

async fn start_once(sagas: &dyn SagaPort, child: &Child) -> Result<Started, NotStarted> {
    let Some(definition) = sagas.definition(&child.definition) else {
        let message = format!("the config has no saga `{}`", child.definition);
        return Err(NotStarted::Never(Failure::new("definition_unknown", message)));
    };
    let input = child.input.clone();
    let input = input.map_err(|error| NotStarted::Never(Failure::new("input_failed", error)))?;
    let what = Start {
        id: child.id,
        definition,
        input,
        key: None,
        tags: child.tags.clone(),
        traceparent: child.traceparent.clone(),
        start_at: None,
        parent: Some(child.parent.clone()),
        sealed_key: None,
        who: None,
        personal: Vec::new(),
    };
    sagas.start(what).await.map_err(NotStarted::NotYet)
}

/// Orders the child undone when that is wanted, until it has heard of it.
async fn cancel(
    sagas: &dyn SagaPort,
    child: &Child,
    told: &mut ChildOrders,
) -> std::convert::Infallible {
    told.cancelled().await;
    let (parent, reason) = (child.parent.saga, "it is being undone");
    loop {
        match sagas.operate(parent, child.id, Verb::Cancel, reason.to_owned()).await {
            Ok(_) => {
                failpoint("runtime.child.cancelled");
                break;
            }
            Err(
                error @ (OperateError::Runtime(_)
                | OperateError::Owner(_)
                | OperateError::Overloaded(_)
                | OperateError::Quarantined(_)),
            ) => {
                tracing::debug!(saga_id = %child.id, %error, "child is not cancelled yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            // Past its pivot or ended: its end tells what becomes of the step.
            Err(
                error @ (OperateError::NotFound(_)
                | OperateError::Archived(_)
                | OperateError::Imported(_)
                | OperateError::Refused(_)),
            ) => {
                tracing::debug!(saga_id = %child.id, %error, "child is not cancelled");
                break;
            }
        }
    }
    std::future::pending().await
}

/// Returns why a child ended, for the log of its parent. The parent's values are sealed with another key,
/// so what the child has sealed does not go there.
fn reason_of(child: &Saga) -> String {
    match child.started().sealed_key {
        Some(_) => format!("its reason is sealed; see saga {}", child.id()),
        None => child.reason().unwrap_or_default().to_owned(),
    }
}

async fn compensate(sagas: &dyn SagaPort, child: &Child) -> Outcome {
    let parent = child.parent.saga;
    let reason = format!("its step {} is undone", child.parent.step);
    loop {
        let verb = Verb::CompensateWithParent;
        match sagas.operate(parent, child.id, verb, reason.clone()).await {
            Ok(_) => break,
            // It was to be started, and never was.
            Err(OperateError::NotFound(_)) => return Outcome::NothingToUndo,
            // Its parent was brought back from the archive, and it was not.
            Err(error @ (OperateError::Archived(_) | OperateError::Imported(_))) => {
                return Outcome::Permanent(Failure::new("child_archived", error.to_string()));
            }
            Err(OperateError::Refused(refusal)) => {
                let message = format!("saga {} cannot be undone: {refusal}", child.id);
                return Outcome::Permanent(Failure::new("child_refused", message));
            }
            Err(
                error @ (OperateError::Runtime(_)
                | OperateError::Owner(_)
                | OperateError::Overloaded(_)
                | OperateError::Quarantined(_)),
            ) => {
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
    let reason = reason_of(&saga);
    let message = format!("saga {} is {}: {reason}", child.id, saga.status());
    Outcome::Permanent(Failure::new("child_not_undone", message))
}
