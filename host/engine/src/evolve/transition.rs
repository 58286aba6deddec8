//! Changes of a step's state that several facts share.

use crate::call::{FailureClass, Fate};
use crate::ids::Timestamp;
use crate::payload::Payload;
use crate::saga::{Progress, StepOutcome, StepState, UndoProgress};

impl StepState {
    /// Ends an attempt: the step waits for the next one, or is over with `outcome`.
    pub(super) fn rest(
        &mut self,
        retry_at: Option<Timestamp>,
        outcome: StepOutcome,
        at: Timestamp,
    ) {
        self.progress = match retry_at {
            Some(retry_at) => Progress::BackingOff { since: at, retry_at },
            None => Progress::Settled(outcome),
        };
        self.ended_at = Some(at);
    }

    /// Records a failed attempt of `compensate`. After an unknown one, the effect may no longer
    /// stand. When the component says that the undo did not happen, that is about every attempt so
    /// far.
    pub(super) fn undo_failed(&mut self, class: FailureClass, probe: Option<Fate>) {
        if class == FailureClass::Unknown {
            self.undo_tainted = true;
            self.undo_attempts_unknown = self.undo_attempts_unknown.saturating_add(1);
        } else if probe == Some(Fate::DidNotHappen) {
            self.undo_tainted = false;
        }
    }

    /// Marks the step as succeeded. `output` is none when it is unknown.
    pub(super) fn succeed(&mut self, output: Option<Payload>, at: Timestamp) {
        self.progress = Progress::Settled(StepOutcome::Succeeded);
        self.output = output;
        self.error = None;
        self.ended_at = Some(at);
    }

    /// Marks the step as undone.
    pub(super) fn undone(&mut self, at: Timestamp) {
        self.progress = Progress::Undo(UndoProgress::Undone);
        self.ended_at = Some(at);
    }
}
