//! The HTTP API of Amends: JSON under `/v1`, described by `/v1/openapi.json` (OpenAPI 3.1).
//!
//! Errors are problem details (RFC 9457) with a stable `code`. Times are RFC 3339, UTC. Lists
//! take `limit` and an opaque `cursor` and answer `{items, next_cursor}`. Nothing is decided
//! here: every handler asks the runtime or reads the store.

#![expect(clippy::result_large_err, reason = "a problem is made once for a request that failed")]

mod answer;
mod batch;
mod body;
mod breakers;
mod calls;
mod definitions;
mod deploy;
mod door;
mod duration;
mod health;
mod lines;
mod openapi;
mod operate;
mod pace;
mod page;
mod plan;
mod plugins;
mod problem;
mod rehearse;
mod sagas;
mod server;
mod starting;
mod state;
mod stream;
mod upload;
mod views;
mod watch;
mod why;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use amends_engine::PAYLOAD_BYTES_MAX;
use amends_runtime::Runtime;

use body::BodyRoom;
use door::door;
use state::Imports;
use upload::Uploads;
use watch::Watchers;

pub use body::BODIES_BYTES_MAX;
pub use deploy::{DeployView, DeployedView, FlawView, MisfitView, UnreadableView};
pub use door::{PublicUrl, PublicUrlError};
pub use duration::{DurationError, parse_duration};
pub use health::prometheus;
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use pace::{BYTES_PER_SECOND_MIN, WAITED_MAX};
pub use page::{LIMIT_DEFAULT, LIMIT_MAX};
pub use plan::{BreakerRateView, BreakerView, EffectView, ExposureItem, PlannedView};
pub use problem::Problem;
pub use rehearse::{
    DifferenceGroupView, DifferenceView, LeftOutView, RehearsalView, UnfinishedView,
};
pub use server::{CONNECTIONS_MAX, ConnectionLimit, Server};
pub use starting::{Opening, starting};
pub use state::{STATE_IMPORT_BYTES_MAX, StateImported, StateItem};
pub use views::{
    CanaryView, DefinitionView, EventView, NoteView, OmittedView, PluginView, SagaItem, SagaView,
    StepView, WhyView,
};

/// A request's body is at most this many bytes: a payload and what is around it.
pub const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// The host.
    pub(crate) runtime: Runtime,
    /// Renders the metrics.
    pub(crate) prometheus: PrometheusHandle,
    /// Room for those who watch a saga.
    pub(crate) watchers: Watchers,
    /// Room for the bodies of requests.
    pub(crate) bodies: BodyRoom,
    /// Room for components that are handed in.
    pub(crate) uploads: Uploads,
    /// Room for imports of state.
    pub(crate) imports: Imports,
    /// Where a proxy serves the host.
    pub(crate) public_url: Option<PublicUrl>,
}

impl ApiState {
    /// Of a host, with what renders its metrics and where a proxy serves it, if one does.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        prometheus: PrometheusHandle,
        public_url: Option<PublicUrl>,
    ) -> Self {
        Self {
            runtime,
            prometheus,
            watchers: Watchers::default(),
            bodies: BodyRoom::default(),
            uploads: Uploads::default(),
            imports: Imports::default(),
            public_url,
        }
    }
}

/// The whole API.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/v1/sagas", post(sagas::start).get(sagas::list))
        .route("/v1/sagas:batch", post(batch::start_batch))
        .route("/v1/sagas/{id}", get(sagas::get))
        .route("/v1/sagas/{id}/events", get(sagas::events))
        .route("/v1/sagas/{id}/watch", get(watch::watch))
        .route("/v1/sagas/{id}/why", get(why::why))
        .route("/v1/sagas/{id}/undo-plan", get(plan::undo_plan))
        .route("/v1/sagas/{id}/exposure", get(plan::of_saga))
        .route("/v1/sagas/{id}/signals/{name}", post(operate::signal))
        .route("/v1/sagas/{id}/cancel", post(operate::cancel))
        .route("/v1/sagas/{id}/compensate", post(operate::compensate))
        .route("/v1/sagas/{id}/retry", post(operate::retry))
        .route("/v1/sagas/{id}/skip", post(operate::skip))
        .route("/v1/sagas/{id}/resolve", post(operate::resolve))
        .route("/v1/sagas/{id}/pause", post(operate::pause))
        .route("/v1/sagas/{id}/resume", post(operate::resume))
        .route("/v1/sagas/{id}/abandon", post(operate::abandon))
        .route("/v1/sagas/{id}/note", post(operate::note))
        .route("/v1/exposure", get(plan::of_all))
        .route("/v1/breakers", get(plan::breakers))
        .route("/v1/breakers/{service}/open", post(breakers::open))
        .route("/v1/breakers/{service}/close", post(breakers::close))
        .route("/v1/plugins", get(plugins::list))
        .route(
            "/v1/plugins:deploy",
            post(deploy::deploy).layer(DefaultBodyLimit::max(deploy::DEPLOY_BYTES_MAX)),
        )
        .route(
            "/v1/plugins:rehearse",
            post(rehearse::rehearse).layer(DefaultBodyLimit::max(rehearse::REHEARSE_BYTES_MAX)),
        )
        .route("/v1/plugins/{name}", get(plugins::get))
        .route("/v1/plugins/{name}/rollback", post(plugins::rollback))
        .route("/v1/plugins/{name}/promote", post(plugins::promote))
        .route("/v1/plugins/{name}/state", get(state::list))
        .route(
            "/v1/plugins/{name}/state/{*key}",
            get(state::get).put(state::put).delete(state::delete),
        )
        .route("/v1/plugins/{name}/state:import", post(state::import))
        .route("/v1/definitions", get(definitions::list))
        .route("/v1/events", get(stream::events))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), door))
        .with_state(state)
}

/// For a person who opens the host's address.
async fn about() -> String {
    format!(
        "Amends {}, a saga platform. The API is under /v1 and described at /v1/openapi.json; \
         /healthz says that the host lives, /readyz that it takes sagas.\n",
        env!("CARGO_PKG_VERSION")
    )
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(404, "not_found", format!("there is nothing at {}", uri.path()))
        .with_remedy("GET /v1/openapi.json lists what there is")
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(405, "method_not_allowed", detail)
        .with_remedy("GET /v1/openapi.json lists what there is")
}
