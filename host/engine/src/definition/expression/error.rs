//! Why an expression has no value, in words.

use cel::ExecutionError;
use serde_json::Value;

use crate::definition::functions::has_safe_messages;
use crate::payload::PayloadError;

/// The reason why an expression has no value. The words are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressionError {
    /// The expression cannot be computed with this input.
    #[error("{0}")]
    Failed(String),
    /// The evaluation exceeds its limit of steps or bytes.
    #[error("{0}")]
    Limit(String),
}

impl ExpressionError {
    /// Returns the code of the failure: `otherwise`, unless a limit was exceeded.
    pub(crate) fn code(&self, otherwise: &'static str) -> &'static str {
        match self {
            Self::Failed(_) => otherwise,
            Self::Limit(_) => "expression_limit",
        }
    }
}

/// Makes the error for a recorded payload that has no value.
pub(super) fn unreadable(name: &str, error: &PayloadError) -> ExpressionError {
    ExpressionError::Failed(format!("what was recorded as `{name}` has no value: {error}"))
}

/// Says why the expression of this source has no value. It quotes no value that the expression was given: who
/// may read a failure may not read every payload, and a payload may be personal.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a reason that is new in the library may quote values"
)]
pub(super) fn reason(error: &ExecutionError, source: &str) -> String {
    match error {
        ExecutionError::UnsupportedTargetType { target } => {
            format!("{} is not accepted there", target.type_of())
        }
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("{} has no method `{method}`", target.type_of())
        }
        ExecutionError::UnsupportedKeyType(key) => {
            format!("{} cannot be a key of a map", key.type_of())
        }
        // A key that the source does not name was computed from values.
        ExecutionError::NoSuchKey(key) if !source.contains(key.as_str()) => {
            "there is no such key".to_owned()
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            let (left, right) = (left.type_of(), right.type_of());
            format!("`{operator}` is not defined for {left} and {right}")
        }
        ExecutionError::UnsupportedIndex(index, indexed) => {
            format!("{} cannot be indexed with {}", indexed.type_of(), index.type_of())
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(operator, _, _) => {
            format!("the result of `{operator}` is out of range")
        }
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has a key twice".to_owned(),
        ExecutionError::FunctionError { function, message } if has_safe_messages(function) => {
            format!("`{function}`: {message}")
        }
        ExecutionError::FunctionError { function, message: _ } => {
            format!("`{function}` does not accept this value")
        }
        ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::NoSuchKey(_)
        | ExecutionError::NoSuchOverload(_)
        | ExecutionError::UndeclaredReference(_)
        | ExecutionError::MissingArgumentOrTarget => error.to_string(),
        // Others may contain values.
        _ => "it cannot be computed".to_owned(),
    }
}

/// Names the type of a value in a reason.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
