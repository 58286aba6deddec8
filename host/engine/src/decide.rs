//! Every decision.
//!
//! [`decide`] takes what happened and answers the facts that follow, in order, for one append.
//! It has two parts: the direct answer to the input, then everything that follows from the state
//! that this leads to (`settle`). Because the second part looks at the state only, a log that was
//! cut anywhere goes on from where it was cut: [`Input::Tick`] finds what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backoff::pause;
use crate::call::{Direction, Failure, FailureClass, Outcome};
use crate::definition::Definition;
use crate::event::{
    Cause, CompensationStarted, Event, OperatorCancelled, SagaBlocked, SagaCompensated,
    SagaCompleted, SagaStarted, StepFailed, StepSkipped, StepStarted, StepSucceeded, StepUnknown,
    UndoBlocked, UndoFailed, UndoStarted, UndoSucceeded,
};
use crate::evolve::evolve;
use crate::ids::{Digest, SagaId, StepName, Timestamp};
use crate::payload::Payload;
use crate::saga::{Phase, Progress, Saga};
use crate::status::SagaStatus;

/// What a saga is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its id, new.
    pub id: SagaId,
    /// What it does.
    pub definition: Arc<Definition>,
    /// What it is given.
    pub input: Payload,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For finding it.
    pub tags: BTreeMap<String, String>,
    /// The caller's trace context (W3C).
    pub traceparent: Option<String>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The runtime can run a call that [`crate::commands`] named: it has the component and room.
    Admit {
        /// The step.
        step: StepName,
        /// Which way.
        direction: Direction,
        /// The component that will serve the call.
        digest: Digest,
        /// Why this component, when it is not the active one.
        note: Option<String>,
    },
    /// What came of a call.
    Outcome {
        /// The step.
        step: StepName,
        /// Which way.
        direction: Direction,
        /// Which attempt.
        attempt: u32,
        /// What came of it.
        outcome: Outcome,
    },
    /// Time has passed, or the saga was loaded.
    Tick,
    /// An operator wants it undone. Ask [`permits_cancel`] first, to refuse in words.
    Cancel {
        /// Who asks.
        who: String,
        /// Why.
        reason: String,
    },
}

/// Why an operator's wish is refused in the state that a saga is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct Refusal {
    /// Why not.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

/// Starts a saga: the facts of its first append, and the saga after them.
#[must_use]
pub fn start(at: Timestamp, start: Start) -> (Saga, Vec<Event>) {
    let deadline_at = start.definition.spec().deadline.map(|deadline| at.after(deadline));
    let started = SagaStarted {
        definition: start.definition.name().clone(),
        definition_digest: start.definition.digest(),
        input: start.input,
        key: start.key,
        tags: start.tags,
        traceparent: start.traceparent,
        deadline_at,
    };
    let saga = Saga::new(start.id, start.definition, at, started.clone());
    let mut draft = Draft { saga, at, events: vec![started.into()] };
    draft.settle();
    (draft.saga, draft.events)
}

/// Decides. Empty when the input is late, repeated, or not about a call that is running.
///
/// The answer must be durable before anything acts on it; then [`evolve`] applies each fact.
#[must_use]
pub fn decide(saga: &Saga, at: Timestamp, input: Input) -> Vec<Event> {
    if saga.status().is_end() {
        return Vec::new();
    }
    let mut draft = Draft { saga: saga.clone(), at, events: Vec::new() };
    draft.settle();
    match input {
        Input::Admit { step, direction, digest, note } => {
            draft.admit(step, direction, digest, note);
        }
        Input::Outcome { step, direction, attempt, outcome } => {
            draft.outcome(step, direction, attempt, outcome);
        }
        Input::Tick => {}
        Input::Cancel { who, reason } => draft.cancel(who, reason),
    }
    draft.settle();
    draft.events
}

