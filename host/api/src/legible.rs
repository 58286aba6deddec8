//! Texts of callers that are kept, and shown in terminals.

use amends_engine::is_steering;

use crate::error::ApiError;

/// Checks that a person can read all of a text on one line. `what` names the text in words, such as `the
/// reason`.
///
/// # Errors
/// 400 when the text has a control character.
pub(crate) fn legible(what: &str, text: String) -> Result<String, ApiError> {
    let Some(steering) = text.chars().find(|character| is_steering(*character)) else {
        return Ok(text);
    };
    let code = u32::from(steering);
    Err(ApiError::new(400, "bad_text", format!("{what} has a control character, U+{code:04X}"))
        .with_remedy("write it on one line, without control characters"))
}
