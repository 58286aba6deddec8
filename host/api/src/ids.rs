//! Ids and names in paths and forms.

use amends_engine::{IdError, PluginName, SagaId};

use crate::error::ApiError;

/// Reads the id of a saga.
///
/// # Errors
/// 400 when the text is not an id.
pub(crate) fn parse_id(text: &str) -> Result<SagaId, ApiError> {
    text.parse().map_err(|error: IdError| ApiError::new(400, "bad_id", error.to_string()))
}

/// Reads the name of a plugin.
///
/// # Errors
/// 400 when the text is not a name.
pub(crate) fn parse_name(text: &str) -> Result<PluginName, ApiError> {
    text.parse().map_err(|error: IdError| ApiError::new(400, "bad_name", error.to_string()))
}
