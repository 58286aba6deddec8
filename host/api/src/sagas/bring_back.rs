//! Brings archived sagas back into the store.

use axum::extract::State;

use amends_api_types::{ArchiveBody, SagaView};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_id;
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::find;
use crate::sagas::saga_view::saga_view;

/// Brings a saga back from the archive into the store. It can be compensated again then, and a later pass
/// archives it again.
#[utoipa::path(post, path = "/v1/sagas/{id}/bring-back", operation_id = "bring_back_saga", tag = "operators",
    security(("token" = ["operate"])),
    params(
        ("id" = String, Path, format = "uuid", description = "The id of the saga."),
        ("amends-user" = Option<String>, Header)),
    request_body = ArchiveBody,
    responses((status = 200, body = SagaView, description = "The saga, which is in the store again.")))]
pub(crate) async fn bring_back(
    State(state): State<ApiState>,
    payloads: Payloads,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(ArchiveBody {}): JsonBody<ArchiveBody>,
) -> Result<Json<SagaView>, ApiError> {
    let id = parse_id(&id)?;
    // One that is in the store already is the answer as well.
    state.host.bring_back(caller.principal(), id).await?;
    let found = find(&state, &id.to_string()).await?;
    Ok(Json(saga_view(&found, payloads)))
}
