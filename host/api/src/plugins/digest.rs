//! Digests of components as callers write them.

use amends_engine::{Digest, IdError};

use crate::api_state::ApiState;
use crate::error::{ApiError, SEE_VERSIONS};

/// The beginning of a digest has at least this many digits. Tables print twelve.
const DIGITS_MIN: usize = 8;

/// Reads a digest: whole, or enough of its beginning to know which component of this host is meant. The
/// algorithm may be left out, as tables do.
///
/// # Errors
/// 400 when the text is not a digest, or the beginning of no component's or of several.
pub(crate) fn parse_digest(state: &ApiState, text: &str) -> Result<Digest, ApiError> {
    let digest = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_short = is_hex && (DIGITS_MIN..64).contains(&digest.len());
    let text = &format!("sha256:{digest}");
    let bad = |error: String| ApiError::new(400, "bad_digest", error);
    if is_short {
        let known = state.host.component_digest(&text.to_lowercase());
        return known.map_err(|error| bad(error).with_remedy(SEE_VERSIONS));
    }
    text.parse().map_err(|error: IdError| bad(error.to_string()).with_remedy(SEE_VERSIONS))
}
