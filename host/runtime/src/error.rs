//! What can go wrong, and who can act.

use std::time::Duration;

use amends_api_types::Problem;
use amends_engine::{DefinitionName, Digest, PersonalPath, PluginName, Refusal, SagaId, StepName};
use amends_keys::KeyError;
use amends_peers::{OWNER_WAIT_MAX, PeerError};
use amends_store::{ArchiveError, StoreError};

/// Why the runtime cannot start or answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The store failed. Operator.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A definition needs a plugin that is not there. Operator.
    #[error(
        "definition {definition}, step {step}: plugin `{plugin}` has no component that can \
         serve{}; put {plugin}.wasm into {folder}",
        .refused.as_deref().map(|reason| format!(" (its file is refused: {reason})")).unwrap_or_default()
    )]
    PluginMissing {
        /// The definition.
        definition: DefinitionName,
        /// Its step.
        step: StepName,
        /// The plugin that it names.
        plugin: PluginName,
        /// Why the file that is there is refused, if there is one.
        refused: Option<String>,
        /// The folder that was looked into.
        folder: String,
    },
    /// A plugin does not do what a definition wants of it. Operator.
    #[error(
        "definition {definition}, step {step}: plugin `{plugin}` does not export `{export}`; {remedy}"
    )]
    ExportMissing {
        /// The definition.
        definition: DefinitionName,
        /// Its step.
        step: StepName,
        /// The plugin that it names.
        plugin: PluginName,
        /// What it should export.
        export: &'static str,
        /// What would be right.
        remedy: &'static str,
    },
    /// The definition that a saga is pinned to is in neither the config nor the store. Operator.
    #[error("saga {saga} is pinned to definition {digest}, which is not in the store")]
    DefinitionLost {
        /// The saga.
        saga: SagaId,
        /// The definition's digest.
        digest: Digest,
    },
    /// A saga's log cannot be read. Operator.
    #[error("saga {saga} cannot be read: {message}")]
    Unreadable {
        /// The saga.
        saga: SagaId,
        /// Why not.
        message: String,
    },
    /// The saga was changed by others each time that it was asked. Caller: try again.
    #[error("saga {0} was changed by others each time that it was loaded for this")]
    Busy(SagaId),
    /// The saga is archived and cannot be read. Operator.
    #[error(transparent)]
    Archive(ArchiveError),
    /// The store has personal values, whose keys are in a file of one host, and other hosts use the store.
    /// Operator.
    #[error(
        "the store has personal values, whose keys are in a file of one host, and other hosts use the store: \
         {others}; run one host on it, or keep the sagas with a `subject` in a store of their own"
    )]
    NotAlone {
        /// The names of the others.
        others: String,
    },
    /// The key file cannot be used. Operator.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The host is stopping. Caller: try again, elsewhere or later.
    #[error("the host is stopping")]
    Stopping,
}

impl RuntimeError {
    /// Returns true when another host runs the saga.
    #[must_use]
    pub const fn is_not_here(&self) -> bool {
        matches!(self, Self::Store(StoreError::LostOwnership(_)))
    }
}

impl From<ArchiveError> for RuntimeError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Store(error) => Self::Store(error),
            error @ (ArchiveError::UnderWay
            | ArchiveError::NoArchive
            | ArchiveError::Imported(_)
            | ArchiveError::Deleted { .. }
            | ArchiveError::NoFolder { .. }
            | ArchiveError::File { .. }
            | ArchiveError::Unreachable { .. }
            | ArchiveError::Damaged { .. }) => Self::Archive(error),
        }
    }
}

/// Why sagas are not moved to the archive, or back.
#[derive(Debug, thiserror::Error)]
pub enum ArchivePassError {
    /// The config has no retention, so nothing is moved. Operator.
    #[error("the config has no retention, so every saga stays in the store")]
    NoRetention,
    /// The host is stopping. The next start goes on.
    #[error("the host is stopping")]
    Stopping,
    /// The archive or the store failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl From<ArchiveError> for ArchivePassError {
    fn from(error: ArchiveError) -> Self {
        Self::Runtime(error.into())
    }
}

