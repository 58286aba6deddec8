//! The whole store, in order.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_engine::Position;

use crate::ApiState;
use crate::page::{Page, limit};
use crate::problem::{Problem, Query};
use crate::views::EventView;

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// Events after this position; 0: from the first.
    after: Option<u64>,
    /// The `next_cursor` of the page before: the same as `after`.
    cursor: Option<String>,
    /// From 1 to 1,000; 50 when absent.
    limit: Option<u32>,
}

/// Reads the events of every saga and plugin, in the order in which they became durable.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(LogQuery),
    responses((status = 200, body = Page<EventView>), (status = "default", body = Problem)))]
pub(crate) async fn events(
    State(state): State<ApiState>,
    Query(query): Query<LogQuery>,
) -> Result<Json<Page<EventView>>, Problem> {
    let limit = limit(query.limit)?;
    let cursor = crate::page::cursor(query.cursor.as_deref())?;
    let after = Position(cursor.or(query.after).unwrap_or(0));
    let mut found = state.runtime.store().log(after, limit + 1).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| has_more).map(|event| event.position.0.to_string());
    Ok(Json(Page { items: found.into_iter().map(EventView::from).collect(), next_cursor }))
}
