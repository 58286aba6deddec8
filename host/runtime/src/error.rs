//! What can go wrong, and who can act.

use amends_engine::{DefinitionName, Digest, PluginName, Refusal, SagaId, StepName};
use amends_store::StoreError;

/// Why the runtime cannot start or answer.
#[derive(Debug, thiserror::Error)]
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
    /// The saga was changed by others each time that it was loaded. Caller: try again.
    #[error("saga {0} was changed by others each time that it was loaded for this")]
    Busy(SagaId),
    /// The host is stopping. Caller: try again, elsewhere or later.
    #[error("the host is stopping")]
    Stopping,
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

/// Why a saga was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No definition of that name. Caller.
    #[error("there is no definition `{0}`")]
    DefinitionUnknown(String),
    /// The key was used with another definition or input. Caller.
    #[error("the idempotency key was used for saga {0} with another payload")]
    KeyReused(SagaId),
    /// A limit is reached. Caller: later.
    #[error("the host is full: {0}; try again in a second")]
    Overloaded(&'static str),
    /// The host is stopping. Caller: elsewhere or later.
    #[error("the host is stopping and takes no new sagas")]
    Stopping,
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
    /// Not in this state. Caller.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing touches it until an operator takes it up again. Operator.
    #[error(transparent)]
    Quarantined(Refusal),
    /// A limit is reached. Caller: later.
    #[error("there is no room: {0}")]
    Overloaded(&'static str),
    /// Another error of the host.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
