//! The reasons that operators give.

use crate::error::ApiError;
use crate::legible::legible;

/// Checks that a reason says something. The answer has no white space at its ends.
///
/// # Errors
/// 400 when the reason is empty, or is not legible on one line.
pub(crate) fn reason_of(text: &str) -> Result<String, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::new(400, "reason_missing", "the reason is empty")
            .with_remedy("say why: it is kept"));
    }
    legible("the reason", text.trim().to_owned())
}
