//! What an operator does to circuit breakers.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use amends_engine::ServiceName;
use amends_runtime::{BreakerError, BreakerInfo, ByHand};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::duration::parse_duration;
use crate::plan::BreakerView;
use crate::problem::{Path, Problem};
use crate::reason::reason_of;
use crate::requester::who;

/// Why a breaker is opened, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenBody {
    /// Kept in the service's stream, with who asked.
    reason: String,
    /// How long it stays open, such as `1h`; until somebody closes it when absent.
    #[serde(rename = "for")]
    open_for: Option<String>,
}

/// Why a breaker is closed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloseBody {
    /// Kept in the service's stream, with who asked.
    reason: String,
}

/// Opens a circuit breaker by hand: no call of the service begins, also no undo.
///
/// It stays open until somebody closes it, or for the time that is given. Then a few calls try, as after
/// an opening by itself; a breaker without settings in the config closes. The host refuses the order while
/// the store takes no writes.
#[utoipa::path(post, path = "/v1/breakers/{service}/open", tag = "operators",
    params(("service" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body = OpenBody,
    responses((status = 200, body = BreakerView), (status = "default", body = Problem)))]
pub(crate) async fn open(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(service): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<OpenBody>,
) -> Result<Json<BreakerView>, Problem> {
    let by_hand = ByHand { reason: reason_of(&body.reason)?, who: who(&headers, peer)? };
    let open_for = body.open_for.as_deref().map(time).transpose()?;
    let found = match name(&service) {
        Some(name) => state.runtime.open_breaker(&name, by_hand, open_for).await?,
        None => None,
    };
    answer(&state, &service, found)
}

/// Closes a circuit breaker by hand: sagas that wait for its service go on at once.
///
/// A closed breaker stays closed. The host refuses the order while the store takes no writes.
#[utoipa::path(post, path = "/v1/breakers/{service}/close", tag = "operators",
    params(("service" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body = CloseBody,
    responses((status = 200, body = BreakerView), (status = "default", body = Problem)))]
pub(crate) async fn close(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(service): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<CloseBody>,
) -> Result<Json<BreakerView>, Problem> {
    let by_hand = ByHand { reason: reason_of(&body.reason)?, who: who(&headers, peer)? };
    let found = match name(&service) {
        Some(name) => state.runtime.close_breaker(&name, &by_hand).await?,
        None => None,
    };
    answer(&state, &service, found)
}

/// A text that is no name names no breaker.
fn name(service: &str) -> Option<ServiceName> {
    service.parse().ok()
}

fn time(text: &str) -> Result<Duration, Problem> {
    let time = parse_duration(text).map_err(|error| error.to_string());
    let time = time.and_then(|time| {
        if time.is_zero() { Err("it would not be open".to_owned()) } else { Ok(time) }
    });
    time.map_err(|detail| {
        Problem::new(400, "bad_request", format!("`for`: {detail}"))
            .with_remedy("write a duration such as 30m or 1h, or leave it out")
    })
}

impl From<BreakerError> for Problem {
    fn from(error: BreakerError) -> Self {
        let detail = error.to_string();
        let (BreakerError::NotDone(store) | BreakerError::NotWritten(store)) = error;
        Self { detail, ..Self::from(store) }
    }
}

fn answer(
    state: &ApiState,
    service: &str,
    found: Option<BreakerInfo>,
) -> Result<Json<BreakerView>, Problem> {
    if let Some(found) = found {
        return Ok(Json(BreakerView::from(found)));
    }
    let all = state.runtime.breakers().into_iter().map(|breaker| breaker.service.to_string());
    let all: Vec<_> = all.collect();
    let remedy = if all.is_empty() {
        "name the service in a step of the config: service = \"NAME\"".to_owned()
    } else {
        format!("the breakers of this host are {}", all.join(", "))
    };
    let detail = format!("there is no breaker for a service `{service}`");
    Err(Problem::new(404, "breaker_unknown", detail).with_remedy(remedy))
}
