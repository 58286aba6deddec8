//! Runs one call of a component.

use std::sync::Arc;
use std::time::Instant;

use amends_engine::{Direction, Failure, Outcome};
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::bindings::exports::amends::saga::undo::Undone;
use crate::call::answer::{Answer, PluginCall};
use crate::call::call_trace::CallTrace;
use crate::call::context::{CallContext, about, lacks};
use crate::call::guest::Guest;
use crate::call::idle::Warm;
use crate::call::outcome::{
    check_input, failed, held_to_schema, missing, succeeded, told, with_refusal,
};
use crate::call::trap::{stopped, with_words};
use crate::capability::outbound::requests::Left;
use crate::component::loaded::LoadedComponent;
use crate::limits::budget::Held;
use crate::limits::call_limits::Lacks;
use crate::limits::meter::give_way_first;

/// Runs one call in an instance of its own, or where the plugin's settings say so in one that has
/// served others. It holds `memory`, and takes more as it grows; the rest is answered when nothing else
/// has it. May be dropped at any time: the instance goes with it.
pub(crate) async fn run(
    context: CallContext<'_>,
    component: &LoadedComponent,
    call: &PluginCall,
    held: Option<Held>,
) -> (Answer, Option<Held>) {
    let (granted, settings) = (context.granted, &context.granted.settings);
    let held = held.unwrap_or_else(|| granted.memory.nothing(call.direction));
    let bytes = call.input.as_str().len();
    if bytes > settings.payload_bytes_max {
        let message = format!(
            "the input of {} has {bytes} bytes and may have {}; raise payload_max in [{}] or give it \
             less",
            call.plugin,
            settings.payload_bytes_max,
            settings.section()
        );
        return (Answer::of(Outcome::Permanent(Failure::new("input_limit", message))), Some(held));
    }
    let began = Instant::now();
    if let Err(outcome) = check_input(component, call).await {
        return (Answer::of(outcome), Some(held));
    }
    let reuse = settings.reuse;
    let warm = if reuse > 0 { component.idle.take(&call.plugin) } else { None };
    let (mut store, made) = match warm {
        Some(Warm { mut store, instance, served }) => {
            match store.data_mut().begin(context.call_id(call), Arc::clone(granted), held) {
                None => {
                    store.set_epoch_deadline(1);
                    (store, Some((instance, served)))
                }
                // There is no room for all that the instance has: a fresh one may need less.
                Some(held) => (context.guest(context.call_id(call), held), None),
            }
        }
        None => (context.guest(context.call_id(call), held), None),
    };
    // Nothing of a rehearsal counts.
    let apart = granted.is_rehearsal.then(|| component.meter.apart());
    let meter = apart.as_ref().unwrap_or(&component.meter);
    if meter.computes_long() {
        give_way_first().await;
    }
    let instance = made.as_ref().map(|(instance, _)| *instance);
    let invoked = Box::pin(invoke(component, &mut store, instance, call));
    let left = call.timeout.saturating_sub(began.elapsed());
    let invoked = tokio::time::timeout(left, meter.metered(invoked)).await;
    let (effects, left) = store.data_mut().end();
    let Left { refused, lacked, has_sent, unanswered, requests } = left;
    let words = store.data_mut().last_words();
    let trace = CallTrace { requests, ..std::mem::take(&mut store.data_mut().trace) };
    let error = invoked.as_ref().ok().and_then(|invoked| invoked.as_ref().err());
    let lacks = lacks(&mut store, error).or(lacked.map(Lacks::Machine));
    let is_done = matches!(invoked, Ok(Ok((Outcome::Succeeded(_) | Outcome::NothingToUndo, _))));
    if let Some(lacks) = lacks.filter(|_| !is_done && !has_sent) {
        return (Answer::not_begun(lacks), Some(store.into_data().limits.into_held()));
    }
    // A request may have a secret in the name of its host.
    let refused = refused.map(|refused| granted.secrets.redact(&refused).into_owned());
    let outcome = match invoked {
        Ok(Ok((outcome, instance))) => {
            let served = made.map_or(0, |(_, served)| served) + 1;
            let is_kept = served < reuse && store.data_mut().is_clean();
            if let Some(instance) = instance.filter(|_| is_kept) {
                component.idle.put(&call.plugin, Warm { store, instance, served });
                let outcome = with_refusal(outcome, refused);
                let outcome = held_to_schema(component, call, outcome, began).await;
                let told = told(outcome, effects, granted, call);
                return (Answer { has_sent, trace, ..told }, None);
            }
            with_refusal(outcome, refused)
        }
        Ok(Err(error)) => {
            if !granted.is_rehearsal {
                metrics::counter!("amends_plugin_traps_total", "plugin" => call.plugin.to_string())
                    .increment(1);
            }
            Outcome::Unknown(stopped(&error, store.data(), &words))
        }
        Err(_) => {
            let waited = unanswered.map_or_else(String::new, |request| {
                format!("; it waited for the answer to {}", granted.secrets.redact(&request))
            });
            let message = format!(
                "{} of {} did not answer within its timeout of {:?}{waited}",
                call.direction.as_str(),
                call.plugin,
                call.timeout
            );
            let failure = with_words(Failure::new("timeout", message), &words, &[]);
            with_refusal(Outcome::Unknown(failure), refused)
        }
    };
    let held = store.into_data().limits.into_held();
    let outcome = held_to_schema(component, call, outcome, began).await;
    (Answer { has_sent, trace, ..told(outcome, effects, granted, call) }, Some(held))
}

/// What came of it, and the instance that was called: `made`, or a new one.
async fn invoke(
    component: &LoadedComponent,
    store: &mut Store<Guest>,
    made: Option<Instance>,
    call: &PluginCall,
) -> wasmtime::Result<(Outcome, Option<Instance>)> {
    let granted = Arc::clone(store.data().granted());
    let about = about(call);
    let input = &call.input.as_str().to_owned();
    match call.direction {
        Direction::Execute => {
            let Some(action) = &component.action else {
                return Ok((missing(call, "amends:saga/action"), None));
            };
            let instance = instance(component, store, made).await?;
            let guest = action.load(&mut *store, &instance)?;
            let outcome = match guest.call_execute(&mut *store, &about, input).await? {
                Ok(output) => succeeded(&output, &granted, call),
                Err(failure) => failed(failure, &granted, call),
            };
            Ok((outcome, Some(instance)))
        }
        Direction::Compensate => {
            let Some(undo) = &component.undo else {
                return Ok((missing(call, "amends:saga/undo"), None));
            };
            let instance = instance(component, store, made).await?;
            let guest = undo.load(&mut *store, &instance)?;
            let output = call.output.as_ref().map(|output| output.as_str().to_owned());
            let undone = guest.call_compensate(&mut *store, &about, input, output.as_ref());
            let outcome = match undone.await? {
                Ok(Undone::Done(receipt)) => {
                    succeeded(receipt.as_deref().unwrap_or("null"), &granted, call)
                }
                Ok(Undone::Nothing) => Outcome::NothingToUndo,
                Err(failure) => failed(failure, &granted, call),
            };
            Ok((outcome, Some(instance)))
        }
    }
}

async fn instance(
    component: &LoadedComponent,
    store: &mut Store<Guest>,
    made: Option<Instance>,
) -> wasmtime::Result<Instance> {
    match made {
        Some(instance) => Ok(instance),
        None => component.pre.instantiate_async(store).await,
    }
}