/// Whether a saga may be cancelled now. Cancelling what is being undone already is allowed and
/// does nothing.
///
/// # Errors
/// When the saga has ended or is past its pivot.
pub fn permits_cancel(saga: &Saga) -> Result<(), Refusal> {
    let refuse = |message: &str, remedy: &str| {
        Err(Refusal { message: message.to_owned(), remedy: remedy.to_owned() })
    };
    match saga.status() {
        SagaStatus::Completed => refuse(
            "the saga is completed",
            "a completed saga cannot be cancelled, its effects stand",
        ),
        SagaStatus::Abandoned => refuse("the saga is abandoned", "nothing acts on it any more"),
        SagaStatus::Running | SagaStatus::Waiting | SagaStatus::Paused | SagaStatus::Blocked
            if saga.is_past_pivot() =>
        {
            refuse(
                "the saga is past its pivot, the point of no return",
                "what comes after it is retried until it succeeds or blocks",
            )
        }
        SagaStatus::Running
        | SagaStatus::Waiting
        | SagaStatus::Paused
        | SagaStatus::Blocked
        | SagaStatus::Compensating
        | SagaStatus::Compensated => Ok(()),
    }
}

/// A saga to try facts on, and the facts so far.
struct Draft {
    saga: Saga,
    at: Timestamp,
    events: Vec<Event>,
}

impl Draft {
    fn emit(&mut self, event: impl Into<Event>) {
        let event = event.into();
        if let Err(error) = evolve(&mut self.saga, self.at, &event) {
            // A decision that evolve refuses is a bug of this file and nothing else.
            panic!("decided what cannot be: {error}");
        }
        self.events.push(event);
    }

    fn admit(
        &mut self,
        step: StepName,
        direction: Direction,
        digest: Digest,
        note: Option<String>,
    ) {
        let Some(index) = self.saga.definition.index_of(&step) else { return };
        let due = crate::commands::due(&self.saga, index)
            .is_some_and(|due| due.direction == direction && due.at.is_none_or(|at| at <= self.at));
        if !due {
            return;
        }
        let state = &self.saga.steps[index];
        match direction {
            Direction::Execute => {
                let attempt = state.attempts + 1;
                self.emit(StepStarted { step, attempt, digest });
            }
            Direction::Compensate => {
                let attempt = state.undo_attempts + 1;
                self.emit(UndoStarted { step, attempt, digest, note });
            }
        }
    }

    fn outcome(&mut self, step: StepName, direction: Direction, attempt: u32, outcome: Outcome) {
        let Some(index) = self.saga.definition.index_of(&step) else { return };
        let state = &self.saga.steps[index];
        let is_running = match direction {
            Direction::Execute => state.progress == Progress::Running && state.attempts == attempt,
            Direction::Compensate => {
                state.progress == Progress::Undoing && state.undo_attempts == attempt
            }
        };
        if !is_running {
            return;
        }
        match direction {
            Direction::Execute => self.executed(index, step, attempt, outcome),
            Direction::Compensate => self.compensated(index, step, attempt, outcome),
        }
    }

    fn executed(&mut self, index: usize, step: StepName, attempt: u32, outcome: Outcome) {
        let (class, error) = match outcome {
            Outcome::Succeeded(output) => {
                self.emit(StepSucceeded { step, attempt, output });
                return;
            }
            Outcome::NothingToUndo => (
                FailureClass::Unknown,
                Failure::new("invalid_outcome", "execute answered as if it were an undo"),
            ),
            Outcome::Permanent(error) => (FailureClass::Permanent, error),
            Outcome::Retryable(error) => (FailureClass::Retryable, error),
            Outcome::Unknown(error) => (FailureClass::Unknown, error),
        };
        let retry_at = match class {
            FailureClass::Permanent => None,
            // What was in flight when the saga began to be undone settles without another try.
            FailureClass::Retryable | FailureClass::Unknown if !self.may_retry() => None,
            FailureClass::Retryable | FailureClass::Unknown => {
                let retry = &self.saga.definition.steps()[index].retry;
                pause(retry, self.saga.id, &step, Direction::Execute, attempt)
                    .map(|pause| self.at.after(pause.max(retry_after(&error))))
            }
        };
        self.fail(index, step, attempt, class, error, retry_at);
    }

