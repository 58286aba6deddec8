//! The error of a request: which problem (RFC 9457) each error of the host is.

use std::fmt::Display;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use amends_api_types::Problem;
use amends_registry::PluginError;
use amends_runtime::StateError;
use amends_runtime::{
    ArchiveError, ArchivePassError, BackupError, BreakerError, EventError, ExposureError, Fatal,
    ImportError, Obstacle, OperateError, OwnerError, RebuildError, RehearseError, RuntimeError,
    StartError, StoreError,
};

use crate::answer::Json;

/// Says where the digests of components are listed.
pub(crate) const SEE_VERSIONS: &str =
    "amends plugin versions NAME lists the components that served a plugin";

/// The error of a request. It is answered as a problem.
#[derive(Debug)]
pub(crate) struct ApiError {
    problem: Problem,
    /// Whether the host has not done it because it does not run the saga, or stops. Another host may.
    is_not_here: bool,
    /// When to try again, if that is known. Else an answer that is for now says one second.
    retry_after: Option<HeaderValue>,
}

/// Marks an answer, as an extension: the host does not run the saga any more, or stops. Nothing was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotHere;

/// The code of the problem that an answer is, as an extension of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProblemCode(pub(crate) String);

impl ApiError {
    /// An error with its HTTP status, stable code and a sentence.
    pub(crate) fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self::from(Problem {
            kind: format!("urn:amends:problem:{code}"),
            title: title.unwrap_or("Error").to_owned(),
            status,
            code: code.to_owned(),
            detail: detail.into(),
            remedy: None,
        })
    }

    /// The error of a query that cannot be read.
    pub(crate) fn bad_query(error: impl Display) -> Self {
        Self::new(400, "bad_query", error.to_string())
    }

    /// Says what would be right.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.problem.remedy = Some(remedy.into());
        self
    }

    /// Says something else of what went wrong.
    #[must_use]
    pub(crate) fn with_detail(mut self, detail: String) -> Self {
        self.problem.detail = detail;
        self
    }

    /// Says beforehand what it is about.
    #[must_use]
    pub(crate) fn with_detail_before(mut self, about: &str) -> Self {
        self.problem.detail.insert_str(0, about);
        self
    }

    /// Answers with another HTTP status. The title stays.
    #[must_use]
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.problem.status = status;
        self
    }

    /// Says when to try again: the value of the header Retry-After.
    #[must_use]
    pub(crate) fn with_retry_after(mut self, retry_after: HeaderValue) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Says that another host may do it.
    #[must_use]
    fn not_here(mut self) -> Self {
        self.is_not_here = true;
        self
    }

    /// Whether another host may do it.
    pub(crate) const fn is_not_here(&self) -> bool {
        self.is_not_here
    }

    /// The HTTP status.
    pub(crate) const fn status(&self) -> u16 {
        self.problem.status
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        &self.problem.code
    }

    /// The problem, for an answer that has several.
    pub(crate) fn into_problem(self) -> Problem {
        self.problem
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { problem, is_not_here: false, retry_after: None }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let is_not_here = self.is_not_here;
        let retry_after = self.retry_after.clone().unwrap_or(HeaderValue::from_static("1"));
        let code = ProblemCode(self.code().to_owned());
        let challenge = match self.code() {
            "signature_wrong" => "StandardWebhooks",
            "token_missing" | "proxy_not_trusted" => "Bearer",
            // RFC 6750, 3.1.
            _ => "Bearer error=\"invalid_token\"",
        };
        let mut response = (status, Json(self.problem)).into_response();
        response.extensions_mut().insert(code);
        if is_not_here {
            response.extensions_mut().insert(NotHere);
        }
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
            headers.insert(header::RETRY_AFTER, retry_after);
        }
        // RFC 9110, 15.5.2, wants it.
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
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
            StoreError::Unavailable { obstacle: Obstacle::Full, .. } => Self::new(
                507,
                "store_full",
                detail,
            )
            .with_remedy(
                "make room on the disk of the host's store; it goes on by itself, then try again",
            ),
            StoreError::Damaged { .. } | StoreError::Fatal(Fatal::Damaged { .. }) => {
                Self::new(500, "store_damaged", detail)
            }
            StoreError::LostOwnership(_) => Self::new(503, "store_lost", detail)
                .with_remedy("this host ends; try again when one runs on this store")
                .not_here(),
            StoreError::Fatal(_) => Self::new(503, "store_lost", detail)
                .with_remedy("this host ends; try again when one runs on this store"),
            StoreError::Unavailable { obstacle: Obstacle::TooLong(_), .. } => {
                Self::new(503, "read_too_long", detail)
                    .with_remedy("narrow the request: a smaller limit, a status, a definition")
            }
            StoreError::Invalid(_)
            | StoreError::Conflict { .. }
            | StoreError::Closed
            | StoreError::Unavailable { .. } => Self::new(503, "store_failed", detail)
                .with_remedy("try again; if it goes on, look at the host's log"),
        }
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        let detail = error.to_string();
        match error {
            BackupError::UnderWay => Self::new(409, "backup_under_way", detail)
                .with_remedy("wait until the other backup has ended"),
            BackupError::NoRoom { .. } => Self::new(507, "backup_no_room", detail).with_remedy(
                "make room on the disk of the store: a backup is made beside it and removed \
                 once it is sent",
            ),
            BackupError::Copy { .. } => {
                tracing::warn!(%error, "a backup has failed");
                Self::new(500, "backup_failed", detail)
                    .with_remedy("look at the disk of the store, then try again")
            }
            BackupError::Elsewhere => Self::new(409, "backup_elsewhere", detail)
                .with_remedy("see the page on PostgreSQL in the book"),
            BackupError::Store(error) => error.into(),
        }
    }
}

