//! Which orders a saga permits, and what follows from them.

use super::draft::Draft;
use crate::definition::StepKind;
use crate::event::{
    OperatorAbandoned, OperatorCancelled, OperatorCompensated, OperatorNoted, OperatorPaused,
    OperatorResolved, OperatorResumed, OperatorRetried, OperatorSkipped,
};
use crate::ids::{StepName, Timestamp};
use crate::order::{Order, Refusal, Verb};
use crate::saga::{Phase, Progress, Saga, StepOutcome, UndoProgress};
use crate::sentence::shortened;
use crate::status::SagaStatus;

/// Checks that a saga permits an order now. An order that is fulfilled already is permitted and
/// changes nothing.
///
/// This is for display: it ignores what the clock has made due and nobody has recorded yet.
/// [`crate::decide_on`] decides for the saga as it is by then.
///
/// # Errors
/// The reason why not, and what to do instead.
pub fn permits(saga: &Saga, at: Timestamp, order: &Order) -> Result<(), Refusal> {
    targets(saga, at, &order.verb).map(|_| ())
}

/// Returns the steps that an order would be about now; empty when it is about the saga.
///
/// # Errors
/// As [`permits`].
pub fn steps_of(saga: &Saga, at: Timestamp, order: &Order) -> Result<Vec<StepName>, Refusal> {
    let targets = targets(saga, at, &order.verb)?;
    Ok(targets.into_iter().map(|index| saga.name(index).clone()).collect())
}

/// Returns the steps that a verb is about; empty when it is about the saga, or changes nothing.
fn targets(saga: &Saga, at: Timestamp, verb: &Verb) -> Result<Vec<usize>, Refusal> {
    let status = saga.status();
    match verb {
        Verb::Cancel => cancel(saga).map(|()| Vec::new()),
        Verb::Compensate if status == SagaStatus::Completed => {
            within_window(saga, at)?;
            compensate(saga).map(|()| Vec::new())
        }
        Verb::CompensateWithParent if status == SagaStatus::Completed => {
            compensate(saga).map(|()| Vec::new())
        }
        Verb::Compensate | Verb::CompensateWithParent => cancel(saga).map(|()| Vec::new()),
        Verb::Abandon if status == SagaStatus::Abandoned => Ok(Vec::new()),
        Verb::Pause | Verb::Abandon if status.is_end() => Err(ended(status)),
        Verb::Pause | Verb::Abandon | Verb::Note => Ok(Vec::new()),
        Verb::Resume if status == SagaStatus::Paused || saga.awaits_room() => Ok(Vec::new()),
        Verb::Resume => refuse(
            "the saga is not paused",
            "only a paused saga, or one whose log is full, can be resumed",
        ),
        Verb::Retry { .. } | Verb::Skip { .. } | Verb::Resolve { .. } if status.is_end() => {
            Err(ended(status))
        }
        Verb::Retry { step: None, digest: Some(_), .. } => refuse(
            "a component is chosen for the calls of one step, and none is named",
            "name the step",
        ),
        Verb::Retry { step, input, digest } => {
            let found = retry(saga, step.as_ref(), input.is_some() || digest.is_some())?;
            match found.iter().find(|index| digest.is_some() && !calls_plugin(saga, **index)) {
                Some(index) => refuse(
                    format!("{} is served by no component", saga.name(*index)),
                    "retry it without a digest",
                ),
                None => Ok(found),
            }
        }
        Verb::Skip { step, undo } => {
            single_target(saga, step.as_ref(), "skip", |index| may_skip(saga, index, *undo))
        }
        Verb::Resolve { step, happened, output, evidence, undo } => {
            if evidence.trim().is_empty() {
                return refuse("there is no evidence", "say how it is known: it is kept");
            }
            let fits = |index| may_resolve(saga, index, *happened, *undo);
            let found = single_target(saga, step.as_ref(), "resolve", fits)?;
            match found.iter().find(|index| output.is_some() && undo_rests(saga, **index)) {
                // An output says that the step happened, so the operator does not mean its undo.
                Some(index) => refuse(
                    format!("the undo of {} is due, and an undo has no result", saga.name(*index)),
                    "look at the saga again; when it was undone by hand, leave the result out",
                ),
                None => Ok(found),
            }
        }
    }
}

/// Makes a refusal.
fn refuse<T>(message: impl Into<String>, remedy: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), remedy: remedy.into() })
}

/// Makes the refusal of a saga that has ended.
fn ended(status: SagaStatus) -> Refusal {
    let remedy = if status == SagaStatus::Completed {
        "a completed saga can be compensated"
    } else {
        "nothing acts on it any more"
    };
    Refusal { message: format!("the saga is {status}"), remedy: remedy.to_owned() }
}

