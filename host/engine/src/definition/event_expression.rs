//! Expressions over an event from another system: they say which saga it starts, or which one gets it as a
//! signal.
//!
//! Such an expression sees `event`, and nothing of a saga. It has the functions and the limits of an
//! expression of a step.

use std::fmt;

use serde_json::Value;

use super::expression::{Expression, Source, Variable, VariableValue, Variables};
use crate::personal::names;

/// A compiled expression over an event.
pub struct EventExpression(Box<Expression>);

impl fmt::Debug for EventExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no expression over an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct EventExpressionError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl EventExpression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When the text is no CEL, is too long, or uses a variable other than `event`.
    pub fn compile(source: &str) -> Result<Self, EventExpressionError> {
        let expression = Expression::compile(source).map_err(|message| EventExpressionError {
            message,
            remedy: "write CEL over event, such as \"event.data.order_id\"".to_owned(),
        })?;
        match expression.unknown_variables(&[Variable::Event], false).first() {
            None => Ok(Self(Box::new(expression))),
            Some(name) => Err(EventExpressionError {
                message: format!("`{source}` uses `{name}`, which is not known here"),
                remedy: format!("use event.…, or quote it as text: '{name}'"),
            }),
        }
    }

    /// Returns the expression as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// Returns true when the expression reads what another one names, such as `event.data.address`, a part
    /// of it, or something that it is a part of. False when the other one does more than name a value.
    #[must_use]
    pub fn reads(&self, named: &str) -> bool {
        let path = names(named).unwrap_or_default();
        let (first, fields) = path.split_first().unzip();
        let is_of_event = first.is_some_and(|first| first == Variable::Event.name());
        is_of_event && self.0.reads(Variable::Event, fields.unwrap_or_default())
    }
}

/// The event that expressions see, and what their evaluation has cost so far.
pub struct EventVariables(Variables<'static>);

impl fmt::Debug for EventVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventVariables")
    }
}

impl EventVariables {
    /// Makes the variables of an event: its attributes and its `data`. `bytes` is its size as text.
    #[must_use]
    pub fn new(event: Value, bytes: usize) -> Self {
        Self(Variables::new(EventSource { event, bytes }, None))
    }

    /// Returns the value of an expression. The expressions of one event share one limit.
    ///
    /// # Errors
    /// The reason in words, with the expression, when it has no value for this event.
    pub fn evaluate(&self, expression: &EventExpression) -> Result<Value, String> {
        expression.0.evaluate(&self.0).map_err(|error| error.to_string())
    }
}

/// What expressions over an event read.
struct EventSource {
    event: Value,
    bytes: usize,
}

impl Source for EventSource {
    fn bytes(&self, _: Variable) -> usize {
        self.bytes
    }

    fn read(&self, variable: Variable) -> VariableValue {
        Ok(match variable {
            Variable::Event => self.event.clone(),
            Variable::Input | Variable::Steps | Variable::Saga => Value::Null,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use serde_json::json;

    use super::*;

    #[test]
    fn an_expression_sees_the_event_alone() {
        let event = EventVariables::new(json!({"id": "7", "data": {"n": 2, "list": [1, 2]}}), 100);
        let value = |source: &str| event.evaluate(&EventExpression::compile(source).unwrap());
        assert_eq!(value("event.id"), Ok(json!("7")));
        assert_eq!(value("event"), Ok(json!({"id": "7", "data": {"n": 2, "list": [1, 2]}})));
        assert_eq!(value("event.data.n + 1"), Ok(json!(3)));
        assert_eq!(value("event.data.list.map(input, input * 2)"), Ok(json!([2, 4])));
        assert!(value("event.data.missing").unwrap_err().contains("`event.data.missing`"));
        for (source, words) in [
            ("input.id", "uses `input`, which is not known here; use event.…"),
            ("saga.id", "`saga`"),
            ("item", "`item`"),
            ("event.", "is not a CEL expression"),
            ("event.id = 'a'", "write `==`"),
        ] {
            let error = EventExpression::compile(source).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_expressions_of_an_event_share_one_limit() {
        let list: Vec<_> = (0..2_000).collect();
        let event = EventVariables::new(json!({ "data": list }), 10_000);
        let all = EventExpression::compile("event.data.all(x, event.data.all(y, y >= 0))").unwrap();
        let error = event.evaluate(&all).unwrap_err();
        assert!(error.contains("counted together"), "{error}");
    }
}