impl From<RebuildError> for ApiError {
    fn from(error: RebuildError) -> Self {
        let detail = error.to_string();
        match error {
            RebuildError::UnderWay => Self::new(409, "rebuild_under_way", detail)
                .with_remedy("wait until the other rebuild has ended"),
            RebuildError::Store(error) => error.into(),
        }
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        let detail = error.to_string();
        match error {
            ImportError::Damaged(_) => Self::new(422, "bundle_damaged", detail)
                .with_remedy("nothing was imported; export the saga again"),
            ImportError::NotEnded { .. } => Self::new(409, "saga_not_ended", detail).with_remedy(
                "let it end on its own host and export it again; `amends replay` shows it meanwhile",
            ),
            ImportError::Differs { .. } => Self::new(409, "saga_differs", detail).with_remedy(
                "nothing was imported; `amends replay` shows the bundle, `amends history` the saga \
                 that is here",
            ),
            ImportError::Keys(_) => Self::new(503, "keys_unavailable", detail)
                .with_remedy("look at the key file that the detail names"),
            ImportError::Runtime(error) => error.into(),
        }
    }
}

impl From<OwnerError> for ApiError {
    fn from(error: OwnerError) -> Self {
        let detail = error.to_string();
        match error {
            OwnerError::Nobody => Self::new(503, "no_owner", detail).with_remedy(
                "try again after the time in Retry-After; GET /v1/host lists the hosts of the store",
            ),
            OwnerError::Silent(_) => Self::new(504, "owner_silent", detail).with_remedy(
                "look at the saga; a start with a key, a signal with an id and an order may be sent \
                 again",
            ),
            OwnerError::Refuses(_) => Self::new(502, "owner_refuses", detail).with_remedy(
                "look at the clocks of the hosts, and whether all of them use this store",
            ),
            OwnerError::Full(_) => Self::new(429, "overloaded", detail)
                .with_remedy("try again after the time in Retry-After"),
            OwnerError::Answered(problem) => (*problem).into(),
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
            StartError::NoSubject { .. } => Self::new(422, "subject_missing", detail)
                .with_remedy("give the input the value that `subject` of the definition reads"),
            StartError::NeedsSubject { .. } => Self::new(422, "subject_needed", detail)
                .with_remedy("add `subject` to the definition: whose values these are"),
            StartError::Keys(_) => Self::new(503, "keys_unavailable", detail)
                .with_remedy("look at the key file that the detail names"),
            StartError::Overloaded(_) => Self::new(429, "overloaded", detail)
                .with_remedy("try again after the time in Retry-After"),
            StartError::TooOften { wait } => Self::new(429, "rate_limited", detail)
                .with_remedy(
                    "start fewer sagas a second, and try again after the time in Retry-After",
                )
                .with_retry_after(retry_after(wait)),
            StartError::Stopping => stopping(detail),
            StartError::Owner(error) => error.into(),
            StartError::Store(error) => error.into(),
        }
    }
}

