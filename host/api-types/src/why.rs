//! Why a saga is where it is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::{SagaStatusWord, VerbWord};

/// Why a saga is where it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The id of the saga.
    #[schema(format = "uuid")]
    pub id: String,
    /// The status of the saga.
    #[schema(value_type = SagaStatusWord)]
    pub status: String,
    /// A few sentences. The first gives the reason.
    pub sentence: String,
    /// A sentence for each component that served calls which failed; at most three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// When a step goes on by the clock alone.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// The deadline: a saga that has not completed by then is compensated. Absent when the deadline no longer
    /// changes anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    /// The operator's verbs that would change something.
    #[schema(value_type = Vec<VerbWord>)]
    pub verbs: Vec<String>,
    /// The names of the steps whose undo is due and has not begun: `skip` and `resolve` take them with
    /// `"undo": true`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undos: Vec<String>,
}
