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

use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::event_view::event_view;
use crate::payloads::Payloads;
use crate::sagas::watchers::{Place, READ_PAUSE};

/// The name of the format, as a client asks for it.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// Events that are read at once. What waits for a slow client is at most one such part of the log, or
/// [`EVENTS_PAGE_BYTES_MAX`](amends_runtime::EVENTS_PAGE_BYTES_MAX).
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
    let place = state.watchers.enter(peer)?;
    let head = state.host.head();
    let from = from.unwrap_or_else(|| *head.borrow());
    let (told, ready) = (None, VecDeque::new());
    let watch = Watch { state, filter, payloads, from, told, head, ready, _place: place };
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
        // Marked as seen before reading, so that nothing between the two is missed.
        watch.head.borrow_and_update();
        let page = {
            let _turn = watch.state.scans.acquire().await;
            watch.state.host.named_log(watch.from, EVENTS_PER_READ).await.ok()?
        };
        let has_read = page.next != watch.from;
        watch.from = page.next;
        let wanted = page.events.into_iter().filter(|named| watch.filter.wants(named));
        watch.ready.extend(wanted.map(|named| named.event));
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
