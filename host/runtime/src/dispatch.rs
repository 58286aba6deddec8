//! From a call that is durable to its outcome: in the shard when that is quick, else in a task.

mod child;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use amends_engine::{
    Call, Chosen, Digest, Direction, Due, Failure, Fate, Order, Outcome, Payload, PlannedUndo,
    PluginName, Refusal, Saga, SagaId, StepName, StepStatus, Target, Verb, arguments,
    idempotency_key, steps_of,
};
use amends_plugins::{
    Answer, Effects, Lacks, LoadedComponent, PluginCall, PluginHost, giving_way, trace_id,
};
use amends_store::failpoint;
use tokio::sync::mpsc;

use crate::clock::now;
use crate::faults::Faults;
use crate::live::{CallNumber, InFlight, Pass};
use crate::rooms::Taken;
use crate::runtime::Sagas;
use crate::shard::Message;

pub(crate) use child::ChildCall;

/// What came of a call, on its way back to the shard.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) id: SagaId,
    pub(crate) number: CallNumber,
    pub(crate) step: StepName,
    pub(crate) direction: Direction,
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    pub(crate) probe: Option<Fate>,
    /// What is not done before it is recorded.
    pub(crate) effects: Effects,
    /// The component that was called; none when a saga was run.
    pub(crate) component: Option<Digest>,
    /// How long the call took.
    pub(crate) took: Duration,
    /// It was cut off with its host, and its component was asked what came of it.
    pub(crate) is_cut_off: bool,
    /// What the host lacked, so that it did not begin.
    pub(crate) not_begun: Option<Lacks>,
}

/// What becomes of a call.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is on the stack; a box would be an allocation a call"
)]
pub(crate) enum Begun {
    /// It is over.
    Over(Returned),
    /// The shard will hear of it. One that runs a saga goes on until what is here is dropped.
    Runs(Option<ChildCall>),
}

/// What a call needs of the host. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) plugins: PluginHost,
    pub(crate) sagas: Sagas,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    pub(crate) inbox: mpsc::WeakUnboundedSender<Message>,
}

/// Earlier components of a plugin that are tried for an undo: each that is not in memory is loaded.
const EARLIER_MAX: usize = 8;

/// Which component serves a call that is due: its digest, and why when it is not the active one.
/// None while the plugin has no component at all.
///
/// The one that an operator chose for the step comes first. Where a canary runs it is the active one
/// of its share of the sagas, but that an undo whose output it cannot read is served as if it were not
/// there. An undo is served by the active component when that can read the recorded output, else by the
/// one that executed the step, if that can undo, else by the latest of the plugin that can read it.
pub(crate) async fn component(
    plugins: &PluginHost,
    saga: &Saga,
    due: &Due,
    plugin: &PluginName,
) -> Option<(Digest, Option<String>)> {
    match due.direction {
        Direction::Execute => match chosen(saga, &due.step, due.direction) {
            Some(chosen) => Some(chosen),
            None => Some((plugins.serving(plugin, saga.id())?.0.digest, None)),
        },
        Direction::Compensate => {
            serve_undo(plugins, saga, (&due.step, plugin), due.executed_by).await
        }
    }
}

/// Which component would serve an undo that is planned, as for [`component`].
pub(crate) async fn undo_component(
    plugins: &PluginHost,
    saga: &Saga,
    undo: &PlannedUndo,
    plugin: &PluginName,
) -> Option<(Digest, Option<String>)> {
    serve_undo(plugins, saga, (&undo.step, plugin), undo.executed_by).await
}

async fn serve_undo(
    plugins: &PluginHost,
    saga: &Saga,
    (step, plugin): (&StepName, &PluginName),
    executed_by: Option<Digest>,
) -> Option<(Digest, Option<String>)> {
    if let Some(chosen) = chosen(saga, step, Direction::Compensate) {
        return Some(chosen);
    }
    if let Some((canary, true)) = plugins.serving(plugin, saga.id())
        && unfit(&canary, saga.step(step).and_then(|step| step.output), executed_by).await.is_none()
    {
        return Some((canary.digest, Some(format!("served by the canary of {plugin}"))));
    }
    let active = plugins.active(plugin)?;
    Some(serve_undo_as(plugins, saga, (step, plugin), executed_by, &active).await)
}

