//! What an operator does to a saga, and signals.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use amends_engine::{Order, Payload, SignalName, StepName, Verb};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::digest::parse_digest;
use crate::ids::parse_id;
use crate::problem::{Path, Problem, Query, legible};
use crate::reason::reason_of;
use crate::requester::who;
use crate::views::SagaView;

/// An operator's reason, and what the verb needs. A key that the verb does not take is refused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorBody {
    /// Kept in the saga's stream, with who asked.
    reason: String,
    /// `retry`, `skip`, `resolve`: the step; when absent, the one that needs it.
    step: Option<String>,
    /// `retry`: the input of the step's calls from here on.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "present")]
    input: Option<Payload>,
    /// `retry`: the digest of the component that serves the step's calls from here on, until it is
    /// retried again.
    digest: Option<String>,
    /// `resolve`: what the call gave; when absent, nobody knows. It has to fit the output schema of
    /// the component that executed the step.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "present")]
    output: Option<Payload>,
    /// `resolve`: how it is known what became of the call.
    evidence: Option<String>,
    /// `resolve`: whether the call happened; true when absent.
    happened: Option<bool>,
    /// `skip`, `resolve`: true when the order is about the step's undo, which is blocked, waits to be tried
    /// again, or is due and has not begun. An undo that has not begun is not taken otherwise.
    undo: Option<bool>,
    /// True: nothing is done, and the answer is the saga as it is when it permits the order, else the
    /// refusal. A host that does not know this key refuses the order.
    #[serde(default)]
    dry_run: bool,
}

/// The query of an order: empty. One with `dry_run` must not be taken for an order that is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorQuery {}

/// A signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalBody {
    /// What it says: any JSON.
    #[schema(value_type = Object)]
    #[serde(default = "Payload::null")]
    payload: Payload,
    /// The sender's id of it: a second one with the same id is dropped.
    id: Option<String>,
}

/// That a signal was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignalTaken {
    /// The saga.
    id: String,
    /// Where it stands now.
    status: String,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(from).map(Some)
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $path:tt;)*) => {$(
        $(#[$doc])*
        ///
        /// What is done already is answered the same and does nothing.
        #[utoipa::path(post, path = $path, tag = "operators",
            params(("id" = String, Path),
                ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
            request_body = OperatorBody,
            responses((status = 200, body = SagaView), (status = 409, body = Problem),
                (status = "default", body = Problem)))]
        pub(crate) async fn $name(
            State(state): State<ApiState>,
            ConnectInfo(peer): ConnectInfo<SocketAddr>,
            Path(id): Path<String>,
            Query(OperatorQuery {}): Query<OperatorQuery>,
            headers: HeaderMap,
            JsonBody(body): JsonBody<OperatorBody>,
        ) -> Result<Json<SagaView>, Problem> {
            let ordered = Ordered { verb: stringify!($name), who: who(&headers, peer)? };
            operate(&state, &id, ordered, body).await
        }
    )*};
}

verbs! {
    /// Has a saga undone that has not completed.
    cancel = "/v1/sagas/{id}/cancel";
    /// Has a saga undone, also one that has completed.
    compensate = "/v1/sagas/{id}/compensate";
    /// Tries a call again that failed for good or waits, now.
    retry = "/v1/sagas/{id}/retry";
    /// Goes on without a step, or without its undo: its effect then stands.
    skip = "/v1/sagas/{id}/skip";
    /// Says what became of a call, with evidence.
    resolve = "/v1/sagas/{id}/resolve";
    /// Lets no call of a saga begin until it is resumed.
    pause = "/v1/sagas/{id}/pause";
    /// Lets a paused saga go on.
    resume = "/v1/sagas/{id}/resume";
    /// Gives a saga up: nothing acts on it any more, effects may stand.
    abandon = "/v1/sagas/{id}/abandon";
    /// Keeps the reason with a saga, in any status. It changes nothing.
    note = "/v1/sagas/{id}/note";
}

/// Which order, and who gives it.
struct Ordered {
    verb: &'static str,
    who: String,
}

async fn operate(
    state: &ApiState,
    id: &str,
    ordered: Ordered,
    body: OperatorBody,
) -> Result<Json<SagaView>, Problem> {
    let Ordered { verb, who } = ordered;
    let id = parse_id(id)?;
    let is_dry_run = body.dry_run;
    let reason = reason_of(&body.reason)?;
    let verb = verb_of(state, verb, body)?;
    let order = Order { who, reason, verb };
    let found = if is_dry_run {
        state.runtime.would_operate(id, &order).await?
    } else {
        state.runtime.operate(id, order).await?
    };
    Ok(Json(SagaView::from(&found)))
}

fn verb_of(state: &ApiState, verb: &str, body: OperatorBody) -> Result<Verb, Problem> {
    let OperatorBody { step, input, digest, output, evidence, happened, undo, .. } = body;
    let step = step
        .map(|step| step.parse::<StepName>())
        .transpose()
        .map_err(|error| Problem::new(400, "bad_name", error.to_string()))?;
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
            return Err(Problem::new(400, "bad_request", detail)
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
                Problem::new(400, "evidence_missing", "there is no evidence")
                    .with_remedy("say how it is known what became of the call: it is kept")
            })?;
            let evidence = legible("the evidence", evidence)?;
            Verb::Resolve { step, happened: happened.unwrap_or(true), output, evidence, undo }
        }
        other => {
            return Err(Problem::new(404, "not_found", format!("there is no verb `{other}`")));
        }
    })
}

/// Hands a signal to a saga. One that comes before its step waits for it is kept.
#[utoipa::path(post, path = "/v1/sagas/{id}/signals/{name}", tag = "sagas",
    params(("id" = String, Path), ("name" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who sends it, kept with the address")),
    request_body = SignalBody,
    responses((status = 202, body = SignalTaken), (status = 409, body = Problem),
        (status = "default", body = Problem)))]
pub(crate) async fn signal(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SignalBody>,
) -> Result<(StatusCode, Json<SignalTaken>), Problem> {
    let id = parse_id(&id)?;
    let name: SignalName = name.parse().map_err(|error: amends_engine::IdError| {
        Problem::new(400, "bad_name", error.to_string())
    })?;
    let signal_id = body.id.map(|id| legible("the id of the signal", id)).transpose()?;
    let who = Some(who(&headers, peer)?);
    let found = state.runtime.signal(id, name, signal_id, body.payload, who).await?;
    let status = found.saga.status().to_string();
    Ok((StatusCode::ACCEPTED, Json(SignalTaken { id: id.to_string(), status })))
}
