//! How long a request waits for a saga.

use std::time::Duration;

use crate::arrived::Arrived;
use crate::error::ApiError;
use amends_api_types::parse_duration;

/// A request waits at most this long: proxies on the way give up at about this time.
pub(crate) const WAIT_MAX: Duration = Duration::from_mins(5);

/// What is left of a wait for a request that came to the first host at `arrived`.
pub(crate) fn left_of(wait: Duration, arrived: Option<Arrived>) -> Duration {
    let waited = arrived.map_or(Duration::ZERO, |Arrived(at)| at.elapsed());
    wait.saturating_sub(waited)
}

/// Reads how long a request waits.
///
/// # Errors
/// 400 when the text is not a duration.
pub(crate) fn wait_of(text: &str) -> Result<Duration, ApiError> {
    parse_duration(text).map(|wait| wait.min(WAIT_MAX)).map_err(ApiError::bad_query)
}
