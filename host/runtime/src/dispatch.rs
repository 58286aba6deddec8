//! From a call that is durable to its outcome: in the worker when that is quick, else in a task.

pub(crate) mod child;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use amends_engine::{
    Call, Failure, Outcome, PluginName, Saga, SagaId, Target, arguments, idempotency_key,
};
use amends_failpoint::failpoint;
use amends_registry::Registry;
use amends_sandbox::{Answer, CallTrace, Effects, PluginCall, giving_way, trace_id};
use tokio::sync::mpsc;

use crate::faults::Faults;
use crate::live::{InFlight, Pass};
use crate::message::{CallNumber, Message, Returned};
use crate::ports::SagaPort;
use crate::rooms::Taken;
use crate::serving::owner;
use crate::traces::{self, Traces};
use amends_registry::now;
use child::ChildCall;

/// What becomes of a call.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is on the stack; a box would be an allocation a call"
)]
pub(crate) enum Begun {
    /// The call has ended.
    Over(Returned),
    /// The worker will hear of it. One that runs a saga goes on until what is here is dropped.
    Runs(Option<ChildCall>),
}

/// What a call needs of the host. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) plugins: Registry,
    pub(crate) sagas: Arc<dyn SagaPort>,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    /// None: no spans are made.
    pub(crate) traces: Option<Arc<Traces>>,
    pub(crate) inbox: mpsc::WeakUnboundedSender<Message>,
}

impl Dispatcher {
    /// Runs a call: as far as it gets by itself when it may run in the worker, and from there, or
    /// else from the start, in a task that sends what came of it to the worker. The room that it
    /// took is given back before the worker hears of it.
    pub(crate) fn run(
        &self,
        saga: &Saga,
        (number, call): (CallNumber, Call),
        pass: Pass,
        in_worker: bool,
    ) -> Begun {
        let in_worker = in_worker && matches!(call.target, Target::Plugin(_));
        let mut running = self.begin(saga, (number, call), pass, None);
        if in_worker && let Poll::Ready(came) = running.poll() {
            return Begun::Over(running.returned.with(came, running.began));
        }
        Begun::Runs(running.spawn(self.inbox.clone()))
    }

