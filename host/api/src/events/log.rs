//! The log: the events of the whole store.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{EventView, Page};
use amends_runtime::{CLOUD_EVENTS, Cursor, EventFilter};

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::event_page::{EventPageReader, Source};
use crate::events::stream::{EVENT_STREAM, stream};
use crate::extract::Query;
use crate::paging::{cursor, limit};
use crate::payloads::Payloads;

/// Which events to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// The position after which the page begins; 0 for the first event.
    after: Option<u64>,
    /// The `next_cursor` of the page before this one: the same as `after`.
    cursor: Option<String>,
    /// The definitions of the sagas whose events are wanted, separated by commas.
    definition: Option<String>,
    /// The types that are wanted, separated by commas. A `*` at the end stands for every end: `saga.*`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// How many items the page may have: 1 to 1,000, 50 when absent. A page of large events ends earlier.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Reads the events of the whole store, in the order in which they became durable.
///
/// With `definition` or `type`, a page may be empty and yet have a `next_cursor`: the host has read a part of
/// the log in which nothing is wanted. With `accept: application/cloudevents-batch+json` the answer is a JSON
/// array of CloudEvents 1.0, and the header `amends-next-cursor` has the cursor after it.
///
/// With `accept: text/event-stream` the answer does not end: it has the events after the place, and those that
/// come. Without a place it begins with the next event that comes. The id of each is the cursor after it, and
/// `Last-Event-ID` continues there. The answer is 429 when the host has as many watchers as it takes.
#[utoipa::path(get, path = "/v1/events", operation_id = "list_events", tag = "events",
    security(("token" = ["read"])),
    params(
        LogQuery,
        ("Last-Event-ID" = Option<String>, Header,
            description = "of a stream: the id of the last event that was seen")),
    responses(
        (status = 200, content((Page<EventView> = "application/json"), (EventView = "text/event-stream")),
            description = "A page of events, or a stream of them.")))]
pub(crate) async fn events(
    State(state): State<ApiState>,
    payloads: Payloads,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    // A position is the text of a cursor.
    let after = query.after.map(|after| after.to_string());
    let from = cursor(query.cursor.as_deref().or(after.as_deref()))?;
    let filter = filter(query.definition.as_deref(), query.kind.as_deref())?;
    if accepts(&headers, EVENT_STREAM) {
        if query.limit.is_some() {
            return Err(ApiError::new(400, "bad_query", "limit: a stream of events has no pages")
                .with_remedy("leave limit out, or accept application/json"));
        }
        let from = last_event_id(&headers)?.or(from);
        refuse_ahead(&state, from).await?;
        return stream(state, peer.ip(), from, filter, payloads);
    }
    refuse_ahead(&state, from).await?;
    let (limit, from) = (limit(query.limit)?, from.unwrap_or(Cursor::START));
    let reader = EventPageReader::new(state, Source::Log(from), limit, payloads);
    let mut reader = reader.filtered(filter);
    if accepts(&headers, CLOUD_EVENTS) {
        return Ok(reader.answer_batch().await?);
    }
    let first = reader.read().await?;
    reader.answer(first)
}

/// Refuses a place that the log has not reached: a reader that waited there would miss everything that the
/// store writes until then.
///
/// # Errors
/// 409 `cursor_ahead` when the log has not reached it. Another host may have given the place, so the store is asked
/// before that, because this host learns of the end of the log some milliseconds later.
async fn refuse_ahead(state: &ApiState, from: Option<Cursor>) -> Result<(), ApiError> {
    let Some(from) = from else { return Ok(()) };
    if state.host.head().borrow().events_until(from) == 0 {
        return Ok(());
    }
    let end = state.host.end().await?;
    if end.events_until(from) == 0 {
        return Ok(());
    }
    let detail = format!("the place {from} is behind the end of the log, which is {end}");
    Err(ApiError::new(409, "cursor_ahead", detail).with_remedy(format!(
        "the store was restored from a backup, or the place is one of another store: begin after {end}, or \
         where the backup ends"
    )))
}

/// Reads which events are wanted.
fn filter(definitions: Option<&str>, types: Option<&str>) -> Result<EventFilter, ApiError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (definitions, types) = (list(definitions), list(types));
    let types = types.iter().map(|text| {
        text.parse().map_err(|error| {
            ApiError::new(400, "bad_query", format!("type = `{text}`: {error}"))
                .with_remedy("write types such as step.failed, or the beginning of them: saga.*")
        })
    });
    Ok(EventFilter { definitions, types: types.collect::<Result<_, _>>()? })
}

/// Returns the place after which a client of a stream goes on.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let place = value.to_str().ok().and_then(|text| cursor(Some(text)).ok().flatten());
    let wrong = || ApiError::new(400, "bad_header", "Last-Event-ID is not the id of an event");
    place.map(Some).ok_or_else(wrong)
}

/// Returns true when the client asks for this format, by name.
fn accepts(headers: &HeaderMap, format: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let name = range.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(format)
    })
}
