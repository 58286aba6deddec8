//! Why an event has not done what its rule says, and who can act.

use amends_store::StoreError;
use amends_subscriptions::NotTaken;

use crate::error::{OperateError, OwnerError, RuntimeError, StartError};
use crate::limits::{EVENT_DEPTH_MAX, EVENT_REPEATS_MAX};

/// Why an event has not done what its rule says.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// An expression of the rule has no value for this event, or one that does not belong there. The
    /// sender, or whoever wrote the rule.
    #[error("the rule's `{key}` fails on this event: {why}")]
    Expression {
        /// The key of the rule, such as `input.order_id`.
        key: String,
        /// Why, in words.
        why: String,
    },
    /// No saga was started with the key. The sender.
    #[error("no saga was started with the key `{0}`")]
    KeyUnknown(String),
    /// A chain of sagas, each started by an event of the one before, is too long, or its rules come again
    /// and again. Operator.
    #[error(
        "the saga of this event is the last of a chain that events of one another started, by the rules \
         {0}: with more than {EVENT_DEPTH_MAX} sagas, or {EVENT_REPEATS_MAX} rules that come again, a \
         chain is taken for a circle"
    )]
    TooDeep(String),
    /// The event was changed by a damage of the store. Operator.
    #[error("the event cannot be read: {0}")]
    Unreadable(String),
    /// The saga was not started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The signal was not taken.
    #[error(transparent)]
    Signal(#[from] OperateError),
    /// The host is stopping. The sender: later.
    #[error("the host is stopping")]
    Stopping,
}

impl EventError {
    /// Returns true when the same event may be taken later, without a change of the rule.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Expression { .. }
            | Self::TooDeep(_)
            | Self::Unreadable(_)
            | Self::KeyUnknown(_) => false,
            Self::Start(error) => match error {
                StartError::DefinitionUnknown(_)
                | StartError::KeyReused(_)
                | StartError::NoSubject { .. }
                | StartError::NeedsSubject { .. } => false,
                StartError::Overloaded(_)
                | StartError::TooOften { .. }
                | StartError::Keys(_)
                | StartError::Stopping
                | StartError::Store(_) => true,
                StartError::Owner(error) => is_for_now(error),
            },
            Self::Signal(error) => match error {
                OperateError::NotFound(_)
                | OperateError::Archived(_)
                | OperateError::Imported(_)
                | OperateError::Refused(_)
                | OperateError::Quarantined(_) => false,
                OperateError::Overloaded(_) => true,
                OperateError::Owner(error) => is_for_now(error),
                // What is said of one saga holds up no other.
                OperateError::Runtime(error) => match error {
                    RuntimeError::Store(_)
                    | RuntimeError::Keys(_)
                    | RuntimeError::Busy(_)
                    | RuntimeError::Stopping => true,
                    RuntimeError::NotAlone { .. }
                    | RuntimeError::PluginMissing { .. }
                    | RuntimeError::ExportMissing { .. }
                    | RuntimeError::DefinitionLost { .. }
                    | RuntimeError::Unreadable { .. }
                    | RuntimeError::Archive(_) => false,
                },
            },
            Self::Stopping => true,
        }
    }

    /// Returns true when the event waits for a saga that may be started later.
    pub(crate) fn is_early(&self) -> bool {
        match self {
            Self::KeyUnknown(_) | Self::Signal(OperateError::NotFound(_)) => true,
            Self::Signal(OperateError::Owner(OwnerError::Answered(problem))) => {
                problem.code == SAGA_UNKNOWN
            }
            Self::Expression { .. }
            | Self::TooDeep(_)
            | Self::Unreadable(_)
            | Self::Start(_)
            | Self::Signal(_)
            | Self::Stopping => false,
        }
    }

    /// What the stream of the event is told.
    pub(crate) fn not_taken(&self) -> NotTaken {
        let (is_passing, is_early) = (self.is_passing(), self.is_early());
        NotTaken { error: self.to_string(), is_passing, is_early }
    }
}

/// The code of the problem with which a host answers that there is no such saga.
const SAGA_UNKNOWN: &str = "saga_unknown";

/// Whether what another host says passes: it is full, stops, or is away. 500 says something of one saga.
fn is_for_now(error: &OwnerError) -> bool {
    match error {
        OwnerError::Nobody
        | OwnerError::Silent(_)
        | OwnerError::Refuses(_)
        | OwnerError::Full(_) => true,
        OwnerError::Answered(problem) => problem.status == 429 || problem.status > 500,
    }
}

impl From<StoreError> for EventError {
    fn from(error: StoreError) -> Self {
        Self::Start(error.into())
    }
}

/// Why an event of those that came together has not done what its rule says. Those before it, and those
/// after it, may have.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct EventsError {
    /// Which one, from 0.
    pub index: usize,
    /// Why.
    pub error: EventError,
}

#[cfg(test)]
mod tests {
    use amends_engine::{Digest, Refusal, SagaId};
    use amends_store::ArchiveError;

    use super::*;

    /// An error that says something of one saga is no reason to hold up the events of others.
    #[test]
    fn only_what_ends_by_itself_is_passing() {
        let saga = SagaId::from_bytes([1; 16]);
        let of_runtime = |error| EventError::Signal(OperateError::Runtime(error));
        let store = || StoreError::Closed;
        for error in [
            EventError::Stopping,
            EventError::Start(StartError::Overloaded("full")),
            EventError::Start(StartError::TooOften { wait: std::time::Duration::ZERO }),
            EventError::Start(StartError::Stopping),
            EventError::Start(StartError::Store(store())),
            EventError::Signal(OperateError::Overloaded("full")),
            of_runtime(RuntimeError::Store(store())),
            of_runtime(RuntimeError::Busy(saga)),
            of_runtime(RuntimeError::Stopping),
        ] {
            assert!(error.is_passing() && !error.is_early(), "{error}");
        }
        let early = [
            EventError::KeyUnknown("k".to_owned()),
            EventError::Signal(OperateError::NotFound(saga)),
        ];
        for error in early {
            assert!(!error.is_passing() && error.is_early(), "{error}");
        }
        let lost = RuntimeError::DefinitionLost { saga, digest: Digest::of(b"") };
        let unreadable = RuntimeError::Unreadable { saga, message: "torn".to_owned() };
        for error in [
            EventError::Expression { key: "key".to_owned(), why: "no".to_owned() },
            EventError::TooDeep("a/a/a".to_owned()),
            EventError::Unreadable("torn".to_owned()),
            EventError::Start(StartError::DefinitionUnknown("d".to_owned())),
            EventError::Start(StartError::KeyReused(saga)),
            EventError::Signal(OperateError::Archived(saga)),
            EventError::Signal(OperateError::Quarantined(Refusal {
                message: "no".to_owned(),
                remedy: String::new(),
            })),
            of_runtime(lost),
            of_runtime(unreadable),
            of_runtime(RuntimeError::Archive(ArchiveError::UnderWay)),
        ] {
            assert!(!error.is_passing() && !error.is_early(), "{error}");
        }
    }
}
