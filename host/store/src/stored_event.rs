//! Events that are durable, as readers get them.

use amends_engine::{Position, Timestamp, Version};

use crate::paging::Cursor;
use crate::stream::Stream;

/// The largest page of events, in bytes of their data. A page ends before the event that would
/// exceed this, unless it is the first of the page. Each reader holds one page in memory, and there
/// may be hundreds of readers.
pub(crate) const EVENTS_PAGE_BYTES_MAX: usize = 256 << 10;

/// The type of the event that stands for an append that cannot be read. Its data is an object with
/// the `reason`. In the log, its stream is saga 0 and its version 0 when those cannot be read
/// either.
pub const EVENT_UNREADABLE: &str = "event.unreadable";

/// One durable event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The place of the event in the whole store.
    pub position: Position,
    /// The stream of the event.
    pub stream: Stream,
    /// The place of the event in its stream.
    pub version: Version,
    /// When the event was decided.
    pub at: Timestamp,
    /// The type of the event.
    pub kind: String,
    /// The data of the event, a JSON object.
    pub data: String,
}

impl StoredEvent {
    /// Returns the place in the log after this event.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor(self.position.0)
    }
}
