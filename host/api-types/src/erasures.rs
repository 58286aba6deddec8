//! Erasures of personal values.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::{PersonalStateWord, SagaStatusWord};

/// The order to erase the personal values of a subject.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasureBody {
    /// The subject, as `subject` of a definition reads it of an input. The host does not keep it.
    pub subject: String,
    /// Why. The host keeps the reason and who asked, so the reason should not name the subject.
    #[schema(min_length = 1)]
    pub reason: String,
}

/// An erasure.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErasureView {
    /// The id of the subject's key, which is random. None when the subject has no key: it has no sagas, or
    /// was erased before.
    pub subject_key: Option<String>,
    /// When the erasure was asked for.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// Who asked for it: a name, which the host does not check, and an address.
    pub who: Option<String>,
    /// The reason that they gave.
    pub reason: Option<String>,
    /// How many sagas had their values erased at once.
    pub erased: u64,
    /// How many sagas waited and had their values erased since.
    #[serde(default)]
    pub erased_later: u64,
    /// How many sagas still wait until they can no longer be undone.
    pub waiting: u64,
    /// Those sagas; at most 1,000 of them.
    pub sagas: Vec<ErasureWaitItem>,
}

/// A saga whose values are erased when it can no longer be undone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErasureWaitItem {
    /// The id of the saga.
    #[schema(format = "uuid")]
    pub id: String,
    /// When the time to undo it ends; absent while it has not ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The status of the saga, or of the saga that runs it, while that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SagaStatusWord>)]
    pub status: Option<String>,
}

/// What became of the personal values of a saga.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PersonalView {
    /// `sealed`; `waiting` when they are erased as soon as the saga can no longer be undone; `erased`.
    #[schema(value_type = PersonalStateWord)]
    pub state: String,
    /// When the erasure was asked for.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The reason that they gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
