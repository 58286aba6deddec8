//! Who asks for a change: kept with everything that an operator does.

use std::net::SocketAddr;

use axum::http::HeaderMap;

use crate::error::ApiError;
use crate::header::header_text;
use crate::legible::legible;

/// Says who asks: the name in the header `amends-user`, if there is one, and the address of the peer. The
/// host does not check the name. Behind a proxy both are what the proxy says.
///
/// # Errors
/// 400 when the name is not legible on one line.
pub(crate) fn who(headers: &HeaderMap, peer: SocketAddr) -> Result<String, ApiError> {
    let named = header_text(headers, "amends-user")?.filter(|name| !name.trim().is_empty());
    let named = named.map(|name| legible("the header amends-user", name)).transpose()?;
    Ok(named.map_or_else(|| peer.ip().to_string(), |name| format!("{name}@{}", peer.ip())))
}
