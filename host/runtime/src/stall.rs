//! What holds a saga back that its events do not tell.

use amends_engine::{Direction, PluginName, SagaId, ServiceName, StepName, Timestamp};

use crate::room_key::RoomKey;

/// What holds a saga back that its events do not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StallReason {
    /// No component is active for a plugin that it needs.
    PluginMissing {
        /// The plugin.
        plugin: PluginName,
        /// Why not, when that is known; none while one is loaded.
        why: Option<String>,
    },
    /// The component that undoes its step is looked for: one has to be loaded, or a schema checked.
    ComponentSought(PluginName),
    /// Every call that may run at once is in flight.
    NoRoom(RoomKey),
    /// This machine lacks what a call needs, in words.
    Machine(String),
    /// The circuit breaker of the service is open.
    BreakerOpen {
        /// The service.
        service: ServiceName,
        /// The step that waits.
        step: StepName,
        /// For its undo.
        is_undo: bool,
        /// Until when; then a few calls try. None: until an operator closes it.
        until: Option<Timestamp>,
    },
    /// The store takes no writes: what happened to it cannot be recorded.
    StoreFailed(String),
}

impl std::fmt::Display for StallReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PluginMissing { plugin, why: Some(why) } => {
                write!(f, "it waits for plugin `{plugin}`, which nothing serves: {why}")
            }
            Self::PluginMissing { plugin, why: None } => {
                write!(f, "it waits for plugin `{plugin}`, whose component is being loaded")
            }
            Self::ComponentSought(plugin) => write!(
                f,
                "it waits for the component that can undo what a step of plugin `{plugin}` left, \
                 which is looked for"
            ),
            Self::NoRoom(RoomKey::Memory(plugin)) => write!(
                f,
                "it waits for memory: calls of plugin `{plugin}` have as much of [host] memory_max \
                 as they leave to others"
            ),
            Self::NoRoom(key) => write!(f, "it waits for room: every call {key} is taken"),
            Self::Machine(words) => write!(f, "it waits for this machine: {words}"),
            Self::BreakerOpen { service, step, is_undo, until: Some(until) } => write!(
                f,
                "{}{step} waits for service `{service}`, whose circuit breaker is open until {until}; \
                 `amends breaker close {service}` lets it begin at once",
                of_undo(*is_undo)
            ),
            Self::BreakerOpen { service, step, is_undo, until: None } => write!(
                f,
                "{}{step} waits for service `{service}`, whose circuit breaker an operator has opened: it \
                 stays open until `amends breaker close {service}`",
                of_undo(*is_undo)
            ),
            Self::StoreFailed(error) => {
                write!(f, "what happened to it cannot be recorded: {error}")
            }
        }
    }
}

const fn of_undo(is_undo: bool) -> &'static str {
    if is_undo { "the undo of " } else { "" }
}

/// What holds one call of a saga back.
#[derive(Debug, Clone)]
pub(crate) struct Stall {
    pub(crate) reason: StallReason,
    pub(crate) direction: Direction,
}

impl Stall {
    /// The line in which it waits for that to change; none when it looks again by itself.
    pub(crate) fn line(&self) -> Option<Line> {
        match &self.reason {
            StallReason::NoRoom(key) => Some(Line::Room(key.clone(), self.direction)),
            StallReason::BreakerOpen { service, .. } => Some(Line::Breaker(service.clone())),
            StallReason::PluginMissing { .. }
            | StallReason::ComponentSought(_)
            | StallReason::Machine(_)
            | StallReason::StoreFailed(_) => None,
        }
    }
}

/// What sagas wait for together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    Room(RoomKey, Direction),
    Breaker(ServiceName),
}

/// A saga that has not moved for longer than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The saga.
    pub id: SagaId,
    /// Since when it has not moved.
    pub since: Timestamp,
    /// What it does not come past.
    pub reason: String,
}
