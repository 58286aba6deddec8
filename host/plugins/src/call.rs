//! One call of a component.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{
    DefinitionName, Digest, Direction, Emitted, Failure, Fate, Outcome, PAYLOAD_BYTES_MAX, Payload,
    PluginName, SagaId, StepName,
};
use wasmtime::component::Instance;
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::aside::Unfit;
use crate::bindings::amends::saga::types;
use crate::bindings::exports::amends::saga::probe;
use crate::bindings::exports::amends::saga::undo::Undone;
use crate::budget::Held;
use crate::cut::cut;
use crate::effects::Effects;
use crate::granted::{Granted, Named};
use crate::guest::{CallId, Guest, HOST_CALL_BYTES_MAX, Lacks, LastWords};
use crate::idle::Warm;
use crate::load::{LoadedComponent, READ_CHECK_MAX};
use crate::memory::CallMemory;
use crate::meter::give_way_first;
use crate::outbound::Left;
use crate::stopped::Stopped;

/// A failure's message is cut to this many bytes: it stands in events, logs and tables.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// Bytes that a message has of what was thrown; all of it stands in the details.
const THROWN_BYTES_MAX: usize = 400;

/// What a component is called with.
#[derive(Debug, Clone)]
pub struct PluginCall {
    /// The plugin.
    pub plugin: PluginName,
    /// The component that was chosen when the call was admitted.
    pub digest: Digest,
    /// Whose state it works on: that of the plugin that executes the step, also for its undo.
    pub state_of: PluginName,
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
    /// The same for every attempt with the same input.
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
    fn named(&self) -> Named<'_> {
        let Self { plugin, saga_id, step, attempt, .. } = self;
        Named { plugin, saga_id: *saga_id, step, attempt: *attempt }
    }

    /// `DEFINITION.STEP.DIRECTION.ATTEMPT`.
    pub(crate) fn words(&self) -> String {
        let Self { definition, step, direction, attempt, .. } = self;
        format!("{definition}.{step}.{}.{attempt}", direction.as_str())
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the component answered, or why it did not.
    pub outcome: Outcome,
    /// What it found out about an outcome that was unknown, if it was asked.
    pub fate: Option<Fate>,
    /// What is not done before it is recorded.
    pub effects: Effects,
    /// It sent something outside, which stands whatever becomes of the call.
    pub has_sent: bool,
    /// What the host lacked, so that the call did not begin: nothing of it has left the sandbox, and it
    /// can be made again as if it never was. The outcome says so in words, for who does not.
    pub not_begun: Option<Lacks>,
}

impl Answer {
    /// An outcome with nothing else to tell.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, fate: None, effects: Effects::default(), has_sent: false, not_begun: None }
    }

    /// Of a call that did not begin.
    pub(crate) fn not_begun(lacks: Lacks) -> Self {
        let failure =
            Failure::new("not_begun", cut_message(format!("the call did not begin: {lacks}")));
        Self { not_begun: Some(lacks), ..Self::of(Outcome::Retryable(failure)) }
    }
}

/// Where a call is run.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) engine: &'a wasmtime::Engine,
    pub(crate) store: &'a Arc<dyn amends_store::Store>,
    pub(crate) granted: &'a Arc<Granted>,
    /// Of the plugin whose state the call works on: see [`CallId`].
    pub(crate) state_bytes_max: Option<u64>,
}

