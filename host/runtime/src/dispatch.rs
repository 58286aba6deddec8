//! From a call that is durable to its outcome: one task a call.

use std::time::Instant;

use amends_engine::{
    Call, Digest, Direction, Due, Failure, Outcome, Saga, SagaId, StepName, arguments,
    idempotency_key,
};
use amends_plugins::{PluginCall, PluginHost};
use tokio::sync::mpsc;

use crate::shard::Message;

/// What came of a call, on its way back to the shard.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) id: SagaId,
    pub(crate) step: StepName,
    pub(crate) direction: Direction,
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
}

/// Which component serves a call that is due: its digest, and why when it is not the active one.
/// None while the plugin has no component at all.
///
/// An undo is served by the active component when that can read the recorded output, else by the
/// one that executed the step, if that can undo.
pub(crate) async fn component(
    plugins: &PluginHost,
    saga: &Saga,
    due: &Due,
) -> Option<(Digest, Option<String>)> {
    let active = plugins.active(&due.plugin)?;
    if due.direction == Direction::Execute {
        return Some((active.digest, None));
    }
    let output = saga.steps().find(|step| *step.name == due.step).and_then(|step| step.output);
    let unfit = match output {
        _ if !active.exports.compensate => Some("it exports no undo".to_owned()),
        Some(output) => active.reads_output(output).err(),
        None => None,
    };
    let Some(why) = unfit else { return Some((active.digest, None)) };
    if let Some(digest) = due.executed_by
        && digest != active.digest
        && let Ok(executed_by) = plugins.by_digest(&due.plugin, digest).await
        && executed_by.exports.compensate
    {
        let note = format!(
            "served by the component that executed the step, because the active {} cannot: {why}",
            active.digest
        );
        return Some((digest, Some(note)));
    }
    Some((active.digest, None))
}

/// Runs a call and sends what came of it to the shard.
pub(crate) fn dispatch(
    plugins: &PluginHost,
    saga: &Saga,
    call: Call,
    inbox: mpsc::WeakUnboundedSender<Message>,
) {
    let plugins = plugins.clone();
    let id = saga.id();
    let arguments = arguments(saga, &call);
    let started = saga.started();
    let definition = started.definition.clone();
    let traceparent = started.traceparent.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        let outcome = match arguments {
            Ok((input, output)) => {
                let key = idempotency_key(id, &call.step, call.direction);
                plugins
                    .call(PluginCall {
                        plugin: call.plugin.clone(),
                        digest: call.digest,
                        saga_id: id,
                        definition: definition.clone(),
                        step: call.step.clone(),
                        attempt: call.attempt,
                        direction: call.direction,
                        idempotency_key: key,
                        traceparent: traceparent.clone(),
                        input,
                        output,
                        timeout: call.timeout,
                    })
                    .await
            }
            // The input could be computed before the call was started, from the same state.
            Err(message) => Outcome::Unknown(Failure::new("input_failed", message)),
        };
        metrics::histogram!(
            "amends_step_duration_seconds",
            "definition" => definition.to_string(),
            "step" => call.step.to_string(),
            "direction" => call.direction.as_str()
        )
        .record(began.elapsed());
        log(id, &call, traceparent.as_deref(), &outcome, began);
        if let Some(inbox) = inbox.upgrade() {
            let (step, direction, attempt) = (call.step, call.direction, call.attempt);
            let returned = Returned { id, step, direction, attempt, outcome };
            let _ = inbox.send(Message::Returned(Box::new(returned)));
        }
    });
}

fn log(id: SagaId, call: &Call, traceparent: Option<&str>, outcome: &Outcome, began: Instant) {
    let (class, failure) = match outcome {
        Outcome::Succeeded(_) => ("succeeded", None),
        Outcome::NothingToUndo => ("nothing_to_undo", None),
        Outcome::Permanent(failure) => ("permanent", Some(failure)),
        Outcome::Retryable(failure) => ("retryable", Some(failure)),
        Outcome::Unknown(failure) => ("unknown", Some(failure)),
    };
    // A traceparent is `version-trace_id-parent_id-flags` (W3C Trace Context).
    let trace_id = traceparent.and_then(|text| text.split('-').nth(1)).unwrap_or_default();
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($macro:ident, $message:literal $(, $field:ident = $value:expr)*) => {
            tracing::$macro!(
                saga_id = %id,
                step = %call.step,
                direction = call.direction.as_str(),
                attempt = call.attempt,
                trace_id,
                digest = %call.digest,
                outcome = class,
                elapsed_ms,
                $($field = $value,)*
                $message
            )
        };
    }
    match failure {
        None => line!(debug, "call ended"),
        // What a guest says it could not do is its answer; what nobody knows is worth a look.
        Some(failure) if class == "unknown" => {
            line!(warn, "call failed", code = failure.code, error = failure.message);
        }
        Some(failure) => {
            line!(info, "call failed", code = failure.code, error = failure.message);
        }
    }
}
