//! Problem details for HTTP APIs (RFC 9457).

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::is_steering;
use amends_runtime::{OperateError, RuntimeError, StartError};
use amends_store::StoreError;

use crate::answer::Json;

/// What went wrong with a request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:amends:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The words of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// What went wrong, for people.
    pub detail: String,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem with its HTTP status, stable code and a sentence.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self {
            kind: format!("urn:amends:problem:{code}"),
            title: title.unwrap_or("Error").to_owned(),
            status,
            code: code.to_owned(),
            detail: detail.into(),
            remedy: None,
        }
    }

    /// Says what would be right.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        let is_for_now = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::INSUFFICIENT_STORAGE
        );
        if is_for_now {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        // The store logs what is wrong with it, once.
        tracing::debug!(%error, "a request met a store that failed");
        match error {
            StoreError::Full(_) => Self::new(507, "store_full", detail).with_remedy(
                "make room on the disk of the host's store; it goes on by itself, then try again",
            ),
            StoreError::Fenced | StoreError::WriterEnded => Self::new(503, "store_lost", detail)
                .with_remedy("this host ends; try again when one runs on this store"),
            StoreError::Damaged { .. } => Self::new(500, "store_damaged", detail),
            StoreError::TooLong(_) => Self::new(503, "read_too_long", detail)
                .with_remedy("narrow the request: a smaller limit, a status, a definition"),
            StoreError::Url(_)
            | StoreError::NoPostgres
            | StoreError::Invalid(_)
            | StoreError::Conflict { .. }
            | StoreError::InUse(_)
            | StoreError::NewerSchema { .. }
            | StoreError::File { .. }
            | StoreError::Closed
            | StoreError::Database(_)
            | StoreError::Unreadable(_) => Self::new(503, "store_failed", detail)
                .with_remedy("try again; if it goes on, look at the host's log"),
        }
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let detail = error.to_string();
        match error {
            StartError::DefinitionUnknown(_) => Self::new(404, "definition_unknown", detail)
                .with_remedy("GET /v1/definitions lists those of the config"),
            StartError::KeyReused(_) => {
                Self::new(422, "key_reused", detail).with_remedy("use a new key for a new payload")
            }
            StartError::Overloaded(_) => Self::new(429, "overloaded", detail)
                .with_remedy("try again after the time in Retry-After"),
            StartError::Stopping => {
                Self::new(503, "stopping", detail).with_remedy("try again when the host is back")
            }
            StartError::Store(error) => error.into(),
        }
    }
}

impl From<RuntimeError> for Problem {
    fn from(error: RuntimeError) -> Self {
        let detail = error.to_string();
        match error {
            RuntimeError::Store(error) => error.into(),
            RuntimeError::Stopping => {
                Self::new(503, "stopping", detail).with_remedy("try again when the host is back")
            }
            RuntimeError::Busy(_) => {
                Self::new(503, "saga_busy", detail).with_remedy("try again in a second")
            }
            RuntimeError::DefinitionLost { .. } | RuntimeError::Unreadable { .. } => {
                Self::new(500, "saga_unreadable", detail)
                    .with_remedy("the saga is quarantined; its events can still be read")
            }
            RuntimeError::PluginMissing { .. } | RuntimeError::ExportMissing { .. } => {
                Self::new(500, "plugin_missing", detail)
            }
        }
    }
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        let detail = error.to_string();
        match error {
            OperateError::NotFound(_) => Self::new(404, "saga_unknown", detail)
                .with_remedy("GET /v1/sagas lists the sagas of this host"),
            OperateError::Refused(refusal) | OperateError::Quarantined(refusal) => {
                Self::new(409, "wrong_state", refusal.message).with_remedy(refusal.remedy)
            }
            OperateError::Overloaded(_) => Self::new(429, "overloaded", detail)
                .with_remedy("try again after the time in Retry-After"),
            OperateError::Runtime(error) => error.into(),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status().as_u16(), "bad_request", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(400, "bad_query", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(400, "bad_path", rejection.body_text())
    }
}

/// The text, when a person can read all of it on one line: it is kept, and shown in terminals.
/// `what` names it in words, such as `the reason`.
pub(crate) fn legible(what: &str, text: String) -> Result<String, Problem> {
    let Some(steering) = text.chars().find(|character| is_steering(*character)) else {
        return Ok(text);
    };
    let code = u32::from(steering);
    Err(Problem::new(400, "bad_text", format!("{what} has a control character, U+{code:04X}"))
        .with_remedy("write it on one line, without control characters"))
}

/// `Path` that refuses with a problem.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

/// `Query` that refuses with a problem.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);
