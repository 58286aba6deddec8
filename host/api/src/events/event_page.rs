//! Pages of events: of a saga, or of the whole store.
//!
//! A page is written while it is read. So what waits for a slow client is at most one page of the store
//! ([`EVENTS_PAGE_BYTES_MAX`](amends_runtime::EVENTS_PAGE_BYTES_MAX)), however long the answer is.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures::stream::unfold;

use amends_engine::{Position, SagaId, Version};
use amends_runtime::{StoreError, StoredEvent, Stream};

use crate::api_state::ApiState;
use crate::events::calls::Calls;
use crate::events::event_view::event_view;
use crate::paging::PAGE_BYTES_MAX;

/// Where the events of a page come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// The whole store; a cursor is a position.
    Log,
    /// A saga; a cursor is a version.
    Saga(SagaId),
}

/// Reads one page, a part at a time.
pub(crate) struct EventPageReader {
    state: ApiState,
    source: Source,
    /// The cursor of the last event that was read.
    after: u64,
    /// How many more events the page may have.
    left: usize,
    /// How many bytes the events of the page have so far.
    bytes: usize,
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
    pub(crate) fn new(state: ApiState, source: Source, after: u64, limit: u32) -> Self {
        let calls = match source {
            Source::Log => None,
            Source::Saga(id) => Some(Calls::new(id)),
        };
        Self { state, source, after, left: limit as usize, bytes: 0, calls }
    }

    /// Reads the next part of the page; empty when the page is over.
    pub(crate) async fn read(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        if self.is_full() {
            return Ok(Vec::new());
        }
        if let Some(calls) = &mut self.calls {
            calls.catch_up(&self.state.host, Version(self.after)).await?;
        }
        let found = self.events(u32::try_from(self.left).unwrap_or(u32::MAX)).await?;
        self.left -= found.len();
        self.bytes += found.iter().map(|event| event.data.len()).sum::<usize>();
        if let Some(last) = found.last() {
            self.after = match self.source {
                Source::Log => last.position.0,
                Source::Saga(_) => last.version.0,
            };
        }
        Ok(found)
    }

    fn is_full(&self) -> bool {
        self.left == 0 || self.bytes >= PAGE_BYTES_MAX
    }

    async fn events(&self, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        let host = &self.state.host;
        match self.source {
            Source::Log => host.log(Position(self.after), limit).await,
            Source::Saga(id) => host.events(Stream::Saga(id), Version(self.after), limit).await,
        }
    }

    /// Answers with a [`Page`](amends_api_types::Page) that begins with `first`. When an event cannot be read any
    /// more, the page ends before it, and the request for the next page gets the error.
    pub(crate) fn answer(self, first: Vec<StoredEvent>) -> Response {
        let state = (self, Written::Nothing, Some(first));
        let parts = unfold(state, |(mut reader, written, first)| async move {
            let before = match written {
                Written::Nothing => 0,
                Written::Items(count) => count,
                Written::All => return None,
            };
            let found = match first {
                Some(first) => Ok(first),
                None => reader.read().await,
            };
            let mut text = String::new();
            if let Written::Nothing = written {
                text.push_str("{\"items\":[");
            }
            // There are no more: known where the limits did not end it.
            let is_last = found.is_ok() && !reader.is_full();
            let events = found.unwrap_or_default();
            let after = before + events.len();
            for (number, event) in (before..).zip(events) {
                if number > 0 {
                    text.push(',');
                }
                text.push_str(&reader.view(event));
            }
            if after > before {
                return Some((Ok::<_, Infallible>(text), (reader, Written::Items(after), None)));
            }
            text.push(']');
            // One that cannot be read is one more.
            if !is_last && reader.events(1).await.map_or(true, |more| !more.is_empty()) {
                let _ = write!(text, ",\"next_cursor\":\"{}\"", reader.after);
            }
            text.push_str("}\n");
            Some((Ok(text), (reader, Written::All, None)))
        });
        ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(parts)).into_response()
    }

    fn view(&mut self, event: StoredEvent) -> String {
        let mut view = match &mut self.calls {
            Some(calls) => calls.view(event),
            None => event_view(event),
        };
        if let Source::Saga(_) = self.source {
            view.saga = None;
        }
        serde_json::to_string(&view).unwrap_or_default()
    }
}
