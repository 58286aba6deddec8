//! Pages of lists.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// How many items a page has when the caller does not say.
pub const LIMIT_DEFAULT: u32 = 50;

/// How many items a page has at most.
pub const LIMIT_MAX: u32 = 1_000;

/// A page of what may be large ends with the item that makes it this large: 1,000 of the largest
/// would be more than a gigabyte.
pub(crate) const PAGE_BYTES_MAX: usize = 8 << 20;

/// One page.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items, in the order of the list.
    pub(crate) items: Vec<T>,
    /// Give this as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// A limit within bounds.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(400, "bad_query", format!("limit = {limit}, it is from 1 to {LIMIT_MAX}")))
}

/// A cursor that this list gave out.
pub(crate) fn cursor<T: std::str::FromStr>(asked: Option<&str>) -> Result<Option<T>, Problem> {
    asked
        .map(|text| {
            text.parse().map_err(|_| {
                Problem::new(400, "bad_cursor", format!("`{text}` is not a cursor of this list"))
                    .with_remedy("use the next_cursor of the page before, as it is")
            })
        })
        .transpose()
}
