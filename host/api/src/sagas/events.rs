//! The events of one saga.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{EventView, Page, Problem};

use amends_engine::Version;

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::event_page::{EventPageReader, Source};
use crate::extract::{Path, Query};
use crate::ids::parse_id;
use crate::paging::{cursor, limit};
use crate::sagas::saga_lookup::unknown;

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    /// How many items the page may have: 1 to 1,000, 50 when absent. A page of large events ends earlier.
    limit: Option<u32>,
    /// The `next_cursor` of the page before this one.
    cursor: Option<String>,
}

/// Reads a saga's events, in order.
#[utoipa::path(get, path = "/v1/sagas/{id}/events", tag = "sagas",
    params(("id" = String, Path), EventsQuery),
    responses((status = 200, body = Page<EventView>), (status = "default", body = Problem)))]
pub(crate) async fn events(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let id = parse_id(&id)?;
    let limit = limit(query.limit)?;
    let after = cursor(query.cursor.as_deref())?.unwrap_or(0_u64);
    let mut reader = EventPageReader::new(state, Source::Saga(id, Version(after)), limit);
    let first = reader.read().await?;
    if first.is_empty() && after == 0 {
        return Err(unknown(&id.to_string()));
    }
    Ok(reader.answer(first))
}
