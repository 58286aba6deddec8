//! What a decision is about: the start of a saga, and everything that can happen to one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::call::{Direction, Failure, Fate, Outcome};
use crate::definition::Definition;
use crate::emitted::Emitted;
use crate::event::Parent;
use crate::ids::{Digest, SagaId, SignalName, StepName, Timestamp};
use crate::order::Order;
use crate::payload::Payload;
use crate::personal::{PersonalPath, SealedKey};

/// Everything that a saga is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The id of the new saga.
    pub id: SagaId,
    /// The definition that the saga runs.
    pub definition: Arc<Definition>,
    /// The input of the saga.
    pub input: Payload,
    /// The idempotency key of the caller.
    pub key: Option<String>,
    /// The tags by which callers find the saga.
    pub tags: BTreeMap<String, String>,
    /// The trace context of the caller (W3C).
    pub traceparent: Option<String>,
    /// When the first steps may begin. None, or a time that has passed: at once.
    pub start_at: Option<Timestamp>,
    /// The step of another saga that starts this one, if one does.
    pub parent: Option<Parent>,
    /// The key of its personal values; none when its definition has no subject.
    pub sealed_key: Option<SealedKey>,
    /// Who starts the saga. None on a host without access control, and when a step of another saga starts it.
    pub who: Option<String>,
    /// The places that components mark as personal, and that the definition does not name.
    pub personal: Vec<PersonalPath>,
}

/// One thing that happened to a saga.
#[derive(Debug, Clone)]
pub enum Input {
    /// The runtime has the component and the room for a call that [`crate::commands`] named.
    Admit {
        /// The step.
        step: StepName,
        /// The direction of the call.
        direction: Direction,
        /// The component that will serve the call.
        digest: Digest,
        /// The reason for this component, when it is not the active one.
        note: Option<String>,
        /// True for a trial of a circuit breaker: the call tests whether the service works again.
        /// It does not count as an attempt, unless the policy allows only one.
        is_trial: bool,
    },
    /// A call ended.
    Outcome {
        /// The step.
        step: StepName,
        /// The direction of the call.
        direction: Direction,
        /// The attempt that ended.
        attempt: u32,
        /// The outcome of the call.
        outcome: Outcome,
        /// The answer of the component's `probe`, if it was asked. The outcome takes it into
        /// account.
        probe: Option<Fate>,
        /// The domain events that the component emitted. Only those of a call that succeeded are
        /// recorded.
        emitted: Vec<Emitted>,
    },
    /// A call that is due will not run: its circuit breaker is open, and the config says that this
    /// fails the step. An undo is never refused, it waits.
    Refuse {
        /// The step.
        step: StepName,
        /// The failure of the step.
        error: Failure,
    },
    /// A component that served a call marks these places as personal. Those that are known as such are
    /// left out.
    Mark {
        /// The places.
        personal: Vec<PersonalPath>,
    },
    /// Time has passed, or the saga was loaded from its log.
    Tick,
    /// A signal arrived. It is refused when no step can take it any more.
    Signal {
        /// The name of the signal.
        name: SignalName,
        /// The sender's id of the signal. A second signal with the same id changes nothing.
        id: Option<String>,
        /// The payload of the signal.
        payload: Payload,
        /// Who sent the signal.
        who: Option<String>,
    },
    /// An operator gave an order. It is refused when the saga does not permit it now.
    Operate(Order),
}
