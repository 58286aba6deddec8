//! Explains why a saga is where it is: by its events, by what else holds it back, and by the components that
//! served its failed calls.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use axum::extract::State;

use amends_api_types::{QUARANTINED, WhyView};
use amends_engine::{Digest, PluginName, Saga, StepName, StepStatus, StepView};
use amends_runtime::{ByHand, Stall, StallReason, StoreHealth};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_id;
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::find;
use crate::sagas::stalls::held_back;

/// A digest is cut to its algorithm and 12 digits, which tell it from others.
const DIGEST_CHARS: usize = 19;

/// The explanation names at most this many components.
const COMPONENTS_MAX: usize = 3;

/// Says why a saga is where it is.
#[utoipa::path(get, path = "/v1/sagas/{id}/why", operation_id = "explain_saga", tag = "sagas",
    security(("token" = ["read"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the saga.")),
    responses(
        (status = 200, body = WhyView,
            description = "Why the saga is where it is, and what an operator can do.")))]
pub(crate) async fn why(
    State(state): State<ApiState>,
    payloads: Payloads,
    Path(id): Path<String>,
) -> Result<Json<WhyView>, ApiError> {
    let id = parse_id(&id)?;
    // A saga that waits may be read for the first time now, and be quarantined for what is found.
    let found = find(&state, &id.to_string()).await;
    if let Some(reason) = state.host.quarantine_reason(id) {
        return Ok(Json(WhyView {
            id: id.to_string(),
            status: QUARANTINED.to_owned(),
            sentence: format!(
                "It is quarantined and nothing touches it: {reason}. When that is mended, or with \
                 another version of the host, resume takes it up again."
            ),
            components: Vec::new(),
            next_at: None,
            deadline_at: None,
            verbs: vec!["resume".to_owned()],
            undos: Vec::new(),
        }));
    }
    let found = found?;
    let why = payloads.why(&found.saga, found.now);
    let mut sentence = why.sentence;
    let held_back = held_back(&found);
    if !held_back.is_empty() {
        let _ = write!(sentence, " Right now {}.", held_back.join("; "));
    }
    let service = |stall: &Stall| {
        if let StallReason::BreakerOpen { service, .. } = &stall.reason {
            Some(service.clone())
        } else {
            None
        }
    };
    let held: BTreeSet<_> = found.stalls.iter().filter_map(service).collect();
    let breakers = if held.is_empty() { Vec::new() } else { state.host.breakers() };
    for breaker in breakers.iter().filter(|breaker| held.contains(&breaker.service)) {
        if let Some(ByHand { who, reason }) = &breaker.by_hand {
            let service = &breaker.service;
            let _ = write!(sentence, " The breaker of {service} was opened by {who}: {reason}.");
        }
    }
    if let StoreHealth::NoWrites(error) = state.host.store_health()
        && found.unrecorded.is_none()
        && !found.saga.has_ended()
    {
        let _ =
            write!(sentence, " The store takes no writes, so nothing of it is recorded: {error}.");
    }
    for step in found.saga.steps() {
        let is_in_flight = matches!(step.status, StepStatus::Running | StepStatus::Undoing);
        if is_in_flight
            && let Some(child) = step.child
            && let Some(reason) = state.host.quarantine_reason(child)
        {
            let _ = write!(
                sentence,
                " The saga {child} of {} is quarantined, so it does not end: {reason}.",
                step.name
            );
        }
    }
    let mut verbs: Vec<_> = why.verbs.into_iter().map(str::to_owned).collect();
    if found.is_archived {
        sentence.push_str(if found.is_imported {
            " It was imported: it ran on another host, so nothing can be done to it here."
        } else {
            " It is archived, so nothing can be done to it until it is brought back."
        });
        verbs.clear();
    }
    Ok(Json(WhyView {
        id: id.to_string(),
        status: found.saga.status().to_string(),
        sentence,
        components: components(&state, &found.saga),
        next_at: why.next_at,
        deadline_at: why.deadline_at,
        verbs,
        undos: why.undos.iter().map(ToString::to_string).collect(),
    }))
}

/// Names the components that served the failed calls, because a new component is where to look first. Steps
/// that the same component served share a sentence.
fn components(state: &ApiState, saga: &Saga) -> Vec<String> {
    let mut all: Vec<(Served<'_>, Vec<&StepName>)> = Vec::new();
    for step in saga.steps() {
        let is_cause = saga.undone_for() == Some(step.name);
        let failed = step.error.and_then(|_| served_by(&step));
        let Some(served) = failed.or_else(|| is_cause.then(|| executed_by(&step)).flatten()) else {
            continue;
        };
        let has_room = all.len() < COMPONENTS_MAX;
        match all.iter_mut().find(|(other, _)| *other == served) {
            Some((_, steps)) => steps.push(step.name),
            None if has_room => all.push((served, vec![step.name])),
            None => {}
        }
    }
    all.iter().filter_map(|(served, steps)| component(state, served, steps)).collect()
}

/// The component that served a failed call.
#[derive(PartialEq, Eq)]
struct Served<'s> {
    is_undo: bool,
    plugin: &'s PluginName,
    digest: Digest,
}

/// Finds the component that served the last call of a step. None unless that call failed.
fn served_by<'s>(step: &StepView<'s>) -> Option<Served<'s>> {
    let (is_undo, plugin, digest) = match step.status {
        StepStatus::UndoBlocked | StepStatus::UndoBackingOff => {
            (true, step.spec.undo_plugin()?, step.undo_digest?)
        }
        StepStatus::Failed
        | StepStatus::Unknown
        | StepStatus::BackingOff
        | StepStatus::BreakerOpen => (false, step.spec.plugin()?, step.digest?),
        StepStatus::Pending
        | StepStatus::Waiting
        | StepStatus::Running
        | StepStatus::Succeeded
        | StepStatus::Skipped
        | StepStatus::Undoing
        | StepStatus::Undone
        | StepStatus::UndoSkipped => return None,
    };
    Some(Served { is_undo, plugin, digest })
}

/// Finds the component that executed a step, even if the step was undone since.
fn executed_by<'s>(step: &StepView<'s>) -> Option<Served<'s>> {
    Some(Served { is_undo: false, plugin: step.spec.plugin()?, digest: step.digest? })
}

fn component(
    state: &ApiState,
    Served { is_undo, plugin, digest }: &Served<'_>,
    steps: &[&StepName],
) -> Option<String> {
    let info = state.host.plugin(plugin)?;
    let canary = info.canaries.iter().find(|one| one.digest == *digest);
    let of_history = info.history.iter().find(|one| one.digest == *digest);
    let version = of_history.map(|one| &one.version).or(canary.map(|one| &one.version))?;
    let whether = match (info.active_since, canary) {
        (Some(since), _) if info.digest == Some(*digest) => format!("active since {since}"),
        (_, Some(canary)) if canary.ended.is_none() => format!("a canary since {}", canary.at),
        _ => "not active any more".to_owned(),
    };
    let called = match (is_undo, steps) {
        (true, [step]) => format!("The undo of {step} was"),
        (true, [step, rest @ ..]) => format!("The undos of {step} and {} more were", rest.len()),
        (false, [step]) => format!("The last call of {step} was"),
        (false, [step, rest @ ..]) => {
            format!("The last calls of {step} and {} more were", rest.len())
        }
        (_, []) => return None,
    };
    let digest = digest.to_string();
    let digest = digest.get(..DIGEST_CHARS).unwrap_or(&digest);
    Some(format!("{called} served by plugin `{plugin}` {version} ({digest}, {whether})."))
}
