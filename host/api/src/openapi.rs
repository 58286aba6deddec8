//! The description of the API.

use utoipa::OpenApi;

use crate::answer::Json;

/// OpenAPI 3.1 of everything under `/v1`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Amends",
        description = "Sagas whose steps and undos are WebAssembly components."
    ),
    paths(
        crate::sagas::start,
        crate::sagas::list,
        crate::sagas::get,
        crate::sagas::events,
        crate::why::why,
        crate::operate::cancel,
        crate::operate::compensate,
        crate::operate::retry,
        crate::operate::skip,
        crate::operate::resolve,
        crate::operate::pause,
        crate::operate::resume,
        crate::operate::abandon,
        crate::operate::note,
        crate::operate::signal,
        crate::undo_plan::undo_plan,
        crate::exposure::of_saga,
        crate::exposure::of_all,
        crate::breakers::breakers,
        crate::breakers::open,
        crate::breakers::close,
        crate::batch::start_batch,
        crate::watch::watch,
        crate::plugins::list,
        crate::plugins::get,
        crate::plugins::rollback,
        crate::plugins::promote,
        crate::deploy::deploy,
        crate::rehearse::rehearse,
        crate::state::list,
        crate::state::get,
        crate::state::put,
        crate::state::delete,
        crate::state::import,
        crate::definitions::list,
        crate::stream::events,
        crate::health::healthz,
        crate::health::readyz,
        crate::health::metrics,
    )
)]
struct Document;

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
