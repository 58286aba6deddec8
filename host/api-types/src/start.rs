//! What starts sagas, one at a time or in a batch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{Payload, Timestamp};

use crate::problem::Problem;

/// A saga to start.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    /// The name of a definition of the config.
    pub definition: String,
    /// The input of the saga: any JSON.
    #[schema(value_type = serde_json::Value)]
    #[serde(default = "Payload::null")]
    pub input: Payload,
    /// Tags by which the saga can be found: at most 16.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When the first steps may begin (RFC 3339), at most ten years ahead. The saga is durable at once and
    /// waits until then. Absent, or a time that has passed: at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// The idempotency key, in a batch. A single start gives it in the header `Idempotency-Key`.
    #[serde(default)]
    pub key: Option<String>,
}

/// One line of the answer to a batch: an id or a problem.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// The id of the saga that was started, now or earlier with the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why no saga was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
