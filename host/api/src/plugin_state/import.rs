//! Imports of plugin state: many keys at once.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{STATE_IMPORT_BYTES_MAX, StateImportLine, StateImported};
use amends_engine::STATE_KEYS_MAX;
use amends_runtime::StateWrite;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::{HeldBytes, check_ndjson, read, refuse};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::{Path, Query};
use crate::ids::parse_name;
use crate::legible::legible;

/// The bytes of an import may take this long: the largest import at a megabit a second.
const IMPORT_TIME_MAX: Duration = Duration::from_mins(3);

/// The source of an import, the name of a file, has at most this many bytes.
const SOURCE_BYTES_MAX: usize = 255;

/// How an import is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    /// Where the values are from: the name of a file. The host keeps it with who asked.
    #[serde(default)]
    source: String,
    /// Whether to leave keys that are there already as they are.
    #[serde(default)]
    only_new: bool,
}

/// Writes up to 1,000 keys at once, or none when a line is not valid.
#[utoipa::path(post, path = "/v1/plugins/{name}/state:import", operation_id = "import_state", tag = "operators",
    security(("token" = ["operate", "payloads"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        ImportQuery,
        ("amends-user" = Option<String>, Header)),
    request_body(
        content = String,
        content_type = "application/x-ndjson",
        description = "one key on each line: {key, value}; at most 16 MiB"),
    responses((status = 200, body = StateImported, description = "How many keys were written.")))]
pub(crate) async fn import(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Json<StateImported>, ApiError> {
    let name = parse_name(&name)?;
    if let Err(problem) = check_ndjson(request.headers()) {
        return Err(refuse(request, problem).await);
    }
    if query.source.len() > SOURCE_BYTES_MAX {
        let detail = format!("source has more than {SOURCE_BYTES_MAX} bytes");
        return Err(ApiError::new(400, "bad_query", detail));
    }
    let source = legible("source", query.source)?;
    // Both until all is written: what waits for the store is as large as what came.
    let Some(_place) = state.imports.enter().await else {
        let problem = ApiError::new(429, "import_running", "the host takes one import at a time")
            .with_remedy("try again after the time in Retry-After");
        return Err(refuse(request, problem).await);
    };
    let _held = request.extensions().get::<HeldBytes>().cloned();
    let body = tokio::time::timeout(IMPORT_TIME_MAX, read(request, STATE_IMPORT_BYTES_MAX)).await;
    let body = body.unwrap_or_else(|_| {
        let minutes = IMPORT_TIME_MAX.as_secs() / 60;
        let detail = format!("the import has not come within {minutes} minutes");
        Err(ApiError::new(408, "body_too_slow", detail))
    })?;
    let writes = writes(&body)?;
    let (host, only_new) = (&state.host, query.only_new);
    let written =
        host.import_plugin_state(caller.principal(), &name, &source, writes, only_new).await?;
    Ok(Json(StateImported { written }))
}

/// Reads the lines that are not empty. Each error names the line.
fn writes(body: &[u8]) -> Result<Vec<StateWrite>, ApiError> {
    let mut writes = Vec::new();
    let mut lines = HashMap::new();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let refused = |what: String| {
            ApiError::new(400, "bad_line", format!("line {number}: {what}"))
                .with_remedy("nothing was written; a line is {\"key\": \"…\", \"value\": …}")
        };
        let StateImportLine { key, value } =
            serde_json::from_slice(line).map_err(|error| refused(error.to_string()))?;
        let write = StateWrite { key, value: Some(value.as_str().to_owned()) };
        write.check().map_err(|error| refused(error.to_string()))?;
        if let Some(earlier) = lines.insert(write.key.clone(), number) {
            return Err(refused(format!("the key `{}` is on line {earlier} as well", write.key)));
        }
        if writes.len() == STATE_KEYS_MAX {
            return Err(refused(format!("there are more than {STATE_KEYS_MAX} lines")));
        }
        writes.push(write);
    }
    Ok(writes)
}
