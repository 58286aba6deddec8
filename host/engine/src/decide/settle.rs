//! Everything that follows from the state and the time alone.

use std::sync::Arc;

use super::call::FailedAttempt;
use super::draft::Draft;
use crate::call::{Failure, FailureClass};
use crate::definition::{Definition, ELEMENTS_MAX, ExpressionError, Item, StepKind};
use crate::event::{
    Cause, CompensationStarted, SagaAbandoned, SagaBlocked, SagaCompensated, SagaCompleted,
    SagaDue, SagaRetimed, StepExpanded, StepFailed, StepSkipped, StepSucceeded, StepWaiting,
};
use crate::log_limits::LogSize;
use crate::payload::{PAYLOAD_BYTES_MAX, Payload};
use crate::saga::{Phase, Progress, StepOutcome, StepState, UndoProgress};

impl Draft<'_> {
    /// Moves times that were set while the clock was ahead, so that they do not delay the saga.
    pub(super) fn correct_times(&mut self) {
        if !self.saga.has_ended()
            && let Some(ahead) = self.saga.clock_was_ahead(self.at)
        {
            let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
            self.emit(SagaRetimed { ahead_ms });
        }
    }

    /// Adds every fact that follows from the state, until no more follow.
    pub(super) fn settle(&mut self) {
        loop {
            let before = self.events.len();
            if let Some(held) = self.saga.given_up.clone()
                && !self.saga.has_ended()
            {
                let reason = format!("abandoned by {}: {}", held.who, held.reason);
                self.emit(SagaAbandoned { reason });
                return;
            }
            match self.saga.phase {
                Phase::Forward => self.settle_forward(),
                Phase::Compensating(_) => self.settle_compensating(),
                Phase::Completed | Phase::Compensated(_) | Phase::Abandoned(_) => return,
            }
            self.settle_log();
            if self.events.len() == before {
                return;
            }
        }
    }

    /// Blocks a saga whose log is full.
    fn settle_log(&mut self) {
        let is_held = self.saga.has_ended() || self.saga.blocked.is_some();
        if is_held || !self.saga.is_log_full() {
            return;
        }
        let (LogSize { events, bytes }, more) =
            (self.saga.log, self.saga.definition.log_limits().more);
        let (mib, more_mib) = (bytes >> 20, more.bytes >> 20);
        let reason = format!(
            "its log is full: it has {events} events and {mib} MiB of data; `amends resume` allows \
             {} events and {more_mib} MiB more",
            more.events
        );
        self.emit(SagaBlocked { step: None, reason });
    }

    /// Adds what follows for a saga that goes forward.
    fn settle_forward(&mut self) {
        if let Some(cause) = self.cause() {
            self.emit(cause);
            return;
        }
        if self.saga.start_at().is_some_and(|start_at| start_at <= self.at) {
            self.emit(SagaDue {});
        }
        for index in 0..self.saga.definition.steps().len() {
            let may_settle = matches!(
                self.saga.steps[index].progress,
                Progress::Pending | Progress::FannedOut | Progress::Waiting { .. }
            );
            if !may_settle {
                continue;
            }
            if self.saga.is_ready(index) && !self.settle_erased(index, true) {
                self.settle_ready(index);
            }
            if self.saga.steps[index].progress == Progress::FannedOut {
                self.settle_fanned_out(index);
            }
            if let Progress::Waiting { until, .. } = self.saga.steps[index].progress {
                self.settle_waiting(index, until.is_some_and(|until| until <= self.at));
            }
        }
        self.settle_all_erased();
        if self.saga.blocked.is_none()
            && self.saga.is_past_pivot()
            && let Some(index) = self.failed_step()
        {
            let step = self.saga.name(index).clone();
            let what = self.describe(index);
            let reason = format!("{step} {what}. It is after the pivot, so nothing is undone");
            self.emit(SagaBlocked { step: Some(step), reason });
        }
        if self.saga.steps.iter().all(|step| step.progress.is_done()) {
            self.emit(SagaCompleted {});
        }
    }

    /// Blocks the saga at each step whose next call needs an erased value.
    fn settle_all_erased(&mut self) {
        if !self.saga.is_erased && !self.saga.steps.iter().any(|step| step.lacks_values) {
            return;
        }
        for index in 0..self.saga.definition.steps().len() {
            self.settle_erased(index, true);
        }
        for number in 0..self.saga.fan_outs.len() {
            let fan_out = &self.saga.fan_outs[number];
            let (elements, until) = (fan_out.range(), self.saga.may_begin_until(fan_out));
            for index in elements {
                self.settle_erased(index, index < until);
            }
        }
    }

    /// Blocks the saga at a step whose next call needs an erased value. Returns true when it needs one.
    /// `may_begin` is false for elements that wait for others before their first attempt.
    fn settle_erased(&mut self, index: usize, may_begin: bool) -> bool {
        let step = &self.saga.steps[index];
        let is_known = step.lacks_values;
        let waits = matches!(step.progress, Progress::Pending | Progress::Settled(_));
        if !is_known && (waits && !may_begin || !self.saga.next_call_needs_erased(index)) {
            return false;
        }
        // It is said again when an operator has moved another step.
        if !is_known || self.saga.blocked.is_none() {
            let step = self.saga.name(index).clone();
            let reason = self.saga.lacks_values_because(index);
            self.emit(SagaBlocked { step: Some(step), reason });
        }
        true
    }

    /// Handles a step that is ready. Skips it when its `when` is false, fails it when an expression
    /// cannot be computed, and begins its wait or its list.
    fn settle_ready(&mut self, index: usize) {
        let definition = Arc::clone(&self.saga.definition);
        if self.settle_expressions(index, &definition) {
            return;
        }
        let spec = &definition.steps()[index];
        if spec.each.is_some() {
            self.expand(index);
            return;
        }
        let (signal, until) = match &spec.kind {
            StepKind::Call { .. } | StepKind::Saga { .. } => return,
            StepKind::Wait { wait } => {
                (Some(wait.signal.clone()), wait.timeout.map(|timeout| self.at.after(timeout)))
            }
            StepKind::Sleep { sleep } => (None, Some(self.at.after(*sleep))),
        };
        self.emit(StepWaiting { step: spec.name.clone(), signal, until });
    }

    /// Ends the wait of a step whose signal arrived, and fails one whose signal did not arrive in
    /// time.
    fn settle_waiting(&mut self, index: usize, is_over: bool) {
        let definition = Arc::clone(&self.saga.definition);
        let spec = &definition.steps()[index];
        let (step, attempt) = (spec.name.clone(), self.saga.steps[index].attempts);
        let taken = match &spec.kind {
            StepKind::Wait { wait } => {
                self.saga.signal_mut(&wait.signal).and_then(|signal| signal.payload.clone())
            }
            StepKind::Sleep { .. } => is_over.then(Payload::null),
            StepKind::Call { .. } | StepKind::Saga { .. } => None,
        };
        if let Some(output) = taken {
            self.emit(StepSucceeded { step, attempt, output, probe: None });
        } else if is_over {
            let error = Failure::new("signal_timeout", "the signal did not come in time");
            let class = FailureClass::Permanent;
            self.emit(StepFailed { step, attempt, class, error, retry_at: None, probe: None });
        }
    }

    /// Gives a step over a list its elements. Everything that is computed of them is computed
    /// before any of them is called.
    fn expand(&mut self, index: usize) {
        match self.items(index) {
            Ok(items) => {
                let step = self.saga.name(index).clone();
                self.emit(StepExpanded { step, items });
            }
            Err(error) => self.fail_uncalled(index, error),
        }
    }

    /// Returns the elements of a step over a list, once the input of each could be computed.
    fn items(&self, index: usize) -> Result<Vec<Payload>, Failure> {
        let failed = |message| Failure::new("each_failed", message);
        let mut variables = self.saga.variables(index);
        let items = crate::commands::list(self.saga, index, &variables)
            .map_err(|error| Failure::new(error.code("each_failed"), format!("each: {error}")))?;
        let before = self.saga.steps.len() - self.saga.definition.steps().len();
        if before + items.len() > ELEMENTS_MAX {
            let more = if before == 0 { String::new() } else { format!(" after {before}") };
            return Err(failed(format!(
                "each: {} elements{more}, at most {ELEMENTS_MAX} are allowed in one saga",
                items.len()
            )));
        }
        let step = self.saga.definition.step(index);
        let (mut payloads, mut bytes) = (Vec::with_capacity(items.len()), 0);
        for (number, item) in items.into_iter().enumerate() {
            let payload = Payload::from_value(&item)
                .map_err(|error| failed(format!("each: element {number}: {error}")))?;
            bytes += payload.as_str().len();
            payloads.push(payload);
            variables.set_item(Item::new(Ok(item), number));
            let input = step.input(&variables).and_then(|input| {
                Payload::from_value(&input)
                    .map_err(|error| ExpressionError::Failed(error.to_string()))
            });
            if let Err(error) = input {
                let message = format!("input of element {number}: {error}");
                return Err(Failure::new(error.code("input_failed"), message));
            }
        }
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(failed(format!(
                "each: {bytes} bytes of elements, at most {PAYLOAD_BYTES_MAX} are allowed"
            )));
        }
        Ok(payloads)
    }

    /// Ends a step over a list when all its elements are done. Its output is the list of their
    /// outputs.
    fn settle_fanned_out(&mut self, index: usize) {
        let Some(fan_out) = self.saga.fan_out(index) else { return };
        let states = &self.saga.steps[fan_out.range()];
        if !states.iter().all(|state| state.progress.is_done()) {
            return;
        }
        let output = |state: &StepState| state.output.clone().unwrap_or_else(Payload::null);
        match Payload::list(states.iter().map(output)) {
            Ok(output) => {
                let (step, attempt) = (self.saga.name(index).clone(), 0);
                self.emit(StepSucceeded { step, attempt, output, probe: None });
            }
            Err(error) => {
                let message = format!("the outputs of its elements together: {error}");
                self.fail_uncalled(index, Failure::new("output_too_large", message));
            }
        }
    }

    /// Skips or fails a step by its expressions alone. Returns true when it did.
    fn settle_expressions(&mut self, index: usize, definition: &Definition) -> bool {
        let (spec, step) = (&definition.steps()[index], definition.step(index));
        let has_plain_input = || {
            spec.input.is_none() && self.saga.fits_default_input(index)
                || self.saga.input_passed_through(index).is_some()
        };
        if spec.when.is_none() && (spec.each.is_some() || has_plain_input()) {
            return false;
        }
        let (wanted, input) = {
            let variables = self.saga.variables(index);
            let wanted = step.when.as_ref().map_or(Ok(true), |when| when.evaluate_bool(&variables));
            // The inputs of elements are computed once the step has its elements.
            let is_computed = wanted == Ok(true) && spec.each.is_none();
            let input = || crate::commands::input_with(self.saga, index, &variables);
            (wanted, if is_computed { input().map(drop) } else { Ok(()) })
        };
        let (code, message) = match wanted {
            Ok(false) => {
                let reason = format!("when: {}", spec.when.as_deref().unwrap_or_default());
                self.emit(StepSkipped { step: spec.name.clone(), reason });
                return true;
            }
            Ok(true) => match input {
                Ok(()) => return false,
                Err(error) => (error.code("input_failed"), format!("input: {error}")),
            },
            Err(error) => (error.code("when_failed"), format!("when: {error}")),
        };
        self.fail_uncalled(index, Failure::new(code, message));
        true
    }

    /// Fails a step for a reason that comes from no call.
    fn fail_uncalled(&mut self, index: usize, error: Failure) {
        let (step, attempt) = (self.saga.name(index).clone(), self.saga.steps[index].attempts);
        let class = FailureClass::Permanent;
        self.emit(StepFailed { step, attempt, class, error, retry_at: None, probe: None });
    }

    /// Returns the cause and reason to compensate the saga now, if there is one.
    fn cause(&self) -> Option<CompensationStarted> {
        if self.saga.is_past_pivot() || self.saga.is_at_pivot() {
            return None;
        }
        if let Some(index) = self.failed_step() {
            let step = self.saga.name(index).clone();
            let is_unknown =
                self.saga.steps[index].progress == Progress::Settled(StepOutcome::Unknown);
            let cause = if is_unknown { Cause::StepUnknown } else { Cause::StepFailed };
            let reason = format!("{step} {}", self.describe(index));
            return Some(CompensationStarted { cause, step: Some(step), reason });
        }
        if let Some(wish) = &self.saga.wish {
            let verb = if wish.cause == Cause::Compensated { "compensated" } else { "cancelled" };
            let reason = format!("{verb} by {}: {}", wish.who, wish.reason);
            return Some(CompensationStarted { cause: wish.cause, step: None, reason });
        }
        let deadline = self.saga.deadline_in_force().filter(|deadline| *deadline <= self.at)?;
        let reason = format!("the deadline {deadline} passed");
        Some(CompensationStarted { cause: Cause::Deadline, step: None, reason })
    }

    /// Returns the first step that failed or is unknown.
    fn failed_step(&self) -> Option<usize> {
        self.saga.steps.iter().position(|step| {
            let progress = step.progress;
            matches!(progress, Progress::Settled(StepOutcome::Failed | StepOutcome::Unknown))
        })
    }

    /// Says how a step failed: `failed: out_of_stock: …` or `is unknown: timeout: …`.
    fn describe(&self, index: usize) -> String {
        let step = &self.saga.steps[index];
        let is_unknown = step.progress == Progress::Settled(StepOutcome::Unknown);
        let what = if is_unknown { "is unknown" } else { "failed" };
        let error = step.error.as_deref();
        error.map_or_else(
            || what.to_owned(),
            |error| format!("{what}: {}: {}", error.code, error.message),
        )
    }

    /// Adds what follows for a saga that is compensated.
    fn settle_compensating(&mut self) {
        for index in 0..self.saga.steps.len() {
            let state = &self.saga.steps[index];
            let waits =
                matches!(state.progress, Progress::BackingOff { .. } | Progress::Waiting { .. });
            if waits {
                let error = state.error.as_deref().cloned();
                let error =
                    error.unwrap_or_else(|| Failure::new("stopped", "the saga began to be undone"));
                let (attempt, class) = (state.attempts, FailureClass::Retryable);
                let step = self.saga.name(index).clone();
                self.fail(index, step, FailedAttempt { attempt, class, error, probe: None }, None);
            }
        }
        self.settle_all_erased();
        if self.saga.blocked.is_none()
            && let Some(index) = (0..self.saga.steps.len()).find(|index| self.is_stuck(*index))
        {
            let step = self.saga.name(index).clone();
            let error = self.saga.steps[index].error.as_deref();
            let error = error
                .map_or_else(String::new, |error| format!(": {}: {}", error.code, error.message));
            let reason = if self.saga.is_unknown_pivot(index) {
                format!("the pivot {step} may have happened and nothing undoes it{error}")
            } else {
                format!("the undo of {step} failed{error}")
            };
            self.emit(SagaBlocked { step: Some(step), reason });
        }
        if (0..self.saga.steps.len()).all(|index| self.saga.is_clear(index)) {
            self.end_compensating();
        }
    }

    /// Ends a compensation. The saga counts as compensated only when no undo was skipped.
    fn end_compensating(&mut self) {
        let skipped = |step: &StepState| step.progress == Progress::Undo(UndoProgress::Skipped);
        let Some(index) = self.saga.steps.iter().position(skipped) else {
            self.emit(SagaCompensated {});
            return;
        };
        let name = self.saga.name(index);
        let reason = format!("the undo of {name} was skipped, so its effect stands");
        self.emit(SagaAbandoned { reason });
    }

    /// Returns true when nothing but an operator moves a step of a saga that is compensated.
    fn is_stuck(&self, index: usize) -> bool {
        self.saga.steps[index].progress == Progress::Undo(UndoProgress::Blocked)
            || self.saga.is_unknown_pivot(index)
    }
}
