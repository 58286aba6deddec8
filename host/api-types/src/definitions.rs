//! The definitions in force.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Payload;

/// A definition in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DefinitionView {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// Its canonical form.
    #[schema(value_type = Object)]
    pub spec: Payload,
}
