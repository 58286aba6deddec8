//! The routes of the API: which handler answers which path and method.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use amends_api_types::BUNDLE_IMPORT_BYTES_MAX;
use amends_peers::{ACTIVITIES_PATH, FORWARDED_BYTES_MAX, SIGNAL_PATH, STARTS_PATH, UNMOVED_PATH};

use crate::access::{self, Gate, Rules};
use crate::api_state::ApiState;
use crate::door::door;
use crate::error::{ApiError, no_method};
use crate::forward::{self, receive, to_owner};
use crate::namespaces::Dispatch;
use crate::{
    audit, breakers, definitions, erasures, events, exposure, health, hosts, on, openapi,
    plugin_state, plugins, request_span, sagas, schedules, store, subscriptions, tokens,
};

/// Makes the router of the whole API: that of each namespace, and before them what chooses one of them.
pub fn router(state: ApiState) -> Router {
    let dispatch = Dispatch::new(state, of_namespace);
    Router::new().fallback(move |request: Request| Arc::clone(&dispatch).answer(request))
}

/// Makes the router of a namespace. In front of every route are the door, which looks at what a request says of
/// itself, and the gate, which looks at who sends it.
fn of_namespace(state: ApiState) -> Router {
    let (routes, document) = routes();
    let gate = Gate { state: state.clone(), rules: Arc::new(Rules::read(&document)) };
    let has_access_control = state.host.has_access_control();
    let document = if has_access_control { document } else { openapi::without_security(document) };
    let document = openapi::Written::new(&document);
    routes
        .route("/", get(about))
        .route("/v1/openapi.json", get(async move || document.answer()))
        .route(STARTS_PATH, post(forward::starts).layer(whole()))
        .route(SIGNAL_PATH, post(forward::signal).layer(whole()))
        .route(UNMOVED_PATH, post(forward::unmoved))
        .route(ACTIVITIES_PATH, post(forward::activities).layer(whole()))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), to_owner))
        .layer(from_fn_with_state(state.clone(), request_span::trace))
        .layer(from_fn_with_state(gate, access::gate))
        .layer(from_fn_with_state(state.clone(), receive))
        .layer(from_fn_with_state(state.clone(), door))
        .with_state(state)
}

/// The routes that the OpenAPI document describes, and the document.
///
/// An operation on one thing is a segment of the path of that thing: `/v1/sagas/{id}/cancel`. An operation on a
/// collection follows a colon, because a segment would be the name of an item: `/v1/plugins:deploy`.
pub(crate) fn routes() -> (Router<ApiState>, OpenApi) {
    let (routes, document) = OpenApiRouter::with_openapi(openapi::begin())
        .merge(sagas())
        .merge(operators())
        .merge(plugins())
        .merge(store())
        .merge(access_control())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .split_for_parts();
    (routes, openapi::complete(document))
}

/// Sagas, what they do, and their events.
fn sagas() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(sagas::counts::counts))
        .routes(routes!(sagas::start::start, sagas::list::list))
        .routes(routes!(sagas::batch::start_batch))
        .routes(routes!(sagas::get::get))
        .routes(routes!(sagas::events::events))
        .routes(routes!(sagas::evidence::evidence))
        .routes(routes!(definitions::of_saga))
        .routes(routes!(sagas::watch::watch))
        .routes(routes!(sagas::why::why))
        .routes(routes!(sagas::undo_plan::undo_plan))
        .routes(routes!(exposure::of_saga))
        .routes(routes!(sagas::signal::signal))
        .routes(routes!(definitions::list))
        .routes(routes!(events::log::events))
}

/// What people on call look at and do.
fn operators() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(sagas::operate::cancel))
        .routes(routes!(sagas::operate::compensate))
        .routes(routes!(sagas::operate::retry))
        .routes(routes!(sagas::operate::skip))
        .routes(routes!(sagas::operate::resolve))
        .routes(routes!(sagas::operate::pause))
        .routes(routes!(sagas::operate::resume))
        .routes(routes!(sagas::operate::abandon))
        .routes(routes!(sagas::operate::note))
        .routes(routes!(sagas::bring_back::bring_back))
        .routes(routes!(exposure::of_all))
        .routes(routes!(erasures::list, erasures::erase))
        .routes(routes!(breakers::breakers))
        .routes(routes!(breakers::open))
        .routes(routes!(breakers::close))
        .routes(routes!(on::list::list))
        .routes(routes!(on::take::take))
        .routes(routes!(schedules::list))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::dead_letters))
        .routes(routes!(subscriptions::redrive))
}

/// Plugins and their state.
fn plugins() -> OpenApiRouter<ApiState> {
    let deploy_max = DefaultBodyLimit::max(plugins::deploy::DEPLOY_BYTES_MAX);
    let rehearse_max = DefaultBodyLimit::max(plugins::rehearse::REHEARSE_BYTES_MAX);
    OpenApiRouter::default()
        .routes(routes!(plugins::component::component))
        .routes(routes!(plugins::list::list))
        .routes(routes!(plugins::deploy::deploy).layer(deploy_max))
        .routes(routes!(plugins::rehearse::rehearse).layer(rehearse_max))
        .routes(routes!(plugins::list::get))
        .routes(routes!(plugins::serving::rollback))
        .routes(routes!(plugins::serving::promote))
        .routes(routes!(plugin_state::keys::list))
        .route(
            "/v1/plugins/{name}/state/{*key}",
            get(plugin_state::keys::get)
                .put(plugin_state::keys::put)
                .delete(plugin_state::keys::delete),
        )
        .routes(routes!(plugin_state::import::import))
}

/// The store, and the hosts that share it.
fn store() -> OpenApiRouter<ApiState> {
    let import_max = DefaultBodyLimit::max(BUNDLE_IMPORT_BYTES_MAX);
    OpenApiRouter::default()
        .routes(routes!(store::survey))
        .routes(routes!(store::back_up))
        .routes(routes!(store::archive))
        .routes(routes!(store::import::import).layer(import_max))
        .routes(routes!(store::rebuild))
        .routes(routes!(hosts::host))
}

/// Who asks, and who may.
fn access_control() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(tokens::me))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
}

/// What another host sends has been read as a whole before.
fn whole() -> DefaultBodyLimit {
    DefaultBodyLimit::max(FORWARDED_BYTES_MAX)
}

/// Greets a person who opens the address of the host.
async fn about() -> String {
    format!(
        "Amends {}, a saga platform. The API is under /v1 and described at /v1/openapi.json; \
         /healthz says that the host lives, /readyz that it takes sagas.\n",
        env!("CARGO_PKG_VERSION")
    )
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(404, "not_found", format!("there is nothing at {}", uri.path()))
        .with_remedy("GET /v1/openapi.json lists what there is")
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    no_method(&method, &uri)
}
