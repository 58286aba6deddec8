//! Answers in JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer in JSON, as `axum::Json` makes it, with a line break at its end. So the prompt of a shell does not
/// stand in the last line that `curl` prints.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let Ok(mut body) = serde_json::to_vec(&self.0) else {
            // Our own views have nothing that JSON cannot say.
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        body.push(b'\n');
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], body).into_response()
    }
}
