//! The saga that a path names.

use amends_runtime::SagaState;

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::ids::parse_id;

/// The problem of an id that no saga has.
pub(crate) fn unknown(id: &str) -> ApiError {
    ApiError::new(404, "saga_unknown", format!("there is no saga {id}"))
        .with_remedy("GET /v1/sagas lists the sagas of this host")
}

/// Reads a saga by its id, as callers write it.
///
/// # Errors
/// 400 when the text is not an id, 404 when there is no such saga; else what keeps the saga from being read.
pub(crate) async fn find(state: &ApiState, id: &str) -> Result<SagaState, ApiError> {
    let id = parse_id(id)?;
    state.host.state(id).await?.ok_or_else(|| unknown(&id.to_string()))
}
