//! Erasures of personal values.

use axum::extract::State;

use amends_api_types::{ErasureBody, ErasureView, ErasureWaitItem, Page, PersonalView};
use amends_engine::{SUBJECT_BYTES_MAX, Saga};
use amends_runtime::{Erasure, UndoNeed, WaitingSaga};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::reason::reason_of;

/// The most sagas that an answer names.
const SAGAS_NAMED_MAX: usize = 1_000;

/// Erases the personal values of a subject.
///
/// The values of sagas that may still be undone are erased when that is over; the answer names these sagas. A
/// second order while some wait answers the same erasure. `subject_key` is null when no saga has a subject that
/// is written just like this, or when its erasure is over. Later sagas of the subject get another key.
#[utoipa::path(post, path = "/v1/erasures", operation_id = "erase_subject", tag = "operators",
    security(("token" = ["administer"])),
    params(("amends-user" = Option<String>, Header)),
    request_body = ErasureBody,
    responses(
        (status = 200, body = ErasureView, description = "What was erased, and which sagas it waits for.")))]
pub(crate) async fn erase(
    State(state): State<ApiState>,
    caller: Caller,
    JsonBody(body): JsonBody<ErasureBody>,
) -> Result<Json<ErasureView>, ApiError> {
    let reason = reason_of(&body.reason)?;
    if !(1..=SUBJECT_BYTES_MAX).contains(&body.subject.len()) {
        let detail = format!("the subject has 1 to {SUBJECT_BYTES_MAX} bytes");
        return Err(ApiError::new(400, "bad_request", detail)
            .with_remedy("name the subject as the inputs of its sagas do"));
    }
    if reason.contains(&body.subject) {
        let detail = "the reason names the subject, and it is kept for good";
        return Err(ApiError::new(400, "bad_request", detail.to_owned())
            .with_remedy("give a reason without it, such as the number of the request"));
    }
    let host = state.host.clone();
    // In a task of its own: it goes on when its caller has gone.
    let erased =
        tokio::spawn(async move { host.erase(caller.principal(), &body.subject, reason).await })
            .await;
    let erased = erased.map_err(|error| ApiError::new(500, "failed", error.to_string()))??;
    Ok(Json(match erased.erasure {
        Some(erasure) => view(erasure, &erased.waiting),
        None => ErasureView {
            subject_key: None,
            at: None,
            who: None,
            reason: None,
            erased: 0,
            erased_later: 0,
            waiting: 0,
            sagas: Vec::new(),
        },
    }))
}

/// Lists the erasures, the oldest first, and the sagas that wait for theirs.
#[utoipa::path(get, path = "/v1/erasures", operation_id = "list_erasures", tag = "operators",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<ErasureView>, description = "The erasures.")))]
pub(crate) async fn list(
    State(state): State<ApiState>,
) -> Result<Json<Page<ErasureView>>, ApiError> {
    let (erasures, waiting) = state.host.erasures().await?;
    let items = erasures.into_iter().map(|erasure| view(erasure, &waiting)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

fn view(erasure: Erasure, waiting: &[WaitingSaga]) -> ErasureView {
    let Erasure { subject_key, at, who, reason, erased, waiting: waited, still_waiting, .. } =
        erasure;
    let sagas = waiting.iter().filter(|saga| saga.subject_key == subject_key);
    ErasureView {
        subject_key: Some(subject_key.to_string()),
        at: Some(at),
        who: Some(who),
        reason: Some(reason),
        erased,
        erased_later: waited.saturating_sub(still_waiting),
        waiting: still_waiting,
        sagas: sagas.take(SAGAS_NAMED_MAX).map(wait_item).collect(),
    }
}

fn wait_item(saga: &WaitingSaga) -> ErasureWaitItem {
    let (until, status) = match saga.need {
        UndoNeed::Until(until) => (Some(until), None),
        UndoNeed::Live(status) => (None, Some(status.to_string())),
        UndoNeed::Unknown => (None, Some("unreadable".to_owned())),
        UndoNeed::Nothing => (None, None),
    };
    ErasureWaitItem { id: saga.id.to_string(), until, status }
}

/// Shows what became of the personal values of a saga. None when its definition has no subject.
pub(crate) async fn personal_view(
    state: &ApiState,
    saga: &Saga,
) -> Result<Option<PersonalView>, ApiError> {
    let Some(found) = state.host.personal_state(saga).await? else { return Ok(None) };
    let words = match (found.is_erased, &found.erasure) {
        (true, _) => "erased",
        (false, Some(_)) => "waiting",
        (false, None) => "sealed",
    };
    let erasure = found.erasure.map(|erasure| (erasure.at, (erasure.who, erasure.reason)));
    let (at, by) = erasure.unzip();
    let (who, reason) = by.unzip();
    Ok(Some(PersonalView { state: words.to_owned(), at, who, reason }))
}
