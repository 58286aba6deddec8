//! The events of one saga.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{EventView, Page};

use amends_engine::Version;

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::event_page::{EventPageReader, Source};
use crate::extract::{Path, Query};
use crate::ids::parse_id;
use crate::paging::{cursor, limit};
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::unknown;

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    /// How many items the page may have: 1 to 1,000, 50 when absent. A page of large events ends earlier.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before this one.
    cursor: Option<String>,
}

/// Reads a saga's events, in order.
#[utoipa::path(get, path = "/v1/sagas/{id}/events", operation_id = "list_saga_events", tag = "sagas",
    security(("token" = ["read"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the saga."), EventsQuery),
    responses(
        (status = 200, body = Page<EventView>,
            description = "A page of the events of the saga, the first one first.")))]
pub(crate) async fn events(
    State(state): State<ApiState>,
    payloads: Payloads,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let id = parse_id(&id)?;
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?.unwrap_or(0_u64);
    let source = Source::Saga(id, Version(after));
    let mut reader = EventPageReader::new(state, source, limit, payloads);
    let first = reader.read().await?;
    if first.is_empty() && after == 0 {
        return Err(unknown(&id.to_string()));
    }
    reader.answer(first)
}
