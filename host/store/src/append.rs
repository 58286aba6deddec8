//! Appends: what a caller writes, and what comes of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use amends_engine::{
    DefinitionName, Digest, Payload, SagaId, SagaStarted, StateChange, Timestamp, Version,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::StoreError;
use crate::saga_failure::SagaFailure;
use crate::saga_row::SagaRow;
use crate::stream::Stream;

/// The largest data of one event, in bytes: several times the largest payload, and far below what
/// one row of the database can hold.
pub(crate) const EVENT_BYTES_MAX: usize = 16 << 20;

/// The largest data of all events of one append, in bytes. An append is one value of the database,
/// and SQLite allows 10^9 bytes for a value. The largest payloads of as many calls as may run at
/// once need half of this.
pub(crate) const APPEND_BYTES_MAX: usize = 900 << 20;

/// One append to one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The stream to append to.
    pub stream: Stream,
    /// The version that the stream must have; 0 when the stream must not exist.
    pub expected: Version,
    /// When the events were decided.
    pub at: Timestamp,
    /// The events, at least one.
    pub events: Vec<NewEvent>,
    /// The row of the saga, when it has changed.
    pub row: Option<SagaRow>,
    /// What failed, by the events: see [`crate::failures`].
    pub failures: Vec<SagaFailure>,
    /// The idempotency key of a start, if the caller gave one.
    pub start_key: Option<StartKey>,
    /// What the recorded calls saw and write of their plugins' state, in this order.
    pub state: Vec<Arc<StateChange>>,
}

/// One event to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The type, such as `step.started`: small letters, digits, dots and underscores.
    pub kind: Cow<'static, str>,
    /// The data as JSON text, which the store does not check: an object, or any JSON in an event of
    /// a plugin.
    pub data: String,
}

/// The idempotency key with which a caller starts a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartKey {
    /// The key.
    pub key: String,
    /// The digest of the payload that the saga is started with.
    pub payload_digest: Digest,
}

impl StartKey {
    /// Returns the key of a start. Two starts with one key are the same when they have the same
    /// definition's name and the same input.
    #[must_use]
    pub fn of(key: &str, definition: &DefinitionName, input: &Payload) -> Self {
        let mut bytes = definition.as_str().as_bytes().to_vec();
        bytes.push(0);
        // One that an earlier version recorded may have no value: then it is the text that counts.
        let value = input.to_value().map(|value| value.to_string());
        bytes.extend_from_slice(value.as_deref().unwrap_or(input.as_str()).as_bytes());
        Self { key: key.to_owned(), payload_digest: Digest::of(&bytes) }
    }

    /// Returns the key of a saga that has started, if it has one. When the input is sealed, its digest is
    /// the keyed one that the event has.
    #[must_use]
    pub fn of_started(started: &SagaStarted) -> Option<Self> {
        let key = started.key.as_deref()?;
        let digest = started.sealed_key.as_ref().and_then(|sealed| sealed.payload_digest);
        Some(match digest {
            Some(payload_digest) => Self { key: key.to_owned(), payload_digest },
            None => Self::of(key, &started.definition, &started.input),
        })
    }
}

impl Append {
    /// Makes an append to a stream that all hosts share. It changes no state.
    #[must_use]
    pub fn shared(stream: Stream, expected: Version, at: Timestamp, events: Vec<NewEvent>) -> Self {
        let (row, failures, start_key, state) = (None, Vec::new(), None, Vec::new());
        Self { stream, expected, at, events, row, failures, start_key, state }
    }

    /// Returns how much the append adds to a transaction: the bytes of its events, and the cost of
    /// its state changes ([`StateChange::cost_bytes`]).
    #[must_use]
    pub fn bytes(&self) -> usize {
        let events = self.events.iter().map(|event| event.data.len());
        events.chain(self.state.iter().map(|change| change.cost_bytes())).sum()
    }

    /// Checks the rules that need no look at the store. Every implementation checks them first, so
    /// that one invalid append cannot fail the transaction that it would share with others.
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
        let saga = self.stream.saga();
        if self.row.as_ref().is_some_and(|row| Some(row.id) != saga) {
            return Err(StoreError::Invalid("a row goes with the stream of its own saga"));
        }
        let is_of_event = |failure: &SagaFailure| failure.event < self.events.len();
        if !self.failures.is_empty() && saga.is_none() || !self.failures.iter().all(is_of_event) {
            return Err(StoreError::Invalid("a failure goes with an event of a saga"));
        }
        self.state.iter().try_for_each(|change| change.check()).map_err(StoreError::Invalid)?;
        if self.start_key.is_some() && (saga.is_none() || self.expected != Version(0)) {
            return Err(StoreError::Invalid("a start key goes with the first append of a saga"));
        }
        Ok(())
    }
}

impl Append {
    /// Checks that the append may come from any host: it is to no saga, and it changes state only
    /// when it is to the stream of a plugin.
    pub(crate) fn check_shared(&self, may_change_state: bool) -> Result<(), StoreError> {
        match &self.stream {
            Stream::Saga(_) => {
                Err(StoreError::Invalid("the events of a saga are appended through its shard"))
            }
            Stream::Plugin(_) if may_change_state => Ok(()),
            Stream::Plugin(_)
            | Stream::Service(_)
            | Stream::Deploys
            | Stream::Erasures
            | Stream::Tokens
            | Stream::Audit
                if self.state.is_empty() =>
            {
                Ok(())
            }
            Stream::Plugin(_)
            | Stream::Service(_)
            | Stream::Deploys
            | Stream::Erasures
            | Stream::Tokens
            | Stream::Audit => {
                Err(StoreError::Invalid("state changes with an append to the stream of a plugin"))
            }
        }
    }
}

/// Returns true when a text may be the type of an event, in any stream.
pub(crate) fn is_event_type(kind: &str) -> bool {
    let letter = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_');
    !kind.is_empty() && kind.bytes().all(letter)
}

/// The result of an append that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The append is durable.
    Done {
        /// The version of the stream after the append.
        version: Version,
    },
    /// The key has started this saga before, with the same payload. Nothing was written.
    Duplicate(SagaId),
    /// The key has started this saga before, with another payload. Nothing was written.
    KeyReused(SagaId),
    /// A value that the state change of this index read has changed since. Nothing was written.
    StateChanged(usize),
    /// The state change of this index would exceed the size limit of its plugin's state. Nothing
    /// was written.
    StateFull(usize),
}

/// A callback that receives the result of an append once. When it is dropped uncalled, the result
/// is [`StoreError::Closed`].
pub struct AppendReply {
    callback: Option<Box<Callback>>,
    /// A place in a queue, held until the callback has run.
    place: Option<OwnedSemaphorePermit>,
}

type Callback = dyn FnOnce(Result<Appended, StoreError>) + Send;

impl AppendReply {
    /// Makes a reply of a callback. The store's own threads call it; for an invalid append, the
    /// thread that queues it does. So the callback must be quick and must not block.
    pub fn new(callback: impl FnOnce(Result<Appended, StoreError>) + Send + 'static) -> Self {
        Self { callback: Some(Box::new(callback)), place: None }
    }

    /// Holds a place in a queue until the callback has run.
    pub(crate) fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }

    /// Calls the callback.
    pub fn send(mut self, result: Result<Appended, StoreError>) {
        if let Some(callback) = self.callback.take() {
            callback(result);
        }
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            callback(Err(StoreError::Closed));
        }
    }
}

impl fmt::Debug for AppendReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendReply").finish_non_exhaustive()
    }
}
