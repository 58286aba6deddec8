//! Rules for events: what became of a delivery, and how each rule stands.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::{EventResultWord, EventRuleStateWord};

/// What became of the events of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventsTakenView {
    /// One for each event, in their order.
    pub items: Vec<EventTakenItem>,
}

/// What became of an event. It is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventTakenItem {
    /// The id of the event.
    pub id: String,
    /// The source of the event.
    pub source: String,
    /// `started` (it started the saga), `repeated` (an earlier delivery started the saga), `signalled` (it
    /// became a signal to the saga, now or by an earlier delivery) or `ignored` (the rule takes another type).
    #[schema(value_type = EventResultWord)]
    pub result: String,
    /// The id of the saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
}

/// A rule for events (`[[on]]`), and how it stands. Counts are since the host started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRuleView {
    /// The name.
    pub name: String,
    /// The type of its events, or the beginning of it and `*`.
    pub event: String,
    /// `active`, or `away` while no events can come, because their server or stream is away.
    #[schema(value_type = EventRuleStateWord)]
    pub state: String,
    /// Where they come from: `webhook`, `events`, or a server and a stream of NATS.
    pub from: String,
    /// True when the sender of a webhook must know a secret.
    pub is_signed: bool,
    /// The definition of the sagas that it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The signal that it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// How many events came.
    pub events: u64,
    /// Events that started a saga.
    pub started: u64,
    /// Events that came again after they had started their saga.
    pub repeated: u64,
    /// Events that became a signal, or came again after that.
    pub signalled: u64,
    /// Events of another type.
    pub ignored: u64,
    /// Deliveries that are no event, are not signed, on which an expression fails, or whose saga does not take
    /// the signal.
    pub refused: u64,
    /// Events that could not be taken then, because the host was full or its store failed.
    pub failed: u64,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that error was.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<Timestamp>,
}
