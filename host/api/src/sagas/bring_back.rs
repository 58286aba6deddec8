//! Brings archived sagas back into the store.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;

use amends_api_types::{ArchiveBody, Problem, SagaView};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_id;
use crate::requester::requester;
use crate::sagas::saga_lookup::find;
use crate::sagas::saga_view::saga_view;

/// Brings a saga back from the archive into the store. It can be compensated again then, and a later pass
/// archives it again.
#[utoipa::path(post, path = "/v1/sagas/{id}/bring-back", tag = "operators",
    params(("id" = String, Path), ("amends-user" = Option<String>, Header, description = "who asks")),
    request_body = ArchiveBody,
    responses((status = 200, body = SagaView), (status = "default", body = Problem)))]
pub(crate) async fn bring_back(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(ArchiveBody {}): JsonBody<ArchiveBody>,
) -> Result<Json<SagaView>, ApiError> {
    let id = parse_id(&id)?;
    // One that is in the store already is the answer as well.
    state.host.bring_back(&requester(&headers, peer)?, id).await?;
    let found = find(&state, &id.to_string()).await?;
    Ok(Json(saga_view(&found)))
}
