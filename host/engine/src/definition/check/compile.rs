//! The expressions of a step, compiled and checked against the graph.

use super::step_names::names;
use crate::definition::error::Mistakes;
use crate::definition::expression::{Expression, Variable};
use crate::definition::spec::{DefinitionSpec, InputSpec};
use crate::definition::step::StepInput;
use crate::definition::step_set::StepSet;

/// Compiles the expressions of a step's input.
pub(super) fn compile_input(
    spec: &DefinitionSpec,
    index: usize,
    ancestors: &[StepSet],
    mistakes: &mut Mistakes,
) -> StepInput {
    match &spec.steps[index].input {
        None => StepInput::All,
        Some(InputSpec::Whole(source)) => {
            compile(spec, index, "input", source, ancestors, mistakes)
                .map_or(StepInput::All, |expression| StepInput::Whole(Box::new(expression)))
        }
        Some(InputSpec::Fields(fields)) => StepInput::Fields(
            fields
                .iter()
                .filter_map(|(name, source)| {
                    compile(spec, index, "input", source, ancestors, mistakes)
                        .map(|expression| (name.clone(), expression))
                })
                .collect(),
        ),
    }
}

/// Compiles one expression of a step, and checks what it reads. Returns none when it is no CEL.
pub(super) fn compile(
    spec: &DefinitionSpec,
    index: usize,
    field: &'static str,
    source: &str,
    ancestors: &[StepSet],
    mistakes: &mut Mistakes,
) -> Option<Expression> {
    if mistakes.is_full() {
        return None;
    }
    let step = Some(&spec.steps[index].name);
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(message) => {
            mistakes.add(
                step,
                field,
                message,
                "write CEL over input, steps.NAME.output and saga, such as \
                 \"input.quantity > 0\"",
            );
            return None;
        }
    };
    let is_of_element = field == "input" && spec.steps[index].each.is_some();
    for name in expression.unknown_variables(&Variable::OF_STEPS, is_of_element) {
        if ["item", "index"].contains(&name.as_str()) {
            let message =
                format!("`{source}` uses `{name}`, which only the input of a step with `each` has");
            let remedy = if spec.steps[index].each.is_some() {
                "it is known in the step's input only: use input.… or steps.NAME.output.… here"
            } else {
                "add each = \"input.items\" to the step, or use input.…"
            };
            mistakes.add(step, field, message, remedy);
            continue;
        }
        let known = if is_of_element {
            "input.…, steps.NAME.output.…, saga.…, item or index"
        } else {
            "input.…, steps.NAME.output.… or saga.…"
        };
        mistakes.add(
            step,
            field,
            format!("`{source}` uses `{name}`, which is not known here"),
            format!("use {known}, or quote it as text: '{name}'"),
        );
    }
    for name in expression.steps() {
        let found = spec.steps.iter().position(|other| other.name.as_str() == name);
        match found {
            Some(other) if ancestors[index].contains(other) => {}
            Some(other) if other == index => mistakes.add(
                step,
                field,
                format!("`{source}` reads the output of its own step"),
                "a step can read those that are done before it: use input.…, or move what it needs \
                 into a step before it",
            ),
            Some(other) if ancestors[other].contains(index) => mistakes.add(
                step,
                field,
                format!(
                    "`{source}` reads step `{name}`: `{name}` is after `{0}`, so `{0}` cannot read it",
                    spec.steps[index].name
                ),
                format!("move `{name}` before this step, or read something that is known earlier"),
            ),
            Some(_) => mistakes.add(
                step,
                field,
                format!("`{source}` reads step `{name}`, which is not done before this one"),
                format!("add `{name}` to this step's `after`"),
            ),
            None => mistakes.add(
                step,
                field,
                format!("`{source}` reads step `{name}`, which does not exist"),
                format!("the steps are {}", names(spec)),
            ),
        }
    }
    Some(expression)
}
