//! Ids and names in paths and forms.

use amends_engine::{IdError, PluginName, SagaId};

use crate::problem::Problem;

/// Reads the id of a saga.
///
/// # Errors
/// 400 when the text is not an id.
pub(crate) fn parse_id(text: &str) -> Result<SagaId, Problem> {
    text.parse().map_err(|error: IdError| Problem::new(400, "bad_id", error.to_string()))
}

/// Reads the name of a plugin.
///
/// # Errors
/// 400 when the text is not a name.
pub(crate) fn parse_name(text: &str) -> Result<PluginName, Problem> {
    text.parse().map_err(|error: IdError| Problem::new(400, "bad_name", error.to_string()))
}
