//! Definitions: what a saga of a name does.

mod spec;

pub use spec::{
    BackoffSpec, DefinitionSpec, InputSpec, RetrySpec, StepSpec, TIMEOUT_DEFAULT, UndoSpec,
};
