//! The events of the whole store as they come: server-sent events (HTML Living Standard, 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::unfold;
use tokio::sync::watch::Receiver;

use amends_runtime::{Cursor, EventFilter, StoredEvent};

use crate::answers::{ROOM_PAUSE, Room};
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::event_view::event_view;
use crate::payloads::Payloads;
use crate::sagas::watchers::{Place, READ_PAUSE};

/// The name of the format, as a client asks for it.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// Events that are read at once. What waits for a slow client has the room of an answer.
const EVENTS_PER_READ: u32 = 256;

/// The pause after a part of the log in which nothing was wanted: a client that is far behind leaves the
/// store's readers to others.
const SCAN_PAUSE: Duration = Duration::from_millis(5);

/// One client that watches the log.
struct Watch {
    state: ApiState,
    filter: EventFilter,
    payloads: Payloads,
    /// The place in the log up to which events were read.
    from: Cursor,
    /// The place that the client knows of; none at first.
    told: Option<Cursor>,
    head: Receiver<Cursor>,
    ready: VecDeque<StoredEvent>,
    /// The room of what is ready and of its text, until more is read.
    room: Room,
    _place: Place,
}

/// Answers with the wanted events after a place, and goes on with those that come.
///
/// # Errors
/// 429 when the host has as many watchers as it takes.
pub(crate) fn stream(
    state: ApiState,
    peer: IpAddr,
    from: Option<Cursor>,
    filter: EventFilter,
    payloads: Payloads,
) -> Result<Response, ApiError> {
    let place = state.log_watchers.enter(peer)?;
    let head = state.host.head();
    let from = from.unwrap_or_else(|| *head.borrow());
    let (told, ready, room) = (None, VecDeque::new(), Room::default());
    let watch = Watch { state, filter, payloads, from, told, head, ready, room, _place: place };
    Ok(Sse::new(unfold(watch, next)).keep_alive(KeepAlive::default()).into_response())
}

/// Waits for the next event. None when the host stops, or the store cannot be read: the client comes
/// back with the place that it knows of.
async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    loop {
        if let Some(event) = watch.ready.pop_front() {
            watch.told = Some(event.cursor());
            let id = event.cursor().to_string();
            let view = event_view(event, watch.payloads);
            let data = serde_json::to_string(&view).unwrap_or_default();
            return Some((Ok(Event::default().id(id).event(view.kind).data(data)), watch));
        }
        if watch.told != Some(watch.from) {
            // An id without data: the client begins there when it comes back, and does not see an event.
            watch.told = Some(watch.from);
            return Some((Ok(Event::default().id(watch.from.to_string())), watch));
        }
        let has_read = watch.read().await?;
        if watch.state.host.is_stopping() {
            return None;
        }
        if !has_read && watch.head.changed().await.is_err() {
            return None;
        }
        if watch.ready.is_empty() {
            tokio::time::sleep(if has_read { SCAN_PAUSE } else { READ_PAUSE }).await;
        }
    }
}

impl Watch {
    /// Reads a part of the log, when there is room for what is wanted of it. Returns false at the end of the log;
    /// none when the store cannot be read.
    async fn read(&mut self) -> Option<bool> {
        // A connection that asks for more has written what came before, but for what it buffers.
        self.room = Room::default();
        // Marked as seen before reading, so that nothing between the two is missed.
        self.head.borrow_and_update();
        let mut limit = EVENTS_PER_READ;
        loop {
            {
                let _turn = self.state.scans.acquire().await;
                let page = self.state.host.named_log(self.from, limit).await.ok()?;
                let (next, mut found) = (page.next, page.events);
                found.retain(|named| self.filter.wants(named));
                // Each is there twice while it is sent: as it was read, and as a text.
                let bytes = 2 * found.iter().map(|named| named.event.data.len()).sum::<usize>();
                if let Some(room) = self.state.answers.take(bytes) {
                    let has_read = next != self.from;
                    (self.room, self.from) = (room, next);
                    self.ready.extend(found.into_iter().map(|named| named.event));
                    return Some(has_read);
                }
            }
            limit = 1;
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }
}
