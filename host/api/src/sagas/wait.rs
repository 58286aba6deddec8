//! How long a request waits for a saga.

use std::time::Duration;

use crate::error::ApiError;
use amends_api_types::parse_duration;

/// A request waits at most this long: proxies on the way give up at about this time.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// Reads how long a request waits.
///
/// # Errors
/// 400 when the text is not a duration.
pub(crate) fn wait_of(text: &str) -> Result<Duration, ApiError> {
    parse_duration(text).map(|wait| wait.min(WAIT_MAX)).map_err(ApiError::bad_query)
}
