//! The path and the query of a request.

use crate::error::ApiError;

/// The path of a request, as `axum` reads it. It refuses with a problem.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query of a request, as `axum` reads it. It refuses with a problem.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub(crate) struct Query<T>(pub(crate) T);
