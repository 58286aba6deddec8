//! Subscriptions: how they stand, and what an operator orders about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::SubscriptionStateWord;

/// A subscription: the events that reach another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionView {
    /// The name.
    pub name: String,
    /// `active`, `away` (the receiver does not take events, and the host tries again) or `disabled` (the
    /// receiver wants no more).
    #[schema(value_type = SubscriptionStateWord)]
    pub state: String,
    /// Where the events go, without the query of the address.
    pub target: String,
    /// The place in the log up to which everything is delivered, filtered out, or a dead letter: a cursor
    /// of `GET /v1/events`.
    pub position: String,
    /// How many events of the log lie behind that place, wanted or not.
    pub lag_events: u64,
    /// How many events could not be delivered and wait for an order.
    pub dead_letters: u64,
    /// True while dead letters are being sent again.
    pub is_redriving: bool,
    /// The last error since the host started, or the reason why the subscription is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that error was.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<Timestamp>,
}

/// An event that a subscription could not deliver, and that waits for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterView {
    /// The place of the event in the log: `GET /v1/events?limit=1&cursor=PLACE` answers it, unless its saga
    /// is in the archive.
    pub place: String,
    /// The saga of the event; absent for an event of no saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The place of the event in its stream, from 1.
    pub version: u64,
    /// The type of the event.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it became a dead letter.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// The last error.
    pub error: String,
}

/// The order to send the dead letters of a subscription again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveBody {
    /// Why. The host logs the reason and who asked.
    #[schema(min_length = 1)]
    pub reason: String,
}
