//! What a config says of a rule.

use std::collections::BTreeMap;

use amends_engine::{DefinitionName, EventExpression, SignalName};
use amends_subscriptions::{NatsSourceSettings, SigningSecret, TypePattern};

/// A rule: which events come from where, and what each does.
#[derive(Debug)]
pub struct EventRule {
    /// The name. It is a part of start keys and of the ids of signals.
    pub name: String,
    /// The types of events that it takes. Others are ignored.
    pub event: TypePattern,
    /// Where the events come from.
    pub origin: EventOrigin,
    /// What an event does.
    pub effect: EventEffect,
}

/// Where the events of a rule come from.
#[derive(Debug)]
pub enum EventOrigin {
    /// From requests to `POST /v1/on/NAME`, signed with one of these secrets. Without secrets, anybody who
    /// reaches the host may send them.
    Webhook(Vec<SigningSecret>),
    /// From plugins of this host: the domain events of the log.
    Log,
    /// From a stream of NATS JetStream.
    Nats(NatsSourceSettings),
}

/// What an event does.
#[derive(Debug)]
pub enum EventEffect {
    /// It starts a saga.
    Start(EventStart),
    /// It becomes a signal to a saga.
    Signal(EventSignal),
}

/// The saga that an event starts.
#[derive(Debug)]
pub struct EventStart {
    /// Its definition.
    pub definition: DefinitionName,
    /// Its start key. None: it is made of the rule, the source and the id of the event.
    pub key: Option<EventExpression>,
    /// Its input.
    pub input: EventPayload,
    /// Its tags; `on` is added. A tag whose value is null is left out.
    pub tags: BTreeMap<String, EventExpression>,
}

/// The signal that an event becomes.
#[derive(Debug)]
pub struct EventSignal {
    /// Its name.
    pub name: SignalName,
    /// The saga that gets it.
    pub to: SignalTarget,
    /// What it brings.
    pub payload: EventPayload,
}

/// The saga that gets a signal.
#[derive(Debug)]
pub enum SignalTarget {
    /// The one of this id.
    Saga(EventExpression),
    /// The one that was started with this key.
    Key(EventExpression),
}

/// What is made of an event for a saga.
#[derive(Debug)]
pub enum EventPayload {
    /// The data of the event, unchanged.
    Data,
    /// The value of an expression.
    Whole(EventExpression),
    /// An object of values.
    Fields(BTreeMap<String, EventExpression>),
}

/// What start keys of sagas and ids of signals begin with that events make. Callers may not use such
/// ones.
pub const EVENT_KEY_PREFIX: &str = "on/";

/// The tag that has the name of the rule.
pub(crate) const EVENT_TAG: &str = "on";

/// The tag of a saga that a domain event started: the rules that started it and the sagas before it, one by
/// the other. Sagas that a saga runs have its tags, and so its chain.
pub(crate) const EVENT_CHAIN_TAG: &str = "on_chain";

/// Returns true for a tag that the host sets. Callers may not, because a chain would be as long as they like.
#[must_use]
pub fn is_event_tag(name: &str) -> bool {
    [EVENT_TAG, EVENT_CHAIN_TAG].contains(&name)
}
