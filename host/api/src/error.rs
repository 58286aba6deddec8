//! The error of a request: which problem (RFC 9457) each error of the host is.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use amends_api_types::Problem;
use amends_runtime::{OperateError, RuntimeError, StartError};
use amends_store::StoreError;

use crate::answer::Json;

/// The error of a request. It is answered as a problem.
#[derive(Debug)]
pub(crate) struct ApiError(Problem);

impl ApiError {
    /// An error with its HTTP status, stable code and a sentence.
    pub(crate) fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self(Problem {
            kind: format!("urn:amends:problem:{code}"),
            title: title.unwrap_or("Error").to_owned(),
            status,
            code: code.to_owned(),
            detail: detail.into(),
            remedy: None,
        })
    }

    /// Says what would be right.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Says something else of what went wrong.
    #[must_use]
    pub(crate) fn with_detail(mut self, detail: String) -> Self {
        self.0.detail = detail;
        self
    }

    /// Answers with another HTTP status. The title stays.
    #[must_use]
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = status;
        self
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        &self.0.code
    }

    /// The problem, for an answer that has several.
    pub(crate) fn into_problem(self) -> Problem {
        self.0
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
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

impl From<StoreError> for ApiError {
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

impl From<StartError> for ApiError {
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

impl From<RuntimeError> for ApiError {
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

impl From<OperateError> for ApiError {
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

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status().as_u16(), "bad_request", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(400, "bad_query", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(400, "bad_path", rejection.body_text())
    }
}
