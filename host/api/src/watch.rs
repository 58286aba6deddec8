//! A saga's events as they come: server-sent events (HTML Living Standard, 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{Stream as EventStream, unfold};
use tokio::sync::watch::Receiver;

use amends_engine::{Position, SagaId, Version};
use amends_store::{StoredEvent, Stream};

use crate::ApiState;
use crate::problem::{Path, Problem};
use crate::sagas::{parse_id, unknown};
use crate::views::EventView;

/// Events read at once.
const PAGE: u32 = 100;

struct Watch {
    state: ApiState,
    id: SagaId,
    after: Version,
    head: Receiver<Position>,
    ready: VecDeque<StoredEvent>,
    is_over: bool,
}

/// Sends a saga's events, those of the past first, until it has ended. `Last-Event-ID` resumes
/// after an event's version.
#[utoipa::path(get, path = "/v1/sagas/{id}/watch", tag = "sagas", params(("id" = String, Path),
    ("Last-Event-ID" = Option<u64>, Header, description = "the version of the last event that was seen")),
    responses((status = 200, body = EventView, content_type = "text/event-stream"), (status = "default", body = Problem)))]
pub(crate) async fn watch(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl EventStream<Item = Result<Event, Infallible>>>, Problem> {
    let id = parse_id(&id)?;
    let after = match headers.get("last-event-id") {
        None => Version(0),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Version)
            .ok_or_else(|| Problem::new(400, "bad_header", "Last-Event-ID is not a version"))?,
    };
    let head = state.runtime.store().head();
    if state.runtime.store().events(Stream::Saga(id), Version(0), 1).await?.is_empty() {
        return Err(unknown(&id.to_string()));
    }
    let watch = Watch { state, id, after, head, ready: VecDeque::new(), is_over: false };
    Ok(Sse::new(unfold(watch, next)).keep_alive(KeepAlive::default()))
}

async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    loop {
        if let Some(event) = watch.ready.pop_front() {
            watch.after = event.version;
            watch.is_over = is_end(&event.kind);
            return Some((Ok(sent(event)), watch));
        }
        if watch.is_over {
            return None;
        }
        // Marked as seen before reading, so that nothing between the two is missed.
        watch.head.borrow_and_update();
        let stream = Stream::Saga(watch.id);
        let found = watch.state.runtime.store().events(stream, watch.after, PAGE).await.ok()?;
        if !found.is_empty() {
            watch.ready.extend(found);
            continue;
        }
        let stopping = watch.state.runtime.is_stopping();
        let has_ended = watch.after > Version(0) && ended(&watch).await;
        if stopping || has_ended || watch.head.changed().await.is_err() {
            return None;
        }
    }
}

/// For a watcher that resumes after the last event.
async fn ended(watch: &Watch) -> bool {
    let row = watch.state.runtime.store().saga(watch.id).await;
    row.is_ok_and(|row| row.is_none_or(|row| row.status.is_end()))
}

fn is_end(kind: &str) -> bool {
    matches!(kind, "saga.completed" | "saga.compensated" | "saga.abandoned")
}

fn sent(event: StoredEvent) -> Event {
    let (version, kind) = (event.version.0, event.kind.clone());
    let mut view = EventView::from(event);
    view.saga = None;
    let data = serde_json::to_string(&view).unwrap_or_default();
    Event::default().id(version.to_string()).event(kind).data(data)
}
