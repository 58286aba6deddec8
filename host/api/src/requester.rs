//! Who asks for a change: the host keeps it with everything that an operator does.

use std::net::SocketAddr;

use axum::http::HeaderMap;

use amends_runtime::{Principal, Via};

use crate::error::ApiError;
use crate::header::header_text;
use crate::legible::legible;

/// Says who asks: the name in the header `amends-user`, if there is one, and the address of the peer. The
/// host does not check the name. Behind a proxy both are what the proxy says.
///
/// # Errors
/// 400 when the name is not legible on one line.
pub(crate) fn requester(headers: &HeaderMap, peer: SocketAddr) -> Result<Principal, ApiError> {
    let named = header_text(headers, "amends-user")?.filter(|name| !name.trim().is_empty());
    let named = named.map(|name| legible("the header amends-user", name)).transpose()?;
    Ok(match named {
        Some(name) => Principal::local(format!("{name}@{}", peer.ip()), Via::Http),
        None => peer_of(peer),
    })
}

/// Says who asks for something that is not kept with a name: the address of the peer.
pub(crate) fn peer_of(peer: SocketAddr) -> Principal {
    Principal::local(peer.ip().to_string(), Via::Http)
}
