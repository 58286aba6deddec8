//! What starts sagas, one at a time or in a batch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

use crate::problem::Problem;

/// A saga to start.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    /// The name of a definition of the config.
    pub definition: String,
    /// What it is given: any JSON.
    #[schema(value_type = Object)]
    #[serde(default = "Payload::null")]
    pub input: Payload,
    /// For finding it: at most 16.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Idempotency key, in a batch; alone it is the header `Idempotency-Key`.
    #[serde(default)]
    pub key: Option<String>,
}

/// One line of the answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// The saga that was started, now or earlier with the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
