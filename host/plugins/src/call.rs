//! One call of a component.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{
    DefinitionName, Digest, Direction, Failure, Fate, Outcome, PAYLOAD_BYTES_MAX, Payload,
    PluginName, SagaId, StepName,
};
use wasmtime::component::Instance;
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::bindings::amends::saga::types;
use crate::bindings::exports::amends::saga::probe;
use crate::bindings::exports::amends::saga::undo::Undone;
use crate::config::PluginSettings;
use crate::guest::{CallId, Guest, HOST_CALL_BYTES_MAX};
use crate::idle::Warm;
use crate::load::{LoadedComponent, Loader};

/// A failure's message is cut to this many bytes: it stands in events, logs and tables.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// What a component is called with.
#[derive(Debug, Clone)]
pub struct PluginCall {
    /// The plugin.
    pub plugin: PluginName,
    /// The component that was chosen when the call was admitted.
    pub digest: Digest,
    /// The saga.
    pub saga_id: SagaId,
    /// The name of its definition.
    pub definition: DefinitionName,
    /// The step.
    pub step: StepName,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Which way.
    pub direction: Direction,
    /// The same for every attempt.
    pub idempotency_key: String,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// What the definition's mapping made.
    pub input: Payload,
    /// For `compensate`: what `execute` answered, if that is known.
    pub output: Option<Payload>,
    /// How long it may take.
    pub timeout: Duration,
}

impl PluginCall {
    /// `DEFINITION.STEP.DIRECTION.ATTEMPT`.
    pub(crate) fn words(&self) -> String {
        let Self { definition, step, direction, attempt, .. } = self;
        format!("{definition}.{step}.{}.{attempt}", direction.as_str())
    }
}

/// How long a component may take to tell what became of a call.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks what became of a call whose outcome is unknown, and answers what follows: what happened
/// is a success, what did not happen can be tried again. None when the component cannot be asked
/// or cannot tell; `unknown` then stands. May be dropped at any time.
pub(crate) async fn ask(
    loader: &Loader,
    component: &LoadedComponent,
    settings: Arc<PluginSettings>,
    call: &PluginCall,
    unknown: &Failure,
) -> Option<(Outcome, Fate)> {
    let probe = component.probe.as_ref()?;
    let mut store = Guest::store(loader.engine(), Some(call_id(call)), settings);
    let asked = async {
        let instance = component.pre.instantiate_async(&mut store).await?;
        let guest = probe.load(&mut store, &instance)?;
        let direction = match call.direction {
            Direction::Execute => types::Direction::Execute,
            Direction::Compensate => types::Direction::Compensate,
        };
        let input = &call.input.as_str().to_owned();
        guest.call_probe(&mut store, &about(call), direction, input).await
    };
    let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
    match answer {
        Ok(Ok(Ok(probe::Fate::Happened(output)))) => Some((succeeded(&output), Fate::Happened)),
        Ok(Ok(Ok(probe::Fate::DidNotHappen))) => {
            Some((Outcome::Retryable(unknown.clone()), Fate::DidNotHappen))
        }
        Ok(Ok(Ok(probe::Fate::Unclear) | Err(_)) | Err(_)) | Err(_) => {
            Some((Outcome::Unknown(unknown.clone()), Fate::Unclear))
        }
    }
}

/// Runs one call in an instance of its own, or where the plugin's settings say so in one that has
/// served others. May be dropped at any time: the instance goes with it.
pub(crate) async fn run(
    loader: &Loader,
    component: &LoadedComponent,
    settings: Arc<PluginSettings>,
    call: &PluginCall,
) -> Outcome {
    if call.direction == Direction::Execute
        && let Err(why) = component.takes_input(&call.input)
    {
        let message = format!("the input does not fit the schema of {}: {why}", call.plugin);
        return Outcome::Permanent(Failure::new("invalid_input", cut(message)));
    }
    let (memory_max, reuse) = (settings.memory_bytes_max, settings.reuse);
    let warm = if reuse > 0 { component.idle.take(&call.plugin) } else { None };
    let (mut store, made) = match warm {
        Some(Warm { mut store, instance, served }) => {
            store.data_mut().begin(call_id(call), settings);
            (store, Some((instance, served)))
        }
        None => (Guest::store(loader.engine(), Some(call_id(call)), settings), None),
    };
    let instance = made.as_ref().map(|(instance, _)| *instance);
    match tokio::time::timeout(call.timeout, invoke(component, &mut store, instance, call)).await {
        Ok(Ok((outcome, instance))) => {
            let served = made.map_or(0, |(_, served)| served) + 1;
            if let Some(instance) = instance.filter(|_| served < reuse) {
                component.idle.put(&call.plugin, Warm { store, instance, served });
            }
            outcome
        }
        Ok(Err(error)) => {
            metrics::counter!("amends_plugin_traps_total", "plugin" => call.plugin.to_string())
                .increment(1);
            stopped(&error, store.data().limits.memory_refused, memory_max)
        }
        Err(_) => {
            let message = format!(
                "{} of {} did not answer within its timeout of {:?}",
                call.direction.as_str(),
                call.plugin,
                call.timeout
            );
            Outcome::Unknown(Failure::new("timeout", message))
        }
    }
}

