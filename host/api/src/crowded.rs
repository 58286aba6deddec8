//! Marks requests of connections beyond those that the host serves.

use axum::extract::Request;

/// Marks a request, as an extension, that came while the host had as many connections as it serves. The
/// host answers it only when it asks about the host's health.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowded;

/// Whether a request is marked as [`Crowded`].
pub(crate) fn is_crowded(request: &Request) -> bool {
    request.extensions().get::<Crowded>().is_some()
}