/// Makes the refusal of a saga past its pivot.
fn past_pivot<T>() -> Result<T, Refusal> {
    refuse(
        "the saga is past its pivot, the point of no return",
        "what comes after it is retried until it succeeds or blocks",
    )
}

/// Checks that a saga may be cancelled.
fn cancel(saga: &Saga) -> Result<(), Refusal> {
    match saga.status() {
        SagaStatus::Completed => refuse(
            "the saga is completed",
            "a completed saga cannot be cancelled; it can be compensated",
        ),
        status @ SagaStatus::Abandoned => Err(ended(status)),
        SagaStatus::Running | SagaStatus::Waiting | SagaStatus::Paused | SagaStatus::Blocked
            if saga.phase == Phase::Forward && saga.is_past_pivot() =>
        {
            past_pivot()
        }
        SagaStatus::Running
        | SagaStatus::Waiting
        | SagaStatus::Paused
        | SagaStatus::Blocked
        | SagaStatus::Compensating
        | SagaStatus::Compensated => Ok(()),
    }
}

/// Checks that a completed saga may be compensated.
fn compensate(saga: &Saga) -> Result<(), Refusal> {
    if saga.is_past_pivot() { past_pivot() } else { Ok(()) }
}

/// Checks that a completed saga may still be compensated by its definition.
fn within_window(saga: &Saga, at: Timestamp) -> Result<(), Refusal> {
    let until = saga.definition.spec().compensate_within.zip(saga.ended_at);
    match until.map(|(within, ended_at)| ended_at.after(within)) {
        Some(until) if until < at => refuse(
            format!("it could be compensated until {until}"),
            "its definition says so (compensate_within)",
        ),
        Some(_) | None => Ok(()),
    }
}

/// Returns the steps that only an operator can move, or else those that wait for their next
/// attempt.
fn retry(saga: &Saga, step: Option<&StepName>, edits: bool) -> Result<Vec<usize>, Refusal> {
    let blocked = |index: usize| saga.needs_operator(index);
    let waits = |index: usize| {
        matches!(
            saga.steps[index].progress,
            Progress::BackingOff { .. } | Progress::Undo(UndoProgress::BackingOff { .. })
        )
    };
    if edits || step.is_some() {
        return single_target(saga, step, "retry", |index| blocked(index) || waits(index));
    }
    let all = 0..saga.steps.len();
    let mut found: Vec<_> = all.clone().filter(|index| blocked(*index)).collect();
    if found.is_empty() {
        found = all.filter(|index| waits(*index)).collect();
    }
    if found.is_empty() {
        return refuse(
            "no call of the saga has failed and waits to be tried again",
            "`amends why` says what it waits for",
        );
    }
    Ok(found)
}

/// Returns true when a component serves the calls of a step.
fn calls_plugin(saga: &Saga, index: usize) -> bool {
    matches!(saga.spec(index).kind, StepKind::Call { .. }) && saga.fan_out(index).is_none()
}

/// Returns true when the undo of a step is due and does not run: it is blocked, waits for its next
/// attempt, or has not begun.
fn undo_rests(saga: &Saga, index: usize) -> bool {
    saga.steps[index].progress.undo_has_failed() || saga.undo_waits(index)
}

/// Returns true when a step, or its undo, may be skipped.
fn may_skip(saga: &Saga, index: usize, undo: bool) -> bool {
    let (step, is_forward) = (&saga.steps[index], saga.phase == Phase::Forward);
    if undo || step.lacks_values && !is_forward {
        return undo_rests(saga, index);
    }
    match step.progress {
        Progress::Undo(_) => step.progress.undo_has_failed(),
        Progress::Settled(StepOutcome::Failed | StepOutcome::Unknown)
        | Progress::Waiting { .. } => is_forward,
        Progress::Pending => is_forward && step.lacks_values,
        // Past the pivot nothing is undone, so an effect that may stand does no harm.
        Progress::BackingOff { .. } => is_forward && (!step.tainted || saga.is_past_pivot()),
        Progress::Settled(StepOutcome::Succeeded | StepOutcome::Skipped)
        | Progress::Running
        | Progress::FannedOut => false,
    }
}

/// Returns true when a step, or its undo, may be resolved.
fn may_resolve(saga: &Saga, index: usize, happened: bool, undo: bool) -> bool {
    let (step, is_forward) = (&saga.steps[index], saga.phase == Phase::Forward);
    if undo || step.lacks_values && !is_forward {
        return undo_rests(saga, index);
    }
    match step.progress {
        Progress::Undo(_) => step.progress.undo_has_failed(),
        Progress::Settled(StepOutcome::Failed) | Progress::Waiting { .. } => is_forward && happened,
        Progress::Pending => is_forward && happened && step.lacks_values,
        Progress::Settled(StepOutcome::Unknown) => {
            is_forward && happened || saga.is_unknown_pivot(index)
        }
        Progress::BackingOff { .. } => is_forward && (happened || step.tainted),
        Progress::Settled(StepOutcome::Succeeded | StepOutcome::Skipped)
        | Progress::Running
        | Progress::FannedOut => false,
    }
}

