//! Definitions: what a saga of a name does.
//!
//! [`DefinitionSpec`] is what the config says, as plain data. [`Definition`] is a spec that was
//! checked: its graph has no cycle, its expressions are compiled, its pivot is in a place where
//! it can be one. Everything else in the engine takes only the latter.

mod check;
mod error;
mod expression;
mod functions;
mod spec;
mod step_set;

use serde_json::{Value, json};

pub use error::DefinitionError;
pub use expression::{EVALUATION_BYTES_MAX, EVALUATION_STEPS_MAX, EXPRESSION_BYTES_MAX};
pub(crate) use expression::{Expression, ExpressionError, Item, Read, Source, Variable, Variables};
pub(crate) use functions::{FUNCTIONS, MACROS};
pub use spec::{
    BackoffSpec, DefinitionSpec, EACH_CONCURRENCY_DEFAULT, EachSpec, InputSpec, RetrySpec,
    StepKind, StepSpec, TIMEOUT_DEFAULT, UndoSpec, WaitSpec,
};
pub(crate) use step_set::StepSet;

use crate::ids::{DefinitionName, Digest, SignalName, StepName};
use crate::payload::Payload;

/// A definition has at most this many steps: sets of steps are 128 bits.
pub const STEPS_MAX: usize = 128;

/// A saga runs over at most this many elements in all: each is a step of its own to recover, to
/// show and to undo, and a decision looks at every step.
pub const ELEMENTS_MAX: usize = 1_000;

/// A checked definition.
#[derive(Debug)]
pub struct Definition {
    spec: DefinitionSpec,
    digest: Digest,
    steps: Vec<Step>,
    pivot: Option<usize>,
    leaves: StepSet,
}

/// What is computed once for each step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) after: StepSet,
    pub(crate) ancestors: StepSet,
    pub(crate) descendants: StepSet,
    /// Those whose outputs its expressions look at.
    pub(crate) reads: StepSet,
    pub(crate) each: Option<Expression>,
    pub(crate) when: Option<Expression>,
    pub(crate) input: Input,
}

/// What a payload that is passed on unchanged is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole<'d> {
    /// What the saga was given.
    Input,
    /// The element.
    Item,
    /// The output of the step of this name.
    Output(&'d str),
}

/// How the input of a step is made.
#[derive(Debug)]
pub(crate) enum Input {
    /// `{"input": …, "steps": …}`, and of an element `"item": …, "index": …`.
    All,
    Whole(Box<Expression>),
    Fields(Vec<(String, Expression)>),
}

impl Definition {
    /// Checks a spec.
    ///
    /// # Errors
    /// The mistakes in it, up to a hundred.
    pub fn new(spec: DefinitionSpec) -> Result<Self, Vec<DefinitionError>> {
        let (steps, pivot) = check::check(&spec)?;
        let inner = steps.iter().fold(StepSet::default(), |set, step| set.union(step.after));
        let leaves = (0..steps.len())
            .filter(|step| !inner.contains(*step))
            .fold(StepSet::default(), StepSet::with);
        let digest = Digest::of(canonical(&spec).as_bytes());
        Ok(Self { spec, digest, steps, pivot, leaves })
    }

    /// Reads the canonical form back.
    ///
    /// # Errors
    /// When the text is not one that [`Self::canonical`] wrote.
    pub fn from_canonical(text: &str) -> Result<Self, String> {
        let spec: DefinitionSpec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::new(spec)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// The canonical form: JSON, with fields in a fixed order; its digest is the definition's.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.spec)
    }

    /// The digest of the canonical form.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &DefinitionName {
        &self.spec.name
    }

    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &DefinitionSpec {
        &self.spec
    }

    /// The steps, in the order of the config.
    #[must_use]
    pub fn steps(&self) -> &[StepSpec] {
        &self.spec.steps
    }

    /// The signals that its steps wait for.
    pub fn signals(&self) -> impl Iterator<Item = &SignalName> {
        self.spec.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Wait { wait } => Some(&wait.signal),
            StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        })
    }

    /// The step past which nothing is undone, if there is one.
    #[must_use]
    pub fn pivot_step(&self) -> Option<&StepSpec> {
        self.pivot.map(|pivot| &self.spec.steps[pivot])
    }

    /// Whether a step has always been done when the pivot begins, so that it is undone when the pivot fails.
    #[must_use]
    pub fn is_before_pivot(&self, name: &StepName) -> bool {
        let step = self.spec.steps.iter().position(|step| step.name.as_str() == name.step());
        step.zip(self.pivot).is_some_and(|(step, pivot)| self.steps[pivot].ancestors.contains(step))
    }

    pub(crate) fn step(&self, index: usize) -> &Step {
        &self.steps[index]
    }

    pub(crate) fn index_of(&self, name: &StepName) -> Option<usize> {
        self.spec.steps.iter().position(|step| step.name == *name)
    }

    pub(crate) fn pivot(&self) -> Option<usize> {
        self.pivot
    }

    /// The output of a completed saga: of its last step, or of each of its last steps by name.
    /// None when those together pass the limit of one payload.
    pub(crate) fn output(&self, output_of: impl Fn(usize) -> Payload) -> Option<Payload> {
        if self.leaves.len() == 1 {
            return self.leaves.iter().next().map(output_of);
        }
        let name = |step: usize| self.spec.steps[step].name.to_string();
        Payload::object(self.leaves.iter().map(|step| (name(step), output_of(step)))).ok()
    }
}

impl Input {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let (whole, fields) = match self {
            Self::All => (None, &[][..]),
            Self::Whole(expression) => (Some(&**expression), &[][..]),
            Self::Fields(fields) => (None, &fields[..]),
        };
        whole.into_iter().chain(fields.iter().map(|(_, expression)| expression))
    }
}

impl Step {
    /// The list that the step runs over; none when it does not.
    pub(crate) fn list(
        &self,
        variables: &Variables<'_>,
    ) -> Option<Result<Vec<Value>, ExpressionError>> {
        Some(self.each.as_ref()?.evaluate(variables).and_then(as_list))
    }

    /// What its input is the whole of, when it is the whole of something.
    pub(crate) fn whole_input(&self) -> Option<Whole<'_>> {
        match &self.input {
            Input::Whole(expression) => expression.whole(),
            Input::All | Input::Fields(_) => None,
        }
    }

    /// The input of a call.
    pub(crate) fn input(&self, variables: &Variables<'_>) -> Result<Value, ExpressionError> {
        let value = |variable| variables.value(variable);
        match (&self.input, variables.item()) {
            (Input::All, None) => Ok(json!({
                "input": value(Variable::Input)?,
                "steps": value(Variable::Steps)?,
            })),
            (Input::All, Some(item)) => Ok(json!({
                "input": value(Variable::Input)?,
                "steps": value(Variable::Steps)?,
                "item": item.value()?,
                "index": item.index,
            })),
            (Input::Whole(expression), _) => expression.evaluate(variables),
            (Input::Fields(fields), _) => fields
                .iter()
                .map(|(name, expression)| Ok((name.clone(), expression.evaluate(variables)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
        }
    }
}

/// The items of a list, or what is there in its place.
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

fn canonical(spec: &DefinitionSpec) -> String {
    // A spec has string keys and finite numbers only, so it is always JSON.
    serde_json::to_string(spec).unwrap_or_default()
}
