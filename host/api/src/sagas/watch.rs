//! A saga's events as they come: server-sent events (HTML Living Standard, 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{Stream as EventStream, unfold};

use amends_api_types::EventView;
use amends_engine::{SagaId, Version};
use amends_runtime::{StoredEvent, Stream};

use crate::answers::{ROOM_PAUSE, Room};
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::calls::Calls;
use crate::extract::Path;
use crate::ids::parse_id;
use crate::payloads::Payloads;
use crate::sagas::news::SagaNews;
use crate::sagas::saga_lookup::unknown;
use crate::sagas::watchers::Place;

/// A watcher reads this many events at once, and fewer when they are large. What waits for a slow client has the
/// room of an answer.
const PAGE: u32 = 100;

/// One client that watches a saga.
struct Watch {
    state: ApiState,
    id: SagaId,
    after: Version,
    news: SagaNews,
    ready: VecDeque<StoredEvent>,
    /// The room of what is ready and of its text, until more is read.
    room: Room,
    calls: Calls,
    payloads: Payloads,
    /// Whether the saga had ended when the watch began: then no more events will come.
    had_ended: bool,
    is_over: bool,
    _place: Place,
}

/// Sends the events of a saga as they come, after those of the past, until the saga has ended.
///
/// `Last-Event-ID` continues after the event with this version. The answer is 429 when the host has as many
/// watchers as it takes.
#[utoipa::path(get, path = "/v1/sagas/{id}/watch", operation_id = "watch_saga", tag = "sagas",
    security(("token" = ["read"])),
    params(
        ("id" = String, Path, format = "uuid", description = "The id of the saga."),
        ("Last-Event-ID" = Option<u64>, Header, description = "the version of the last event that was seen")),
    responses(
        (status = 200, body = EventView, content_type = "text/event-stream",
            description = "A stream of the events of the saga. It ends when the saga has ended.")))]
pub(crate) async fn watch(
    State(state): State<ApiState>,
    payloads: Payloads,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl EventStream<Item = Result<Event, Infallible>>>, ApiError> {
    let id = parse_id(&id)?;
    let after = match headers.get("last-event-id") {
        None => Version(0),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Version)
            .ok_or_else(|| ApiError::new(400, "bad_header", "Last-Event-ID is not a version"))?,
    };
    let place = state.watchers.enter(peer.ip())?;
    let had_ended = match state.host.saga(id).await? {
        Some(row) => row.status.is_end(),
        None if state.host.tombstone(id).await?.is_some() => true,
        None => return Err(unknown(&id.to_string())),
    };
    let mut calls = Calls::new(id);
    calls.catch_up(&state.host, after).await?;
    let news = state.news.of(&state.host, id);
    let watch = Watch {
        state,
        id,
        after,
        news,
        ready: VecDeque::new(),
        room: Room::default(),
        calls,
        payloads,
        had_ended,
        is_over: false,
        _place: place,
    };
    Ok(Sse::new(unfold(watch, next)).keep_alive(KeepAlive::default()))
}

/// Waits for the next event of the saga. None when there will be none.
async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    loop {
        if let Some(event) = watch.ready.pop_front() {
            watch.after = event.version;
            watch.is_over = is_end(&event.kind);
            let view = watch.calls.view(event, watch.payloads);
            return Some((Ok(sent(view)), watch));
        }
        if watch.is_over {
            return None;
        }
        watch.read().await?;
        if !watch.ready.is_empty() {
            continue;
        }
        if watch.state.host.is_stopping() || watch.had_ended || !watch.news.changed().await {
            return None;
        }
    }
}

impl Watch {
    /// Reads what has come, when there is room for it. None when the store cannot be read.
    async fn read(&mut self) -> Option<()> {
        // A connection that asks for more has written what came before, but for what it buffers.
        self.room = Room::default();
        // Marked as seen before reading, so that nothing between the two is missed.
        self.news.see();
        let mut limit = PAGE;
        loop {
            {
                // One that has ended may be in an archive, which is read slowly, and is read once.
                let _turn = if self.had_ended { None } else { self.news.turn().await };
                let stream = Stream::Saga(self.id);
                let found = self.state.host.events(stream, self.after, limit).await.ok()?;
                // Each is there twice while it is sent: as it was read, and as a text.
                let bytes = 2 * found.iter().map(|event| event.data.len()).sum::<usize>();
                if let Some(room) = self.state.answers.take(bytes) {
                    self.room = room;
                    self.ready.extend(found);
                    return Some(());
                }
            }
            limit = 1;
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }
}

fn is_end(kind: &str) -> bool {
    matches!(kind, "saga.completed" | "saga.compensated" | "saga.abandoned")
}

fn sent(mut view: EventView) -> Event {
    view.saga = None;
    let data = serde_json::to_string(&view).unwrap_or_default();
    Event::default().id(view.version.to_string()).event(view.kind).data(data)
}
