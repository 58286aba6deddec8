//! The bytes of a component.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};

use amends_engine::Digest;

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Path;
use crate::files::Binary;

/// Sends a component that serves, or that a saga in the store may need: at most 64 MiB.
#[utoipa::path(get, path = "/v1/components/{digest}", operation_id = "get_component", tag = "plugins",
    security(("token" = ["read"])),
    params(("digest" = String, Path, pattern = "^sha256:[0-9a-f]{64}$", description = "sha256:…")),
    responses((status = 200, body = inline(Binary), content_type = "application/wasm",
        description = "The component.")))]
pub(crate) async fn component(
    State(state): State<ApiState>,
    Path(digest): Path<String>,
) -> Result<Response, ApiError> {
    let parsed: Digest = digest.parse().map_err(|_| {
        ApiError::new(400, "bad_digest", format!("`{digest}` is not a digest"))
            .with_remedy("write sha256: and 64 hexadecimal digits")
    })?;
    // Each may be as large as many answers.
    let _turn = state.scans.acquire().await;
    let Some(bytes) = state.host.component(parsed).await? else {
        let detail = format!("the store has no component {digest}");
        return Err(ApiError::new(404, "component_gone", detail)
            .with_remedy("no saga in the store needs it any more, so it was removed"));
    };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    Ok(([kind], bytes).into_response())
}
