//! Finds what in the index of a definition cannot be right.

use super::describe::{kinds_of, source_of};
use super::infer::{Finding, infer};
use super::kinds::Kinds;
use super::shape::Shape;
use crate::definition::Definition;
use crate::ids::IndexName;

/// One expression of an index that cannot be right, or may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFlaw {
    /// The name in the index.
    pub name: IndexName,
    /// True when the expression never gives a value that is indexed.
    pub is_certain: bool,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

/// Returns what in the index of a definition cannot be right, or may not be. The input of a saga has no
/// schema, so any field of it may be there and be anything.
#[must_use]
pub fn index_flaws(definition: &Definition) -> Vec<IndexFlaw> {
    let mut flaws = Vec::new();
    for (name, expression) in definition.index().expressions() {
        let (shape, findings) = infer(expression.root(), &[("input", Shape::any())], true);
        let mut add = |is_certain, message, remedy| {
            flaws.push(IndexFlaw { name: name.clone(), is_certain, message, remedy });
        };
        for Finding { is_certain, message, remedy, .. } in findings {
            add(is_certain, format!("`{}`: {message}", source_of(expression)), remedy);
        }
        if !shape.kinds.intersects(Kinds::TEXT.or(Kinds::NUMBER).or(Kinds::BOOL)) {
            let source = source_of(expression);
            let message = format!("`{source}` is {}, which is not indexed", kinds_of(&shape));
            let remedy = "give a text, a number, true or false, such as \"input.customer_id\"";
            add(true, message, remedy.to_owned());
        }
    }
    flaws
}
