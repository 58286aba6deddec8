//! Circuit breakers: how they stand, and what an operator does to them.

use std::time::Duration;

use axum::extract::State;

use amends_api_types::{BreakerRateView, BreakerView, CloseBody, OpenBody, Page};
use amends_engine::ServiceName;
use amends_runtime::{BreakerInfo, OnOpen};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::reason::reason_of;
use amends_api_types::parse_duration;

/// Lists the circuit breakers.
#[utoipa::path(get, path = "/v1/breakers", operation_id = "list_breakers", tag = "operators",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<BreakerView>, description = "The circuit breakers.")))]
pub(crate) async fn breakers(State(state): State<ApiState>) -> Json<Page<BreakerView>> {
    let items = state.host.breakers().into_iter().map(breaker_view).collect();
    Json(Page { items, next_cursor: None })
}

/// Opens a circuit breaker by hand: no call of the service begins, not even an undo.
///
/// The breaker stays open until somebody closes it, or for the time in `for`. After that time a few calls try,
/// as after the breaker has opened by itself; a breaker without settings in the config closes. The host rejects
/// the order while the store takes no writes.
#[utoipa::path(post, path = "/v1/breakers/{service}/open", operation_id = "open_breaker", tag = "operators",
    security(("token" = ["operate"])),
    params(
        ("service" = String, Path, description = "The name of the service."),
        ("amends-user" = Option<String>, Header)),
    request_body = OpenBody,
    responses((status = 200, body = BreakerView, description = "The breaker, which is open.")))]
pub(crate) async fn open(
    State(state): State<ApiState>,
    caller: Caller,
    Path(service): Path<String>,
    JsonBody(body): JsonBody<OpenBody>,
) -> Result<Json<BreakerView>, ApiError> {
    let reason = reason_of(&body.reason)?;
    let open_for = body.open_for.as_deref().map(time).transpose()?;
    let found = match name(&service) {
        Some(name) => state.host.open_breaker(caller.principal(), &name, reason, open_for).await?,
        None => None,
    };
    answer(&state, &service, found)
}

/// Closes a circuit breaker by hand: sagas that wait for its service go on at once.
///
/// A breaker that is closed already stays closed. The host rejects the order while the store takes no writes.
#[utoipa::path(post, path = "/v1/breakers/{service}/close", operation_id = "close_breaker", tag = "operators",
    security(("token" = ["operate"])),
    params(
        ("service" = String, Path, description = "The name of the service."),
        ("amends-user" = Option<String>, Header)),
    request_body = CloseBody,
    responses((status = 200, body = BreakerView, description = "The breaker, which is closed.")))]
pub(crate) async fn close(
    State(state): State<ApiState>,
    caller: Caller,
    Path(service): Path<String>,
    JsonBody(body): JsonBody<CloseBody>,
) -> Result<Json<BreakerView>, ApiError> {
    let reason = reason_of(&body.reason)?;
    let found = match name(&service) {
        Some(name) => state.host.close_breaker(caller.principal(), &name, reason).await?,
        None => None,
    };
    answer(&state, &service, found)
}

/// Reads the name of a service. A text that is not a name names no breaker.
fn name(service: &str) -> Option<ServiceName> {
    service.parse().ok()
}

fn time(text: &str) -> Result<Duration, ApiError> {
    let time = parse_duration(text).map_err(|error| error.to_string());
    let time = time.and_then(|time| {
        if time.is_zero() { Err("it would not be open".to_owned()) } else { Ok(time) }
    });
    time.map_err(|detail| {
        ApiError::new(400, "bad_request", format!("`for`: {detail}"))
            .with_remedy("write a duration such as 30m or 1h, or leave it out")
    })
}

fn answer(
    state: &ApiState,
    service: &str,
    found: Option<BreakerInfo>,
) -> Result<Json<BreakerView>, ApiError> {
    if let Some(found) = found {
        return Ok(Json(breaker_view(found)));
    }
    let all = state.host.breakers().into_iter().map(|breaker| breaker.service.to_string());
    let all: Vec<_> = all.collect();
    let remedy = if all.is_empty() {
        "name the service in a step of the config: service = \"NAME\"".to_owned()
    } else {
        format!("the breakers of this host are {}", all.join(", "))
    };
    let detail = format!("there is no breaker for a service `{service}`");
    Err(ApiError::new(404, "breaker_unknown", detail).with_remedy(remedy))
}

fn breaker_view(breaker: BreakerInfo) -> BreakerView {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let rate = breaker.settings.rate.zip(breaker.counted);
    let by_hand = breaker.by_hand.map(|by_hand| (by_hand.who, by_hand.reason));
    let (opened_by, opened_reason) = by_hand.unzip();
    BreakerView {
        service: breaker.service.to_string(),
        state: breaker.state.to_owned(),
        failures: breaker.failures,
        failures_max: breaker.settings.failures,
        rate: rate.map(|(rate, (calls, calls_failed))| BreakerRateView {
            calls,
            calls_failed,
            failure_rate: rate.failure_rate,
            window_ms: millis(rate.window),
            calls_min: rate.calls_min,
        }),
        open_until: breaker.open_until,
        open_for_ms: millis(breaker.settings.open_for),
        half_open: breaker.settings.half_open,
        on_open: match breaker.settings.on_open {
            OnOpen::Wait => "wait".to_owned(),
            OnOpen::Fail => "fail".to_owned(),
        },
        last_error: breaker.last_error,
        opened_by,
        opened_reason,
    }
}
