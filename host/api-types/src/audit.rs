//! The audit of access control.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::RoleWord;

/// An entry of the audit: a request for a change, or how many requests without a token that counts were refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// The place of the entry in the audit, from 1. There are no gaps.
    pub version: u64,
    /// `audit.recorded` for a request, `audit.refused` for a count.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the request was answered; of a count, when it was recorded.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who asked; null for a count.
    pub who: Option<String>,
    /// The id of the token; null for that of the config, and for a count.
    pub token: Option<String>,
    /// The roles of the token.
    #[schema(value_type = Vec<RoleWord>)]
    pub roles: Vec<String>,
    /// The address that the request came from; of a count, `others` stands for those past the first thousand.
    pub address: Option<String>,
    /// The `operationId` of what was asked for; null when the path does not take the method, and for a count.
    pub operation: Option<String>,
    /// The path and the query of the request, shortened to 2,048 bytes; null for a count.
    pub target: Option<String>,
    /// The HTTP status of the answer. Null for a count, and when the caller went away before the answer: then
    /// nobody knows what was done.
    pub status: Option<u16>,
    /// The code of the problem; null when there was none.
    pub code: Option<String>,
    /// How many requests were refused; null for a request.
    pub count: Option<u64>,
    /// When the first of them came; null for a request.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The link to the entry before; null when the entry cannot be read.
    pub chain: Option<String>,
}

/// What a check of the chain of the audit has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditCheckView {
    /// How many entries fit, from the first one on.
    pub entries: u64,
    /// The chain of the last entry that fits; null when there is none.
    pub chain: Option<String>,
    /// A sentence about the first entry that does not fit; null when all do.
    pub finding: Option<String>,
}
