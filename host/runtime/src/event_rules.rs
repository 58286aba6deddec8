//! Rules for events: an event of another system, or a domain event of this host, starts a saga or becomes a
//! signal.
//!
//! Each event has its effect once, however often it is delivered. The start key of its saga, or the id of
//! its signal, is made of the rule, the event's source and the event's id. So the store remembers what
//! came, in the transaction of the effect, and nothing else does.
//!
//! Deliberately absent: a queue. Whoever delivers an event is answered when its effect is durable, and
//! delivers it again otherwise.

mod chain;
mod error;
mod log;
mod nats;
mod plan;
mod settings;
mod status;

pub(crate) use chain::EventChain;
pub use error::{EventError, EventsError};
pub(crate) use log::{EventPort, LateEventPort, subscriptions_of};
pub(crate) use nats::{IncomingPort, sources_of};
pub(crate) use plan::{Plan, SignalTo};
pub(crate) use settings::EVENT_CHAIN_TAG;
pub use settings::{
    EVENT_KEY_PREFIX, EventEffect, EventOrigin, EventPayload, EventRule, EventSignal, EventStart,
    SignalTarget, is_event_tag,
};
pub use status::{EventCounts, EventRuleStatus};
pub(crate) use status::{EventRules, Outcome};
