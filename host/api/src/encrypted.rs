//! Marks requests that came over TLS.

use axum::extract::Request;

/// Marks a request, as an extension, that came over TLS of the host's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encrypted;

/// Whether a request is marked as [`Encrypted`].
pub(crate) fn is_encrypted(request: &Request) -> bool {
    request.extensions().get::<Encrypted>().is_some()
}
