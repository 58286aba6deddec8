//! Starts one saga.

use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{SagaView, StartBody};
use amends_engine::SagaId;
use amends_runtime::StartRequest;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::arrived::Arrived;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Query;
use crate::forward::saga_elsewhere;
use crate::header::header_text;
use crate::payloads::Payloads;
use crate::sagas::saga_view::saga_view;
use crate::sagas::start_request::{request_of, traceparent};
use crate::sagas::unread::unread_saga;
use crate::sagas::wait::{left_of, wait_of};

/// When a start is answered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartQuery {
    /// Answers when the saga has ended or is blocked, at the latest after this duration (`30s`, at most `5m`).
    /// Answers at once when absent.
    wait: Option<String>,
}

/// Starts a saga.
///
/// The answer always has the id of a saga that was started, even when the host cannot read the saga
/// afterwards. The status is then 202 or 200 all the same; the saga has `version` 0, no steps and an empty
/// `definition_digest`. Its status is `running`; of an archived or deleted saga it is the one that it ended with.
/// `Location` tells where to read the saga later.
#[utoipa::path(post, path = "/v1/sagas", operation_id = "start_saga", tag = "sagas",
    security(("token" = ["start"])),
    params(
        StartQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "the same key and payload start one saga"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, handed to every call")),
    request_body = StartBody,
    responses(
        (status = 202, body = SagaView, description = "The saga was started."),
        (status = 200, body = SagaView, description = "The saga was started earlier with this key.")))]
pub(crate) async fn start(
    State(state): State<ApiState>,
    payloads: Payloads,
    caller: Caller,
    Query(query): Query<StartQuery>,
    headers: HeaderMap,
    arrived: Option<Extension<Arrived>>,
    JsonBody(mut body): JsonBody<StartBody>,
) -> Result<Response, ApiError> {
    let wait = query.wait.as_deref().map(wait_of).transpose()?;
    let wait = wait.map(|wait| left_of(wait, arrived.map(|Extension(arrived)| arrived)));
    let until = Instant::now() + wait.unwrap_or_default();
    if let Some(text) = header_text(&headers, "idempotency-key")? {
        body.key = Some(start_key(&state, text).await?);
    }
    let request = request_of(body, traceparent(&headers))?;
    let (started, found) = if let Some(wait) = wait {
        state.host.start_and_wait(caller.principal(), request.clone(), wait).await?
    } else {
        let started = state.host.start_here(caller.principal(), request.clone()).await?;
        (started, state.host.state(started.id).await)
    };
    // From here on there is a saga: an error without its id would have the caller start another.
    let left = until.saturating_duration_since(Instant::now());
    let has_moved = wait.is_some() && matches!(&found, Err(error) if error.is_not_here());
    let elsewhere =
        if has_moved { saga_elsewhere(&state, started.id, left, payloads).await } else { None };
    let view = match (elsewhere, found) {
        (Some(Ok(view)), _) => view,
        (_, Ok(Some(found))) => saga_view(&found, payloads),
        (_, Ok(None)) => unread(&state, started.id, request, payloads).await,
        (_, Err(error)) => {
            tracing::warn!(saga_id = %started.id, %error, "a saga was started and cannot be read");
            unread(&state, started.id, request, payloads).await
        }
    };
    let status = if started.created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = format!("/v1/sagas/{}", started.id);
    Ok((status, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Shows a saga that cannot be read. What is left of one that was archived or deleted says how it ended.
async fn unread(
    state: &ApiState,
    id: SagaId,
    request: StartRequest,
    payloads: Payloads,
) -> SagaView {
    let unread = unread_saga(id, request, payloads);
    match state.host.tombstone(id).await {
        Ok(Some(tombstone)) => SagaView {
            definition: tombstone.definition.to_string(),
            status: tombstone.status.to_string(),
            started_at: tombstone.started_at,
            ended_at: Some(tombstone.ended_at),
            archived: true,
            ..unread
        },
        Ok(None) | Err(_) => unread,
    }
}

/// Reads the key in the header. It may be plain, `order-7`, or a string of RFC 8941, `"order-7"`, as in the
/// IETF's draft for this header. Both are the same key.
pub(crate) async fn start_key(state: &ApiState, text: String) -> Result<String, ApiError> {
    let Some(key) = quoted(&text)? else { return Ok(text) };
    // Versions before this one kept it with its quotes: what was started so is found by that.
    let earlier = state.host.key(text.clone()).await?;
    Ok(if earlier.is_some() { text } else { key })
}

/// Reads a string of RFC 8941. `None`: the text does not begin with a quote.
fn quoted(text: &str) -> Result<Option<String>, ApiError> {
    let Some(rest) = text.strip_prefix('"') else { return Ok(None) };
    let wrong = || {
        let detail = format!("the header idempotency-key is no whole quoted string: {text}");
        ApiError::new(400, "bad_header", detail).with_remedy("end it with a quote, or use none")
    };
    let (mut key, mut chars) = (String::new(), rest.chars());
    loop {
        match chars.next().ok_or_else(wrong)? {
            '"' if chars.as_str().is_empty() => return Ok(Some(key)),
            '"' => return Err(wrong()),
            '\\' => {
                key.push(chars.next().filter(|next| matches!(next, '"' | '\\')).ok_or_else(wrong)?);
            }
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_quotes_is_the_key() {
        let key = |text: &str| quoted(text).ok();
        assert_eq!(key("order-7"), Some(None));
        assert_eq!(key(r#""order-7""#), Some(Some("order-7".to_owned())));
        assert_eq!(key(r#""a \"b\" \\ c""#), Some(Some(r#"a "b" \ c"#.to_owned())));
        for wrong in ["\"", r#""order-7"#, r#""order"-7""#, r#""order-7";a=1"#, r#""a\b""#] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }
}
