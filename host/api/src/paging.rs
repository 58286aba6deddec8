//! Which page of a list a request asks for.

use amends_api_types::{LIMIT_DEFAULT, LIMIT_MAX};

use crate::error::ApiError;

/// A page ends with the item that makes it this large: 1,000 of the largest items would be more than a
/// gigabyte.
pub(crate) const PAGE_BYTES_MAX: usize = 8 << 20;

/// Reads how many items a page may have.
///
/// # Errors
/// 400 when the number is out of bounds.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::new(400, "bad_query", format!("limit = {limit}, it is from 1 to {LIMIT_MAX}")))
}

/// Reads a cursor that this list gave out.
///
/// # Errors
/// 400 when the text is not such a cursor.
pub(crate) fn cursor<T: std::str::FromStr>(asked: Option<&str>) -> Result<Option<T>, ApiError> {
    asked
        .map(|text| {
            text.parse().map_err(|_| {
                ApiError::new(400, "bad_cursor", format!("`{text}` is not a cursor of this list"))
                    .with_remedy("use the next_cursor of the page before, as it is")
            })
        })
        .transpose()
}
