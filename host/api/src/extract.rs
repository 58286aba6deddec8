//! The path and the query of a request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The path of a request, as `axum` reads it. It refuses with a problem.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query of a request, as `axum` reads it. It refuses with a problem.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub(crate) struct Query<T>(pub(crate) T);

/// The query of a request, as [`Query`] reads it, with keys that may come several times.
pub(crate) struct RepeatedQuery<T>(pub(crate) T);

/// A query with keys that may come several times.
pub(crate) trait Repeated {
    /// Those keys.
    const KEYS: &'static [&'static str];

    /// Adds one value of such a key.
    fn push(&mut self, key: &str, value: String);
}

impl<T: DeserializeOwned + Repeated, S: Sync> FromRequestParts<S> for RepeatedQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let is_repeated = |pair: &&str| T::KEYS.contains(&pair.split('=').next().unwrap_or(pair));
        let all = parts.uri.query().unwrap_or_default().split('&');
        let (repeated, once): (Vec<_>, Vec<_>) = all.partition(is_repeated);
        let mut query: T = read(&once)?;
        for (key, value) in read::<Vec<(String, String)>>(&repeated)? {
            query.push(&key, value);
        }
        Ok(Self(query))
    }
}

/// Reads some pairs of a query.
fn read<T: DeserializeOwned>(pairs: &[&str]) -> Result<T, ApiError> {
    let uri = format!("/?{}", pairs.join("&")).parse().map_err(ApiError::bad_query)?;
    let axum::extract::Query(read) = axum::extract::Query::try_from_uri(&uri)?;
    Ok(read)
}
