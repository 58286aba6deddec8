//! Definitions: what a saga does.
//!
//! [`DefinitionSpec`] is a definition as the config gives it, as plain data. [`Definition`] is a
//! checked one: its graph has no cycle, its expressions are compiled, and its pivot is in a valid
//! place. Everything else in the engine takes only the latter.

mod check;
mod error;
mod event_expression;
mod expression;
mod functions;
mod index;
mod millis;
mod personal;
mod spec;
mod step;
mod step_set;

use crate::ids::{DefinitionName, Digest, IndexName, SignalName, StepName};
use crate::log_limits::LogLimits;
#[cfg(feature = "sim")]
use crate::log_limits::{LOG_BYTES_MAX, LogSize};
use crate::payload::Payload;
use crate::personal::PersonalPath;

pub use error::DefinitionError;
pub use event_expression::{EventExpression, EventExpressionError, EventVariables};
pub(crate) use expression::{
    Expression, ExpressionError, Item, PassedThrough, ReadPlace, Source, Variable, VariableValue,
    Variables, has_text,
};
pub(crate) use functions::{FUNCTIONS, MACROS};
pub(crate) use index::Index;
use personal::Personal;
pub use spec::{
    BackoffSpec, DefinitionSpec, EACH_CONCURRENCY_DEFAULT, ELEMENTS_MAX, EachSpec, InputSpec,
    RetrySpec, StepKind, StepSpec, TIMEOUT_DEFAULT, UndoSpec, WaitSpec,
};
pub(crate) use step::{Step, StepInput, as_list};
pub use step_set::STEPS_MAX;
pub(crate) use step_set::StepSet;

/// A definition that was checked.
#[derive(Debug)]
pub struct Definition {
    spec: DefinitionSpec,
    digest: Digest,
    steps: Vec<Step>,
    index: Index,
    personal: Personal,
    pivot: Option<usize>,
    leaves: StepSet,
    log_limits: LogLimits,
}

impl Definition {
    /// Checks a spec.
    ///
    /// # Errors
    /// The mistakes in the spec, up to a hundred.
    pub fn new(spec: DefinitionSpec) -> Result<Self, Vec<DefinitionError>> {
        let check::Checked { steps, index, personal, pivot } = check::check(&spec)?;
        let inner = steps.iter().fold(StepSet::default(), |set, step| set.union(step.after));
        let leaves = (0..steps.len())
            .filter(|step| !inner.contains(*step))
            .fold(StepSet::default(), StepSet::with);
        let digest = Digest::of(canonical(&spec).as_bytes());
        let log_limits = LogLimits::default();
        Ok(Self { spec, digest, steps, index, personal, pivot, leaves, log_limits })
    }

    /// Reads the canonical form of a definition.
    ///
    /// # Errors
    /// When [`Self::canonical`] did not write the text.
    pub fn from_canonical(text: &str) -> Result<Self, String> {
        let spec: DefinitionSpec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::new(spec)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// Returns the canonical form: JSON with fields in a fixed order. Its digest identifies the
    /// definition.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.spec)
    }

    /// Returns the digest of the canonical form.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the name of the definition.
    #[must_use]
    pub fn name(&self) -> &DefinitionName {
        &self.spec.name
    }

    /// Returns the spec that was checked.
    #[must_use]
    pub fn spec(&self) -> &DefinitionSpec {
        &self.spec
    }

    /// Sets other limits on the logs of its sagas, so that a simulation or a test reaches them:
    /// `max` events, and `more` events that an order allows.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn with_log_limits(mut self, max: u64, more: u64) -> Self {
        let size = |events| LogSize { events, bytes: LOG_BYTES_MAX };
        self.log_limits = LogLimits { max: size(max), more: size(more) };
        self
    }

    /// Returns the limits on the logs of its sagas.
    pub(crate) fn log_limits(&self) -> LogLimits {
        self.log_limits
    }

    /// Returns the steps, in the order of the config.
    #[must_use]
    pub fn steps(&self) -> &[StepSpec] {
        &self.spec.steps
    }

    /// Returns the names by which its sagas are found.
    pub fn index_names(&self) -> impl Iterator<Item = &IndexName> {
        self.spec.index.keys()
    }

    /// Returns the index of its sagas.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the places at which its sagas have personal values.
    #[must_use]
    pub fn personal(&self) -> &[PersonalPath] {
        self.personal.paths()
    }

    /// Returns the subject of a saga with this input: the person whose personal values it has. None when
    /// the definition names no subject.
    ///
    /// # Errors
    /// A clause for people, when the input has no subject.
    pub fn subject(&self, input: &Payload) -> Result<Option<String>, String> {
        self.personal.subject(input)
    }

    /// Returns the signals that its steps wait for.
    pub(crate) fn signals(&self) -> impl Iterator<Item = &SignalName> {
        self.spec.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Wait { wait } => Some(&wait.signal),
            StepKind::Call { .. } | StepKind::Sleep { .. } | StepKind::Saga { .. } => None,
        })
    }

    /// Returns the pivot, if there is one: after it nothing is undone.
    #[must_use]
    pub fn pivot_step(&self) -> Option<&StepSpec> {
        self.pivot.map(|pivot| &self.spec.steps[pivot])
    }

    /// Returns true when a step is always done before the pivot begins, so that it is undone when
    /// the pivot fails.
    #[must_use]
    pub fn is_before_pivot(&self, name: &StepName) -> bool {
        let step = self.spec.steps.iter().position(|step| step.name.as_str() == name.step());
        step.zip(self.pivot).is_some_and(|(step, pivot)| self.steps[pivot].ancestors.contains(step))
    }

    /// Returns what was computed for the step of this index.
    pub(crate) fn step(&self, index: usize) -> &Step {
        &self.steps[index]
    }

    /// Returns the index of the step of this name.
    pub(crate) fn index_of(&self, name: &StepName) -> Option<usize> {
        self.spec.steps.iter().position(|step| step.name == *name)
    }

    /// Returns the index of the pivot, if there is one.
    pub(crate) fn pivot(&self) -> Option<usize> {
        self.pivot
    }

    /// Returns the output of a completed saga: that of its last step, or those of its last steps by
    /// name. None when the outputs together exceed the limit of one payload.
    pub(crate) fn output(&self, output_of: impl Fn(usize) -> Payload) -> Option<Payload> {
        if self.leaves.len() == 1 {
            return self.leaves.iter().next().map(output_of);
        }
        let name = |step: usize| self.spec.steps[step].name.to_string();
        Payload::object(self.leaves.iter().map(|step| (name(step), output_of(step)))).ok()
    }
}

fn canonical(spec: &DefinitionSpec) -> String {
    // A spec has only string keys and finite numbers, so it can always be written as JSON.
    serde_json::to_string(spec).unwrap_or_default()
}