/// Returns the step that is named, or the one that is meant: the only one that needs an operator,
/// or else the only one that fits.
fn single_target(
    saga: &Saga,
    step: Option<&StepName>,
    verb: &str,
    fits: impl Fn(usize) -> bool,
) -> Result<Vec<usize>, Refusal> {
    let fitting: Vec<_> = (0..saga.steps.len()).filter(|index| fits(*index)).collect();
    let list = |steps: &[usize]| {
        let names = steps.iter().map(|at| saga.name(*at).to_string());
        shortened(names.collect()).join(", ")
    };
    let done = match verb {
        "skip" => "skipped",
        "retry" => "retried",
        _ => "resolved",
    };
    // The operator may mean an undo. They have to say so, because the undo may have become due only
    // after they looked at the saga.
    let waiting: Vec<_> = match verb {
        "retry" => Vec::new(),
        _ => (0..saga.steps.len()).filter(|index| saga.undo_waits(*index)).collect(),
    };
    let remedy = if !fitting.is_empty() {
        format!("name one of {}", list(&fitting))
    } else if waiting.is_empty() {
        "ask why it does not move".to_owned()
    } else {
        format!(
            "the undo of {} has not begun: name the step and say that its undo is meant (--undo)",
            list(&waiting)
        )
    };
    let Some(step) = step else {
        let blocked: Vec<_> =
            fitting.iter().copied().filter(|index| saga.needs_operator(*index)).collect();
        return match (blocked.as_slice(), fitting.as_slice()) {
            ([only], _) | ([], [only]) => Ok(vec![*only]),
            (_, []) => refuse(format!("no step of the saga can be {done} now"), remedy),
            _ => refuse(format!("more than one step can be {done}"), remedy),
        };
    };
    let Some(index) = saga.index_of(step) else {
        let all: Vec<_> = (0..saga.steps.len()).collect();
        return refuse(
            format!("the saga has no step `{step}`"),
            format!("its steps are {}", list(&all)),
        );
    };
    if fits(index) {
        return Ok(vec![index]);
    }
    let status = saga.step_status(index);
    refuse(format!("{step} is {status}, so there is nothing to {verb}"), remedy)
}

impl Draft<'_> {
    /// Records an order.
    ///
    /// # Errors
    /// As [`permits`].
    pub(super) fn operate(&mut self, order: Order) -> Result<(), Refusal> {
        let targets = targets(self.saga, self.at, &order.verb)?;
        let Order { who, reason, verb } = order;
        let is_wanted = self.saga.phase == Phase::Forward && self.saga.wish.is_none();
        match verb {
            Verb::Cancel if is_wanted => self.emit(OperatorCancelled { who, reason }),
            Verb::Compensate | Verb::CompensateWithParent
                if is_wanted || self.saga.phase == Phase::Completed =>
            {
                self.emit(OperatorCompensated { who, reason });
            }
            Verb::Pause if self.saga.paused.is_none() => self.emit(OperatorPaused { who, reason }),
            Verb::Resume => self.emit(OperatorResumed { who, reason }),
            // The order is fulfilled already.
            Verb::Cancel | Verb::Compensate | Verb::CompensateWithParent | Verb::Pause => {}
            Verb::Abandon if self.saga.has_ended() => {}
            Verb::Abandon => self.emit(OperatorAbandoned { who, reason }),
            Verb::Note => self.emit(OperatorNoted { who, reason }),
            Verb::Retry { input, digest, .. } => {
                for index in targets {
                    let step = self.saga.name(index).clone();
                    let (who, reason, input) = (who.clone(), reason.clone(), input.clone());
                    let new_key = input.is_some() && !self.saga.may_have_acted(index);
                    self.emit(OperatorRetried { who, reason, step, input, new_key, digest });
                }
            }
            Verb::Skip { .. } => {
                for step in self.names(&targets) {
                    self.emit(OperatorSkipped { who: who.clone(), reason: reason.clone(), step });
                }
            }
            Verb::Resolve { happened, output, evidence, .. } => {
                for step in self.names(&targets) {
                    self.emit(OperatorResolved {
                        who: who.clone(),
                        reason: reason.clone(),
                        step,
                        happened,
                        output: output.clone(),
                        evidence: evidence.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the names of steps.
    fn names(&self, steps: &[usize]) -> Vec<StepName> {
        steps.iter().map(|index| self.saga.name(*index).clone()).collect()
    }
}
