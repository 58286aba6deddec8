//! Why calls of a saga cannot begin, where the reason is not in the events of the saga.

use amends_engine::{Direction, PluginName, SagaId, ServiceName, StepName, Timestamp};

use crate::room_key::RoomKey;

/// What a call waits for. Displayed as what comes after "waits for".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StallReason {
    /// No component is active for the plugin of the call.
    PluginMissing {
        /// The plugin.
        plugin: PluginName,
        /// Why not, when that is known; none while one is loaded.
        why: Option<String>,
    },
    /// The component that undoes the step is looked for: one has to be loaded, or a schema checked.
    ComponentSought(PluginName),
    /// Every call that may run at once is in flight.
    NoRoom(RoomKey),
    /// This machine lacks what a call needs, in words.
    Machine(String),
    /// The circuit breaker of the service is open.
    BreakerOpen {
        /// The service.
        service: ServiceName,
        /// Until when; then a few calls try. None: until an operator closes it.
        until: Option<Timestamp>,
    },
}

impl std::fmt::Display for StallReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PluginMissing { plugin, why: Some(why) } => {
                write!(f, "plugin `{plugin}`, which nothing serves: {why}")
            }
            Self::PluginMissing { plugin, why: None } => {
                write!(f, "plugin `{plugin}`, whose component is being loaded")
            }
            Self::ComponentSought(plugin) => write!(
                f,
                "the component that can undo what a step of plugin `{plugin}` left, which is \
                 looked for"
            ),
            Self::NoRoom(RoomKey::Memory(plugin)) => write!(
                f,
                "memory: calls of plugin `{plugin}` have as much of [host] memory_max as they \
                 leave to others"
            ),
            Self::NoRoom(key) => write!(f, "room: every call {key} is taken"),
            Self::Machine(words) => write!(f, "this machine: {words}"),
            Self::BreakerOpen { service, until: Some(until) } => write!(
                f,
                "service `{service}`, whose circuit breaker is open until {until}; \
                 `amends breaker close {service}` lets it begin at once"
            ),
            Self::BreakerOpen { service, until: None } => write!(
                f,
                "service `{service}`, whose circuit breaker an operator has opened: it stays \
                 open until `amends breaker close {service}`"
            ),
        }
    }
}

/// One call of a saga that is due or durable and cannot begin, and the one thing that it waits for
/// now. A saga has at most one for each step and direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The step.
    pub step: StepName,
    /// The direction of the call.
    pub direction: Direction,
    /// What the call waits for.
    pub reason: StallReason,
}

impl Stall {
    /// Returns the name of the call for people: `inventory` or `the undo of inventory`.
    #[must_use]
    pub fn call(&self) -> String {
        match self.direction {
            Direction::Execute => self.step.to_string(),
            Direction::Compensate => format!("the undo of {}", self.step),
        }
    }

    /// Returns the line in which the call waits for that to change; none when it looks again by
    /// itself.
    pub(crate) fn line(&self) -> Option<Line> {
        match &self.reason {
            StallReason::NoRoom(key) => Some(Line::Room(key.clone(), self.direction)),
            StallReason::BreakerOpen { service, .. } => Some(Line::Breaker(service.clone())),
            StallReason::PluginMissing { .. }
            | StallReason::ComponentSought(_)
            | StallReason::Machine(_) => None,
        }
    }
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waits for {}", self.call(), self.reason)
    }
}

/// What calls wait for together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    Room(RoomKey, Direction),
    Breaker(ServiceName),
}

/// The place of a call in a line. Lower numbers come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: Line,
    pub(crate) number: u64,
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
