//! Pages of events: of a saga, or of the whole store.
//!
//! A page is written while it is read. So what waits for a slow client is at most one page of the store, however long
//! the answer is, and that has the room of an answer.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures::stream::unfold;

use amends_engine::{SagaId, Version};
use amends_runtime::{
    CLOUD_EVENTS, CloudEvent, Cursor, EventFilter, NamedEvent, RuntimeError, SOURCE_DEFAULT,
    StoreError, StoredEvent, Stream,
};

use crate::answers::{Room, answers_full};
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::events::calls::Calls;
use crate::events::event_view::event_view;
use crate::paging::PAGE_BYTES_MAX;
use crate::payloads::Payloads;

/// The header of a batch that has the cursor after it.
const NEXT_CURSOR_HEADER: &str = "amends-next-cursor";

/// Events that are read for one page of wanted events: past it the page ends, and its cursor has moved on.
const SCANNED_MAX: usize = 10_000;

/// Events that are read at once when not all of them are wanted.
const SCANNED_PER_READ: u32 = 256;

/// Where the events of a page come from, and after which place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// The whole store.
    Log(Cursor),
    /// A saga.
    Saga(SagaId, Version),
}

/// Reads one page, a part at a time.
pub(crate) struct EventPageReader {
    state: ApiState,
    source: Source,
    /// Whether the page shows the payloads of its events.
    payloads: Payloads,
    /// How many more events the page may have.
    left: usize,
    /// How many bytes the events have that were read for the page.
    bytes: usize,
    /// Which events of the whole store are wanted.
    filter: EventFilter,
    /// How many events were read for the page, wanted or not.
    scanned: usize,
    /// What the events of a saga do not say about its calls. None for the whole store, where all earlier events
    /// of each saga would have to be read.
    calls: Option<Calls>,
}

/// How much of the answer is written.
enum Written {
    Nothing,
    /// This many events.
    Items(usize),
    All,
}

impl EventPageReader {
    pub(crate) fn new(state: ApiState, source: Source, limit: u32, payloads: Payloads) -> Self {
        let calls = match source {
            Source::Log(_) => None,
            Source::Saga(id, _) => Some(Calls::new(id)),
        };
        let filter = EventFilter::default();
        Self { state, source, payloads, left: limit as usize, bytes: 0, filter, scanned: 0, calls }
    }

    /// Leaves out the events of the whole store that are not wanted.
    pub(crate) fn filtered(self, filter: EventFilter) -> Self {
        Self { filter, ..self }
    }

    /// Reads the next part of the page; empty when the page is over.
    pub(crate) async fn read(&mut self) -> Result<Vec<StoredEvent>, RuntimeError> {
        if let (Source::Log(from), false) = (self.source, self.filter.is_all()) {
            let found = self.read_wanted(from).await?;
            return Ok(found.into_iter().map(|named| named.event).collect());
        }
        if self.is_full() {
            return Ok(Vec::new());
        }
        if let (Some(calls), Source::Saga(_, after)) = (&mut self.calls, self.source) {
            calls.catch_up(&self.state.host, after).await?;
        }
        let found = self.events(u32::try_from(self.left).unwrap_or(u32::MAX)).await?;
        self.left -= found.len();
        self.bytes += found.iter().map(|event| event.data.len()).sum::<usize>();
        if let Some(last) = found.last() {
            self.source = match self.source {
                Source::Log(_) => Source::Log(last.cursor()),
                Source::Saga(id, _) => Source::Saga(id, last.version),
            };
        }
        Ok(found)
    }

