//! Signals to sagas.

use axum::extract::State;
use axum::http::StatusCode;

use amends_api_types::{SignalBody, SignalTaken};
use amends_engine::{IdError, SignalName};
use amends_runtime::EVENT_KEY_PREFIX;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_id;
use crate::legible::legible;

/// Sends a signal to a saga. The saga keeps a signal that comes before a step waits for it.
#[utoipa::path(post, path = "/v1/sagas/{id}/signals/{name}", operation_id = "send_signal", tag = "sagas",
    security(("token" = ["start"])),
    params(
        ("id" = String, Path, format = "uuid", description = "The id of the saga."),
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the signal."),
        ("amends-user" = Option<String>, Header)),
    request_body = SignalBody,
    responses((status = 202, body = SignalTaken, description = "The saga has taken the signal.")))]
pub(crate) async fn signal(
    State(state): State<ApiState>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
    JsonBody(body): JsonBody<SignalBody>,
) -> Result<(StatusCode, Json<SignalTaken>), ApiError> {
    let id = parse_id(&id)?;
    let name: SignalName =
        name.parse().map_err(|error: IdError| ApiError::new(400, "bad_name", error.to_string()))?;
    let signal_id = body.id.map(|id| legible("the id of the signal", id)).transpose()?;
    if signal_id.as_ref().is_some_and(|id| id.starts_with(EVENT_KEY_PREFIX)) {
        let detail =
            format!("ids of signals that begin with {EVENT_KEY_PREFIX} are those of events");
        return Err(ApiError::new(400, "bad_request", detail)
            .with_remedy("give an id that begins with something else"));
    }
    let found = state.host.signal(caller.principal(), id, name, signal_id, body.payload).await?;
    let status = found.saga.status().to_string();
    Ok((StatusCode::ACCEPTED, Json(SignalTaken { id: id.to_string(), status })))
}
