//! Imports of sagas that ended on another host, as bundles.

use std::time::Duration;

use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{
    BUNDLE_FORMAT, BUNDLE_IMPORT_BYTES_MAX, BundleDigest, BundleEvent, BundleHead, ImportedView,
};
use amends_runtime::{ImportEvent, SagaImport};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::{HeldBytes, check_ndjson, read, refuse};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Query;
use crate::reason::reason_of;

/// The bytes of an import may take this long: the largest one at four megabits a second.
const IMPORT_TIME_MAX: Duration = Duration::from_mins(3);

/// How an import is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    /// Why it is imported. The host keeps it with who asked, as a note of the saga.
    reason: String,
}

/// Puts a saga that ended on another host into the archive.
///
/// The body is a bundle of `amends store export`, without components; at most 80 MiB. It is refused when it
/// is damaged, when a newer version made it, when its saga has not ended, and when a saga of its id is here
/// with other events. A saga that is here with the same events stays as it is.
#[utoipa::path(post, path = "/v1/store/import", operation_id = "import_saga", tag = "host",
    security(("token" = ["administer"])),
    params(
        ImportQuery,
        ("amends-user" = Option<String>, Header)),
    request_body(
        content = String,
        content_type = "application/x-ndjson",
        description = "the bundle: its head, then an event on each line"),
    responses((status = 200, body = ImportedView, description = "The saga, which is in the archive.")))]
pub(crate) async fn import(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Json<ImportedView>, ApiError> {
    if let Err(problem) = check_ndjson(request.headers()) {
        return Err(refuse(request, problem).await);
    }
    let reason = reason_of(&query.reason)?;
    let Some(_place) = state.imports.enter().await else {
        let problem = ApiError::new(429, "import_running", "the host takes one import at a time")
            .with_remedy("try again after the time in Retry-After");
        return Err(refuse(request, problem).await);
    };
    let _held = request.extensions().get::<HeldBytes>().cloned();
    let body = tokio::time::timeout(IMPORT_TIME_MAX, read(request, BUNDLE_IMPORT_BYTES_MAX)).await;
    let body = body.unwrap_or_else(|_| {
        let minutes = IMPORT_TIME_MAX.as_secs() / 60;
        let detail = format!("the bundle has not come within {minutes} minutes");
        Err(ApiError::new(408, "body_too_slow", detail))
    })?;
    let read = tokio::task::spawn_blocking(move || bundle(&body, reason)).await;
    let import = read.unwrap_or_else(|_| Err(damaged("it cannot be read")))?;
    let imported = state.host.import(caller.principal(), import).await?;
    Ok(Json(ImportedView {
        id: imported.id.to_string(),
        status: imported.status.as_str().to_owned(),
        events: imported.events,
        created: imported.created,
    }))
}

fn damaged(what: &str) -> ApiError {
    ApiError::new(422, "bundle_damaged", format!("the bundle is damaged: {what}"))
        .with_remedy("nothing was imported; export the saga again, with this version of `amends`")
}

/// Reads a bundle. Each error names the line.
fn bundle(body: &[u8], reason: String) -> Result<SagaImport, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| damaged("it is not UTF-8"))?;
    let mut lines = (1..).zip(text.lines());
    let (_, first) = lines.next().ok_or_else(|| damaged("it is empty"))?;
    let head = head(first)?;
    let mut digest = BundleDigest::new(&head);
    let mut events = Vec::new();
    for (number, line) in lines {
        let wrong = |what: String| damaged(&format!("line {number}: {what}"));
        let event: BundleEvent =
            serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        let expected = events.len() as u64 + 1;
        if event.version != expected {
            return Err(wrong(format!(
                "event {expected} is missing; this one is {}",
                event.version
            )));
        }
        digest.add(line);
        let BundleEvent { at, kind, data, .. } = event;
        events.push(ImportEvent { at, kind, data: data.get().to_owned() });
    }
    let count = events.len() as u64;
    match head.events {
        Some(events) if events == count => {}
        Some(events) => return Err(damaged(&format!("it has {count} of {events} events"))),
        None => return Err(damaged("it does not say how many events it has")),
    }
    match &head.digest {
        Some(told) if *told == digest.finish() => {}
        Some(told) => {
            let found = digest.finish();
            return Err(damaged(&format!("its digest is {told}, and that of its content {found}")));
        }
        None => return Err(damaged("it has no digest, as those of earlier versions")),
    }
    let BundleHead { saga, definition, withheld, .. } = head;
    let id = saga.parse().map_err(|_| damaged(&format!("{saga} is no id")))?;
    let digest = definition.digest.parse();
    let digest = digest.map_err(|_| damaged("the digest of its definition is none"))?;
    let definition = (definition.spec.as_str().to_owned(), digest);
    Ok(SagaImport { id, definition, events, is_withheld: withheld, reason })
}

/// Reads the head of a bundle.
fn head(line: &str) -> Result<BundleHead, ApiError> {
    let newer = |what: String| {
        ApiError::new(422, "bundle_newer", what)
            .with_remedy("nothing was imported; import it on a host of that version or a newer one")
    };
    let json: serde_json::Value = serde_json::from_str(line)
        .map_err(|error| damaged(&format!("line 1 is not the head of a bundle: {error}")))?;
    match json["format"].as_str() {
        Some(BUNDLE_FORMAT) => {}
        Some(other) if other.starts_with("amends-saga/") => {
            let what =
                format!("the bundle has the format {other}, and this host reads {BUNDLE_FORMAT}");
            return Err(newer(what));
        }
        Some(_) | None => return Err(damaged("line 1 has no format of a bundle")),
    }
    let head: BundleHead =
        serde_json::from_str(line).map_err(|error| damaged(&format!("line 1: {error}")))?;
    let mine = env!("CARGO_PKG_VERSION");
    if numbers(&head.amends) > numbers(mine) {
        let what = format!("Amends {} made the bundle, and this host is {mine}", head.amends);
        return Err(newer(what));
    }
    Ok(head)
}

/// Returns the numbers of a version.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or(version);
    plain.split('.').map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.3"));
        assert!(numbers("1.0.0-rc.1") > numbers("0.9.0"));
        assert_eq!(numbers("0.1.0"), numbers("0.1.0+build"));
        assert!(numbers("what") > numbers("9.9.9"));
    }
}
