//! The definitions in force.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// A definition in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DefinitionView {
    /// The name of the definition.
    pub name: String,
    /// The digest of the definition's canonical form.
    pub digest: String,
    /// The canonical form.
    #[schema(value_type = serde_json::Value)]
    pub spec: Payload,
}
