//! The OpenAPI document, which describes the API.

use utoipa::OpenApi;

use crate::answer::Json;

/// The OpenAPI 3.1 document of everything under `/v1`, and of the paths about the host's health.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Amends",
        description = "Sagas whose steps and undos are WebAssembly components."
    ),
    paths(
        crate::sagas::start::start,
        crate::sagas::list::list,
        crate::sagas::counts::counts,
        crate::sagas::get::get,
        crate::sagas::events::events,
        crate::sagas::why::why,
        crate::sagas::operate::cancel,
        crate::sagas::operate::compensate,
        crate::sagas::operate::retry,
        crate::sagas::operate::skip,
        crate::sagas::operate::resolve,
        crate::sagas::operate::pause,
        crate::sagas::operate::resume,
        crate::sagas::operate::abandon,
        crate::sagas::operate::note,
        crate::sagas::bring_back::bring_back,
        crate::sagas::signal::signal,
        crate::sagas::undo_plan::undo_plan,
        crate::exposure::of_saga,
        crate::exposure::of_all,
        crate::breakers::breakers,
        crate::breakers::open,
        crate::breakers::close,
        crate::erasures::erase,
        crate::erasures::list,
        crate::sagas::batch::start_batch,
        crate::sagas::watch::watch,
        crate::plugins::component::component,
        crate::plugins::list::list,
        crate::plugins::list::get,
        crate::plugins::serving::rollback,
        crate::plugins::serving::promote,
        crate::plugins::deploy::deploy,
        crate::plugins::rehearse::rehearse,
        crate::plugin_state::keys::list,
        crate::plugin_state::keys::get,
        crate::plugin_state::keys::put,
        crate::plugin_state::keys::delete,
        crate::plugin_state::import::import,
        crate::definitions::list,
        crate::definitions::of_saga,
        crate::events::log::events,
        crate::on::take::take,
        crate::on::list::list,
        crate::schedules::list,
        crate::subscriptions::list,
        crate::subscriptions::dead_letters,
        crate::subscriptions::redrive,
        crate::store::survey,
        crate::store::back_up,
        crate::store::rebuild,
        crate::store::archive,
        crate::store::import::import,
        crate::hosts::host,
        crate::health::healthz,
        crate::health::readyz,
        crate::health::metrics,
    )
)]
struct Document;

/// Answers with the document.
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// Clients are made from the document. A change of it is a change of the API, to be looked at.
    #[test]
    fn the_document_is_the_one_that_clients_know() {
        let mut document = Document::openapi();
        "VERSION".clone_into(&mut document.info.version);
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
    }
}