    /// Reads on until a part of the log has events that are wanted.
    async fn read_wanted(&mut self, mut from: Cursor) -> Result<Vec<NamedEvent>, StoreError> {
        while !self.is_full() {
            let page = {
                let _turn = self.state.scans.acquire().await;
                self.state.host.named_log(from, SCANNED_PER_READ).await?
            };
            if page.events.is_empty() {
                break;
            }
            self.scanned += page.events.len();
            self.bytes += page.events.iter().map(|named| named.event.data.len()).sum::<usize>();
            let mut found = page.events;
            found.retain(|named| self.filter.wants(named));
            from = page.next;
            if found.len() > self.left {
                found.truncate(self.left);
                from = found.last().map_or(from, |named| named.event.cursor());
            }
            self.left -= found.len();
            self.source = Source::Log(from);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn is_full(&self) -> bool {
        self.left == 0 || self.bytes >= PAGE_BYTES_MAX || self.scanned >= SCANNED_MAX
    }

    /// Answers with one part of the log as a batch of `CloudEvents`. A header has the cursor after it.
    pub(crate) async fn answer_batch(mut self) -> Result<Response, StoreError> {
        let Source::Log(from) = self.source else { return Ok(Response::default()) };
        let found = self.read_wanted(from).await?;
        let next = match self.source {
            Source::Log(next) => next.to_string(),
            Source::Saga(_, version) => version.0.to_string(),
        };
        let payloads = self.payloads;
        let found = found.into_iter().map(|NamedEvent { event, definition }| NamedEvent {
            event: payloads.event(event),
            definition,
        });
        let found: Vec<_> = found.collect();
        let shown: Vec<_> =
            found.iter().map(|named| CloudEvent::new(named, SOURCE_DEFAULT)).collect();
        let mut body = serde_json::to_vec(&shown).unwrap_or_default();
        body.push(b'\n');
        let headers = [(header::CONTENT_TYPE.as_str(), CLOUD_EVENTS), (NEXT_CURSOR_HEADER, &next)];
        Ok((headers, body).into_response())
    }

    async fn events(&self, limit: u32) -> Result<Vec<StoredEvent>, RuntimeError> {
        let host = &self.state.host;
        match self.source {
            Source::Log(from) => Ok(host.log(from, limit).await?),
            Source::Saga(id, after) => host.events(Stream::Saga(id), after, limit).await,
        }
    }

    /// Takes the room of a part of the page; none when other answers have it.
    fn room(&self, events: &[StoredEvent]) -> Option<Room> {
        self.state.answers.take(events.iter().map(|event| event.data.len()).sum())
    }

    /// Answers with a [`Page`](amends_api_types::Page) that begins with `first`. When an event cannot be read any
    /// more, or has no room, the page ends before it, and the request for the next page gets the error.
    ///
    /// # Errors
    /// 429 when there is no room for the first part.
    pub(crate) fn answer(self, first: Vec<StoredEvent>) -> Result<Response, ApiError> {
        let room = self.room(&first).ok_or_else(answers_full)?;
        let state = (self, Written::Nothing, Some((first, room)));
        let parts = unfold(state, |(mut reader, written, first)| async move {
            let before = match written {
                Written::Nothing => 0,
                Written::Items(count) => count,
                Written::All => return None,
            };
            let place = reader.source;
            let found = if first.is_some() { first } else { reader.read_in_room().await };
            if found.is_none() {
                reader.source = place;
            }
            let mut text = String::new();
            if let Written::Nothing = written {
                text.push_str("{\"items\":[");
            }
            // There are no more: known where the limits did not end it.
            let is_last = found.is_some() && !reader.is_full();
            let (events, room) = found.unwrap_or_default();
            let after = before + events.len();
            for (number, event) in (before..).zip(events) {
                if number > 0 {
                    text.push(',');
                }
                text.push_str(&reader.view(event));
            }
            if after > before {
                let part = room.with(Bytes::from(text));
                return Some((Ok::<_, Infallible>(part), (reader, Written::Items(after), None)));
            }
            text.push(']');
            // One that cannot be read is one more.
            if !is_last && reader.events(1).await.map_or(true, |more| !more.is_empty()) {
                let _ = match reader.source {
                    Source::Log(next) => write!(text, ",\"next_cursor\":\"{next}\""),
                    Source::Saga(_, next) => write!(text, ",\"next_cursor\":\"{}\"", next.0),
                };
            }
            text.push_str("}\n");
            Some((Ok(Bytes::from(text)), (reader, Written::All, None)))
        });
        let json = (header::CONTENT_TYPE, "application/json");
        Ok(([json], Body::from_stream(parts)).into_response())
    }

    /// Reads the next part of the page and takes its room. None when it cannot be read, or has no room.
    async fn read_in_room(&mut self) -> Option<(Vec<StoredEvent>, Room)> {
        let found = self.read().await.ok()?;
        let room = self.room(&found)?;
        Some((found, room))
    }

    fn view(&mut self, event: StoredEvent) -> String {
        let mut view = match &mut self.calls {
            Some(calls) => calls.view(event, self.payloads),
            None => event_view(event, self.payloads),
        };
        if let Source::Saga(..) = self.source {
            view.saga = None;
        }
        serde_json::to_string(&view).unwrap_or_default()
    }
}
