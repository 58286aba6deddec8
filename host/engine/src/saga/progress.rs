//! How far a step is.

use crate::ids::Timestamp;
use crate::status::StepStatus;

/// How far a step or element is.
///
/// A decision matches on these classes. Where it depends on what is within a class, it names all of
/// that too, so that a new variant does not compile until the decision has been made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has not begun.
    Pending,
    /// It waits for a signal or a time.
    Waiting { since: Timestamp, until: Option<Timestamp> },
    /// `execute` is in flight.
    Running,
    /// It runs over a list. Its elements say how far it is, also when it is compensated.
    FannedOut,
    /// `execute` failed and waits for its next attempt.
    BackingOff { since: Timestamp, retry_at: Timestamp },
    /// It is over, and its undo has not begun.
    Settled(StepOutcome),
    /// Its undo has begun.
    Undo(UndoProgress),
}

/// How a step or element ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    /// Its effect stands.
    Succeeded,
    /// No effect stands.
    Failed,
    /// Its effect may stand.
    Unknown,
    /// It was skipped, by its `when` or by an operator.
    Skipped,
}

/// How far the undo of a step or element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UndoProgress {
    /// `compensate` is in flight.
    Running,
    /// `compensate` failed and waits for its next attempt.
    BackingOff { since: Timestamp, retry_at: Timestamp },
    /// `compensate` failed for good, and only an operator moves it.
    Blocked,
    /// The effect is undone.
    Undone,
    /// An operator let the effect stand.
    Skipped,
}

impl Progress {
    /// Returns true when steps after it may begin.
    pub(crate) fn is_done(self) -> bool {
        self.outcome().is_some_and(|outcome| match outcome {
            StepOutcome::Succeeded | StepOutcome::Skipped => true,
            StepOutcome::Failed | StepOutcome::Unknown => false,
        })
    }

    /// Returns true when its effect stands or may stand, and its undo has not begun.
    pub(crate) fn may_stand(self) -> bool {
        self.outcome().is_some_and(|outcome| match outcome {
            StepOutcome::Succeeded | StepOutcome::Unknown => true,
            StepOutcome::Failed | StepOutcome::Skipped => false,
        })
    }

    /// Returns how it ended. None when it has not, or when its undo has begun.
    fn outcome(self) -> Option<StepOutcome> {
        match self {
            Self::Settled(outcome) => Some(outcome),
            Self::Pending
            | Self::Waiting { .. }
            | Self::Running
            | Self::FannedOut
            | Self::BackingOff { .. }
            | Self::Undo(_) => None,
        }
    }

    /// Returns true when its undo has failed: it waits for its next attempt or for an operator.
    pub(crate) fn undo_has_failed(self) -> bool {
        match self {
            Self::Undo(UndoProgress::BackingOff { .. } | UndoProgress::Blocked) => true,
            Self::Undo(UndoProgress::Running | UndoProgress::Undone | UndoProgress::Skipped)
            | Self::Pending
            | Self::Waiting { .. }
            | Self::Running
            | Self::FannedOut
            | Self::BackingOff { .. }
            | Self::Settled(_) => false,
        }
    }

    /// Returns when the time that it waits for was set, and that time.
    pub(crate) fn timer_mut(&mut self) -> Option<(&mut Timestamp, &mut Timestamp)> {
        match self {
            Self::BackingOff { since, retry_at }
            | Self::Undo(UndoProgress::BackingOff { since, retry_at }) => Some((since, retry_at)),
            Self::Waiting { since, until } => until.as_mut().map(|until| (since, until)),
            Self::Pending
            | Self::Running
            | Self::FannedOut
            | Self::Settled(_)
            | Self::Undo(
                UndoProgress::Running
                | UndoProgress::Blocked
                | UndoProgress::Undone
                | UndoProgress::Skipped,
            ) => None,
        }
    }

    /// Returns the status that readers see.
    pub(crate) fn status(self) -> StepStatus {
        match self {
            Self::Pending => StepStatus::Pending,
            Self::Waiting { .. } => StepStatus::Waiting,
            Self::Running | Self::FannedOut => StepStatus::Running,
            Self::BackingOff { .. } => StepStatus::BackingOff,
            Self::Settled(StepOutcome::Succeeded) => StepStatus::Succeeded,
            Self::Settled(StepOutcome::Failed) => StepStatus::Failed,
            Self::Settled(StepOutcome::Unknown) => StepStatus::Unknown,
            Self::Settled(StepOutcome::Skipped) => StepStatus::Skipped,
            Self::Undo(UndoProgress::Running) => StepStatus::Undoing,
            Self::Undo(UndoProgress::BackingOff { .. }) => StepStatus::UndoBackingOff,
            Self::Undo(UndoProgress::Blocked) => StepStatus::UndoBlocked,
            Self::Undo(UndoProgress::Undone) => StepStatus::Undone,
            Self::Undo(UndoProgress::Skipped) => StepStatus::UndoSkipped,
        }
    }
}
