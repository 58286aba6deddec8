//! Names of steps in messages.

use crate::definition::spec::DefinitionSpec;
use crate::ids::StepName;

/// Lists the steps of a definition.
pub(super) fn names(spec: &DefinitionSpec) -> String {
    let names: Vec<_> = spec.steps.iter().map(|step| step.name.clone()).collect();
    join(&names, ", ")
}

/// Joins names of steps.
pub(super) fn join(names: &[StepName], by: &str) -> String {
    names.iter().map(StepName::as_str).collect::<Vec<_>>().join(by)
}