impl Place<'_> {
    fn call_id(&self, call: &PluginCall) -> CallId {
        CallId {
            plugin: call.plugin.clone(),
            state_of: call.state_of.clone(),
            state_bytes_max: self.state_bytes_max,
            saga_id: call.saga_id,
            definition: call.definition.clone(),
            step: call.step.clone(),
            attempt: call.attempt,
            idempotency_key: call.idempotency_key.clone(),
            is_probe: false,
            traceparent: call.traceparent.clone(),
        }
    }

    fn guest(&self, id: CallId, held: Held) -> Store<Guest> {
        let (store, granted) = (Arc::clone(self.store), Arc::clone(self.granted));
        let mut guest = Guest::store(self.engine, Some(store), Some(id), granted);
        guest.data_mut().hold_memory(held);
        guest
    }
}

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
    place: Place<'_>,
    component: &LoadedComponent,
    call: &PluginCall,
    unknown: &Failure,
    held: Option<Held>,
    began: Option<Instant>,
) -> Result<Option<(Outcome, Fate)>, Lacks> {
    let Some(probe) = component.probe.as_ref() else { return Ok(None) };
    let is_early = began.is_some_and(|began| began.elapsed() < call.timeout);
    let granted = place.granted;
    let held = held.unwrap_or_else(|| granted.memory.nothing(call.direction));
    let mut store = place.guest(CallId { is_probe: true, ..place.call_id(call) }, held);
    let asked = Box::pin(async {
        let instance = component.pre.instantiate_async(&mut store).await?;
        let guest = probe.load(&mut store, &instance)?;
        let direction = match call.direction {
            Direction::Execute => types::Direction::Execute,
            Direction::Compensate => types::Direction::Compensate,
        };
        let input = &call.input.as_str().to_owned();
        guest.call_probe(&mut store, &about(call), direction, input).await
    });
    // How long that takes says nothing about other calls.
    let meter = component.meter.apart();
    let answer = tokio::time::timeout(PROBE_TIMEOUT, meter.metered(asked)).await;
    let error = answer.as_ref().ok().and_then(|answer| answer.as_ref().err());
    let lacks = lacks(&mut store, error);
    let words = store.data_mut().last_words();
    if let (Some(error), None, false) = (error, &lacks, granted.is_rehearsal) {
        let PluginCall { plugin, saga_id, step, attempt, .. } = call;
        let why = granted.redact(&why(error, &words)).into_owned();
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

/// What the host lacked for a call that is over, if it did; and what its plugin's calls need from now
/// on.
fn lacks(store: &mut Store<Guest>, error: Option<&wasmtime::Error>) -> Option<Lacks> {
    let guest = store.data();
    let (memory, bytes) = (&guest.granted().memory, guest.limits.bytes());
    let lacked = guest.limits.lacked.clone().or_else(|| error.and_then(Lacks::of));
    match &lacked {
        Some(Lacks::Memory) => memory.wanted(bytes),
        // It needs more than it has had.
        Some(Lacks::Machine(_)) => {}
        None => memory.needed(bytes),
    }
    lacked
}

/// Runs one call in an instance of its own, or where the plugin's settings say so in one that has
/// served others. It holds `memory`, and takes more as it grows; the rest is answered when nothing else
/// has it. May be dropped at any time: the instance goes with it.
pub(crate) async fn run(
    place: Place<'_>,
    component: &LoadedComponent,
    call: &PluginCall,
    memory: Option<CallMemory>,
) -> (Answer, Option<Held>) {
    let (granted, settings) = (place.granted, &place.granted.settings);
    let held = memory.map(|memory| memory.0);
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
            match store.data_mut().begin(place.call_id(call), Arc::clone(granted), held) {
                None => {
                    store.set_epoch_deadline(1);
                    (store, Some((instance, served)))
                }
                // There is no room for all that the instance has: a fresh one may need less.
                Some(held) => (place.guest(place.call_id(call), held), None),
            }
        }
        None => (place.guest(place.call_id(call), held), None),
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
    let (effects, Left { refused, lacked, has_sent, unanswered }) = store.data_mut().end();
    let words = store.data_mut().last_words();
    let error = invoked.as_ref().ok().and_then(|invoked| invoked.as_ref().err());
    let lacks = lacks(&mut store, error).or(lacked.map(Lacks::Machine));
    let is_done = matches!(invoked, Ok(Ok((Outcome::Succeeded(_) | Outcome::NothingToUndo, _))));
    if let Some(lacks) = lacks.filter(|_| !is_done && !has_sent) {
        return (Answer::not_begun(lacks), Some(store.into_data().limits.into_held()));
    }
    // A request may have a secret in the name of its host.
    let refused = refused.map(|refused| granted.redact(&refused).into_owned());
    let outcome = match invoked {
        Ok(Ok((outcome, instance))) => {
            let served = made.map_or(0, |(_, served)| served) + 1;
            let is_kept = served < reuse && store.data_mut().is_clean();
            if let Some(instance) = instance.filter(|_| is_kept) {
                component.idle.put(&call.plugin, Warm { store, instance, served });
                let outcome = with_refusal(outcome, refused);
                let outcome = held_to_schema(component, call, outcome, began).await;
                return (Answer { has_sent, ..told(outcome, effects, granted, call) }, None);
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
                format!("; it waited for the answer to {}", granted.redact(&request))
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
    (Answer { has_sent, ..told(outcome, effects, granted, call) }, Some(held))
}

/// An outcome with what is recorded with it.
fn told(outcome: Outcome, effects: Effects, granted: &Granted, call: &PluginCall) -> Answer {
    match &outcome {
        Outcome::Succeeded(_) | Outcome::NothingToUndo => {
            let emitted = effects.emitted.into_iter();
            let emitted = emitted.map(|event| clean_event(event, granted, call)).collect();
            Answer { effects: Effects { state: effects.state, emitted }, ..Answer::of(outcome) }
        }
        Outcome::Permanent(_) | Outcome::Retryable(_) => {
            Answer { effects: effects.seen(), ..Answer::of(outcome) }
        }
        // Nothing of it is done, whatever it saw.
        Outcome::Unknown(_) => Answer::of(outcome),
    }
}

/// Whether the input fits the component's schema, found out within the call's timeout; the
/// component is not called before.
async fn check_input(component: &LoadedComponent, call: &PluginCall) -> Result<(), Outcome> {
    if call.direction == Direction::Compensate {
        return Ok(());
    }
    let checked = component.takes_input_aside(&call.input);
    match tokio::time::timeout(call.timeout, checked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            let message = format!("the input does not fit the schema of {}: {why}", call.plugin);
            Err(Outcome::Permanent(Failure::new("invalid_input", cut_message(message))))
        }
        Err(_) => {
            let message = format!(
                "the input could not be checked against the schema of {} within the step's timeout \
                 of {:?}, so the component was not called; give it a simpler schema or less input",
                call.plugin, call.timeout
            );
            Err(Outcome::Retryable(Failure::new("timeout", message)))
        }
    }
}

/// The outcome of a call, unless it is an output that does not fit the component's own schema: later
/// steps and the undo rely on that, and its effect may stand. An output that could not be checked in time
/// is taken as it is.
async fn held_to_schema(
    component: &LoadedComponent,
    call: &PluginCall,
    outcome: Outcome,
    began: Instant,
) -> Outcome {
    // An undo answers with a receipt, of which no schema says anything.
    let (Outcome::Succeeded(output), Direction::Execute) = (&outcome, call.direction) else {
        return outcome;
    };
    // The answer came in time, so that there is always time to look at it.
    let left = call.timeout.saturating_sub(began.elapsed()).max(READ_CHECK_MAX);
    let checked = component.reads_output_within(output, left, left).await;
    held_to(checked, call, outcome)
}

/// The outcome of a call, when it is known whether its output fits.
fn held_to(checked: Result<(), Unfit>, call: &PluginCall, outcome: Outcome) -> Outcome {
    let why = match checked {
        Ok(()) => return outcome,
        Err(Unfit::Misfit(why)) => why,
        // Whoever reads it next checks it.
        Err(Unfit::NotChecked(why)) => {
            let PluginCall { plugin, saga_id, step, attempt, .. } = call;
            tracing::warn!(%plugin, %saga_id, %step, attempt, why, "the output is taken without a check against the component's schema");
            return outcome;
        }
    };
    let message = format!("the output does not fit the schema of {}: {why}", call.plugin);
    Outcome::Unknown(Failure::new("invalid_output", cut_message(message)))
}

/// What a component says of a request that the host refused is mostly less than the host knows.
fn with_refusal(outcome: Outcome, refused: Option<String>) -> Outcome {
    let Some(refused) = refused else { return outcome };
    let told = |mut failure: Failure| {
        failure.message = cut_message(format!("{} (the host: {refused})", failure.message));
        failure
    };
    match outcome {
        Outcome::Succeeded(_) | Outcome::NothingToUndo => outcome,
        Outcome::Permanent(failure) => Outcome::Permanent(told(failure)),
        Outcome::Retryable(failure) => Outcome::Retryable(told(failure)),
        Outcome::Unknown(failure) => Outcome::Unknown(told(failure)),
    }
}

fn clean_event(event: Emitted, granted: &Granted, call: &PluginCall) -> Emitted {
    let Cow::Owned(clean) = granted.redact_json(event.data.as_str()) else { return event };
    granted.warn_of_secret(&call.named(), "an event");
    let data = Payload::parse(&clean).unwrap_or_else(|_| unreadable("the data of the event"));
    Emitted { data, ..event }
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
fn succeeded(output: &str, granted: &Granted, call: &PluginCall) -> Outcome {
    let max = granted.settings.payload_bytes_max;
    if output.len() > max {
        let message = format!(
            "the component's answer has {} bytes and may have {max}; raise payload_max in [{}] or make \
             it answer less",
            output.len(),
            granted.settings.section()
        );
        return Outcome::Unknown(Failure::new("output_limit", message));
    }
    let clean = granted.redact_json(output);
    if let Cow::Owned(_) = &clean {
        granted.warn_of_secret(&call.named(), "an answer");
    }
    match Payload::parse(&clean) {
        Ok(output) => Outcome::Succeeded(output),
        Err(error) => {
            let message = format!("the component's answer cannot be recorded: {error}");
            Outcome::Unknown(Failure::new("invalid_output", cut_message(message)))
        }
    }
}

fn failed(failure: types::Failure, granted: &Granted, call: &PluginCall) -> Outcome {
    let warned = |clean: Cow<'_, str>| {
        if let Cow::Owned(_) = &clean {
            granted.warn_of_secret(&call.named(), "a failure");
        }
        clean.into_owned()
    };
    let convert = |error: types::Error| {
        let code = warned(granted.redact(&error.code));
        let message = warned(granted.redact(&error.message));
        let (code, message) = if is_code(&code) {
            (code, message)
        } else {
            let code: String = code.chars().take(CODE_BYTES_MAX).collect();
            (INVALID_CODE.to_owned(), format!("{message} (the component's own code is {code:?})"))
        };
        let details = error.details.map(|details| {
            let details = warned(granted.redact_json(&details));
            Payload::parse(&details).unwrap_or_else(|_| unreadable("the details"))
        });
        Failure {
            code,
            message: cut_message(message),
            retry_after_ms: error.retry_after_ms,
            details,
        }
    };
    match failure {
        types::Failure::Permanent(error) => Outcome::Permanent(convert(error)),
        types::Failure::Retryable(error) => Outcome::Retryable(convert(error)),
        types::Failure::Unknown(error) => Outcome::Unknown(convert(error)),
    }
}

/// A failure's code is at most this many bytes: it is a column of tables and a label of programs.
const CODE_BYTES_MAX: usize = 64;

/// Instead of a code that is none.
const INVALID_CODE: &str = "invalid_code";

/// Lower case, digits and `_`, beginning with a letter, as `saga.wit` says.
fn is_code(code: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    code.len() <= CODE_BYTES_MAX
        && code.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && code.bytes().all(is_part)
}

/// In place of what is no JSON, or none that every reader understands the same. The text itself is
/// not kept: nobody could look for secrets in it.
fn unreadable(what: &str) -> Payload {
    let text = format!("{what} of the component cannot be recorded: it is not valid JSON");
    Payload::from_value(&serde_json::Value::from(text)).unwrap_or_else(|_| Payload::null())
}

fn stopped(error: &wasmtime::Error, guest: &Guest, words: &LastWords) -> Failure {
    let settings = &guest.granted().settings;
    let frames = frames(error);
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        let message = cut_message(guest.granted().redact(&stopped.message).into_owned());
        return with_words(Failure::new(stopped.code, message), words, &frames);
    }
    let (code, message) = match guest.limits.memory_refused {
        Some(wanted) => {
            let max = guest.limits.memory_bytes_max();
            let is_of_host = (max as u64) < settings.memory_bytes_max;
            let table = if is_of_host { "host".to_owned() } else { settings.section() };
            (
                "memory_limit",
                format!(
                    "the component wanted {} MiB of memory and may have {} MiB; raise memory_max \
                     in [{table}] or make it use less ({})",
                    wanted.div_ceil(1 << 20),
                    max >> 20,
                    reason(error)
                ),
            )
        }
        None if guest.limits.table_refused.is_some() => (
            "table_limit",
            format!(
                "the component wanted {} elements of tables and may have {}; raise \
                 table_elements_max in [{}] or make it use less ({})",
                guest.limits.table_refused.unwrap_or_default(),
                settings.table_elements_max,
                settings.section(),
                reason(error)
            ),
        ),
        None if is_too_many_resources(error) => (
            "resource_limit",
            format!("the component holds too many of the host's resources ({})", reason(error)),
        ),
        None if is_too_much_data(error) => (
            "output_limit",
            format!(
                "the component handed the host more than {HOST_CALL_BYTES_MAX} bytes at once; make \
                 it answer less, a payload has at most {PAYLOAD_BYTES_MAX}"
            ),
        ),
        None => ("trap", format!("the component was stopped: {}", why(error, words))),
    };
    with_words(Failure::new(code, cut_message(message)), words, &frames)
}

/// Adds what the component said last, and the functions in which it was stopped, the innermost first, as
/// the details of a failure: `{"said": […], "in": […]}`.
fn with_words(failure: Failure, words: &LastWords, frames: &[String]) -> Failure {
    let mut details = serde_json::Map::new();
    for (name, texts) in [
        ("said", words.lines().collect::<Vec<_>>()),
        ("in", frames.iter().map(String::as_str).collect()),
    ] {
        if !texts.is_empty() {
            details.insert(name.to_owned(), texts.into());
        }
    }
    if details.is_empty() {
        return failure;
    }
    Failure { details: Payload::from_value(&details.into()).ok(), ..failure }
}

/// What stopped a component, in one line that a person can read: what it said of it, or else in which
/// functions it was.
pub(crate) fn why(error: &wasmtime::Error, words: &LastWords) -> String {
    // A runtime says what was thrown and aborts. What was printed before anything else stopped it says
    // nothing of that.
    let is_abort = match error.downcast_ref::<Trap>() {
        Some(trap) => *trap == Trap::UnreachableCodeReached,
        None => true,
    };
    match words.thrown().filter(|_| is_abort) {
        Some(thrown) => {
            format!("{}: {}", what_stopped(error), cut(thrown.to_owned(), THROWN_BYTES_MAX))
        }
        None => reason(error),
    }
}

/// wasmtime has no error type for it; the test of it fails when its words change.
fn is_too_much_data(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

fn is_too_many_resources(error: &wasmtime::Error) -> bool {
    matches!(
        error.downcast_ref::<wasmtime::component::ResourceTableError>(),
        Some(wasmtime::component::ResourceTableError::Full)
    )
}

/// What stopped a component, and in which functions, the innermost first.
pub(crate) fn reason(error: &wasmtime::Error) -> String {
    let (what, frames) = (what_stopped(error), frames(error));
    if frames.is_empty() { what } else { format!("{what}, in {}", frames.join(" < ")) }
}

fn what_stopped(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "it called itself too deep (stack overflow)".to_owned(),
        Some(Trap::UnreachableCodeReached) => {
            "it panicked or aborted (unreachable code reached)".to_owned()
        }
        Some(Trap::MemoryOutOfBounds) => "it reached beyond its memory".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string().replace('\n', " "),
    }
}

/// Functions of a component that a failure names.
const FRAMES_MAX: usize = 3;

/// The functions in which a component was stopped, the innermost first, without those by which Rust
/// panics.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let names = trace.frames().iter().filter_map(|frame| frame.func_name()).map(demangled);
    names.skip_while(|name| is_of_panic(name)).take(FRAMES_MAX).collect()
}

/// As its author wrote it. Names of functions can be very long.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name)).chars().take(80).collect()
}