    /// A step whose effect may stand does not fail, whatever its last attempt says: it ends unknown.
    fn fail(
        &mut self,
        index: usize,
        step: StepName,
        attempt: u32,
        class: FailureClass,
        error: Failure,
        retry_at: Option<Timestamp>,
    ) {
        let ends_unknown = self.saga.steps[index].tainted && retry_at.is_none();
        if class == FailureClass::Unknown || ends_unknown {
            self.emit(StepUnknown { step, attempt, error, retry_at });
        } else {
            self.emit(StepFailed { step, attempt, class, error, retry_at });
        }
    }

    fn may_retry(&self) -> bool {
        self.saga.phase == Phase::Forward
    }

    fn compensated(&mut self, index: usize, step: StepName, attempt: u32, outcome: Outcome) {
        let (class, error) = match outcome {
            Outcome::Succeeded(receipt) => {
                let receipt = Some(receipt).filter(|receipt| *receipt != Payload::null());
                self.emit(UndoSucceeded { step, attempt, receipt, nothing: false });
                return;
            }
            Outcome::NothingToUndo => {
                self.emit(UndoSucceeded { step, attempt, receipt: None, nothing: true });
                return;
            }
            Outcome::Permanent(error) => (FailureClass::Permanent, error),
            Outcome::Retryable(error) => (FailureClass::Retryable, error),
            Outcome::Unknown(error) => (FailureClass::Unknown, error),
        };
        let pause = match class {
            FailureClass::Permanent => None,
            FailureClass::Retryable | FailureClass::Unknown => {
                self.saga.definition.steps()[index].undo.as_ref().and_then(|undo| {
                    pause(&undo.retry, self.saga.id, &step, Direction::Compensate, attempt)
                })
            }
        };
        match pause {
            Some(pause) => {
                let retry_at = self.at.after(pause.max(retry_after(&error)));
                self.emit(UndoFailed { step, attempt, class, error, retry_at });
            }
            None => self.emit(UndoBlocked { step, attempt, class, error }),
        }
    }

    fn cancel(&mut self, who: String, reason: String) {
        let wanted = self.saga.phase == Phase::Forward
            && self.saga.cancelled.is_none()
            && permits_cancel(&self.saga).is_ok();
        if wanted {
            self.emit(OperatorCancelled { who, reason });
        }
    }

    /// Everything that follows from the state.
    fn settle(&mut self) {
        loop {
            let before = self.events.len();
            match self.saga.phase {
                Phase::Forward => self.settle_forward(),
                Phase::Compensating(_) => self.settle_compensating(),
                Phase::Completed | Phase::Compensated(_) => return,
            }
            if self.events.len() == before {
                return;
            }
        }
    }

    fn settle_forward(&mut self) {
        if let Some(cause) = self.cause() {
            self.emit(cause);
            return;
        }
        for index in 0..self.saga.steps.len() {
            if self.saga.is_ready(index) {
                self.settle_ready(index);
            }
        }
        if self.saga.blocked.is_none()
            && let Some(index) = self.failed_step()
            && self.saga.is_past_pivot()
        {
            let step = self.saga.definition.steps()[index].name.clone();
            let what = self.describe(index);
            let reason = format!("{step} {what} after the pivot, so nothing is undone");
            self.emit(SagaBlocked { step, reason });
        }
        if self.saga.steps.iter().all(|step| step.progress.is_done()) {
            self.emit(SagaCompleted {});
        }
    }

    /// Skips a ready step, or fails it when its expressions cannot be computed.
    fn settle_ready(&mut self, index: usize) {
        let definition = Arc::clone(&self.saga.definition);
        let (spec, step) = (&definition.steps()[index], definition.step(index));
        if spec.when.is_none() && spec.input.is_none() {
            return;
        }
        let variables = self.saga.variables(index);
        let wanted = step.when.as_ref().map_or(Ok(true), |when| when.evaluate_bool(&variables));
        let (code, message) = match wanted {
            Ok(false) => {
                let reason = format!("when: {}", spec.when.as_deref().unwrap_or_default());
                self.emit(StepSkipped { step: spec.name.clone(), reason });
                return;
            }
            Ok(true) => match crate::commands::input(&self.saga, index) {
                Ok(_) => return,
                Err(message) => ("input_failed", format!("input: {message}")),
            },
            Err(message) => ("when_failed", format!("when: {message}")),
        };
        self.emit(StepFailed {
            step: spec.name.clone(),
            attempt: 0,
            class: FailureClass::Permanent,
            error: Failure::new(code, message),
            retry_at: None,
        });
    }

