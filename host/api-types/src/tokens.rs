//! Tokens of access control, and who asks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::Timestamp;

use crate::words::{PermissionWord, RoleWord, TokenStateWord};

/// The request for a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// The name of the token, which is recorded as `who` with all that is done with it: 1 to 64 letters, digits,
    /// `-`, `_` and `.`. No other active token has it.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub name: String,
    /// The roles of the token, at least one.
    #[schema(value_type = Vec<RoleWord>, min_items = 1)]
    pub roles: Vec<String>,
    /// Whether the token also lets see payloads and plugin state.
    #[serde(default)]
    pub payloads: bool,
    /// The namespaces that the token is for, by name, or `*` for all of them; `default` alone when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// How long the token is valid, such as `90d`; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// A token that was made. No other answer has the token itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewTokenView {
    /// The token, for the header `authorization: Bearer TOKEN`. The host keeps only its SHA-256.
    pub token: String,
    /// What the host knows of it.
    #[serde(flatten)]
    pub view: TokenView,
}

/// A token, without the token itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// The id of the token: the letters and digits between `amends_` and the second `_`.
    pub id: String,
    /// The name of the token.
    pub name: String,
    /// The roles of the token.
    #[schema(value_type = Vec<RoleWord>)]
    pub roles: Vec<String>,
    /// Whether the token also lets see payloads and plugin state.
    pub payloads: bool,
    /// The namespaces that the token is for; `*` for all of them.
    pub namespaces: Vec<String>,
    /// `active`, `expired` or `revoked`.
    #[schema(value_type = TokenStateWord)]
    pub state: String,
    /// Who made the token.
    pub created_by: String,
    /// When the token was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the token expires; null when it never does.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When the token was used last, to within a day; null when it never was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// Who revoked the token, when, and why; null when nobody has.
    pub revoked: Option<RevokedView>,
}

/// The end of a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokedView {
    /// Who revoked the token.
    pub who: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The reason that they gave.
    pub reason: String,
}

/// The order to revoke a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    /// Why.
    pub reason: String,
}

/// Who asks, and what they may do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MeView {
    /// What is recorded as `who` when the caller changes something.
    pub who: String,
    /// Whether the host asks callers for a token. When it does not, everybody may do everything.
    pub access_control: bool,
    /// The roles of the token; empty without access control.
    #[schema(value_type = Vec<RoleWord>)]
    pub roles: Vec<String>,
    /// What the caller may do.
    #[schema(value_type = Vec<PermissionWord>)]
    pub permissions: Vec<String>,
    /// The namespaces of the host that the caller may see.
    pub namespaces: Vec<String>,
    /// When the token expires; null when it never does, and without access control.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}