/// Which component would serve an undo, as for [`component`], if this one were the active one.
pub(crate) async fn serve_undo_as(
    plugins: &PluginHost,
    saga: &Saga,
    (step, plugin): (&StepName, &PluginName),
    executed_by: Option<Digest>,
    active: &LoadedComponent,
) -> (Digest, Option<String>) {
    let output = saga.step(step).and_then(|step| step.output);
    let Some(why) = unfit(active, output, executed_by).await else {
        return (active.digest, None);
    };
    if let Some(digest) = executed_by
        && digest != active.digest
        && let Some(owner) = owner(saga, step)
        && let Ok(executed_by) = plugins.by_digest(owner, digest).await
        && executed_by.exports.compensate
    {
        let note = format!(
            "served by the component that executed the step, because the active {} cannot: {why}",
            active.digest
        );
        return (digest, Some(note));
    }
    if let Some(output) = output
        && let Some(digest) = earlier(plugins, plugin, active.digest, output).await
    {
        let note = format!(
            "served by an earlier component of {plugin}, because the active {} cannot: {why}",
            active.digest
        );
        return (digest, Some(note));
    }
    (active.digest, None)
}

/// Why a component cannot undo a step that answered this. What it answered itself it reads.
async fn unfit(
    component: &LoadedComponent,
    output: Option<&Payload>,
    executed_by: Option<Digest>,
) -> Option<String> {
    match output {
        _ if !component.exports.compensate => Some("it exports no undo".to_owned()),
        Some(output) if executed_by != Some(component.digest) => {
            component.reads_output_aside(output).await.err()
        }
        Some(_) | None => None,
    }
}

/// The component that an operator chose for a call of a step, and in what words.
fn chosen(saga: &Saga, step: &StepName, direction: Direction) -> Option<(Digest, Option<String>)> {
    let chosen = saga.step(step)?.chosen.filter(|chosen| chosen.direction == direction)?;
    let Chosen { who, reason, .. } = chosen;
    Some((chosen.digest, Some(format!("served by the component that {who} chose: {reason}"))))
}

/// Whether an operator may have a component serve a step of a saga.
///
/// # Errors
/// When it serves or served no plugin of the step, cannot be loaded, or does not serve such calls.
pub(crate) async fn may_choose(
    plugins: &PluginHost,
    saga: &Saga,
    step: &StepName,
    digest: Digest,
) -> Result<(), Refusal> {
    // What is wrong with the step itself, the saga says.
    let Some(view) = saga.step(step) else { return Ok(()) };
    let is_undo = matches!(view.status, StepStatus::UndoBlocked | StepStatus::UndoBackingOff);
    let undoes = view.spec.undo_plugin().filter(|_| is_undo);
    let names: Vec<_> = [undoes, view.spec.plugin()].into_iter().flatten().collect();
    let refuse = |message: String| {
        let name = names.first().map(|name| name.as_str()).unwrap_or_default();
        let remedy = format!("amends plugin versions {name} lists the components that served it");
        Err(Refusal { message, remedy })
    };
    let Some(name) = names.iter().find(|name| plugins.has_served(name, digest)) else {
        return refuse(format!("{digest} never served a plugin of the step `{step}`"));
    };
    match plugins.by_digest(name, digest).await {
        Ok(found) if is_undo && !found.exports.compensate => {
            refuse(format!("{digest} exports no undo"))
        }
        Ok(found) if !is_undo && !found.exports.execute => {
            refuse(format!("{digest} exports no action"))
        }
        Ok(_) => Ok(()),
        Err(error) => refuse(error.to_string()),
    }
}

