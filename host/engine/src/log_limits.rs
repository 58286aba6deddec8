//! How long the log of one saga may become.
//!
//! A saga that is tried again and again for months, or that runs over long lists, grows a log that
//! is slow to read and that no person reads. When the log is full, no call of the saga begins and
//! the saga is blocked. It is never ended, because its effects stand. What happens to calls in
//! flight is still recorded, so a log may become somewhat longer than its limit. An order of an
//! operator that moves the saga allows more.

use crate::event::{Event, OperatorEvent, SignalEvent, StepEvent, UndoEvent};
use crate::payload::Payload;

/// The number of events from which a saga's log counts as long.
pub const LOG_EVENTS_LONG: u64 = 10_000;

/// The number of events at which a saga's log is full.
pub(crate) const LOG_EVENTS_MAX: u64 = 50_000;

/// The size at which a saga's log is full, in bytes of its payloads and its error messages.
pub(crate) const LOG_BYTES_MAX: u64 = 64 << 20;

/// The number of events that an order allows beyond those of a full log. The undo of a saga with
/// the most elements ([`crate::ELEMENTS_MAX`]) fits in.
pub(crate) const LOG_EVENTS_MORE: u64 = 5_000;

/// The bytes that an order allows beyond those of a full log.
pub(crate) const LOG_BYTES_MORE: u64 = 8 << 20;

/// A length of a log. A log is full when it has one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogSize {
    pub(crate) events: u64,
    /// The bytes of payloads and error messages.
    pub(crate) bytes: u64,
}

/// The limits on the log of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// The size at which the log is full for the first time.
    pub(crate) max: LogSize,
    /// The size that an order adds to a full log.
    pub(crate) more: LogSize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            max: LogSize { events: LOG_EVENTS_MAX, bytes: LOG_BYTES_MAX },
            more: LogSize { events: LOG_EVENTS_MORE, bytes: LOG_BYTES_MORE },
        }
    }
}

/// Returns the bytes of an event that count: its payloads, and its error message.
pub(crate) fn event_bytes(event: &Event) -> u64 {
    let payload = |payload: &Option<Payload>| payload.as_ref().map_or(0, |it| it.as_str().len());
    let bytes = match event {
        Event::Step(StepEvent::Expanded(it)) => it.items.iter().map(|it| it.as_str().len()).sum(),
        Event::Step(StepEvent::Succeeded(it)) => it.output.as_str().len(),
        Event::Step(StepEvent::Failed(it)) => it.error.message.len(),
        Event::Step(StepEvent::Unknown(it)) => it.error.message.len(),
        Event::Undo(UndoEvent::Succeeded(it)) => payload(&it.receipt),
        Event::Undo(UndoEvent::Failed(it)) => it.error.message.len(),
        Event::Undo(UndoEvent::Blocked(it)) => it.error.message.len(),
        Event::Operator(OperatorEvent::Retried(it)) => payload(&it.input),
        Event::Operator(OperatorEvent::Resolved(it)) => payload(&it.output),
        Event::Signal(SignalEvent::Received(it)) => it.payload.as_str().len(),
        Event::Emitted(it) => it.data.as_str().len(),
        Event::Saga(_)
        | Event::Step(StepEvent::Started(_) | StepEvent::Waiting(_) | StepEvent::Skipped(_))
        | Event::Undo(UndoEvent::Started(_))
        | Event::Operator(
            OperatorEvent::Cancelled(_)
            | OperatorEvent::Compensated(_)
            | OperatorEvent::Paused(_)
            | OperatorEvent::Resumed(_)
            | OperatorEvent::Skipped(_)
            | OperatorEvent::Noted(_)
            | OperatorEvent::Abandoned(_),
        ) => 0,
    };
    bytes as u64
}
