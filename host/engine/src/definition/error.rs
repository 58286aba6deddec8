//! Mistakes in definitions.

use crate::ids::StepName;

/// One mistake in a definition: where it is, what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}; {remedy}", at(.step.as_ref(), .field))]
pub struct DefinitionError {
    /// The step with the mistake; none when the mistake is about the definition as a whole.
    pub step: Option<StepName>,
    /// The key in the config, such as `after`, `when`, `input`, `retry`, `undo`, `undo.retry`, …
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

/// Says where a mistake is.
fn at(step: Option<&StepName>, field: &str) -> String {
    step.map_or_else(|| format!("{field}: "), |step| format!("step {step}, {field}: "))
}

/// The most mistakes that are reported at once. Nobody reads more, and a search for more takes
/// long.
pub(super) const MISTAKES_MAX: usize = 100;

/// Collects mistakes, so that all of them are reported at once.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<DefinitionError>);

impl Mistakes {
    /// Returns true when no more mistakes are reported.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MISTAKES_MAX
    }

    /// Adds a mistake.
    pub(super) fn add(
        &mut self,
        step: Option<&StepName>,
        field: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.is_full() {
            return;
        }
        let (message, remedy) = (message.into(), remedy.into());
        self.0.push(DefinitionError { step: step.cloned(), field, message, remedy });
    }

    /// Returns the mistakes as an error, if there are any.
    pub(super) fn into_result(self) -> Result<(), Vec<DefinitionError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}
