//! The orders of operators about a saga.

use axum::extract::State;
use serde::Deserialize;

use amends_api_types::{OperatorBody, SagaView};
use amends_engine::{StepName, Verb};
use amends_runtime::Principal;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::{Path, Query};
use crate::ids::parse_id;
use crate::legible::legible;
use crate::payloads::Payloads;
use crate::plugins::digest::parse_digest;
use crate::reason::reason_of;
use crate::sagas::saga_view::saga_view;

/// The query of an order, which is empty. The host rejects an order with `dry_run` in its query: it belongs in
/// the body, and the order must not be carried out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorQuery {}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $path:tt $id:tt;)*) => {$(
        $(#[$doc])*
        ///
        /// An order that was carried out already changes nothing and gets the same answer.
        #[utoipa::path(post, path = $path, operation_id = $id, tag = "operators",
            security(("token" = ["operate"])),
            params(
                ("id" = String, Path, format = "uuid", description = "The id of the saga."),
                ("amends-user" = Option<String>, Header)),
            request_body = OperatorBody,
            responses((status = 200, body = SagaView, description = "The saga after the order.")))]
        pub(crate) async fn $name(
            State(state): State<ApiState>,
            payloads: Payloads,
            caller: Caller,
            Path(id): Path<String>,
            Query(OperatorQuery {}): Query<OperatorQuery>,
            JsonBody(body): JsonBody<OperatorBody>,
        ) -> Result<Json<SagaView>, ApiError> {
            operate(&state, caller.principal(), &id, stringify!($name), body, payloads).await
        }
    )*};
}

verbs! {
    /// Compensates a saga that has not completed.
    cancel = "/v1/sagas/{id}/cancel" "cancel_saga";
    /// Compensates a saga, even one that has completed.
    compensate = "/v1/sagas/{id}/compensate" "compensate_saga";
    /// Retries a call now that failed for good or waits for its next attempt.
    retry = "/v1/sagas/{id}/retry" "retry_step";
    /// Skips a step, or its undo. The effect of a step whose undo is skipped stands.
    skip = "/v1/sagas/{id}/skip" "skip_step";
    /// Records what became of a call, with evidence.
    resolve = "/v1/sagas/{id}/resolve" "resolve_call";
    /// Pauses a saga: no call of it begins until it is resumed.
    pause = "/v1/sagas/{id}/pause" "pause_saga";
    /// Resumes a saga that is paused or quarantined.
    resume = "/v1/sagas/{id}/resume" "resume_saga";
    /// Abandons a saga: nothing acts on it any more, and effects may stand.
    abandon = "/v1/sagas/{id}/abandon" "abandon_saga";
    /// Adds a note to a saga in any status. The note changes nothing else.
    note = "/v1/sagas/{id}/note" "note_on_saga";
}

/// Checks the order and carries it out.
async fn operate(
    state: &ApiState,
    principal: &Principal,
    id: &str,
    verb: &str,
    body: OperatorBody,
    payloads: Payloads,
) -> Result<Json<SagaView>, ApiError> {
    let id = parse_id(id)?;
    let is_dry_run = body.dry_run;
    let reason = reason_of(&body.reason)?;
    let verb = verb_of(state, verb, body)?;
    let found = if is_dry_run {
        state.host.would_operate(principal, id, verb, reason).await?
    } else {
        state.host.operate(principal, id, verb, reason).await?
    };
    Ok(Json(saga_view(&found, payloads)))
}

/// Reads the verb and what belongs to it.
fn verb_of(state: &ApiState, verb: &str, body: OperatorBody) -> Result<Verb, ApiError> {
    // In full, so that a key of the body that is missing in `given` does not compile.
    let OperatorBody {
        reason: _,
        step,
        input,
        digest,
        output,
        evidence,
        happened,
        undo,
        dry_run: _,
    } = body;
    let step = step
        .map(|step| step.parse::<StepName>())
        .transpose()
        .map_err(|error| ApiError::new(400, "bad_name", error.to_string()))?;
    let digest = digest.as_deref().map(|digest| parse_digest(state, digest)).transpose()?;
    let given = [
        ("step", step.is_some(), &["retry", "skip", "resolve"][..]),
        ("input", input.is_some(), &["retry"]),
        ("digest", digest.is_some(), &["retry"]),
        ("output", output.is_some(), &["resolve"]),
        ("evidence", evidence.is_some(), &["resolve"]),
        ("happened", happened.is_some(), &["resolve"]),
        ("undo", undo.is_some(), &["skip", "resolve"]),
    ];
    for (key, is_given, takers) in given {
        if is_given && !takers.contains(&verb) {
            let detail = format!("{verb} takes no `{key}`");
            return Err(ApiError::new(400, "bad_request", detail)
                .with_remedy(format!("`{key}` goes with {}", takers.join(", "))));
        }
    }
    let undo = undo.unwrap_or_default();
    Ok(match verb {
        "cancel" => Verb::Cancel,
        "compensate" => Verb::Compensate,
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "abandon" => Verb::Abandon,
        "note" => Verb::Note,
        "retry" => Verb::Retry { step, input, digest },
        "skip" => Verb::Skip { step, undo },
        "resolve" => {
            let evidence = evidence.filter(|evidence| !evidence.trim().is_empty());
            let evidence = evidence.ok_or_else(|| {
                ApiError::new(400, "evidence_missing", "there is no evidence")
                    .with_remedy("say how it is known what became of the call: it is kept")
            })?;
            let evidence = legible("the evidence", evidence)?;
            Verb::Resolve { step, happened: happened.unwrap_or(true), output, evidence, undo }
        }
        other => {
            return Err(ApiError::new(404, "not_found", format!("there is no verb `{other}`")));
        }
    })
}
