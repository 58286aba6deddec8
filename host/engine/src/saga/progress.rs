//! How far a step is.

use crate::ids::Timestamp;
use crate::status::StepStatus;

/// How far a step or element is.
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
    /// Its effect stands.
    Succeeded,
    /// No effect stands.
    Failed,
    /// Its effect may stand.
    Unknown,
    /// It was skipped, by its `when` or by an operator.
    Skipped,
    /// `compensate` is in flight.
    Undoing,
    /// `compensate` failed and waits for its next attempt.
    UndoBackingOff { since: Timestamp, retry_at: Timestamp },
    /// Its effect is undone.
    Undone,
    /// `compensate` failed for good, and only an operator moves it.
    UndoBlocked,
    /// An operator let its effect stand.
    UndoSkipped,
}

impl Progress {
    /// Returns true when steps after it may begin.
    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped)
    }

    /// Returns when the time that it waits for was set, and that time.
    pub(crate) fn timer_mut(&mut self) -> Option<(&mut Timestamp, &mut Timestamp)> {
        match self {
            Self::BackingOff { since, retry_at } | Self::UndoBackingOff { since, retry_at } => {
                Some((since, retry_at))
            }
            Self::Waiting { since, until: Some(until) } => Some((since, until)),
            Self::Waiting { until: None, .. }
            | Self::Pending
            | Self::Running
            | Self::FannedOut
            | Self::Succeeded
            | Self::Failed
            | Self::Unknown
            | Self::Skipped
            | Self::Undoing
            | Self::Undone
            | Self::UndoBlocked
            | Self::UndoSkipped => None,
        }
    }

    /// Returns the status that readers see.
    pub(crate) fn status(self) -> StepStatus {
        match self {
            Self::Pending => StepStatus::Pending,
            Self::Waiting { .. } => StepStatus::Waiting,
            Self::Running | Self::FannedOut => StepStatus::Running,
            Self::BackingOff { .. } => StepStatus::BackingOff,
            Self::Succeeded => StepStatus::Succeeded,
            Self::Failed => StepStatus::Failed,
            Self::Unknown => StepStatus::Unknown,
            Self::Skipped => StepStatus::Skipped,
            Self::Undoing => StepStatus::Undoing,
            Self::UndoBackingOff { .. } => StepStatus::UndoBackingOff,
            Self::Undone => StepStatus::Undone,
            Self::UndoBlocked => StepStatus::UndoBlocked,
            Self::UndoSkipped => StepStatus::UndoSkipped,
        }
    }
}
