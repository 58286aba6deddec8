//! An event of the log, as small as the judge can do with: the log of a long run has more than a million.

use serde_json::Value;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) position: u64,
    pub(crate) version: u64,
    pub(crate) at: Box<str>,
    /// Its type.
    pub(crate) kind: Box<str>,
    /// Of a saga, and none of another stream.
    pub(crate) saga: Option<Box<str>>,
    plugin: Option<Box<str>>,
    pub(crate) step: Option<Box<str>>,
    /// As JSON.
    data: Box<str>,
}

impl Event {
    /// Takes what is needed of an event as `GET /v1/events` has it.
    pub(crate) fn new(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(Box::from);
        Self {
            position: event["position"].as_u64().unwrap_or(0),
            version: event["version"].as_u64().unwrap_or(0),
            at: text(&event["at"]).unwrap_or_default(),
            kind: text(&event["type"]).unwrap_or_default(),
            saga: text(&event["saga"]),
            plugin: text(&event["plugin"]),
            step: text(&event["data"]["step"]),
            data: event["data"].to_string().into(),
        }
    }

    pub(crate) fn data(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }

    pub(crate) fn is_of_step(&self, kind: &str, step: &str) -> bool {
        *self.kind == *kind && self.step.as_deref() == Some(step)
    }

    /// What identifies an event.
    pub(crate) fn identity(&self) -> String {
        let (saga, plugin) = (self.saga.as_deref(), self.plugin.as_deref());
        let (saga, plugin) = (saga.unwrap_or_default(), plugin.unwrap_or_default());
        format!("{saga}{plugin}/{} {}", self.version, self.kind)
    }

    /// Returns it as one line for people.
    pub(crate) fn told(&self) -> String {
        format!("{} {} {} {}", self.position, self.at, self.kind, self.data)
    }
}
