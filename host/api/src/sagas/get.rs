//! Reads one saga.

use axum::Extension;
use axum::extract::State;
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;

use amends_api_types::{QUARANTINED, SagaView};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::arrived::Arrived;
use crate::erasures::personal_view;
use crate::error::ApiError;
use crate::extract::{Path, Query};
use crate::ids::parse_id;
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::{find, unknown};
use crate::sagas::saga_view::saga_view_with_inputs;
use crate::sagas::wait::{left_of, wait_of};

/// At most this many requests compute the inputs of steps at the same time.
static INPUTS: Semaphore = Semaphore::const_new(2);

/// When the request is answered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetQuery {
    /// Answers when the saga has ended or is blocked, at the latest after this duration (`30s`, at most `5m`).
    /// Answers at once when absent.
    wait: Option<String>,
}

/// Reads a saga, at once or when it has ended or is blocked.
#[utoipa::path(get, path = "/v1/sagas/{id}", operation_id = "get_saga", tag = "sagas",
    security(("token" = ["read"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the saga."), GetQuery),
    responses((status = 200, body = SagaView, description = "The saga.")))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    payloads: Payloads,
    Path(id): Path<String>,
    Query(query): Query<GetQuery>,
    arrived: Option<Extension<Arrived>>,
) -> Result<Json<SagaView>, ApiError> {
    let wait = query.wait.as_deref().map(wait_of).transpose()?;
    let found = match wait {
        None => find(&state, &id).await?,
        Some(wait) => {
            let wait = left_of(wait, arrived.map(|Extension(arrived)| arrived));
            let found = state.host.wait(parse_id(&id)?, wait).await?;
            found.ok_or_else(|| unknown(&id))?
        }
    };
    let id = found.saga.id();
    let personal = personal_view(&state, &found.saga).await?;
    // Computing what the steps were given may take long, and checks of payloads want the threads as well.
    let _turn = INPUTS.acquire().await;
    let view = tokio::task::spawn_blocking(move || saga_view_with_inputs(&found, payloads)).await;
    let mut view = view.map_err(|error| ApiError::new(500, "failed", error.to_string()))?;
    if let Some(reason) = state.host.quarantine_reason(id) {
        QUARANTINED.clone_into(&mut view.status);
        view.reason = Some(reason);
    }
    view.personal = personal;
    Ok(Json(view))
}
