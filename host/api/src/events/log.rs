//! The log: the events of the whole store.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{EventView, Page, Problem};
use amends_runtime::Cursor;

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::event_page::{EventPageReader, Source};
use crate::extract::Query;
use crate::paging::{cursor, limit};

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// The position after which the page begins; 0 for the first event.
    after: Option<u64>,
    /// The `next_cursor` of the page before this one: the same as `after`.
    cursor: Option<String>,
    /// How many items the page may have: 1 to 1,000, 50 when absent. A page of large events ends earlier.
    limit: Option<u32>,
}

/// Reads the events of the whole store, in the order in which they became durable.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(LogQuery),
    responses((status = 200, body = Page<EventView>), (status = "default", body = Problem)))]
pub(crate) async fn events(
    State(state): State<ApiState>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    // A position is the text of a cursor.
    let after = query.after.map(|after| after.to_string());
    let from = cursor(query.cursor.as_deref().or(after.as_deref()))?.unwrap_or(Cursor::START);
    let mut reader = EventPageReader::new(state, Source::Log(from), limit);
    let first = reader.read().await?;
    Ok(reader.answer(first))
}
