//! What a component is called with, and what comes of it.

use std::time::Duration;

use amends_engine::{
    DefinitionName, Digest, Direction, Failure, Fate, Outcome, Payload, PluginName, SagaId,
    StepName,
};

use crate::call::call_trace::CallTrace;
use crate::call::effects::Effects;
use crate::capability::grant::CallName;
use crate::cut::cut_message;
use crate::limits::call_limits::Lacks;

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
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// Whether it executes or compensates the step.
    pub direction: Direction,
    /// The same for every attempt with the same input.
    pub idempotency_key: String,
    /// The trace context that the component sees: that of the call's span, or that of the caller.
    pub traceparent: Option<String>,
    /// True when spans are made of the call. Then each of its requests goes out with a span of its own as
    /// the parent, and [`Answer::trace`] tells of it.
    pub is_traced: bool,
    /// What the definition's mapping made.
    pub input: Payload,
    /// For `compensate`: what `execute` answered, if that is known.
    pub output: Option<Payload>,
    /// The most time that the call may take.
    pub timeout: Duration,
}

impl PluginCall {
    pub(crate) fn named(&self) -> CallName<'_> {
        let Self { plugin, saga_id, step, attempt, .. } = self;
        CallName { plugin, saga_id: *saga_id, step, attempt: *attempt }
    }

    /// `DEFINITION.STEP.DIRECTION.ATTEMPT`.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { definition, step, direction, attempt, .. } = self;
        format!("{definition}.{step}.{}.{attempt}", direction.as_str())
    }
}

/// The outcome of a call, and what is recorded with it.
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
    /// What is told of the call in its trace.
    pub trace: CallTrace,
}

impl Answer {
    /// An outcome with nothing else to tell.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            fate: None,
            effects: Effects::default(),
            has_sent: false,
            not_begun: None,
            trace: CallTrace::default(),
        }
    }

    /// Of a call that did not begin.
    #[must_use]
    pub fn not_begun(lacks: Lacks) -> Self {
        let failure =
            Failure::new("not_begun", cut_message(format!("the call did not begin: {lacks}")));
        Self { not_begun: Some(lacks), ..Self::of(Outcome::Retryable(failure)) }
    }
}
