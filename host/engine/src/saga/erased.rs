//! Calls that need a personal value whose key is gone.
//!
//! The log does not say whether the key is gone, so whoever folds the log says it. That a step lacks
//! values is a fact of the log: `saga.blocked` names it.

use serde_json::Value;

use super::progress::{Progress, UndoProgress};
use super::state::{Phase, Saga};
use crate::call::Direction;
use crate::definition::{StepInput, StepKind, Variable, has_text};
use crate::payload::Payload;
use crate::personal::ERASED;

impl Saga {
    /// Says that the key of the saga's personal values is gone, so they read as [`ERASED`]. From then on
    /// a call that needs one of them blocks the saga and does not begin.
    pub fn set_erased(&mut self) {
        self.is_erased = true;
    }

    /// Returns the direction of the call that a step makes next, now or later. For a step that makes no
    /// call, this is the direction in which it goes on.
    pub(crate) fn next_call(&self, index: usize) -> Option<Direction> {
        match (&self.phase, self.steps[index].progress) {
            (Phase::Forward, Progress::Pending) if self.is_ready(index) => Some(Direction::Execute),
            (Phase::Forward, Progress::BackingOff { .. }) => Some(Direction::Execute),
            (Phase::Compensating(_), Progress::Settled(_)) if self.is_undo_ready(index) => {
                Some(Direction::Compensate)
            }
            (Phase::Compensating(_), Progress::Undo(UndoProgress::BackingOff { .. })) => {
                Some(Direction::Compensate)
            }
            (
                Phase::Forward
                | Phase::Compensating(_)
                | Phase::Completed
                | Phase::Compensated(_)
                | Phase::Abandoned(_),
                _,
            ) => None,
        }
    }

    /// Returns true when a step needs an erased value to go on: for its condition, for its list, or for
    /// the arguments of its next call.
    pub(crate) fn next_call_needs_erased(&self, index: usize) -> bool {
        self.is_erased
            && self.next_call(index).is_some_and(|direction| {
                self.condition_needs_erased(index) || self.arguments_need_erased(index, direction)
            })
    }

    /// Returns true when the arguments of a step's call in this direction need an erased value. The
    /// saga that a step runs is found by its id, so its undo needs none.
    pub(crate) fn arguments_need_erased(&self, index: usize, direction: Direction) -> bool {
        let runs_saga = match self.spec(index).kind {
            StepKind::Call { .. } => false,
            StepKind::Saga { .. } => true,
            StepKind::Wait { .. } | StepKind::Sleep { .. } => return false,
        };
        let is_undo = direction == Direction::Compensate;
        if !self.is_erased || is_undo && runs_saga {
            return false;
        }
        let state = &self.steps[index];
        let output = state.output.as_ref().filter(|_| is_undo);
        output.is_some_and(has_erased)
            || state.input.as_ref().map_or_else(|| self.input_needs_erased(index), has_erased)
    }

    /// Returns true when the input of a step's calls is computed of an erased value.
    fn input_needs_erased(&self, index: usize) -> bool {
        let variables = self.variables(index).decided();
        let step = self.definition.step(self.step_of(index));
        match &step.input {
            StepInput::All => {
                let values =
                    [Variable::Input, Variable::Steps].map(|name| variables.value(name).ok());
                let item = variables.item().and_then(|item| item.value().ok());
                values.into_iter().chain([item]).flatten().any(|value| has_text(value, &[], ERASED))
            }
            StepInput::Whole(_) | StepInput::Fields(_) => {
                step.input.expressions().any(|input| input.reads_text(ERASED, &variables))
            }
        }
    }

    /// Returns true when it depends on an erased value whether a step is skipped, or which elements it
    /// gets.
    fn condition_needs_erased(&self, index: usize) -> bool {
        let state = &self.steps[index];
        if state.progress != Progress::Pending || self.element(index).is_some() {
            return false;
        }
        let variables = self.variables(index).decided();
        let step = self.definition.step(index);
        let list = step.each.iter().filter(|_| state.input.is_none());
        step.when.iter().chain(list).any(|expression| expression.reads_text(ERASED, &variables))
    }

    /// Says why a step does not go on, and what an operator can do, as a sentence for people without its
    /// full stop.
    pub(crate) fn lacks_values_because(&self, index: usize) -> String {
        let call = match self.next_call(index) {
            Some(Direction::Compensate) => format!("the undo of {}", self.name(index)),
            Some(Direction::Execute) | None => self.name(index).to_string(),
        };
        format!(
            "{call} does not begin, because it needs values of {} that were erased; resolve or skip it \
             by what is known from outside, retry it with another input, or abandon the saga",
            self.subject_in_words()
        )
    }

    /// Names the subject of the saga. A subject that was erased itself is named by its key, as the list
    /// of erasures has it.
    fn subject_in_words(&self) -> String {
        let subject = self.definition.subject(&self.started.input).ok().flatten();
        match (subject.filter(|text| !text.contains(ERASED)), &self.started.sealed_key) {
            (Some(subject), _) => format!("the subject `{subject}`"),
            (None, Some(key)) => format!("the subject with the key {}", key.subject_key),
            (None, None) => "its subject".to_owned(),
        }
    }
}

/// Returns true when a payload has an erased value in it.
fn has_erased(payload: &Payload) -> bool {
    let has_text_of = |value: Value| has_text(&value, &[], ERASED);
    payload.as_str().contains(ERASED) && payload.to_value().is_ok_and(has_text_of)
}
