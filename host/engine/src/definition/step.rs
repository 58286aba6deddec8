//! A step of a checked definition: its place in the graph and its compiled expressions.

use serde_json::{Value, json};

use super::expression::{Expression, ExpressionError, PassedThrough, Variable, Variables};
use super::step_set::StepSet;

/// What is computed once for each step of a definition.
#[derive(Debug)]
pub(crate) struct Step {
    /// The steps that it directly depends on.
    pub(crate) after: StepSet,
    /// All steps before it.
    pub(crate) ancestors: StepSet,
    /// All steps after it.
    pub(crate) descendants: StepSet,
    /// The steps whose outputs its expressions read.
    pub(crate) reads: StepSet,
    pub(crate) each: Option<Expression>,
    pub(crate) when: Option<Expression>,
    pub(crate) input: StepInput,
}

/// How the input of a step is computed.
#[derive(Debug)]
pub(crate) enum StepInput {
    /// The default: `{"input": …, "steps": …}`; an element also has `"item": …, "index": …`.
    All,
    /// One expression gives the whole input.
    Whole(Box<Expression>),
    /// One expression gives each field.
    Fields(Vec<(String, Expression)>),
}

impl StepInput {
    /// Returns the expressions that it consists of.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let (whole, fields) = match self {
            Self::All => (None, &[][..]),
            Self::Whole(expression) => (Some(&**expression), &[][..]),
            Self::Fields(fields) => (None, &fields[..]),
        };
        whole.into_iter().chain(fields.iter().map(|(_, expression)| expression))
    }
}

impl Step {
    /// Computes the list that the step runs over; none when it runs over none.
    pub(crate) fn list(
        &self,
        variables: &Variables<'_>,
    ) -> Option<Result<Vec<Value>, ExpressionError>> {
        Some(self.each.as_ref()?.evaluate(variables).and_then(as_list))
    }

    /// Returns the payload that this step passes through unchanged, if any.
    pub(crate) fn passed_through(&self) -> Option<PassedThrough<'_>> {
        match &self.input {
            StepInput::Whole(expression) => expression.passed_through(),
            StepInput::All | StepInput::Fields(_) => None,
        }
    }

    /// Computes the input of a call.
    pub(crate) fn input(&self, variables: &Variables<'_>) -> Result<Value, ExpressionError> {
        let value = |variable| variables.value(variable);
        match (&self.input, variables.item()) {
            (StepInput::All, None) => Ok(json!({
                "input": value(Variable::Input)?,
                "steps": value(Variable::Steps)?,
            })),
            (StepInput::All, Some(item)) => Ok(json!({
                "input": value(Variable::Input)?,
                "steps": value(Variable::Steps)?,
                "item": item.value()?,
                "index": item.index,
            })),
            (StepInput::Whole(expression), _) => expression.evaluate(variables),
            (StepInput::Fields(fields), _) => fields
                .iter()
                .map(|(name, expression)| Ok((name.clone(), expression.evaluate(variables)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
        }
    }
}

/// Returns the items of a list. The error says what the value is instead.
pub(crate) fn as_list(value: Value) -> Result<Vec<Value>, ExpressionError> {
    let what = match value {
        Value::Array(items) => return Ok(items),
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Object(_) => "an object",
    };
    Err(ExpressionError::Failed(format!("it gives {what}, not a list")))
}
