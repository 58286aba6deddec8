//! The saga machine.

mod call;
mod definition;
mod ids;
mod payload;
mod status;

pub use call::{Direction, Failure, FailureClass, Outcome, TIMEOUT_MAX, idempotency_key};
pub use definition::{
    BackoffSpec, DefinitionSpec, InputSpec, RetrySpec, StepSpec, TIMEOUT_DEFAULT, UndoSpec,
};
pub use ids::{
    DefinitionName, Digest, IdError, NAME_BYTES_MAX, PluginName, Position, SagaId, ServiceName,
    StepName, Timestamp, Version,
};
pub use payload::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload, PayloadError};
pub use status::{SagaStatus, StepStatus};

/// A call is attempted at most this often: past it an attempt counter says nothing to anybody.
pub const ATTEMPTS_MAX: u32 = 1_000;
