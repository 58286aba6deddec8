//! What a rule makes of an event. It knows neither the store nor the network.

use std::collections::BTreeMap;

use amends_engine::{Digest, EventExpression, EventVariables, Payload, SagaId, is_steering};
use amends_subscriptions::IncomingEvent;
use serde_json::{Map, Value};

use super::error::EventError;
use super::settings::{
    EVENT_KEY_PREFIX, EVENT_TAG, EventEffect, EventPayload, EventRule, SignalTarget,
};
use crate::limits::{START_KEY_BYTES_MAX, TAG_BYTES_MAX};
use crate::start_keys::is_reserved_key;

/// What an event is to do.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Nothing: it is of another type.
    Ignore,
    /// It starts a saga.
    Start {
        /// The start key.
        key: String,
        /// True when the key is made of the event's source and id, so that no other event has it.
        is_own_key: bool,
        input: Payload,
        tags: BTreeMap<String, String>,
    },
    /// It becomes a signal.
    Signal {
        /// The id of the signal.
        id: String,
        to: SignalTo,
        payload: Payload,
    },
}

/// The saga that is to get a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignalTo {
    Saga(SagaId),
    Key(String),
}

impl EventRule {
    /// Says what an event is to do.
    ///
    /// # Errors
    /// When an expression has no value for it, or one that does not belong there.
    pub(crate) fn plan(&self, event: &IncomingEvent) -> Result<Plan, EventError> {
        if !self.event.matches(event.kind()) {
            return Ok(Plan::Ignore);
        }
        let (value, bytes) =
            event.to_value().map_err(|error| EventError::Unreadable(error.to_string()))?;
        let evaluation = Evaluation(EventVariables::new(value, bytes));
        let key = self.identity(event);
        match &self.effect {
            EventEffect::Start(start) => {
                let input = evaluation.payload("input", &start.input, event)?;
                let of_rule = start.key.as_ref().map(|key| evaluation.key(key)).transpose()?;
                let (is_own_key, key) = match of_rule {
                    Some(key) if is_reserved_key(&key).is_some() => {
                        return Err(failed("key", format!("`{key}` is a key that the host makes")));
                    }
                    Some(key) => (false, key),
                    None => (true, key),
                };
                let mut tags = BTreeMap::from([(EVENT_TAG.to_owned(), self.name.clone())]);
                for (name, expression) in &start.tags {
                    let value = evaluation.tag(&format!("tags.{name}"), expression)?;
                    tags.extend(value.map(|value| (name.clone(), value)));
                }
                Ok(Plan::Start { key, is_own_key, input, tags })
            }
            EventEffect::Signal(signal) => {
                let payload = evaluation.payload("payload", &signal.payload, event)?;
                let to = match &signal.to {
                    SignalTarget::Saga(expression) => {
                        let text = evaluation.text("saga", expression)?;
                        let id = text.parse().map_err(|error: amends_engine::IdError| {
                            EventError::Expression {
                                key: "saga".to_owned(),
                                why: error.to_string(),
                            }
                        })?;
                        SignalTo::Saga(id)
                    }
                    SignalTarget::Key(expression) => SignalTo::Key(evaluation.key(expression)?),
                };
                Ok(Plan::Signal { id: key, to, payload })
            }
        }
    }

    /// The key by which the effect of an event is found again: the same for each delivery, and another one
    /// for each rule, source and id. A source has no blank, so a digest, which has none, is no key of
    /// another event.
    fn identity(&self, event: &IncomingEvent) -> String {
        let named = format!("{} {}", event.source(), event.id());
        let prefix = format!("{EVENT_KEY_PREFIX}{}/", self.name);
        if prefix.len() + named.len() <= START_KEY_BYTES_MAX {
            return prefix + &named;
        }
        format!("{prefix}{}", Digest::of(named.as_bytes()))
    }
}

fn failed(key: &str, why: impl Into<String>) -> EventError {
    EventError::Expression { key: key.to_owned(), why: why.into() }
}

/// The expressions of a rule on one event.
struct Evaluation(EventVariables);

impl Evaluation {
    fn value(&self, key: &str, expression: &EventExpression) -> Result<Value, EventError> {
        self.0.evaluate(expression).map_err(|why| failed(key, why))
    }

    fn payload(
        &self,
        key: &str,
        payload: &EventPayload,
        event: &IncomingEvent,
    ) -> Result<Payload, EventError> {
        let value = match payload {
            EventPayload::Data => return Ok(event.data().clone()),
            EventPayload::Whole(expression) => self.value(key, expression)?,
            EventPayload::Fields(fields) => {
                let mut values = Map::new();
                for (name, expression) in fields {
                    let value = self.value(&format!("{key}.{name}"), expression)?;
                    values.insert(name.clone(), value);
                }
                Value::Object(values)
            }
        };
        Payload::from_value(&value).map_err(|error| failed(key, error.to_string()))
    }

    fn text(&self, key: &str, expression: &EventExpression) -> Result<String, EventError> {
        match self.value(key, expression)? {
            Value::String(text) => Ok(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err(failed(key, format!("`{}` is no text", expression.source()))),
        }
    }

    /// The value of a start key.
    fn key(&self, expression: &EventExpression) -> Result<String, EventError> {
        let key = self.text("key", expression)?;
        if key.is_empty() || key.len() > START_KEY_BYTES_MAX || key.chars().any(is_steering) {
            let why =
                format!("a key has 1 to {START_KEY_BYTES_MAX} bytes, without control characters");
            return Err(failed("key", why));
        }
        Ok(key)
    }

    /// The value of a tag; none when it is null. Numbers and truth values become texts.
    fn tag(&self, key: &str, expression: &EventExpression) -> Result<Option<String>, EventError> {
        let text = match self.value(key, expression)? {
            Value::Null => return Ok(None),
            Value::String(text) => text,
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Array(_) | Value::Object(_) => {
                let why = format!("`{}` is a list or an object", expression.source());
                return Err(failed(key, why));
            }
        };
        if text.is_empty() || text.len() > TAG_BYTES_MAX || text.chars().any(is_steering) {
            let why = format!(
                "the value of a tag has 1 to {TAG_BYTES_MAX} bytes, without control characters"
            );
            return Err(failed(key, why));
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests;
