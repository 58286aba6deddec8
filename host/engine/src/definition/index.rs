//! The index of a definition: its compiled expressions, and their values for an input.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::Mistakes;
use super::expression::{Expression, Source, Variable, VariableValue, Variables};
use super::spec::DefinitionSpec;
use crate::ids::IndexName;
use crate::index::{INDEX_NAMES_MAX, IndexValue};
use crate::payload::Payload;

/// The expressions of an index, by name.
#[derive(Debug)]
pub(crate) struct Index(Vec<(IndexName, Expression)>);

impl Index {
    /// Compiles the index of a spec. An expression with a mistake is left out.
    pub(super) fn compile(spec: &DefinitionSpec, mistakes: &mut Mistakes) -> Self {
        if spec.index.len() > INDEX_NAMES_MAX {
            let message =
                format!("{} names, at most {INDEX_NAMES_MAX} are allowed", spec.index.len());
            mistakes.add(None, "index", message, "index what people search for");
            return Self(Vec::new());
        }
        let compiled = spec.index.iter().filter_map(|(name, source)| {
            compile(source, mistakes).map(|expression| (name.clone(), expression))
        });
        Self(compiled.collect())
    }

    /// Returns the names and their expressions.
    pub(crate) fn expressions(&self) -> &[(IndexName, Expression)] {
        &self.0
    }

    /// Returns the values for an input. The expressions share the budget of one step. An expression
    /// that fails, and a value that is not indexed, have none.
    pub(crate) fn values(&self, input: &Payload) -> BTreeMap<IndexName, IndexValue> {
        if self.0.is_empty() {
            return BTreeMap::new();
        }
        let variables = Variables::new(InputSource(input), None);
        let values = self.0.iter().filter_map(|(name, expression)| {
            let value = expression.evaluate(&variables).ok()?;
            Some((name.clone(), IndexValue::of(value)?))
        });
        values.collect()
    }
}

fn compile(source: &str, mistakes: &mut Mistakes) -> Option<Expression> {
    const REMEDY: &str = "write CEL over input, such as \"input.customer_id\"";
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(message) => {
            mistakes.add(None, "index", message, REMEDY);
            return None;
        }
    };
    let mut is_right = true;
    for name in expression.unknown_variables(&[Variable::Input], false) {
        is_right = false;
        let message =
            format!("`{source}` uses `{name}`, and an index is computed of `input` alone");
        mistakes.add(None, "index", message, REMEDY);
    }
    is_right.then_some(expression)
}

/// What expressions over the input alone read.
pub(super) struct InputSource<'i>(pub(super) &'i Payload);

impl Source for InputSource<'_> {
    fn bytes(&self, variable: Variable) -> usize {
        match variable {
            Variable::Input => self.0.as_str().len(),
            Variable::Steps | Variable::Saga | Variable::Event => 0,
        }
    }

    fn read(&self, variable: Variable) -> VariableValue {
        match variable {
            Variable::Input => self.0.to_value(),
            Variable::Steps | Variable::Saga | Variable::Event => Ok(Value::Null),
        }
    }
}
