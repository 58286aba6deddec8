//! Subscriptions: how they stand, and the order to send dead letters again.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{DeadLetterView, Page, RedriveBody, SubscriptionView};
use amends_runtime::{DeadLetter, SubscriptionStatus};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::{Path, Query};
use crate::paging::{cursor, limit};
use crate::reason::reason_of;

/// Lists the subscriptions, in the order of the config.
#[utoipa::path(get, path = "/v1/subscriptions", operation_id = "list_subscriptions", tag = "operators",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<SubscriptionView>, description = "The subscriptions.")))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<SubscriptionView>> {
    let items = state.host.subscriptions().into_iter().map(subscription_view).collect();
    Json(Page { items, next_cursor: None })
}

/// Which dead letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLettersQuery {
    /// How many items the page may have: 1 to 1,000, 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before this one.
    cursor: Option<String>,
}

/// Lists the events that a subscription could not deliver, in the order of the log.
///
/// An event that became a dead letter within the last second may be missing.
#[utoipa::path(get, path = "/v1/subscriptions/{name}/dead-letters", operation_id = "list_dead_letters", tag = "operators",
    security(("token" = ["read"])),
    params(("name" = String, Path, description = "The name of the subscription."), DeadLettersQuery),
    responses(
        (status = 200, body = Page<DeadLetterView>,
            description = "A page of dead letters, in the order of the log.")))]
pub(crate) async fn dead_letters(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<DeadLettersQuery>,
) -> Result<Json<Page<DeadLetterView>>, ApiError> {
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?;
    // One more than the page has, to know whether there is a next one.
    let Some(mut letters) = state.host.dead_letters(&name, after, limit + 1).await? else {
        return Err(unknown(&state, &name));
    };
    let is_more = letters.len() > limit as usize;
    letters.truncate(limit as usize);
    let next = letters.last().filter(|_| is_more).map(|letter| letter.place.to_string());
    let items = letters.into_iter().map(dead_letter_view).collect();
    Ok(Json(Page { items, next_cursor: next }))
}

fn dead_letter_view(letter: DeadLetter) -> DeadLetterView {
    DeadLetterView {
        place: letter.place.to_string(),
        saga: letter.stream.saga().map(|id| id.to_string()),
        version: letter.version.0,
        kind: letter.kind,
        at: letter.at,
        attempts: letter.attempts,
        error: letter.error,
    }
}

/// Sends the dead letters of a subscription again, in their order.
///
/// A subscription that its receiver has ended (410) becomes active. The answer comes before the events are
/// delivered: `is_redriving` says when it is over. A dead letter stays one until it is delivered.
#[utoipa::path(post, path = "/v1/subscriptions/{name}/redrive", operation_id = "redrive_subscription", tag = "operators",
    security(("token" = ["operate"])),
    params(
        ("name" = String, Path, description = "The name of the subscription."),
        ("amends-user" = Option<String>, Header)),
    request_body = RedriveBody,
    responses(
        (status = 200, body = SubscriptionView,
            description = "The subscription, which sends its dead letters again.")))]
pub(crate) async fn redrive(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<RedriveBody>,
) -> Result<Json<SubscriptionView>, ApiError> {
    let reason = reason_of(&body.reason)?;
    if let Some(found) = state.host.redrive(caller.principal(), &name, &reason) {
        return Ok(Json(subscription_view(found)));
    }
    Err(unknown(&state, &name))
}

fn unknown(state: &ApiState, name: &str) -> ApiError {
    let all: Vec<_> =
        state.host.subscriptions().into_iter().map(|subscription| subscription.name).collect();
    let remedy = if all.is_empty() {
        "add one to the config: [[subscription]]".to_owned()
    } else {
        format!("the subscriptions of this host are {}", all.join(", "))
    };
    let detail = format!("there is no subscription `{name}`");
    ApiError::new(404, "subscription_unknown", detail).with_remedy(remedy)
}

fn subscription_view(status: SubscriptionStatus) -> SubscriptionView {
    let (last_error, last_error_at) = status.last_error.unzip();
    let state = match (&status.disabled, status.is_away) {
        (Some(_), _) => "disabled",
        (None, true) => "away",
        (None, false) => "active",
    };
    SubscriptionView {
        name: status.name,
        state: state.to_owned(),
        target: status.target,
        position: status.cursor.to_string(),
        lag_events: status.lag_events,
        dead_letters: status.dead_letters,
        is_redriving: status.is_redriving,
        last_error: last_error.or(status.disabled),
        last_error_at,
    }
}