    /// Why the saga must be undone now, if it must.
    fn cause(&self) -> Option<CompensationStarted> {
        if self.saga.is_past_pivot() || self.saga.is_at_pivot() {
            return None;
        }
        if let Some(index) = self.failed_step() {
            let step = self.saga.definition.steps()[index].name.clone();
            let is_unknown = self.saga.steps[index].progress == Progress::Unknown;
            let cause = if is_unknown { Cause::StepUnknown } else { Cause::StepFailed };
            let reason = format!("{step} {}", self.describe(index));
            return Some(CompensationStarted { cause, step: Some(step), reason });
        }
        if let Some(cancelled) = &self.saga.cancelled {
            let reason = format!("cancelled by {}: {}", cancelled.who, cancelled.reason);
            return Some(CompensationStarted { cause: Cause::Cancelled, step: None, reason });
        }
        let deadline = self.saga.deadline_in_force().filter(|deadline| *deadline <= self.at)?;
        let reason = format!("the deadline {deadline} passed");
        Some(CompensationStarted { cause: Cause::Deadline, step: None, reason })
    }

    fn failed_step(&self) -> Option<usize> {
        let failed = |progress: Progress| matches!(progress, Progress::Failed | Progress::Unknown);
        self.saga.steps.iter().position(|step| failed(step.progress))
    }

    /// `failed: out_of_stock: …` or `is unknown: timeout: …`.
    fn describe(&self, index: usize) -> String {
        let step = &self.saga.steps[index];
        let what = if step.progress == Progress::Unknown { "is unknown" } else { "failed" };
        let error = step.error.as_deref();
        error.map_or_else(
            || what.to_owned(),
            |error| format!("{what}: {}: {}", error.code, error.message),
        )
    }

    fn settle_compensating(&mut self) {
        for index in 0..self.saga.steps.len() {
            let state = &self.saga.steps[index];
            if matches!(state.progress, Progress::BackingOff { .. }) {
                let error = state.error.as_deref().cloned();
                let error = error.unwrap_or_else(|| Failure::new("stopped", "no more attempts"));
                let (attempt, class) = (state.attempts, FailureClass::Retryable);
                let step = self.saga.definition.steps()[index].name.clone();
                self.fail(index, step, attempt, class, error, None);
            }
        }
        if self.saga.blocked.is_none()
            && let Some(index) = (0..self.saga.steps.len()).find(|index| self.is_stuck(*index))
        {
            let step = self.saga.definition.steps()[index].name.clone();
            let error = self.saga.steps[index].error.as_deref();
            let error = error
                .map_or_else(String::new, |error| format!(": {}: {}", error.code, error.message));
            let reason = if self.saga.is_unknown_pivot(index) {
                format!("the pivot {step} may have happened and nothing undoes it{error}")
            } else {
                format!("the undo of {step} failed{error}")
            };
            self.emit(SagaBlocked { step, reason });
        }
        if (0..self.saga.steps.len()).all(|index| self.saga.is_clear(index)) {
            self.emit(SagaCompensated {});
        }
    }

    fn is_stuck(&self, index: usize) -> bool {
        self.saga.steps[index].progress == Progress::UndoBlocked
            || self.saga.is_unknown_pivot(index)
    }
}

fn retry_after(error: &Failure) -> std::time::Duration {
    // A guest must not be able to put a saga to sleep for ever.
    let millis = error.retry_after_ms.unwrap_or(0);
    std::time::Duration::from_millis(millis).min(crate::RETRY_AFTER_MAX)
}
