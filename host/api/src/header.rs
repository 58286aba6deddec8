//! Headers of requests.

use axum::http::HeaderMap;

use crate::error::ApiError;

/// Reads a header. `None`: the request does not have it.
///
/// # Errors
/// 400 when its value is not plain text.
pub(crate) fn header_text(headers: &HeaderMap, name: &str) -> Result<Option<String>, ApiError> {
    headers
        .get(name)
        .map(|value| {
            value.to_str().map(str::to_owned).map_err(|_| {
                ApiError::new(400, "bad_header", format!("the header {name} is not plain text"))
            })
        })
        .transpose()
}