/// What came of it, and the instance that was called: `made`, or a new one.
async fn invoke(
    component: &LoadedComponent,
    store: &mut Store<Guest>,
    made: Option<Instance>,
    call: &PluginCall,
) -> wasmtime::Result<(Outcome, Option<Instance>)> {
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
                Ok(output) => succeeded(&output),
                Err(failure) => failed(failure),
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
                Ok(Undone::Done(receipt)) => succeeded(receipt.as_deref().unwrap_or("null")),
                Ok(Undone::Nothing) => Outcome::NothingToUndo,
                Err(failure) => failed(failure),
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

fn about(call: &PluginCall) -> types::Call {
    types::Call {
        saga_id: call.saga_id.to_string(),
        definition: call.definition.to_string(),
        step: call.step.to_string(),
        attempt: call.attempt,
        idempotency_key: call.idempotency_key.clone(),
        traceparent: call.traceparent.clone(),
    }
}

/// The component was swapped for one that cannot serve the step: nothing was done, and a good
/// one may come.
fn missing(call: &PluginCall, export: &str) -> Outcome {
    let message =
        format!("the component {} of {} does not export {export}", call.digest, call.plugin);
    Outcome::Retryable(Failure::new("missing_export", message))
}

/// The answer is not taken as done when it cannot be recorded: the effect may stand.
fn succeeded(output: &str) -> Outcome {
    match Payload::parse(output) {
        Ok(output) => Outcome::Succeeded(output),
        Err(error) => {
            let message = format!("the component's answer cannot be recorded: {error}");
            Outcome::Unknown(Failure::new("invalid_output", cut(message)))
        }
    }
}

fn failed(failure: types::Failure) -> Outcome {
    let convert = |error: types::Error| Failure {
        code: cut(error.code),
        message: cut(error.message),
        retry_after_ms: error.retry_after_ms,
        details: error.details.and_then(|details| Payload::parse(&details).ok()),
    };
    match failure {
        types::Failure::Permanent(error) => Outcome::Permanent(convert(error)),
        types::Failure::Retryable(error) => Outcome::Retryable(convert(error)),
        types::Failure::Unknown(error) => Outcome::Unknown(convert(error)),
    }
}

fn stopped(error: &wasmtime::Error, memory_refused: Option<usize>, memory_max: u64) -> Outcome {
    let (code, message) = match memory_refused {
        Some(wanted) => (
            "memory_limit",
            format!(
                "the component wanted {} MiB of memory and may have {} MiB; raise memory_max in \
                 [plugin.NAME] or make it use less ({})",
                wanted.div_ceil(1 << 20),
                memory_max >> 20,
                reason(error)
            ),
        ),
        None if is_too_much_data(error) => (
            "output_limit",
            format!(
                "the component handed the host more than {HOST_CALL_BYTES_MAX} bytes at once; make \
                 it answer less, a payload has at most {PAYLOAD_BYTES_MAX}"
            ),
        ),
        None => ("trap", format!("the component was stopped: {}", reason(error))),
    };
    Outcome::Unknown(Failure::new(code, cut(message)))
}

/// wasmtime has no error type for it; the test of it fails when its words change.
fn is_too_much_data(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

/// What stopped a component, in one line that a person can read.
pub(crate) fn reason(error: &wasmtime::Error) -> String {
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "it called itself too deep (stack overflow)".to_owned(),
        Some(Trap::UnreachableCodeReached) => {
            "it panicked or aborted (unreachable code reached)".to_owned()
        }
        Some(Trap::MemoryOutOfBounds) => "it reached beyond its memory".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string().replace('\n', " "),
    };
    let frames: Vec<_> = error
        .downcast_ref::<WasmBacktrace>()
        .map(|trace| {
            trace.frames().iter().filter_map(|frame| frame.func_name()).take(3).map(demangled)
        })
        .into_iter()
        .flatten()
        .collect();
    if frames.is_empty() { what } else { format!("{what}, in {}", frames.join(" < ")) }
}

/// Names of functions can be very long.
fn demangled(name: &str) -> String {
    name.chars().take(80).collect()
}

fn call_id(call: &PluginCall) -> CallId {
    CallId {
        plugin: call.plugin.clone(),
        saga_id: call.saga_id,
        step: call.step.clone(),
        attempt: call.attempt,
        traceparent: call.traceparent.clone(),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}