/// Returns the value of the header Retry-After: whole seconds (RFC 9110, 10.2.3), at least one.
pub(crate) fn retry_after(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

fn stopping(detail: String) -> ApiError {
    ApiError::new(503, "stopping", detail).with_remedy("try again when the host is back").not_here()
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        let detail = error.to_string();
        match error {
            RuntimeError::Store(error) => error.into(),
            RuntimeError::Stopping => stopping(detail),
            // Only a start meets it.
            RuntimeError::NotAlone { .. } => Self::new(500, "failed", detail),
            RuntimeError::Keys(_) => Self::new(503, "keys_unavailable", detail)
                .with_remedy("look at the key file that the detail names"),
            RuntimeError::Busy(_) => {
                Self::new(503, "saga_busy", detail).with_remedy("try again in a second")
            }
            RuntimeError::DefinitionLost { .. } | RuntimeError::Unreadable { .. } => {
                Self::new(500, "saga_unreadable", detail)
                    .with_remedy("the saga is quarantined; its events can still be read")
            }
            RuntimeError::Archive(error) => error.into(),
            RuntimeError::PluginMissing { .. } | RuntimeError::ExportMissing { .. } => {
                Self::new(500, "plugin_missing", detail)
            }
        }
    }
}

impl From<ArchiveError> for ApiError {
    fn from(error: ArchiveError) -> Self {
        let detail = error.to_string();
        match error {
            ArchiveError::UnderWay => Self::new(409, "archive_under_way", detail)
                .with_remedy("wait until the other pass has ended"),
            ArchiveError::NoArchive => Self::new(409, "no_archive", detail)
                .with_remedy("set `archive` in [store] to a folder or a bucket"),
            ArchiveError::Imported(_) => imported(detail),
            ArchiveError::Deleted { .. } => Self::new(410, "saga_deleted", detail).with_remedy(
                "set archive to a folder or a bucket in [store], so that sagas are archived and not \
                 deleted",
            ),
            ArchiveError::NoFolder { .. } => Self::new(500, "archive_unreadable", detail)
                .with_remedy("set archive in [store] to the folder or bucket that has the file"),
            ArchiveError::File { .. } => Self::new(500, "archive_unreadable", detail).with_remedy(
                "put the file back from the copy of the archive, or mend its rights; only the sagas in \
                 this file cannot be read, and all others go on",
            ),
            ArchiveError::Unreachable { .. } => Self::new(503, "archive_unreachable", detail)
                .with_remedy(
                    "try again later; if it stays so, look at the object store, and at the AWS_ \
                     variables with which the host was started",
                ),
            ArchiveError::Damaged { .. } => Self::new(500, "archive_unreadable", detail)
                .with_remedy(
                    "put the file back from the copy of the archive; `amends store verify` finds all \
                     damage; only sagas in this file cannot be read, and all others go on",
                ),
            ArchiveError::Store(error) => error.into(),
        }
    }
}

impl From<ArchivePassError> for ApiError {
    fn from(error: ArchivePassError) -> Self {
        let detail = error.to_string();
        match error {
            ArchivePassError::NoRetention => Self::new(409, "no_retention", detail)
                .with_remedy("set retention in [store], such as \"90d\", and start the host again"),
            ArchivePassError::Stopping => RuntimeError::Stopping.into(),
            ArchivePassError::Runtime(error) => error.into(),
        }
    }
}

/// The problem of a path that does not take a method.
pub(crate) fn no_method(method: &Method, uri: &Uri) -> ApiError {
    let detail = format!("{} does not take {method}", uri.path());
    ApiError::new(405, "method_not_allowed", detail)
        .with_remedy("GET /v1/openapi.json lists what there is")
}

/// The problem of a saga that is archived, for whoever wants to change it.
pub(crate) fn archived(detail: String) -> ApiError {
    ApiError::new(409, "saga_archived", detail).with_remedy(
        "read it as before; amends store archive --bring-back ID brings it back into the store",
    )
}

/// The problem of a saga that ran on another host, for whoever wants to change it.
pub(crate) fn imported(detail: String) -> ApiError {
    ApiError::new(409, "saga_imported", detail).with_remedy(
        "read it here; give the order on the host that ran it, which still has the saga",
    )
}

