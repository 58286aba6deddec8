//! The saga machine: pure. No I/O, clock, randomness, threads, SQL or WebAssembly; time is an
//! input.
//!
//! A saga is a list of facts ([`Event`]). Three functions do everything:
//!
//! - [`decide`] takes a saga and what happened, and returns the facts that follow;
//! - [`evolve`] applies one fact to a saga, and never decides;
//! - [`commands`] returns what must be running or waited for now, from the state alone.
//!
//! # The loop around it
//! 1. Call [`start`], which makes a saga and the facts of its first append.
//! 2. For each [`Command::Start`] that is due, find the component and [`decide`] on
//!    [`Input::Admit`]. Add the facts to the same append.
//! 3. Append the facts. Nothing acts on a fact before it is durable.
//! 4. Apply each fact with [`evolve`].
//! 5. Run the call of each new [`Command::Run`]. Set a timer for each time that a command names.
//! 6. When a call ends, [`decide`] on [`Input::Outcome`], then go on with step 2.
//! 7. After a crash, [`replay`] the log, [`decide`] on [`Input::Tick`], [`decide`] on
//!    [`Outcome::Unknown`] for every [`Command::Run`], and go on with step 2. There is no other
//!    path.
//!
//! Deliberately absent: retries outside the engine, timers that hold state, a stored status.

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
mod index;
mod limits;
mod log_limits;
mod order;
mod payload;
mod personal;
mod plan;
mod plugin_state;
mod saga;
mod sentence;
#[cfg(feature = "sim")]
pub mod sim;
mod status;
mod text;
mod trace;
mod why;
mod withhold;

pub use call::{Direction, Failure, FailureClass, Fate, Outcome, TIMEOUT_MAX, idempotency_key};
pub use commands::{Call, Command, Due, Target, arguments, commands, step_input};
pub use decide::{
    Decision, Input, Start, awaits, decide, decide_on, permits, permits_signal, start, steps_of,
};
pub use definition::{
    BackoffSpec, Definition, DefinitionError, DefinitionSpec, EACH_CONCURRENCY_DEFAULT,
    ELEMENTS_MAX, EachSpec, EventExpression, EventExpressionError, EventVariables, InputSpec,
    RetrySpec, STEPS_MAX, StepKind, StepSpec, TIMEOUT_DEFAULT, UndoSpec, WaitSpec,
};
pub use emitted::{Emitted, EventType, EventTypeError};
pub use event::{
    Cause, CompensationStarted, DecodeError, Event, OperatorAbandoned, OperatorCancelled,
    OperatorCompensated, OperatorEvent, OperatorNoted, OperatorPaused, OperatorResolved,
    OperatorResumed, OperatorRetried, OperatorSkipped, Parent, SagaAbandoned, SagaBlocked,
    SagaCompensated, SagaCompleted, SagaEvent, SagaMarked, SagaRetimed, SagaStarted, SignalEvent,
    SignalReceived, StepEvent, StepExpanded, StepFailed, StepSkipped, StepStarted, StepSucceeded,
    StepUnknown, StepWaiting, UndoBlocked, UndoEvent, UndoFailed, UndoStarted, UndoSucceeded,
};
pub use evolve::{Impossible, evolve, replay};
pub use fit::{
    Flaw, FlawKind, IndexFlaw, Misfit, PERSONAL_MARK, PersonalMarks, Schema, Schemas, flaws,
    index_flaws, marked_places, misfits, nearest,
};
pub use ids::{
    DefinitionName, Digest, IdError, IndexName, NAME_BYTES_MAX, NamespaceName, PluginName,
    Position, SagaId, ServiceName, SignalName, StepName, Timestamp, Version,
};
pub use index::{INDEX_NAMES_MAX, INDEX_TEXT_BYTES_MAX, IndexValue};
pub use limits::{ATTEMPTS_MAX, CLOCK_TOLERANCE};
pub use log_limits::LOG_EVENTS_LONG;
pub use order::{Order, Refusal, Verb};
pub use payload::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload, PayloadError, check_json};
pub use personal::{
    ERASED, PERSONAL_PATHS_MAX, PersonalPath, SEALED_PREFIX, SEALED_REASON, SUBJECT_BYTES_MAX,
    SealedKey, SubjectKeyId, is_sealed,
};
pub use plan::{Effect, PlannedUndo, exposure, undo_plan};
pub use plugin_state::{
    COUNTER_MAX, CounterChange, CounterLimit, STATE_BYTES_MAX_DEFAULT, STATE_KEY_BYTES_MAX,
    STATE_KEYS_MAX, STATE_ROWS_MAX, STATE_VALUE_BYTES_MAX, StateChange, StateList, StateQuery,
    counter, is_state_key,
};
pub use saga::{Chosen, Note, Ordered, Saga, StepView};
pub use status::{SagaStatus, StepStatus};
pub use text::{escape, is_steering, on_one_line};
pub use trace::{SpanId, TraceContext, TraceId, attempt_span_id, attempt_trace_id, saga_span_id};
pub use why::{Why, activity_in_brief, pivot_first, why, why_withheld};
pub use withhold::{WITHHELD, withhold_payloads, withhold_state};