impl From<StoreError> for ArchivePassError {
    fn from(error: StoreError) -> Self {
        Self::Runtime(error.into())
    }
}

/// Why an order about a circuit breaker is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum BreakerError {
    /// The store takes no writes, so nothing was done. Operator.
    #[error("{0}; nothing was done to the breaker")]
    NotDone(StoreError),
    /// It was done on this host, and could not be written at once. It is written when the store takes
    /// writes again, and lost when the host ends before that. Operator.
    #[error(
        "{0}; the order is in force on this host, and is lost if the host ends before it can be written"
    )]
    NotWritten(StoreError),
}

/// What keeps the host that owns a saga from doing something for this host.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OwnerError {
    /// No host has taken the saga over within the time that a request waits. Caller: later.
    #[error("no host has taken over the saga within {} s", OWNER_WAIT_MAX.as_secs())]
    Nobody,
    /// It has not answered, and may have done what was asked. Caller: look, or ask again.
    #[error("the host that owns the saga has not answered, and may have done what was asked: {0}")]
    Silent(String),
    /// It does not trust this host. Operator.
    #[error("{0}")]
    Refuses(String),
    /// Too much waits for it. Caller: later.
    #[error("{0}")]
    Full(String),
    /// It has answered this. Whoever its status names.
    #[error("{}", .0.detail)]
    Answered(Box<Problem>),
}

impl From<PeerError> for OwnerError {
    fn from(error: PeerError) -> Self {
        let said = error.to_string();
        match error {
            PeerError::NotOwner(_) | PeerError::Unreachable(_) | PeerError::NotTheHost(_) => {
                Self::Nobody
            }
            PeerError::Silent(_) => Self::Silent(said),
            PeerError::Refused(_) => Self::Refuses(said),
            PeerError::Full(_) => Self::Full(said),
        }
    }
}

/// Why a saga was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No definition of that name. Caller.
    #[error("there is no definition `{0}`")]
    DefinitionUnknown(String),
    /// The key was used with another definition or input. Caller.
    #[error("the idempotency key was used for saga {0} with another payload")]
    KeyReused(SagaId),
    /// The input lacks the subject whose personal values it has. Caller.
    #[error("the input for `{definition}` has no subject: {message}")]
    NoSubject {
        /// The name of the definition.
        definition: String,
        /// What is wrong.
        message: String,
    },
    /// A component marks a value as personal, and the definition names no subject. Operator.
    #[error(
        "a component of `{definition}` marks `{place}` as personal, and the definition has no subject"
    )]
    NeedsSubject {
        /// The name of the definition.
        definition: String,
        /// The place of the value.
        place: PersonalPath,
    },
    /// The key file cannot be used. Operator.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A limit is reached. Caller: later.
    #[error("the host is full: {0}; try again in a second")]
    Overloaded(&'static str),
    /// More sagas are started than the namespace may start. Caller: later.
    #[error("more sagas are started than `starts` of the namespace allows")]
    TooOften {
        /// How long the start should have waited.
        wait: Duration,
    },
    /// The host is stopping. Caller: elsewhere or later.
    #[error("the host is stopping and takes no new sagas")]
    Stopping,
    /// The host that owns the saga refuses, or has not answered.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The store failed. The saga was not started, unless the store's writer ended unexpectedly: then the
    /// same key finds out. Operator.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operator's order, or a signal, was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// There is no such saga. The caller can act.
    #[error("there is no saga {0}")]
    NotFound(SagaId),
    /// The saga has left the store for the archive, so nothing is done to it. The caller can act.
    #[error("saga {0} is archived: it has ended and left the store, so nothing is done to it")]
    Archived(SagaId),
    /// The saga ran on another host, so nothing is done to it. The caller can act.
    #[error("saga {0} was imported: it ran on another host, and its undos belong there")]
    Imported(SagaId),
    /// Not in this state. Caller.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing touches it until an operator takes it up again. Operator.
    #[error(transparent)]
    Quarantined(Refusal),
    /// A limit is reached. Caller: later.
    #[error("there is no room: {0}")]
    Overloaded(&'static str),
    /// The host that owns the saga refuses, or has not answered.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// Another error of the host.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
