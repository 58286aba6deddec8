//! Effects that stand or may stand, of one saga and of all.

use axum::extract::State;

use amends_api_types::{EffectView, ExposureItem, Page};
use amends_engine::{Effect, exposure};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Path;
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::find;

/// Lists the effects of a saga that stand or may stand now.
#[utoipa::path(get, path = "/v1/sagas/{id}/exposure", operation_id = "list_saga_effects", tag = "operators",
    security(("token" = ["read"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the saga.")),
    responses(
        (status = 200, body = Page<EffectView>,
            description = "The effects of the saga that stand or may stand.")))]
pub(crate) async fn of_saga(
    State(state): State<ApiState>,
    payloads: Payloads,
    Path(id): Path<String>,
) -> Result<Json<Page<EffectView>>, ApiError> {
    let found = find(&state, &id).await?;
    let effects = exposure(&found.saga).into_iter();
    let items = effects.map(|effect| effect_view(effect, payloads)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Sums the effects that stand or may stand, over all sagas that have not completed: those that run, are being
/// compensated, are blocked or were abandoned.
///
/// A host that was started lately answers 503 until it has counted the abandoned sagas.
#[utoipa::path(get, path = "/v1/exposure", operation_id = "list_exposure", tag = "operators",
    security(("token" = ["read"])),
    responses(
        (status = 200, body = Page<ExposureItem>,
            description = "The effects that stand or may stand, for each step of each definition.")))]
pub(crate) async fn of_all(
    State(state): State<ApiState>,
) -> Result<Json<Page<ExposureItem>>, ApiError> {
    let sums = state.host.exposure().await?.into_iter();
    let items = sums.map(|((definition, step), exposure)| ExposureItem {
        definition: definition.to_string(),
        step: step.to_string(),
        standing: exposure.standing,
        unknown: exposure.unknown,
        blocked: exposure.blocked,
        abandoned: exposure.abandoned,
    });
    Ok(Json(Page { items: items.collect(), next_cursor: None }))
}

fn effect_view(effect: Effect, payloads: Payloads) -> EffectView {
    EffectView {
        step: effect.step.to_string(),
        is_certain: effect.is_certain,
        has_undo: effect.has_undo,
        output: payloads.optional(effect.output),
    }
}
