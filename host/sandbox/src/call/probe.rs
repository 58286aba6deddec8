//! Asks a component what became of a call whose outcome is unknown.

use std::time::{Duration, Instant};

use amends_engine::{Direction, Failure, Fate, Outcome};

use crate::bindings::amends::saga::types;
use crate::bindings::exports::amends::saga::probe;
use crate::call::answer::PluginCall;
use crate::call::context::{CallContext, about, lacks};
use crate::call::outcome::{held_to_schema, succeeded};
use crate::call::trap::why;
use crate::component::loaded::LoadedComponent;
use crate::limits::budget::Held;
use crate::limits::call_limits::Lacks;

/// How long a component may take to tell what became of a call.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Added to the failure of a call when its component finds no trace of it before its timeout has passed.
const FOUND_EARLY: &str = "; its component finds that it did not happen, which is believed when the \
                           call's timeout has passed since it began";

/// Asks what became of a call whose outcome is unknown, and answers what follows: what happened
/// is a success, what did not happen can be tried again. None when the component cannot be asked
/// or cannot tell; `unknown` then stands. May be dropped at any time.
///
/// A component that looks and finds nothing does not know of a request that is still on its way. So the
/// host believes `did-not-happen` only once the call's timeout has passed since `began`. Without `began`
/// no request can be on its way, and the host believes it at once.
///
/// # Errors
/// What the host lacked for asking.
pub(crate) async fn ask(
    context: CallContext<'_>,
    component: &LoadedComponent,
    call: &PluginCall,
    unknown: &Failure,
    held: Option<Held>,
    began: Option<Instant>,
) -> Result<Option<(Outcome, Fate)>, Lacks> {
    let Some(probe) = component.probe.as_ref() else { return Ok(None) };
    let is_early = began.is_some_and(|began| began.elapsed() < call.timeout);
    let granted = context.granted;
    let held = held.unwrap_or_else(|| granted.memory.nothing(call.direction));
    let id = context.call_id(call).for_probe();
    let about = types::Call { traceparent: id.traceparent.clone(), ..about(call) };
    let mut store = context.guest(id, held);
    let asked = Box::pin(async {
        let instance = component.pre.instantiate_async(&mut store).await?;
        let guest = probe.load(&mut store, &instance)?;
        let direction = match call.direction {
            Direction::Execute => types::Direction::Execute,
            Direction::Compensate => types::Direction::Compensate,
        };
        let input = &call.input.as_str().to_owned();
        guest.call_probe(&mut store, &about, direction, input).await
    });
    // How long that takes says nothing about other calls.
    let meter = component.meter.apart();
    let answer = tokio::time::timeout(PROBE_TIMEOUT, meter.metered(asked)).await;
    let error = answer.as_ref().ok().and_then(|answer| answer.as_ref().err());
    let lacks = lacks(&mut store, error);
    let words = store.data_mut().last_words();
    if let (Some(error), None, false) = (error, &lacks, granted.is_rehearsal) {
        let PluginCall { plugin, saga_id, step, attempt, .. } = call;
        let why = granted.secrets.redact(&why(error, &words)).into_owned();
        tracing::warn!(plugin = %plugin, %saga_id, step = %step, attempt, why, "the component was stopped when it was asked what became of the call, which stays unknown");
    }
    let told = match answer {
        Ok(Ok(Ok(probe::Fate::Happened(output)))) => {
            let outcome = succeeded(&output, granted, call);
            (held_to_schema(component, call, outcome, Instant::now()).await, Fate::Happened)
        }
        Ok(Ok(Ok(probe::Fate::DidNotHappen))) if is_early => {
            let mut unknown = unknown.clone();
            unknown.message.push_str(FOUND_EARLY);
            (Outcome::Unknown(unknown), Fate::Unclear)
        }
        Ok(Ok(Ok(probe::Fate::DidNotHappen))) => {
            (Outcome::Retryable(unknown.clone()), Fate::DidNotHappen)
        }
        Ok(Ok(Ok(probe::Fate::Unclear) | Err(_)) | Err(_)) | Err(_) => match lacks {
            // It only looks: whatever it has sent, it can be asked again.
            Some(lacks) => return Err(lacks),
            None => (Outcome::Unknown(unknown.clone()), Fate::Unclear),
        },
    };
    Ok(Some(told))
}
