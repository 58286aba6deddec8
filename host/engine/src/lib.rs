//! The saga machine: pure. No I/O, clock, randomness, threads, SQL or WebAssembly; time is an
//! input.
//!
//! A saga is a list of facts ([`Event`]). Three functions are all there is:
//!
//! - [`decide`] takes a saga and what happened, and answers the facts that follow;
//! - [`evolve`] applies one fact to a saga, and never decides;
//! - [`commands`] says what must be running or waited for now, from the state alone.
//!
//! # The loop around it
//! 1. [`start`] makes a saga and the facts of its first append.
//! 2. For each [`Command::Start`] that is due, find the component and [`decide`] on
//!    [`Input::Admit`]; add the facts to the same append.
//! 3. Append. Nothing acts on a fact before it is durable.
//! 4. [`evolve`] by each fact.
//! 5. Run each new [`Command::Run`]; set a timer for each time that is named.
//! 6. When a call ends, [`decide`] on [`Input::Outcome`], then go on with 2.
//! 7. After a crash: [`replay`] the log, [`decide`] on [`Input::Tick`], feed
//!    [`Outcome::Unknown`] for every [`Command::Run`], and go on with 2. There is no second path.
//!
//! Deliberately absent: retries in the shell, timers that hold state, a status that is stored.

mod backoff;
mod call;
mod commands;
mod decide;
mod definition;
mod emitted;
mod event;
mod evolve;
mod fit;
mod footprint;
mod ids;
mod payload;
mod plan;
mod plugin_state;
mod saga;
#[cfg(feature = "sim")]
pub mod sim;
mod status;
mod text;
mod why;

use std::time::Duration;

pub use call::{Direction, Failure, FailureClass, Fate, Outcome, TIMEOUT_MAX, idempotency_key};
pub use commands::{Call, Command, Due, Target, arguments, commands, step_input};
pub use decide::{
    Decision, Input, Order, Refusal, SIGNALS_MAX, Start, Verb, awaits, decide, decide_on, permits,
    permits_signal, start, steps_of,
};
pub use definition::{
    BackoffSpec, Definition, DefinitionError, DefinitionSpec, EACH_CONCURRENCY_DEFAULT,
    ELEMENTS_MAX, EVALUATION_BYTES_MAX, EVALUATION_STEPS_MAX, EXPRESSION_BYTES_MAX, EachSpec,
    InputSpec, RetrySpec, STEPS_MAX, StepKind, StepSpec, TIMEOUT_DEFAULT, UndoSpec, WaitSpec,
};
pub use emitted::{EVENT_TYPE_BYTES_MAX, Emitted, EventType, EventTypeError};
pub use event::{
    Cause, CompensationStarted, DecodeError, Event, OperatorAbandoned, OperatorCancelled,
    OperatorCompensated, OperatorNoted, OperatorPaused, OperatorResolved, OperatorResumed,
    OperatorRetried, OperatorSkipped, Parent, SagaAbandoned, SagaBlocked, SagaCompensated,
    SagaCompleted, SagaRetimed, SagaStarted, SignalReceived, StepExpanded, StepFailed, StepSkipped,
    StepStarted, StepSucceeded, StepUnknown, StepWaiting, UndoBlocked, UndoFailed, UndoStarted,
    UndoSucceeded,
};
pub use evolve::{Impossible, evolve, replay};
pub use fit::{Flaw, FlawKind, Misfit, Schema, Schemas, flaws, misfits, nearest};
pub use footprint::SIGNAL_BYTES_MAX;
pub use ids::{
    DefinitionName, Digest, IdError, NAME_BYTES_MAX, PluginName, Position, SagaId, ServiceName,
    SignalName, StepName, Timestamp, Version,
};
pub use payload::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload, PayloadError, check_json};
pub use plan::{Effect, PlannedUndo, exposure, undo_plan};
pub use plugin_state::{
    STATE_BYTES_MAX_DEFAULT, STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_ROWS_MAX,
    STATE_VALUE_BYTES_MAX, StateChange, StateList, StateQuery, is_state_key,
};
pub use saga::{Chosen, Note, Ordered, Saga, StepView};
pub use status::{SagaStatus, StepStatus};
pub use text::{escape, is_steering, on_one_line};
pub use why::{Why, activity_in_brief, pivot_first, why};

/// A call is attempted at most this often: past it an attempt counter says nothing to anybody.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// How far a host's clock may be set back without a saga taking notice: clocks that are kept by NTP
/// go back by less. A pause that was set just before may be longer by this.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// A guest's `retry-after` counts up to this: past it, it could put a saga to sleep for ever.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