/// Whether what an operator says that a step gave is what its component may give.
///
/// # Errors
/// When it does not fit the component's output schema.
pub(crate) async fn may_resolve(
    plugins: &PluginHost,
    saga: &Saga,
    order: &Order,
) -> Result<(), Refusal> {
    let Verb::Resolve { happened: true, output: Some(output), .. } = &order.verb else {
        return Ok(());
    };
    // Whether the order itself fits is decided when its turn comes.
    for step in steps_of(saga, now(), order).unwrap_or_default() {
        let Some(view) = saga.step(&step) else { continue };
        let is_undo = matches!(view.status, StepStatus::UndoBlocked | StepStatus::UndoBackingOff);
        let Some(plugin) = view.spec.plugin().filter(|_| !is_undo) else { continue };
        let component = match view.digest {
            Some(digest) => plugins.by_digest(plugin, digest).await.ok(),
            None => plugins.active(plugin),
        };
        // One that cannot be loaded says nothing of what it gives.
        let Some(component) = component else { continue };
        component.reads_output_aside(output).await.map_err(|why| Refusal {
            message: format!(
                "the result does not fit the output schema of {plugin} ({}), which executes {step}: \
                 {why}",
                component.digest
            ),
            remedy: "give the output that the step would have given, or none when nobody knows it"
                .to_owned(),
        })?;
    }
    Ok(())
}

/// The latest component that served a plugin before and that can undo what gave this output.
async fn earlier(
    plugins: &PluginHost,
    plugin: &PluginName,
    active: Digest,
    output: &Payload,
) -> Option<Digest> {
    let mut tried = vec![active];
    for digest in plugins.info(plugin)?.history.iter().map(|one| one.digest) {
        if tried.contains(&digest) {
            continue;
        }
        if tried.len() > EARLIER_MAX {
            break;
        }
        tried.push(digest);
        if let Ok(component) = plugins.by_digest(plugin, digest).await
            && component.exports.compensate
            && component.reads_output_aside(output).await.is_ok()
        {
            return Some(digest);
        }
    }
    None
}

/// The plugin that executes a step.
fn owner<'s>(saga: &'s Saga, step: &StepName) -> Option<&'s PluginName> {
    saga.step(step)?.spec.plugin()
}

impl Dispatcher {
    /// Runs a call: as far as it gets by itself when it may run in the shard, and from there, or
    /// else from the start, in a task that sends what came of it to the shard. The room that it
    /// took is given back before the shard hears of it.
    pub(crate) fn run(
        &self,
        saga: &Saga,
        (number, call): (CallNumber, Call),
        pass: Pass,
        in_shard: bool,
    ) -> Begun {
        let in_shard = in_shard && matches!(call.target, Target::Plugin(_));
        let mut running = self.begin(saga, (number, call), pass, false);
        if in_shard && let Poll::Ready(came) = running.poll() {
            return Begun::Over(running.returned.with(came, running.began));
        }
        Begun::Runs(running.spawn(self.inbox.clone()))
    }

    /// Finds out what came of a call that was cut off with its host, which takes room as the call does.
    /// What runs another saga is simply run again: it finds that saga.
    pub(crate) fn recover(
        &self,
        saga: &Saga,
        (number, call): (CallNumber, Call),
        room: Option<Taken>,
    ) -> InFlight {
        let pass = Pass { room, permit: None };
        let child = self.begin(saga, (number, call), pass, true).spawn(self.inbox.clone());
        InFlight { number: Some(number), child }
    }

    /// Whether anything can tell what came of a call that was cut off.
    pub(crate) fn may_tell(&self, call: &Call) -> bool {
        match &call.target {
            Target::Saga { .. } => true,
            // An older component is loaded to see.
            Target::Plugin(plugin) => self
                .plugins
                .active(plugin)
                .is_none_or(|active| active.digest != call.digest || active.exports.probe),
        }
    }

