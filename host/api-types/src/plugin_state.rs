//! The state of plugins: keys, and the values behind them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use amends_engine::Payload;

/// An import has at most this many bytes: it is in memory as a whole, and one transaction of the store.
pub const STATE_IMPORT_BYTES_MAX: usize = 16 << 20;

/// One key of a plugin's state, and its value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StateItem {
    /// The key.
    pub key: String,
    /// The value: any JSON.
    #[schema(value_type = serde_json::Value)]
    pub value: Box<RawValue>,
}

/// One line of an import.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateImportLine {
    /// The key.
    pub key: String,
    /// The value: any JSON.
    #[schema(value_type = serde_json::Value)]
    pub value: Payload,
}

/// The result of an import.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StateImported {
    /// How many keys the import wrote.
    pub written: usize,
}