fn is_of_panic(function: &str) -> bool {
    const OF_PANIC: [&str; 6] = [
        "__rustc::",
        "std::panicking::",
        "std::sys::",
        "core::panicking::",
        "core::option::",
        "core::result::",
    ];
    OF_PANIC.iter().any(|prefix| function.trim_start_matches('<').starts_with(prefix))
}

fn cut_message(text: String) -> String {
    cut(text, MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_engine::Timestamp;

    use super::*;

    #[test]
    fn an_output_that_could_not_be_checked_is_taken() {
        let call = PluginCall {
            plugin: "test".parse().unwrap(),
            digest: Digest::of(b""),
            state_of: "test".parse().unwrap(),
            saga_id: SagaId::from_parts(Timestamp::from_millis(0), &[1; 10]),
            definition: "definition".parse().unwrap(),
            step: "step".parse().unwrap(),
            attempt: 1,
            direction: Direction::Execute,
            idempotency_key: String::new(),
            traceparent: None,
            input: Payload::null(),
            output: None,
            timeout: Duration::from_secs(1),
        };
        let held = |checked| held_to(checked, &call, Outcome::Succeeded(Payload::null()));
        let taken = Outcome::Succeeded(Payload::null());
        assert_eq!(held(Ok(())), taken);
        assert_eq!(held(Err(Unfit::NotChecked("its schema took too long".to_owned()))), taken);
        let Outcome::Unknown(failure) = held(Err(Unfit::Misfit("/total: no".to_owned()))) else {
            panic!("it is taken");
        };
        assert_eq!(failure.code, "invalid_output");
        assert_eq!(failure.message, "the output does not fit the schema of test: /total: no");
    }
}
