//! What goes into a store and comes out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use amends_engine::{
    DefinitionName, Digest, PluginName, Position, SagaId, SagaStatus, ServiceName, StateChange,
    Timestamp, Version,
};

use tokio::sync::OwnedSemaphorePermit;

use crate::StoreError;

/// The data of one event: several times the largest payload, and far below what a row can hold.
pub const EVENT_BYTES_MAX: usize = 16 << 20;

/// The data of one append together, which is one value of the database: SQLite takes 10^9 bytes. As
/// many calls as may run at once have half of it, each with the largest payload.
pub const APPEND_BYTES_MAX: usize = 900 << 20;

/// The bytes of one blob: several times the largest component that was seen (18 MB, Python).
pub const BLOB_BYTES_MAX: usize = 256 << 20;

/// The events of one page of live sagas, by the bytes of their data: a host that starts holds a
/// page beside the sagas that it has made of the pages before. The last saga may go past it.
pub const LIVE_PAGE_BYTES_MAX: usize = 64 << 20;

/// The events of one page, by the bytes of their data: a page ends before the event that would make
/// it larger, unless that is its first. Whoever reads holds one page, and there may be hundreds of
/// readers.
pub const EVENTS_PAGE_BYTES_MAX: usize = 256 << 10;

/// Where a store is and how it keeps its promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite:FILE`.
    pub url: String,
    /// When an append is acknowledged.
    pub durability: Durability,
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After fsync.
    #[default]
    Full,
    /// After the write: a power cut may lose the last moments, and never corrupts.
    Relaxed,
}

/// A list of events with versions from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// A saga's.
    Saga(SagaId),
    /// A plugin's: what operators changed of its state; before there were deploys, which components
    /// served it.
    Plugin(PluginName),
    /// A service's: when its circuit breaker opened and closed.
    Service(ServiceName),
    /// Of all plugins: which components became active or were refused, and why.
    Deploys,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saga(id) => write!(f, "saga {id}"),
            Self::Plugin(name) => write!(f, "plugin {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Deploys => f.write_str("deploys"),
        }
    }
}

/// An event to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its type: `step.started`. Small letters, digits, dots and underscores.
    pub kind: Cow<'static, str>,
    /// JSON, on trust: an object, but what a plugin says in an event of its own.
    pub data: String,
}

/// The type of what stands for an append that cannot be read, where the log and streams are read:
/// its data has the `reason`. In the log, its stream is saga 0 and its version 0 when those cannot be
/// read either.
pub const EVENT_UNREADABLE: &str = "event.unreadable";

/// An event that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the whole store.
    pub position: Position,
    /// Its stream.
    pub stream: Stream,
    /// Its place in the stream.
    pub version: Version,
    /// When it was decided.
    pub at: Timestamp,
    /// Its type.
    pub kind: String,
    /// A JSON object.
    pub data: String,
}

/// A saga in the sagas projection: what lists and timers need, derived from its events.
///
/// The id, the definition, `started_at`, the tags and the key are those of the first row that is
/// written; later rows change the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaRow {
    /// The saga.
    pub id: SagaId,
    /// The name of its definition.
    pub definition: DefinitionName,
    /// The definition that it is pinned to.
    pub definition_digest: Digest,
    /// Where it stands.
    pub status: SagaStatus,
    /// Why it is blocked, or is or was undone.
    pub reason: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When what has not completed is undone.
    pub deadline_at: Option<Timestamp>,
    /// When something is next due by the clock alone.
    pub wake_at: Option<Timestamp>,
    /// For finding it.
    pub tags: BTreeMap<String, String>,
    /// The caller's idempotency key.
    pub key: Option<String>,
}

/// A saga that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSaga {
    /// The saga.
    pub id: SagaId,
    /// Its row and all its events; or why they cannot be read, in words for the operator.
    pub content: Result<(SagaRow, Vec<StoredEvent>), String>,
}

