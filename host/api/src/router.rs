//! The routes of the API: which handler answers which path and method.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use amends_api_types::BUNDLE_IMPORT_BYTES_MAX;
use amends_peers::{ACTIVITIES_PATH, FORWARDED_BYTES_MAX, SIGNAL_PATH, STARTS_PATH, UNMOVED_PATH};

use crate::api_state::ApiState;
use crate::door::door;
use crate::error::ApiError;
use crate::forward::{self, receive, to_owner};
use crate::{
    breakers, definitions, erasures, events, exposure, health, hosts, on, openapi, plugin_state,
    plugins, sagas, schedules, store, subscriptions,
};

/// Makes the router of the whole API. The router has the door in front of every route.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/v1/sagas/counts", get(sagas::counts::counts))
        .route("/v1/sagas", post(sagas::start::start).get(sagas::list::list))
        .route("/v1/sagas:batch", post(sagas::batch::start_batch))
        .route("/v1/sagas/{id}", get(sagas::get::get))
        .route("/v1/sagas/{id}/events", get(sagas::events::events))
        .route("/v1/sagas/{id}/definition", get(definitions::of_saga))
        .route("/v1/sagas/{id}/watch", get(sagas::watch::watch))
        .route("/v1/sagas/{id}/why", get(sagas::why::why))
        .route("/v1/sagas/{id}/undo-plan", get(sagas::undo_plan::undo_plan))
        .route("/v1/sagas/{id}/exposure", get(exposure::of_saga))
        .route("/v1/sagas/{id}/signals/{name}", post(sagas::signal::signal))
        .route("/v1/sagas/{id}/cancel", post(sagas::operate::cancel))
        .route("/v1/sagas/{id}/compensate", post(sagas::operate::compensate))
        .route("/v1/sagas/{id}/retry", post(sagas::operate::retry))
        .route("/v1/sagas/{id}/skip", post(sagas::operate::skip))
        .route("/v1/sagas/{id}/resolve", post(sagas::operate::resolve))
        .route("/v1/sagas/{id}/pause", post(sagas::operate::pause))
        .route("/v1/sagas/{id}/resume", post(sagas::operate::resume))
        .route("/v1/sagas/{id}/abandon", post(sagas::operate::abandon))
        .route("/v1/sagas/{id}/note", post(sagas::operate::note))
        .route("/v1/sagas/{id}/bring-back", post(sagas::bring_back::bring_back))
        .route("/v1/exposure", get(exposure::of_all))
        .route("/v1/erasures", get(erasures::list).post(erasures::erase))
        .route("/v1/breakers", get(breakers::breakers))
        .route("/v1/breakers/{service}/open", post(breakers::open))
        .route("/v1/breakers/{service}/close", post(breakers::close))
        .route("/v1/components/{digest}", get(plugins::component::component))
        .route("/v1/plugins", get(plugins::list::list))
        .route(
            "/v1/plugins:deploy",
            post(plugins::deploy::deploy)
                .layer(DefaultBodyLimit::max(plugins::deploy::DEPLOY_BYTES_MAX)),
        )
        .route(
            "/v1/plugins:rehearse",
            post(plugins::rehearse::rehearse)
                .layer(DefaultBodyLimit::max(plugins::rehearse::REHEARSE_BYTES_MAX)),
        )
        .route("/v1/plugins/{name}", get(plugins::list::get))
        .route("/v1/plugins/{name}/rollback", post(plugins::serving::rollback))
        .route("/v1/plugins/{name}/promote", post(plugins::serving::promote))
        .route("/v1/plugins/{name}/state", get(plugin_state::keys::list))
        .route(
            "/v1/plugins/{name}/state/{*key}",
            get(plugin_state::keys::get)
                .put(plugin_state::keys::put)
                .delete(plugin_state::keys::delete),
        )
        .route("/v1/plugins/{name}/state:import", post(plugin_state::import::import))
        .route("/v1/definitions", get(definitions::list))
        .route("/v1/events", get(events::log::events))
        .route("/v1/on", get(on::list::list))
        .route("/v1/on/{name}", post(on::take::take))
        .route("/v1/schedules", get(schedules::list))
        .route("/v1/subscriptions", get(subscriptions::list))
        .route("/v1/subscriptions/{name}/dead-letters", get(subscriptions::dead_letters))
        .route("/v1/subscriptions/{name}/redrive", post(subscriptions::redrive))
        .route("/v1/store", get(store::survey))
        .route("/v1/store/backup", get(store::back_up))
        .route("/v1/store/archive", post(store::archive))
        .route(
            "/v1/store/import",
            post(store::import::import).layer(DefaultBodyLimit::max(BUNDLE_IMPORT_BYTES_MAX)),
        )
        .route("/v1/store/rebuild", post(store::rebuild))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/host", get(hosts::host))
        .route(STARTS_PATH, post(forward::starts).layer(whole()))
        .route(SIGNAL_PATH, post(forward::signal).layer(whole()))
        .route(UNMOVED_PATH, post(forward::unmoved))
        .route(ACTIVITIES_PATH, post(forward::activities).layer(whole()))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), to_owner))
        .layer(from_fn_with_state(state.clone(), receive))
        .layer(from_fn_with_state(state.clone(), door))
        .with_state(state)
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
    let detail = format!("{} does not take {method}", uri.path());
    ApiError::new(405, "method_not_allowed", detail)
        .with_remedy("GET /v1/openapi.json lists what there is")
}