    /// Finds out what came of a call that was cut off with its host by `cut_off`, which takes room as
    /// the call does. What runs another saga is simply run again: it finds that saga.
    pub(crate) fn recover(
        &self,
        saga: &Saga,
        (number, call): (CallNumber, Call),
        room: Option<Taken>,
        cut_off: Instant,
    ) -> InFlight {
        let pass = Pass { room, permit: None };
        let child = self.begin(saga, (number, call), pass, Some(cut_off)).spawn(self.inbox.clone());
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

    /// `cut_off`: by when it was cut off with its host; what came of it is asked.
    fn begin(
        &self,
        saga: &Saga,
        (number, call): (CallNumber, Call),
        pass: Pass,
        cut_off: Option<Instant>,
    ) -> Running {
        let Pass { mut room, permit } = pass;
        let this = self.clone();
        let id = saga.id();
        let span = self.traces.as_ref().and_then(|traces| traces.span_of(saga, &call));
        let made = Self::plugin_call(&self.plugins, saga, &call);
        let made = made.map(|made| traces::below(span, made));
        let child = child::Child::of(saga, &call, span);
        let (child_call, told) = child.as_ref().map(ChildCall::new).unzip();
        let runs = child.zip(told);
        let trace_of_saga = made.is_err().then(|| saga.traceparent().into_owned());
        let definition = saga.started().definition.clone();
        let faults = self.faults.clone().filter(|_| cut_off.is_none());
        let instead = faults.as_ref().and_then(|faults| faults.instead(saga, &call));
        // Kept for what is told of a call, where something goes wrong on purpose.
        let tried = faults.map(|faults| (faults, saga.clone()));
        let returned = Returned { cut_off, ..Returned::broken_off(id, number, &call) };
        let began = Instant::now();
        let call = Box::pin(async move {
            failpoint("runtime.call.before");
            let memory = room.as_mut().and_then(Taken::memory);
            let mut answer = match (&call.target, &made) {
                _ if instead.is_some() => Answer::of(instead.unwrap_or(Outcome::NothingToUndo)),
                (Target::Saga { .. }, _) => {
                    Answer::of(child::run(&*this.sagas, runs?, call.direction).await?)
                }
                (Target::Plugin(_), Ok(plugin_call)) if cut_off.is_some() => {
                    this.plugins.ask(plugin_call, host_stopped(), memory, cut_off).await
                }
                (Target::Plugin(_), Ok(plugin_call)) => {
                    this.plugins.call_within(plugin_call, memory).await
                }
                // It needs values that were erased since, so its component cannot be asked.
                (Target::Plugin(_), Err(_)) if cut_off.is_some() => {
                    Answer::of(Outcome::Unknown(host_stopped()))
                }
                // The input could be computed before the call was started, from the same state.
                (Target::Plugin(_), Err(message)) => {
                    Answer::of(Outcome::Unknown(Failure::new("input_failed", message.as_str())))
                }
            };
            if let Some(lacks) = &answer.not_begun {
                tracing::debug!(saga_id = %id, step = %call.step, attempt = call.attempt, %lacks, "call did not begin");
                return Some(answer);
            }
            if let Some((faults, saga)) = &tried {
                let told = faults.told(saga, &call, &answer);
                if told != answer.outcome {
                    // What is recorded with an answer is lost with it.
                    answer = Answer { has_sent: answer.has_sent, ..Answer::of(told) };
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
            let sent = made.as_ref().ok();
            let traceparent = sent.map_or(&trace_of_saga, |sent| &sent.traceparent);
            CallLog {
                id,
                call: &call,
                trace_id: trace_id(traceparent.as_deref()),
                idempotency_key: sent.map(|sent| sent.idempotency_key.as_str()),
                began,
            }
            .write(outcome);
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
        plugins: &Registry,
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
            traceparent: Some(saga.traceparent().into_owned()),
            is_traced: false,
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
type MaybeAnswer = Option<Answer>;

/// A call that nobody has polled yet.
struct Running {
    call: Pin<Box<dyn Future<Output = MaybeAnswer> + Send>>,
    /// What is told of it when it breaks off.
    returned: Returned,
    began: Instant,
    child: Option<ChildCall>,
}

impl Running {
    /// As far as it gets by itself. Whoever polls it next does so with a waker.
    fn poll(&mut self) -> Poll<MaybeAnswer> {
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| self.call.as_mut().poll(&mut context)));
        // A panic is this call's alone: nothing comes of it.
        polled.unwrap_or(Poll::Ready(None))
    }

    /// In a task, and from when it computes long where it gives way to others. Whatever becomes of
    /// that, the worker hears of the call.
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

/// Tells the worker what came of a call, once; that nobody knows, when the task panicked.
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
            has_sent: false,
            cut_off: None,
            not_begun: None,
            trace: CallTrace::default(),
        }
    }

    fn with(mut self, came: MaybeAnswer, began: Instant) -> Self {
        if let Some(Answer { outcome, fate, effects, has_sent, not_begun, trace }) = came {
            (self.outcome, self.probe, self.effects) = (outcome, fate, effects);
            (self.has_sent, self.not_begun, self.trace) = (has_sent, not_begun, trace);
        }
        self.took = began.elapsed();
        self
    }
}

impl Reply {
    /// Nothing is told when nothing came: nobody waits for it any more.
    fn send(&mut self, came: MaybeAnswer, began: Instant) {
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

/// What the log says of a call, whatever came of it.
struct CallLog<'a> {
    id: SagaId,
    call: &'a Call,
    trace_id: &'a str,
    /// None of a call that runs a saga.
    idempotency_key: Option<&'a str>,
    began: Instant,
}

impl CallLog<'_> {
    fn write(self, outcome: &Outcome) {
        let Self { id, call, trace_id, idempotency_key, began } = self;
        let (class, failure) = match outcome {
            Outcome::Succeeded(_) => ("succeeded", None),
            Outcome::NothingToUndo => ("nothing_to_undo", None),
            Outcome::Permanent(failure) => ("permanent", Some(failure)),
            Outcome::Retryable(failure) => ("retryable", Some(failure)),
            Outcome::Unknown(failure) => ("unknown", Some(failure)),
        };
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        macro_rules! line {
        ($macro:ident, $message:literal $(, $field:ident = $value:expr)*) => {
            tracing::$macro!(
                saga_id = %id,
                step = %call.step,
                direction = call.direction.as_str(),
                attempt = call.attempt,
                trace_id,
                idempotency_key,
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
}