/// A caller's idempotency key, for a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartKey {
    /// The key.
    pub key: String,
    /// Of what the saga is started with.
    pub payload_digest: Digest,
}

/// One append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Where to.
    pub stream: Stream,
    /// The version that the stream must have; 0: it must not exist.
    pub expected: Version,
    /// When it was decided.
    pub at: Timestamp,
    /// At least one.
    pub events: Vec<NewEvent>,
    /// The row to write, when it has changed.
    pub row: Option<SagaRow>,
    /// For a start with a key.
    pub start_key: Option<StartKey>,
    /// What the calls that it records saw and write of their plugins' state, in this order.
    pub state: Vec<StateChange>,
}

impl Append {
    /// What it counts for in a transaction: the bytes of its events, and what its changes of
    /// plugins' state cost ([`StateChange::cost_bytes`]).
    #[must_use]
    pub fn bytes(&self) -> usize {
        let events = self.events.iter().map(|event| event.data.len());
        events.chain(self.state.iter().map(StateChange::cost_bytes)).sum()
    }

    /// The rules that need no look at the store. Every implementation checks them first, so that
    /// one bad append cannot fail the transaction that it would share with others.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.events.is_empty() {
            return Err(StoreError::Invalid("an append has at least one event"));
        }
        if self.events.iter().any(|event| event.data.len() > EVENT_BYTES_MAX) {
            return Err(StoreError::Invalid("the data of an event is at most 16 MiB"));
        }
        let bytes: usize = self.events.iter().map(|event| event.data.len()).sum();
        if bytes > APPEND_BYTES_MAX {
            return Err(StoreError::Invalid("the data of an append is at most 900 MiB"));
        }
        if !self.events.iter().all(|event| is_event_type(&event.kind)) {
            let rule = "the type of an event is small letters, digits, dots and underscores";
            return Err(StoreError::Invalid(rule));
        }
        let saga = match &self.stream {
            Stream::Saga(id) => Some(*id),
            Stream::Plugin(_) | Stream::Service(_) | Stream::Deploys => None,
        };
        if self.row.as_ref().is_some_and(|row| Some(row.id) != saga) {
            return Err(StoreError::Invalid("a row goes with the stream of its own saga"));
        }
        self.state.iter().try_for_each(StateChange::check).map_err(StoreError::Invalid)?;
        if self.start_key.is_some() && (saga.is_none() || self.expected != Version(0)) {
            return Err(StoreError::Invalid("a start key goes with the first append of a saga"));
        }
        Ok(())
    }
}

/// Whether a text may be the type of an event, in whatever stream.
pub(crate) fn is_event_type(kind: &str) -> bool {
    let letter = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_');
    !kind.is_empty() && kind.bytes().all(letter)
}

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    Done {
        /// Of the stream, after it.
        version: Version,
        /// Of its last event.
        position: Position,
    },
    /// The key started this saga, with the same payload. Nothing was written.
    Duplicate(SagaId),
    /// The key started this saga, with another payload. Nothing was written.
    KeyReused(SagaId),
    /// What this one of the append's changes of state saw is no more so. Nothing was written.
    StateChanged(usize),
    /// This one of them would make its plugin's state larger than it may be. Nothing was written.
    StateFull(usize),
}

/// Tells what came of an append, once; that the store is closed when it is dropped before.
pub struct AppendReply {
    tell: Option<Box<Tell>>,
    /// Its place in a queue, held until it is told.
    place: Option<OwnedSemaphorePermit>,
}

type Tell = dyn FnOnce(Result<Appended, StoreError>) + Send;

impl AppendReply {
    /// `tell` is called by the store's own threads, or at once by whoever hands in what is refused:
    /// it must be quick and must not block.
    pub fn new(tell: impl FnOnce(Result<Appended, StoreError>) + Send + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), place: None }
    }

    /// Holds a place in a queue until it is told.
    pub(crate) fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }

    /// Tells it.
    pub fn send(mut self, result: Result<Appended, StoreError>) {
        if let Some(tell) = self.tell.take() {
            tell(result);
        }
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(Err(StoreError::Closed));
        }
    }
}