    /// `is_cut_off`: it was begun by this host before it stopped; what came of it is asked.
    fn begin(
        &self,
        saga: &Saga,
        (number, call): (CallNumber, Call),
        pass: Pass,
        is_cut_off: bool,
    ) -> Running {
        let Pass { mut room, permit } = pass;
        let this = self.clone();
        let id = saga.id();
        let made = Self::plugin_call(&self.plugins, saga, &call);
        let child = child::Child::of(saga, &call);
        let (child_call, told) = child.as_ref().map(ChildCall::new).unzip();
        let runs = child.zip(told);
        let traceparent = saga.started().traceparent.clone();
        let definition = saga.started().definition.clone();
        let faults = self.faults.clone().filter(|_| !is_cut_off);
        let instead = faults.as_ref().and_then(|faults| faults.instead(saga, &call));
        // Kept for what is told of a call, where something goes wrong on purpose.
        let tried = faults.map(|faults| (faults, saga.clone()));
        let returned = Returned { is_cut_off, ..Returned::broken_off(id, number, &call) };
        let began = Instant::now();
        let call = Box::pin(async move {
            failpoint("runtime.call.before");
            let memory = room.as_mut().and_then(Taken::memory);
            let mut answer = match (&call.target, made) {
                _ if instead.is_some() => Answer::of(instead.unwrap_or(Outcome::NothingToUndo)),
                (Target::Saga { .. }, _) => {
                    Answer::of(child::run(&this.sagas, runs?, call.direction).await?)
                }
                (Target::Plugin(_), Ok(plugin_call)) if is_cut_off => {
                    this.plugins.ask(&plugin_call, host_stopped(), memory).await
                }
                (Target::Plugin(_), Ok(plugin_call)) => {
                    this.plugins.call_within(&plugin_call, memory).await
                }
                // The input could be computed before the call was started, from the same state.
                (Target::Plugin(_), Err(message)) => {
                    Answer::of(Outcome::Unknown(Failure::new("input_failed", message)))
                }
            };
            if let Some(lacks) = &answer.not_begun {
                tracing::debug!(saga_id = %id, step = %call.step, attempt = call.attempt, %lacks, "call did not begin");
                return Some(answer);
            }
            if let Some((faults, saga)) = &tried {
                let told = faults.told(saga, &call, answer.outcome.clone());
                if told != answer.outcome {
                    // What is recorded with an answer is lost with it.
                    answer = Answer::of(told);
                }
            }
            let outcome = &answer.outcome;
            metrics::histogram!(
                "amends_step_duration_seconds",
                "definition" => definition.to_string(),
                "step" => call.step.step().to_owned(),
                "direction" => call.direction.as_str()
            )
            .record(began.elapsed());
            log(id, &call, traceparent.as_deref(), outcome, began);
            if let Some(permit) = permit {
                permit.report(outcome, now());
            }
            drop(room);
            failpoint("runtime.call.returned");
            Some(answer)
        });
        Running { call, returned, began, child: child_call }
    }

    /// What a component is called with.
    ///
    /// # Errors
    /// When the input cannot be computed, or it is no component that is called; the words are for
    /// people.
    pub(crate) fn plugin_call(
        plugins: &PluginHost,
        saga: &Saga,
        call: &Call,
    ) -> Result<PluginCall, String> {
        let (input, output) = arguments(saga, call)?;
        let plugin = match &call.target {
            Target::Plugin(plugin) => plugin,
            // Not used: it is no component that is called.
            Target::Saga { .. } => return Err("it is a saga".to_owned()),
        };
        // A component of the plugin that executed the step runs with that plugin's settings and
        // secrets, also when it serves the undo in another plugin's place.
        let executed_by = saga.step(&call.step);
        let is_executor = executed_by.is_some_and(|step| step.digest == Some(call.digest));
        let has_served = |name: &PluginName| plugins.has_served(name, call.digest);
        let plugin = match owner(saga, &call.step) {
            Some(owner) if !has_served(plugin) && (is_executor || has_served(owner)) => owner,
            Some(_) | None => plugin,
        };
        let started = saga.started();
        Ok(PluginCall {
            plugin: plugin.clone(),
            state_of: owner(saga, &call.step).unwrap_or(plugin).clone(),
            digest: call.digest,
            saga_id: saga.id(),
            definition: started.definition.clone(),
            step: call.step.clone(),
            attempt: call.attempt,
            direction: call.direction,
            idempotency_key: idempotency_key(
                saga.id(),
                &call.step,
                call.direction,
                call.generation,
            ),
            traceparent: started.traceparent.clone(),
            input,
            output,
            timeout: call.timeout,
        })
    }
}

