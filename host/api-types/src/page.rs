//! Pages of lists.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many items a page has when the caller does not say.
pub const LIMIT_DEFAULT: u32 = 50;

/// How many items a page has at most.
pub const LIMIT_MAX: u32 = 1_000;

/// One page.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Give this as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