impl From<OperateError> for ApiError {
    fn from(error: OperateError) -> Self {
        let detail = error.to_string();
        match error {
            OperateError::NotFound(_) => Self::new(404, "saga_unknown", detail)
                .with_remedy("GET /v1/sagas lists the sagas of this host"),
            OperateError::Archived(_) => archived(detail),
            OperateError::Imported(_) => imported(detail),
            OperateError::Refused(refusal) | OperateError::Quarantined(refusal) => {
                Self::new(409, "wrong_state", refusal.message).with_remedy(refusal.remedy)
            }
            OperateError::Overloaded(_) => Self::new(429, "overloaded", detail)
                .with_remedy("try again after the time in Retry-After"),
            OperateError::Owner(error) => error.into(),
            OperateError::Runtime(error) => error.into(),
        }
    }
}

impl From<EventError> for ApiError {
    fn from(error: EventError) -> Self {
        let detail = error.to_string();
        match error {
            EventError::Expression { .. } => Self::new(422, "expression_failed", detail)
                .with_remedy("change the event, or the rule in the config"),
            EventError::KeyUnknown(_) => Self::new(404, "key_unknown", detail)
                .with_remedy("send it again when the saga is started"),
            EventError::TooDeep(_) => Self::new(409, "chain_too_long", detail),
            EventError::Unreadable(_) => Self::new(422, "event_unreadable", detail),
            EventError::Start(StartError::KeyReused(_)) => Self::new(422, "key_reused", detail)
                .with_remedy(
                    "the `key` of the rule gives this event the key of that saga: send the data of that \
                     saga again, or have the key tell the two events apart",
                ),
            EventError::Start(error) => error.into(),
            EventError::Signal(error) => error.into(),
            EventError::Stopping => RuntimeError::Stopping.into(),
        }
    }
}

impl From<BreakerError> for ApiError {
    fn from(error: BreakerError) -> Self {
        let detail = error.to_string();
        let (BreakerError::NotDone(store) | BreakerError::NotWritten(store)) = error;
        Self::from(store).with_detail(detail)
    }
}

impl From<ExposureError> for ApiError {
    fn from(error: ExposureError) -> Self {
        let detail = error.to_string();
        match error {
            ExposureError::Counting { .. } => Self::new(503, "exposure_counting", detail)
                .with_remedy("try again: what was counted is remembered"),
            ExposureError::Store(error) => error.into(),
        }
    }
}

impl From<RehearseError> for ApiError {
    fn from(error: RehearseError) -> Self {
        let detail = error.to_string();
        match error {
            RehearseError::Rejected { .. } => Self::new(409, "component_refused", detail),
            RehearseError::NoPlugin(_) => Self::new(404, "plugin_unknown", detail)
                .with_remedy("GET /v1/plugins lists the plugins of this host"),
            RehearseError::NothingServes(_) => Self::new(409, "nothing_serves", detail)
                .with_remedy("deploy it: amends plugin deploy, with --dry-run to look first"),
            RehearseError::NoUndo => Self::new(409, "no_undo", detail)
                .with_remedy("hand in a component of the world `step` or `undo-only`"),
            RehearseError::Busy => Self::new(429, "rehearsal_running", detail)
                .with_remedy("try again when it has ended"),
            RehearseError::BrokenOff => Self::new(503, "rehearsal_broken_off", detail),
            RehearseError::Runtime(error) => error.into(),
        }
    }
}

impl From<PluginError> for ApiError {
    fn from(error: PluginError) -> Self {
        let detail = error.to_string();
        match error {
            PluginError::Canary { .. } => Self::new(409, "canary_refused", detail).with_remedy(
                "GET /v1/plugins/NAME has its canaries and the components that served it",
            ),
            PluginError::NoRollback { .. } => {
                Self::new(409, "no_rollback", detail).with_remedy(SEE_VERSIONS)
            }
            PluginError::Rejected { .. } => Self::new(409, "component_refused", detail),
            PluginError::Folder { .. }
            | PluginError::Start(_)
            | PluginError::Sandbox(_)
            | PluginError::Lost { .. }
            | PluginError::Store(_) => Self::new(503, "plugin_failed", detail),
        }
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        let detail = error.to_string();
        match error {
            StateError::NoPlugin(_) => Self::new(404, "no_plugin", detail)
                .with_remedy("GET /v1/plugins lists the plugins of this host"),
            StateError::NotGranted(_) => Self::new(409, "no_state", detail)
                .with_remedy("grant it in the config and start the host again"),
            StateError::Invalid(_) => Self::new(400, "bad_state", detail),
            StateError::Full(..) => Self::new(507, "state_full", detail).with_remedy(
                "remove keys, or set state_max in the config and start the host again",
            ),
            StateError::Store(error) => error.into(),
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
