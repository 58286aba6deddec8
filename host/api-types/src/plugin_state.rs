//! What plugins keep.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use amends_engine::Payload;

/// Bytes of one import: it is in memory as a whole, and one transaction of the store.
pub const STATE_IMPORT_BYTES_MAX: usize = 16 << 20;

/// One key and what is behind it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StateItem {
    /// The key.
    pub key: String,
    /// Any JSON.
    #[schema(value_type = Object)]
    pub value: Box<RawValue>,
}

/// One line of an import.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateImportLine {
    /// The key.
    pub key: String,
    /// Any JSON.
    pub value: Payload,
}

/// What an import did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StateImported {
    /// How many keys it wrote.
    pub written: usize,
}