/// Why nobody knows what came of a call that was in flight when its host stopped.
pub(crate) fn host_stopped() -> Failure {
    Failure::new("host_stopped", "the host stopped while the call was in flight")
}

/// What came of a call, and what its component found out about it when it was asked. None when
/// nobody waits for it any more.
type Came = Option<Answer>;

/// A call that nobody has polled yet.
struct Running {
    call: Pin<Box<dyn Future<Output = Came> + Send>>,
    /// What is told of it when it breaks off.
    returned: Returned,
    began: Instant,
    child: Option<ChildCall>,
}

impl Running {
    /// As far as it gets by itself. Whoever polls it next does so with a waker.
    fn poll(&mut self) -> Poll<Came> {
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| self.call.as_mut().poll(&mut context)));
        // A panic is this call's alone: nothing comes of it.
        polled.unwrap_or(Poll::Ready(None))
    }

    /// In a task, and from when it computes long where it gives way to others. Whatever becomes of
    /// that, the shard hears of the call.
    fn spawn(self, inbox: mpsc::WeakUnboundedSender<Message>) -> Option<ChildCall> {
        let Self { call, returned, began, child } = self;
        let mut reply = Reply { returned: Some(returned), inbox };
        tokio::spawn(async move {
            let came = giving_way(call).await;
            reply.send(came, began);
        });
        child
    }
}

/// Tells the shard what came of a call, once; that nobody knows, when the task panicked.
struct Reply {
    returned: Option<Returned>,
    inbox: mpsc::WeakUnboundedSender<Message>,
}

impl Returned {
    /// Of a call that panics: nobody knows what came of it.
    fn broken_off(id: SagaId, number: CallNumber, call: &Call) -> Self {
        let outcome = Outcome::Unknown(Failure::new("host_failed", "the host broke off the call"));
        Self {
            id,
            number,
            step: call.step.clone(),
            direction: call.direction,
            attempt: call.attempt,
            outcome,
            probe: None,
            effects: Effects::default(),
            component: matches!(call.target, Target::Plugin(_)).then_some(call.digest),
            took: Duration::MAX,
            is_cut_off: false,
            not_begun: None,
        }
    }

    fn with(mut self, came: Came, began: Instant) -> Self {
        if let Some(Answer { outcome, fate, effects, not_begun }) = came {
            (self.outcome, self.probe, self.effects) = (outcome, fate, effects);
            self.not_begun = not_begun;
        }
        self.took = began.elapsed();
        self
    }
}

impl Reply {
    /// Nothing is told when nothing came: nobody waits for it any more.
    fn send(&mut self, came: Came, began: Instant) {
        let returned = self.returned.take().filter(|_| came.is_some());
        self.tell(returned.map(|returned| returned.with(came, began)));
    }

    fn tell(&self, returned: Option<Returned>) {
        if let (Some(returned), Some(inbox)) = (returned, self.inbox.upgrade()) {
            let _ = inbox.send(Message::Returned(Box::new(returned)));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // A saga goes on without whoever waits for it.
        let returned = self.returned.take().filter(|returned| returned.component.is_some());
        self.tell(returned);
    }
}

fn log(id: SagaId, call: &Call, traceparent: Option<&str>, outcome: &Outcome, began: Instant) {
    let (class, failure) = match outcome {
        Outcome::Succeeded(_) => ("succeeded", None),
        Outcome::NothingToUndo => ("nothing_to_undo", None),
        Outcome::Permanent(failure) => ("permanent", Some(failure)),
        Outcome::Retryable(failure) => ("retryable", Some(failure)),
        Outcome::Unknown(failure) => ("unknown", Some(failure)),
    };
    let trace_id = trace_id(traceparent);
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