impl fmt::Debug for AppendReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendReply").finish_non_exhaustive()
    }
}

/// The beginning or the end of a saga's id, as people write it. The end tells sagas apart that were
/// started in the same moment: its last eight digits are random, where the first are the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPart(String);

impl IdPart {
    /// So many hexadecimal digits at least: fewer fit many sagas.
    pub const DIGITS_MIN: usize = 8;

    /// None when the text is not 8 to 32 hexadecimal digits, hyphens aside.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.replace('-', "").to_ascii_lowercase();
        let is_part = digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && (Self::DIGITS_MIN..=32).contains(&digits.len());
        is_part.then_some(Self(digits))
    }

    /// Whether the id begins or ends so.
    #[must_use]
    pub fn fits(&self, id: SagaId) -> bool {
        let digits = id.to_string().replace('-', "");
        digits.starts_with(&self.0) || digits.ends_with(&self.0)
    }

    /// The least and the greatest id that begins so.
    pub(crate) fn range(&self) -> [Vec<u8>; 2] {
        ['0', 'f'].map(|fill| {
            let digits: String = self.0.chars().chain(std::iter::repeat(fill)).take(32).collect();
            let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or(0);
            (0..16).map(|byte| digit(byte * 2)).collect()
        })
    }

    /// Its digits, as the function `hex` of SQL writes them.
    pub(crate) fn as_upper(&self) -> String {
        self.0.to_ascii_uppercase()
    }

    /// The last bytes of an id that ends so: as many as the fewest digits are.
    pub(crate) fn last_bytes(&self) -> Vec<u8> {
        let last = &self.0[self.0.len() - Self::DIGITS_MIN..];
        let byte = |at: usize| u8::from_str_radix(&last[at..at + 2], 16).unwrap_or(0);
        (0..Self::DIGITS_MIN / 2).map(|number| byte(number * 2)).collect()
    }
}

/// Which sagas to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SagaQuery {
    /// Any of these; empty: all.
    pub statuses: Vec<SagaStatus>,
    /// Of this definition.
    pub definition: Option<DefinitionName>,
    /// With this tag.
    pub tag: Option<(String, String)>,
    /// Started after this time.
    pub started_after: Option<Timestamp>,
    /// Started before this time.
    pub started_before: Option<Timestamp>,
    /// With an id that begins or ends so.
    pub id: Option<IdPart>,
    /// Only ids smaller than this: the cursor.
    pub before: Option<SagaId>,
    /// At most so many.
    pub limit: u32,
}

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// The bytes of a component.
    Component,
    /// The canonical form of a definition.
    Definition,
}

impl BlobKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Definition => "definition",
        }
    }
}

/// A blob without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// The plugin's or definition's name.
    pub name: String,
    /// Of the bytes.
    pub digest: Digest,
    /// When it was first kept.
    pub at: Timestamp,
    /// How many bytes.
    pub bytes_len: u64,
}

/// Whether a store takes writes.
#[derive(Debug, Clone, Default)]
pub enum StoreHealth {
    /// It does.
    #[default]
    Well,
    /// It does not for now, for this reason; it looks by itself whether it can again.
    NoWrites(StoreError),
    /// It never will again in this process, for this reason.
    Lost(StoreError),
}

/// The disk that a store is on, as it was measured last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// What this user may still write to it.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// It is nearly full.
    pub is_low: bool,
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Appends that were written.
    pub appends: u64,
    /// Events that were written.
    pub events: u64,
    /// Transactions that they took.
    pub transactions: u64,
    /// The disk that it is on; none while that is not measured, or cannot be.
    pub disk: Option<DiskRoom>,
}
