//! Rehearsals: what an undo would do differently from the active one, tried without any effect.

use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::IntoParams;

use amends_api_types::{
    DifferenceGroupView, DifferenceView, LeftOutView, RehearsalView, UnfinishedView,
};
use amends_engine::WITHHELD;
use amends_runtime::{
    Difference, REHEARSAL_SAGAS_DEFAULT, REHEARSAL_SAGAS_MAX, REHEARSAL_TIME_MAX, Rehearsal,
    RehearsalGroup,
};
use amends_sandbox::{COMPONENT_BYTES_MAX, StubAnswer};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Query;
use crate::files::ComponentForm;
use crate::payloads::Payloads;

/// The body of a rehearsal has at most this many bytes: a component, and the form around it.
pub(crate) const REHEARSE_BYTES_MAX: usize = COMPONENT_BYTES_MAX + (64 << 10);

/// How much to rehearse.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RehearseQuery {
    /// How many sagas to look at, at most: 1 to 1,000, 100 when absent.
    sagas: Option<usize>,
}

/// Rehearses a component: runs its undo, and that of the active component, on what sagas have recorded.
///
/// Nothing is changed: requests get stub answers, and state is discarded. The form has one part, under the
/// name of the plugin.
#[utoipa::path(post, path = "/v1/plugins:rehearse", operation_id = "rehearse_plugin", tag = "plugins",
    security(("token" = ["deploy"])),
    params(
        RehearseQuery,
        ("amends-request" = String, Header, description = "any value: the form of a web page cannot send it")),
    request_body(
        content = inline(ComponentForm),
        content_type = "multipart/form-data",
        description = "a component, under the name of its plugin"),
    responses((status = 200, body = RehearsalView, description = "What the component would do differently.")))]
pub(crate) async fn rehearse(
    State(state): State<ApiState>,
    payloads: Payloads,
    caller: Caller,
    query: Result<Query<RehearseQuery>, ApiError>,
    request: Request,
) -> Result<Json<RehearsalView>, ApiError> {
    // There is one rehearsal at a time as well, but deploys need not wait for it.
    let mut components = state.uploads.receive(request).await?.into_components();
    let Query(query) = query?;
    let sagas = query.sagas.unwrap_or(REHEARSAL_SAGAS_DEFAULT);
    if !(1..=REHEARSAL_SAGAS_MAX).contains(&sagas) {
        let detail = format!("sagas = {sagas}, it is from 1 to {REHEARSAL_SAGAS_MAX}");
        return Err(ApiError::new(400, "bad_query", detail));
    }
    let (Some((plugin, bytes)), true) = (components.pop(), components.is_empty()) else {
        return Err(ApiError::new(400, "bad_form", "there are several components in the form")
            .with_remedy("rehearse them one after the other"));
    };
    let rehearsal = state.host.rehearse(caller.principal(), plugin, bytes, sagas).await?;
    Ok(Json(rehearsal_view(rehearsal, payloads)))
}

fn rehearsal_view(found: Rehearsal, payloads: Payloads) -> RehearsalView {
    let left_out = found
        .left_out
        .into_iter()
        .map(|(what, steps)| LeftOutView { what: place_view(what, payloads), steps });
    let groups = found.groups.into_iter();
    RehearsalView {
        plugin: found.plugin.to_string(),
        digest: found.digest.to_string(),
        version: found.version,
        serving: found.serving.to_string(),
        serving_version: found.serving_version,
        sagas: found.sagas,
        sagas_in_flight: found.sagas_in_flight,
        steps_found: found.steps_found,
        steps: found.steps,
        steps_passed_over: found.steps_passed_over,
        steps_with_requests: found.steps_with_requests,
        steps_differing: found.steps_differing,
        answers: words(&StubAnswer::ALL),
        differences: groups.map(|group| group_view(group, payloads)).collect(),
        differences_total: found.groups_total,
        left_out: left_out.collect(),
        unfinished: found.unfinished.map(|one| UnfinishedView {
            saga: one.saga.to_string(),
            step: one.step.to_string(),
            is_new: one.is_new,
        }),
        time_max_ms: u64::try_from(REHEARSAL_TIME_MAX.as_millis()).unwrap_or(u64::MAX),
    }
}

fn group_view(group: RehearsalGroup, payloads: Payloads) -> DifferenceGroupView {
    let differences = group.differences.into_iter();
    DifferenceGroupView {
        steps: group.steps,
        answers: words(&group.answers),
        saga: group.saga.to_string(),
        step: group.step.to_string(),
        differences: differences.map(|one| difference_view(one, payloads)).collect(),
        differences_total: group.differences_total,
    }
}

fn difference_view(one: Difference, payloads: Payloads) -> DifferenceView {
    DifferenceView {
        what: place_view(one.what, payloads),
        old: one.old.map(|old| payloads.text(old)),
        new: one.new.map(|new| payloads.text(new)),
    }
}

/// Shows where a difference is. The key of a plugin's state and the path in a payload go with the payloads:
/// `request 1 body.reference` becomes `request 1 body`, and `state stock/north` becomes `state [withheld]`.
fn place_view(what: String, payloads: Payloads) -> String {
    match payloads {
        Payloads::Shown => what,
        Payloads::Withheld if what.starts_with("state ") => format!("state {WITHHELD}"),
        Payloads::Withheld => what.split(['.', '[']).next().unwrap_or_default().to_owned(),
    }
}

fn words(answers: &[StubAnswer]) -> Vec<String> {
    answers.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_tells_neither_of_state_nor_of_a_payload_when_they_are_withheld() {
        for (what, withheld) in [
            ("outcome", "outcome"),
            ("outcome receipt.items[0].label", "outcome receipt"),
            ("recorded output", "recorded output"),
            ("request 1", "request 1"),
            ("request 1 header x-request-id", "request 1 header x-request-id"),
            ("request 1 body.reference", "request 1 body"),
            ("request 1 body[0]", "request 1 body"),
            ("event 1 data.number", "event 1 data"),
            ("state stock/north/metformin", "state [withheld]"),
            ("state stock n", "state [withheld]"),
        ] {
            assert_eq!(place_view(what.to_owned(), Payloads::Shown), what);
            assert_eq!(place_view(what.to_owned(), Payloads::Withheld), withheld);
        }
    }
}
